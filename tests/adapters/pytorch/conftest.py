"""Fixtures for tests of PyTorch modules."""

import pytest
import torch


@pytest.fixture
def compiling(monkeypatch):
    """The compiler switches this off on import, and leaves it so."""
    distribution = torch.distributions.Distribution
    monkeypatch.setattr(distribution, "_validate_args", distribution._validate_args)
