"""Every purpose draws from a stream of its own, and every stream in the source has a purpose."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, generator, philox_key, rng, torch_seed

ROOT = Path(__file__).parents[3]
MAKERS = {"default_rng", "SeedSequence", "RandomState", "Philox", "manual_seed", "seed"}
SEEDS = (0, 1, 2**32, 2**64 + 1)


def numpys(*key):
    return rng(*key).integers(2**63, size=4).tolist()


def torchs(*key):
    return torch.randint(2**62, (4,), generator=generator(*key)).tolist()


def philoxs(*key):
    return philox_key(*key).tolist()


@pytest.mark.parametrize("draw", [numpys, torchs, philoxs])
def test_no_two_purposes_share_a_stream(draw):
    """Nor do two seeds, nor a purpose with and without a number, be it 0."""
    keys = [(seed, purpose, *part) for seed in SEEDS for purpose in Purpose for part in ((), (0,), (1,))]
    streams = {tuple(draw(*key)) for key in keys}
    assert len(streams) == len(keys)


@pytest.mark.parametrize("draw", [numpys, torchs, philoxs])
def test_the_same_purpose_draws_the_same_again(draw):
    assert draw(3, Purpose.PLACES, 5) == draw(3, Purpose.PLACES, 5)


@pytest.mark.parametrize("a", [0, 1, 7])
def test_no_purpose_is_what_a_bare_seed_draws(a):
    """Code outside the project often starts from the user's seed itself."""
    bare = np.random.default_rng(a).integers(2**63, size=4).tolist()
    assert all(numpys(a, purpose) != bare for purpose in Purpose)
    assert all(torch_seed(a, purpose) != a for purpose in Purpose)


def test_streams_are_not_correlated():
    drawn = np.stack([rng(0, purpose).standard_normal(20_000) for purpose in Purpose])
    off = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert np.abs(off).max() < 5 / np.sqrt(20_000)


def test_a_negative_seed_is_refused():
    with pytest.raises(CtinvError, match="seed -1 is negative; give 0 or more"):
        rng(-1, Purpose.PLACES)


def _calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", "")), node


def makers(text):
    """Lines that make or seed a generator by something else than a purpose."""
    found = []
    for name, node in _calls(ast.parse(text)):
        given = node.args[0] if node.args else None
        named = isinstance(given, ast.Call) and getattr(given.func, "id", "") == "torch_seed"
        keyed = name == "Philox" and not node.args
        if name in MAKERS and not named and not keyed:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("package", ["invariance", "zoo", "cli", "benchmarks"])
def test_every_generator_has_a_purpose(package):
    files = [f for f in (ROOT / package).rglob("*.py") if f.name != "randomness.py"]
    assert files
    assert {str(f): lines for f in files if (lines := makers(f.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "np.random.default_rng([seed, 7])",
        "torch.Generator().manual_seed(0)",
        "np.random.seed(0)",
        "SeedSequence(1)",
    ],
)
def test_a_generator_without_a_purpose_is_found(line):
    assert makers(line) == [1]


def test_every_purpose_is_drawn_for():

    used = set()
    for package in ("invariance", "zoo", "cli", "benchmarks"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "Purpose":
                    used.add(node.attr)
    assert used == set(Purpose.__members__)
