"""Weights files: reading, checking, storing and identifying them."""
