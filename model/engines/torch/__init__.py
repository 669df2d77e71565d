"""Engine for CPUs that needs only PyTorch; its float32 results are the reference for all others."""
