"""Fixtures for tests of sampling."""

import numpy as np
import pytest

from .toys import make_explainer


@pytest.fixture(scope="module")
def explainer():
    return make_explainer()


@pytest.fixture(scope="module")
def image():
    rows, columns = np.mgrid[:56, :80]
    noise = np.random.default_rng(0).normal(0, 20, (56, 80))
    return (100 * np.sin(rows / 9) * np.cos(columns / 7) + noise).astype(np.float32)
