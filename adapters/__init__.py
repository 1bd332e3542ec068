"""Adapters: any denoiser, PyTorch or ONNX, with ``Phi(x)`` readable at named layers."""
