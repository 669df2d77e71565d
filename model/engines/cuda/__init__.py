"""Engine for NVIDIA GPUs: CUDA graphs of a network with few kernels."""
