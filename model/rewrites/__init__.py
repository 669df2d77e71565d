"""Changes to the loaded network that keep its function and make it cheaper."""
