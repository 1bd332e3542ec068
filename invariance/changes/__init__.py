"""Changes of an image that are asked for: the most hidden, the most telling, what may vanish, swaps."""
