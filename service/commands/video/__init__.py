"""Video on the command line: its sources, its frames as players show them, and the videos that commands write."""
