"""The engine that needs PyTorch alone; the reference for all others."""
