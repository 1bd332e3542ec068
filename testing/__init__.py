"""A kit for authors of adapters and models: the laws that every denoiser must obey, as checks."""

from .checks import CHECKS
from .kit import CheckError, Result, check_denoiser, parametrize_checks
from .subject import Subject, capture

__all__ = [
    "CHECKS",
    "CheckError",
    "Result",
    "Subject",
    "capture",
    "check_denoiser",
    "parametrize_checks",
]
