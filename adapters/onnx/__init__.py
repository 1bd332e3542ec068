"""ONNX files as denoisers."""
