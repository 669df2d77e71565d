"""What only clients can do for their calls: send the rest of a request, and read answers. The drain waits for that."""
