"""PyTorch modules as denoisers."""
