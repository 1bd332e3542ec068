"""The reading: what of the image can be got back from a layer's output."""
