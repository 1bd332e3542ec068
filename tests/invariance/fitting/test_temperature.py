"""The spread of a flow is set right on held-out patches, and what that does is known exactly."""

import math
from types import SimpleNamespace

import pytest
import torch
from ctinv.invariance.fitting.flow_loop import Material, Objective, held_out_bits
from ctinv.invariance.fitting.temperature import rescale_temperature
from ctinv.invariance.networks.embedder import build_embedder
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.presets import FlowConfig
from ctinv.invariance.representation.maps import PLACES
from ctinv.invariance.sampling.inverse import FlowInverse

SHAPE, SIZE = (2, 4, 4), 32
STORE = SimpleNamespace(
    inputs=lambda places, size: (
        torch.zeros(len(places), 1, 8, 8),
        torch.zeros(len(places), PLACES, size, size),
    )
)


def fitted(*, held=400):
    """A flow that takes codes for standard normal, and patches whose codes are wider than that."""
    torch.manual_seed(0)
    flow = ConditionalFlow(SHAPE, FlowConfig(blocks=1, width=6, context=3, embed_width=4), torch.Generator())
    objective = Objective(flow, build_embedder(1, (8, 8), 4, 3, 4)).eval()
    spread = torch.full((SIZE,), 1.2)
    known, codes = torch.randn(1500, SIZE) * spread, torch.randn(held, SIZE) * spread
    places = [(0, 0, 0)] * 1500
    material = Material(STORE, places, known, torch.zeros_like(known), places[:held], codes)
    return objective, material


def test_one_temperature_sets_the_spread_right():
    objective, material = fitted()
    found = rescale_temperature(objective, material, 100)
    assert found.temperature == pytest.approx(1.2, rel=0.03)
    assert found.settled_on == 300
    v, context = torch.randn(4000, SIZE), torch.zeros(1, 3, 4, 4)
    drawn = objective.flow.inverse(v, context).detach()
    assert drawn.std().item() == pytest.approx(1.2, rel=0.03)
    torch.testing.assert_close(FlowInverse(objective.flow).bind(context)(v).clone(), drawn)
    torch.testing.assert_close(objective.flow(drawn, context)[0].detach(), v, rtol=1e-4, atol=1e-4)


def test_the_likelihood_gains_what_the_closed_form_says():
    objective, material = fitted()
    before, _ = held_out_bits(objective, material)
    rescale_temperature(objective, material, 0)
    after, _ = held_out_bits(objective, material)
    gain = (0.5 * (1.2**2 - 1) - math.log(1.2)) / math.log(2)
    assert before - after == pytest.approx(gain, rel=0.15)


def test_patches_kept_for_the_test_of_calibration_are_not_looked_at():
    objective, material = fitted()
    material.test_codes[:100] = 1e6
    assert rescale_temperature(objective, material, 100).temperature == pytest.approx(1.2, rel=0.03)


def test_nothing_is_done_with_few_patches():
    objective, material = fitted(held=31)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert rescale_temperature(objective, material, 0) is None
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
