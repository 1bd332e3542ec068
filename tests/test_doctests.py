"""Every example in a docstring runs and gives what it shows."""

import doctest
import importlib
import pkgutil
import warnings

import ctinv.adapters
import ctinv.cli
import ctinv.invariance
import ctinv.zoo
import pytest

PACKAGES = (ctinv.adapters, ctinv.zoo, ctinv.invariance, ctinv.cli)
MODULES = sorted(
    {package.__name__ for package in PACKAGES}
    | {m.name for p in PACKAGES for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")}
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    with warnings.catch_warnings():
        module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failures == 0


def test_the_walk_sees_the_modules():
    assert {"ctinv.adapters.intensity", "ctinv.invariance.data.io.read", "ctinv.cli.app"} <= set(MODULES)
