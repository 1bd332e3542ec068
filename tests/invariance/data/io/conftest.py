"""Fixtures for tests that read files."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def stored():
    return np.random.default_rng(0).integers(100, 2000, (16, 20)).astype(np.uint16)
