"""Several processes that serve as one: what they share, and the parent that starts, watches and replaces them."""
