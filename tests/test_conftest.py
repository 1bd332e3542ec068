"""The guard over global state sees what it must see."""

import os

import numpy as np
import pytest
import torch

from .conftest import global_state


def _threads():
    torch.set_num_threads(torch.get_num_threads() + 1)


CHANGES = {
    "torch default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "torch threads": _threads,
    "torch.distributions validation": lambda: torch.distributions.Distribution.set_default_validate_args(
        not torch.distributions.Distribution._validate_args
    ),
    "numpy error handling": lambda: np.seterr(divide="ignore"),
    "environment": lambda: os.environ.update(CTINV_CACHE="elsewhere"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_global_state_is_seen(name, monkeypatch):
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    validation = torch.distributions.Distribution._validate_args
    before = global_state()
    monkeypatch.setenv("CTINV_CACHE", os.environ["CTINV_CACHE"])  # restored afterwards
    try:
        with np.errstate():
            CHANGES[name]()
            after = global_state()
    finally:
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
        torch.distributions.Distribution.set_default_validate_args(validation)
    assert [key for key in before if before[key] != after[key]] == [name]
