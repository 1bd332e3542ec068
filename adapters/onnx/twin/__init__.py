"""The PyTorch twin of an ONNX graph, which has gradients."""
