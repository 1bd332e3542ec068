"""Fixtures of the kit, as its users have them."""

from ctinv.testing.fixtures import check_denoiser, denoiser

__all__ = ["check_denoiser", "denoiser"]
