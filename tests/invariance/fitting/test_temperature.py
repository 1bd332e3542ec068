"""The spread of a flow is set right on held-out patches, and what that does is known exactly."""

import math
from types import SimpleNamespace

import pytest
import torch
from ctinv.invariance.fitting.flow_loop import Material, Objective, held_out_bits
from ctinv.invariance.fitting.temperature import rescale_temperature
from ctinv.invariance.networks.embedder import build_embedder
from ctinv.invariance.networks.flow import ConditionalFlow, Mixing
from ctinv.invariance.presets import FlowConfig
from ctinv.invariance.representation.maps import PLACES
from ctinv.invariance.sampling.inverse import FlowInverse

SHAPE, SIZE = (2, 4, 4), 32
STORE = SimpleNamespace(
    cut=lambda places: torch.zeros(len(places), 1, 8, 8),
    where=lambda places, size: torch.zeros(len(places), PLACES, size, size),
)


def fitted(*, mixing=True, wide=None, held=400):
    """A flow that takes codes for standard normal, and patches whose codes are wider than that."""
    torch.manual_seed(0)
    flow = ConditionalFlow(
        SHAPE, FlowConfig(blocks=1, width=6, context=3, embed_width=4, mixing=mixing), torch.Generator()
    )
    objective = Objective(flow, build_embedder(1, (8, 8), 4, 3, 4)).eval()
    spread = torch.full((SIZE,), 1.2)
    spread[3] = wide or 1.2
    known, codes = torch.randn(1500, SIZE) * spread, torch.randn(held, SIZE) * spread
    places = [(0, 0, 0)] * 1500
    material = Material(STORE, places, known, torch.zeros_like(known), places[:held], codes)
    return objective, material


@pytest.mark.parametrize("mixing", [False, True])
def test_one_temperature_where_no_direction_stands_out(mixing):
    objective, material = fitted(mixing=mixing)
    found = rescale_temperature(objective, material, 100)
    assert found.temperature == pytest.approx(1.2, rel=0.03)
    assert (found.widest or found.temperature) == pytest.approx(found.temperature)
    assert found.settled_on == 300
    v, context = torch.randn(4000, SIZE), torch.zeros(1, 3, 4, 4)
    drawn = objective.flow.inverse(v, context).detach()
    assert drawn.std().item() == pytest.approx(1.2, rel=0.03)
    torch.testing.assert_close(FlowInverse(objective.flow).bind(context)(v).clone(), drawn)
    torch.testing.assert_close(objective.flow(drawn, context)[0].detach(), v, rtol=1e-4, atol=1e-4)


def test_a_direction_of_its_own_is_found_and_widened():
    objective, material = fitted(wide=3.0)
    found = rescale_temperature(objective, material, 0)
    assert found.temperature == pytest.approx(1.2, rel=0.03)
    assert found.widest == pytest.approx(3.0, rel=0.1)
    drawn = objective.flow.inverse(torch.randn(4000, SIZE), torch.zeros(1, 3, 4, 4)).detach()
    assert drawn[:, 3].std().item() == pytest.approx(3.0, rel=0.1)
    assert drawn[:, [0, 1, 2, 4, 5]].std().item() == pytest.approx(1.2, rel=0.05)


@pytest.mark.parametrize("mixing", [False, True])
def test_the_likelihood_gains_what_the_closed_form_says(mixing):
    objective, material = fitted(mixing=mixing)
    before, _ = held_out_bits(objective, material)
    rescale_temperature(objective, material, 0)
    after, _ = held_out_bits(objective, material)
    gain = (0.5 * (1.2**2 - 1) - math.log(1.2)) / math.log(2)
    assert before - after == pytest.approx(gain, rel=0.15)


@pytest.mark.parametrize("mixing", [False, True])
def test_patches_kept_for_the_test_of_calibration_are_not_looked_at(mixing):
    objective, material = fitted(mixing=mixing)
    material.test_codes[:100] = 1e6
    assert rescale_temperature(objective, material, 100).temperature == pytest.approx(1.2, rel=0.03)


@pytest.mark.parametrize("mixing", [False, True])
def test_nothing_is_done_with_few_patches(mixing):
    objective, material = fitted(mixing=mixing, held=31)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert rescale_temperature(objective, material, 0) is None
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_what_follows_becomes_part_of_the_map():
    torch.manual_seed(0)
    step = Mixing(8)
    step.initialise(torch.randn(500, 8) @ torch.randn(8, 8))
    torch.nn.init.normal_(step.change)
    torch.nn.init.constant_(step.strength, 0.7)
    step = step.double()
    x = torch.randn(5, 8, dtype=torch.float64)
    half = torch.randn(8, 8, dtype=torch.float64)
    after = torch.eye(8, dtype=torch.float64) + 0.1 * half @ half.T
    wanted, log_det = step()(x) @ after.T, step().log_abs_det_jacobian(x, step()(x))
    step.follow(after)
    torch.testing.assert_close(step()(x), wanted)
    torch.testing.assert_close(step().inv(wanted), x)
    torch.testing.assert_close(step().log_abs_det_jacobian(x, wanted), log_det + after.logdet())
