"""What decides a finding of the paper: intervals over slices in closed form, and what is said of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import paper_findings
    from paper_findings import Case, Estimate, findings, layer_rows, page

OUTPUTS = {"chen": "conv5", "yang": "conv15"}
SIDE = 64


def figure(value):
    return SimpleNamespace(value=value)


def explanation(anatomy, noise, texture, leakage=(0.5, 1.0), ended=True):
    """Uniform tissue with white noise; the output keeps a share of it, the layer hides a share."""
    x = np.random.default_rng(0).normal(40, 10, (SIDE, SIDE)).astype(np.float32)
    return SimpleNamespace(
        x=x,
        denoised=40 + texture * (x - 40),
        std_noise=np.full((SIDE, SIDE), noise, np.float32),
        meta=SimpleNamespace(spacing=None, seed=0, refinement=SimpleNamespace(rho=0.03)),
        bounds=SimpleNamespace(
            lower=figure(anatomy), noise=figure(noise), upper=figure(3.0), converged=ended
        ),
        audit=SimpleNamespace(
            leakage=SimpleNamespace(flow_from_reconstruction=figure(leakage[0]), flow=figure(leakage[1])),
            map=SimpleNamespace(std_flow=figure(4.0), noise=figure(10.0)),
        ),
    )


@pytest.fixture(autouse=True)
def _white_noise_everywhere_calm(monkeypatch):
    def noise_like(x, count, numbers, spacing):
        return np.full((count, *x.shape), 10.0, np.float32)

    monkeypatch.setattr(paper_findings, "noise_like", noise_like)
    monkeypatch.setattr(paper_findings, "calm_tissue", lambda x: np.ones(x.shape, dtype=bool))


def cases(chen, yang):
    """Three slices of each network, which differ a little."""
    return [
        Case(network, OUTPUTS[network], row, explanation(*(v * (1 + 0.01 * row) for v in values)))
        for network, values in (("chen", chen), ("yang", yang))
        for row in range(3)
    ]


def test_an_interval_is_students():
    found = Estimate.of([1.0, 2.0, 3.0], "HU")
    half = 4.302653 / np.sqrt(3)  # the 97.5 % point for two degrees of freedom, and a spread of 1
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert found.sign == 0
    assert Estimate.of([2.0, 2.1, 2.2]).sign == 1
    assert Estimate.of([-2.0, -2.1, -2.2]).sign == -1
    assert Estimate.of([2.0]).sign == 0


def test_findings_are_confirmed_or_refuted_by_the_sign_of_the_difference():
    as_said = findings(cases((1.0, 3.0, 0.5), (1.0, 1.0, 0.9)), OUTPUTS)
    assert [one.outcome for one in as_said] == ["confirmed"] * 4
    reversed_ = findings(cases((1.0, 1.0, 0.9), (1.0, 3.0, 0.5)), OUTPUTS)
    assert [one.outcome for one in reversed_] == ["confirmed", "refuted", "confirmed", "refuted"]
    alike = findings(cases((1.0, 1.0, 0.9), (1.0, 1.0, 0.9)), OUTPUTS)
    assert [one.outcome for one in alike][1::2] == ["not decided"] * 2
    noise = as_said[1].figures["Chen"]
    assert noise.value == pytest.approx(0.303)  # 3, 3.03 and 3.06 of 10 HU


def test_what_any_layer_lets_through_is_no_finding():
    """The identity shows the noise ratio times the noise: 0.3 HU of 10."""
    outcomes = {
        size: findings(cases((size, 1.0, 0.9), (size, 1.0, 0.9)), OUTPUTS)[0].outcome
        for size in (0.2, 0.297, 0.5)
    }
    assert outcomes == {0.2: "refuted", 0.297: "not decided", 0.5: "confirmed"}


def test_every_layer_has_a_row_of_means():
    some = cases((1.0, 3.0, 0.5), (2.0, 1.0, 0.9))
    chen, yang = layer_rows(some)
    assert chen == "| chen | `conv5` | 4.0 | 1.0 | 3.0 | 3.0 | 10.0 | 3 of 3 |"
    assert yang.startswith("| yang | `conv15` | 4.0 | 2.0 | 1.0 |")
    text = page(some, findings(some, OUTPUTS), 3, "phantoms", "small")
    assert chen in text
    assert "**Confirmed.**" in text
