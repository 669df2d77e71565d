"""Suffixes of files: videos that are taken from a folder, and lists of masks."""

LINES = ".ndjson"  # one line of JSON for each frame
VIDEOS = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".mts", ".m2ts"})
OVERLAYS = frozenset({".mp4", ".m4v", ".mov", ".mkv"})  # that are written
