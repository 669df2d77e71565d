"""Suffixes of the names of picture files: what is taken from a folder, for every command."""

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
