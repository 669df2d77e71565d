"""Video streams: one answer for every frame, in order, whatever carries the stream."""
