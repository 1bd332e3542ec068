"""Which tensor of an ONNX graph a layer's name means."""
