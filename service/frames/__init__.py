"""One frame's way from encoded bytes to its mask: decode, resize, segment, encode."""
