"""The ONNX file and its graph: read, traced, cut and described."""
