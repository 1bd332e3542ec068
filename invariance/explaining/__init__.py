"""From a denoiser and data to an explainer, and from an image to its explanation."""
