"""Fixtures for pytest: put ``pytest_plugins = ["ctinv.testing.fixtures"]`` into a ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Result
from .kit import check_denoiser as _check

__all__ = ["check_denoiser", "denoiser"]


@pytest.fixture(name="check_denoiser")
def check_denoiser() -> Callable[..., tuple[Result, ...]]:
    """The function :func:`ctinv.testing.check_denoiser`."""
    return _check


@pytest.fixture
def denoiser(request: pytest.FixtureRequest) -> Any:
    """What the maker of a parametrised test returns."""
    return request.param()
