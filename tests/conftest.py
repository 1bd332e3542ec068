"""Fixtures for all tests: fixed seeds, an isolated cache, and a guard over global state."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Set before torch is imported anywhere: small tensors gain nothing from many threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, str(min(2, os.cpu_count() or 1)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long forms of tests as well")


def pytest_configure(config: pytest.Config) -> None:
    """Drawn cases: the same few in every run, or many (``CTINV_FUZZ`` of them for each test)."""
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "short",
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    many = int(os.environ.get("CTINV_FUZZ", "1250"))
    settings.register_profile("long", settings.get_profile("short"), max_examples=many)
    # The trial of each file in a process of its own has tests of its own, and would slow all others.
    os.environ.setdefault("CTINV_TRUST_MODELS", "1")
    settings.load_profile("long" if config.getoption("--slow") else "short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long form; run with --slow"))
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


# Variables that code under test might be tempted to set; torch writes others on its own.
_OURS = ("CTINV_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONWARNINGS", "MPLBACKEND")

_TORCH: dict[str, Callable[[Any], Any]] = {
    "default dtype": lambda torch: torch.get_default_dtype(),
    "deterministic algorithms": lambda torch: torch.are_deterministic_algorithms_enabled(),
    "threads": lambda torch: torch.get_num_threads(),
    "gradients": lambda torch: torch.is_grad_enabled(),
    "anomaly detection": lambda torch: torch.is_anomaly_enabled(),
    "matmul precision": lambda torch: torch.get_float32_matmul_precision(),
    "cudnn.benchmark": lambda torch: torch.backends.cudnn.benchmark,
    "cudnn.deterministic": lambda torch: torch.backends.cudnn.deterministic,
}


def global_state() -> dict[str, Any]:
    """What a test and the code it runs must leave alone, of the libraries imported so far."""
    state: dict[str, Any] = {"environment": {k: v for k, v in os.environ.items() if k.startswith(_OURS)}}
    if torch := sys.modules.get("torch"):
        state |= {f"torch {name}": read(torch) for name, read in _TORCH.items()}
    if distribution := sys.modules.get("torch.distributions.distribution"):
        state["torch.distributions validation"] = distribution.Distribution._validate_args
    if numpy := sys.modules.get("numpy"):
        state["numpy error handling"] = numpy.geterr()
    if matplotlib := sys.modules.get("matplotlib"):
        state["matplotlib rcParams"] = dict.copy(matplotlib.rcParams)
    return state


@pytest.fixture(autouse=True)
def _guard_global_state() -> Iterator[None]:
    before = global_state()
    yield
    after = global_state()
    changed = [name for name, value in before.items() if after.get(name) != value]
    assert not changed, f"the test changed global state: {', '.join(changed)}"


@pytest.fixture(autouse=True)
def _seeded(_guard_global_state: None) -> None:
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of fits that all tests of one run share."""
    return tmp_path_factory.mktemp("ctinv-cache")


@pytest.fixture(autouse=True)
def _isolated_cache(_guard_global_state: None, monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    monkeypatch.setenv("CTINV_CACHE", str(session_cache))
