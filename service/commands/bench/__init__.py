"""``pranet bench``: how fast engine, pipeline and server are, and how far shortcuts move the masks."""
