"""A protocol: the same tasks at x, at every layer and at f(x), over doses and denoisers."""
