"""Running an ONNX graph: sessions, bindings, batches and tiles."""
