"""The engine for NVIDIA GPUs: recorded CUDA graphs of a network in few kernels."""
