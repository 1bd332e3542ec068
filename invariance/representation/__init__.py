"""A layer's output ``z``, and how it lies over the image."""
