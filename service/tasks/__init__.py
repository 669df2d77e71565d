"""Helpers for asyncio tasks: groups that end together, and an ordered concurrent map."""
