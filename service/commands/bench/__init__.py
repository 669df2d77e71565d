"""``pranet bench``: measures the speed of engine, pipeline and server, and how much engines change the masks."""
