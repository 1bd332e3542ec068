"""Controls of an analysis: they pass where all is well, and fail where something is broken on purpose."""

import dataclasses

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.invariance.audit import controls as module
from ctinv.invariance.audit.controls import controls, controls_figure, shuffled_control
from ctinv.invariance.audit.summary import Evidence, audit
from ctinv.invariance.data.simulation.noise import noise_like
from ctinv.invariance.networks.embedder import Embedder
from ctinv.invariance.networks.fit_record import FitScores
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.refine import noise_change, refine
from scipy.ndimage import gaussian_filter
from torch import nn

SIZE = 48
GOOD = FitScores(nll=-0.2, nll_shuffled=0.1, held_out_patches=10)
BAD = dataclasses.replace(GOOD, nll_shuffled=-0.2)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    inside = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2)) < 20
    return np.where(inside, 40 + rng.normal(0, 15, inside.shape), -1000).astype(np.float32)


@pytest.fixture(scope="module")
def noise(image):
    return noise_like(image, 3, np.random.default_rng(0))


def change(scale=60.0, seed=1):
    drawn = gaussian_filter(np.random.default_rng(seed).standard_normal((SIZE, SIZE)), 2)
    return (scale * drawn / drawn.std()).astype(np.float32)


def outcome(found):
    return {control.name: control.passed for control in found}


@pytest.mark.parametrize("rho", [0.003, 0.03, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_controls_pass_and_say_what_is_known(image, noise, rho, scale):
    d = change(scale)
    identity, constant = controls(image, d, noise, rho)
    assert outcome([identity, constant]) == {"identity": True, "constant": True}
    # What noise does to a layer that forgets nothing is the noise itself.
    moves = np.mean([np.linalg.norm(n) for n in noise[:2]])
    wanted = min(1.0, rho * moves / np.linalg.norm(d))
    assert identity.figures["limit"] == pytest.approx(wanted, rel=1e-3)
    assert identity.figures["left"] == pytest.approx(wanted, rel=0.02)
    assert identity.figures["leakage"] == pytest.approx(1, abs=0.01)
    assert constant.figures["left"] == pytest.approx(1, abs=1e-4)
    assert constant.figures["leakage"] == 0


def test_a_sample_that_changes_nothing_is_replaced_by_noise(image, noise):
    found = controls(image, np.zeros_like(image), noise, 0.03)
    assert all(outcome(found).values())
    assert found[0].figures["left"] == pytest.approx(0.03, rel=0.1)


# What is broken, and the controls that must notice.
def _nothing_is_moved(observer, x, changes, moves, **more):
    return dataclasses.replace(refine(observer, x, changes, moves, **more), changes=np.stack([changes]))


def _everything_is_cut(observer, x, changes, moves, **more):
    return dataclasses.replace(
        refine(observer, x, changes, moves, **more), changes=np.zeros((1, *x[None].shape))
    )


def _too_far(observer, x, changes, moves, **more):
    return refine(observer, x, changes, 1.1 * moves, **more)


def _not_a_number(observer, x, changes, moves, **more):
    return dataclasses.replace(
        refine(observer, x, changes, moves, **more), changes=np.full((1, *x[None].shape), np.nan)
    )


class Deaf(Observer):
    """Returns what the layer gave for another image."""

    def _see(self, x, grad):
        return super()._see(0 * x, grad)


BREAKS = {
    "refinement lets everything through": ("refine", _nothing_is_moved, {"identity"}),
    "refinement lets nothing through": ("refine", _everything_is_cut, {"constant"}),
    "refinement overdraws": ("refine", _too_far, {"identity"}),
    "refinement gives no numbers": ("refine", _not_a_number, {"identity", "constant"}),
    "the observer sees nothing": ("Observer", Deaf, {"identity"}),
    "leakage is always 0": ("_leakage", lambda *_: 0.0, {"identity"}),
    "leakage is always 1": ("_leakage", lambda *_: 1.0, {"constant"}),
}


@pytest.mark.parametrize("case", BREAKS)
def test_controls_fail_where_something_is_broken(case, image, noise, monkeypatch):
    name, broken, wanted = BREAKS[case]
    monkeypatch.setattr(module, name, broken)
    found = controls(image, change(), noise, 0.03)
    assert {control.name for control in found if not control.passed} == wanted
    row = controls_figure(found)
    assert (row.value, row.unit) == (2 - len(wanted), "of 2")
    assert row.failed == tuple(sorted(wanted, reverse=True))
    assert row.meaning.startswith("Failed: ")


@pytest.mark.parametrize(
    ("cost", "passed"), [(0.3, True), (0.002, True), (0.0, False), (-0.1, False), (np.nan, False)]
)
def test_the_flow_must_do_worse_with_the_wrong_z(cost, passed):
    (found,) = shuffled_control(FitScores(0.5, 0.5 + cost))
    assert found.passed is passed
    assert shuffled_control(None) == []


# -- within the audit --------------------------------------------------------------------------------


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen, self.none = nn.Identity(), nn.Identity()

    def forward(self, x):
        self.none(torch.zeros_like(x))
        return x + 0 * self.seen(torch.where(torch.arange(x.shape[-1]) < SIZE // 2, 0 * x, x))


def evidence(image, noise, layer="seen", scores=GOOD, refined=True):
    denoiser = adapters.wrap(Half(), intensity="hu")
    observer = Observer(denoiser, layer, Embedder(1, 1))
    flow = np.stack([image + change(seed=k) for k in range(3)])
    moves = noise_change(observer, image, noise)
    found = refine(observer, image, flow - image, moves) if refined else None
    std = (found.at(0.03) if refined else flow).std(0)
    return Evidence(
        denoiser, observer, image, image, flow, found, 0.03, std, flow.std(0), noise, moves, scores, "", 0
    )


def test_the_audit_has_one_row_for_all_controls(image, noise):
    from ctinv.invariance.audit.scores import scores

    found = audit(evidence(image, noise))
    assert found.controls.failed == ()
    (row,) = [row for row in scores(found) if row.key.startswith("controls")]
    assert (row.title, row.text) == ("Controls passed", "3 of 3")
    assert "Do not read" not in found.verdict[0]


@pytest.mark.parametrize("refined", [True, False])
def test_no_map_is_to_be_read_where_a_control_fails(image, noise, refined, monkeypatch):
    deaf = audit(evidence(image, noise, scores=BAD, refined=refined))
    assert deaf.controls.failed == ("shuffled",)
    assert deaf.verdict[0].startswith("Do not read this map: the flow does no worse")
    monkeypatch.setattr(module, "refine", _nothing_is_moved)
    broken = audit(evidence(image, noise, refined=refined))
    assert broken.controls.failed == ("identity",)
    assert broken.verdict[0].startswith("Do not read this map: a layer that forgets nothing would")


def test_a_blind_layer_is_not_asked_for_the_right_z(image, noise):
    found = audit(evidence(image, noise, "none", BAD))
    assert (found.controls.value, found.controls.n) == (2, 2)
    assert "Do not read" not in found.verdict[0]


def test_where_neither_sample_nor_noise_is_anything_the_controls_cannot_pass(image):
    nothing = np.zeros((3, SIZE, SIZE), np.float32)
    identity, constant = controls(image, nothing[0], nothing, 0.03)
    assert outcome([identity, constant]) == {"identity": False, "constant": True}
    assert identity.figures == {"left": 0.0, "limit": 0.0, "leakage": 0.0}
    assert constant.figures == {"left": 0.0, "off": 0.0, "leakage": 0.0}
