"""The battery's Gaussian part, with a fit that is cut short: it runs, and a fit brings it near the truth."""

from pathlib import Path

import pytest


@pytest.fixture
def gaussian_truth(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from truth_battery.gaussian import gaussian_truth

    return gaussian_truth


def test_a_fit_comes_near_the_closed_form(gaussian_truth):
    sizes = {"fields": 40, "contexts": 4, "pairs": 48, "draws": 200}
    short, longer = (gaussian_truth(3, steps=steps, **sizes) for steps in (10, 200))
    # 200 draws alone make 0.05 of it; the fit starts at the Gaussian law about what is read, so that
    # few steps bring it there.
    assert max(longer["std_error"], short["std_error"]) < 0.1
    # No density beats the entropy of the law itself, but by the chance of few pairs.
    assert longer["nll_bound"] - 0.05 < longer["nll"] < short["nll"] < short["nll_bound"] + 0.05
