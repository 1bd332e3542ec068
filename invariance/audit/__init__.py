"""The audit: how far the images of an explanation can be trusted."""
