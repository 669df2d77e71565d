"""Weights files: how they are identified, loaded, checked and saved."""
