"""Video streams of all transports: one answer for every frame, in order."""
