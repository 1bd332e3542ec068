"""Bench figures of a denoised image: transfer, noise, bias and streaks."""
