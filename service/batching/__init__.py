"""Dynamic batching: admission control, the queue, and the threads that run the device."""
