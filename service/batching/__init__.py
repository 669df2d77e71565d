"""Single frames <-> batches: admission, the queue, and the threads that drive the device."""
