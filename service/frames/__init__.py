"""The life of one frame, from encoded bytes to its mask: decode, resize, segment, encode."""
