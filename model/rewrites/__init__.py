"""Rewrites of a loaded network that compute the same function at a lower cost."""
