"""Laws of the flow: inverse, log-determinant, gradients, storage, no side effects."""

import math
import subprocess
import sys

import pytest
import torch
from ctinv.invariance.flow import ActNorm, ConditionalFlow, Coupling, Entry, Shuffle
from ctinv.invariance.presets import FlowConfig
from torch import nn

SHAPES = [(2, 2, 2), (4, 1, 1), (3, 4, 4)]
CONFIG = FlowConfig(blocks=2, width=6, context=3, embed_width=4)


def parts(shape):
    """Every kind of step, and the whole."""
    features = math.prod(shape)
    mask = torch.arange(features) % 2 == 0
    yield "actnorm", ActNorm(features)
    yield "entry", Entry(shape, CONFIG.context, CONFIG.width)
    yield "coupling", Coupling(shape, mask, CONFIG.context, CONFIG.width)
    yield "shuffle", Shuffle(torch.randperm(features))
    yield "flow", ConditionalFlow(shape, CONFIG, torch.Generator().manual_seed(0))


NAMES = [name for name, _ in parts((2, 2, 2))]


def scrambled(shape, name, dtype=torch.float64):
    """A step with weights that make it do something, as functions forward and back."""
    torch.manual_seed(3)
    step = dict(parts(shape))[name]
    for parameter in step.parameters():
        nn.init.normal_(parameter, std=0.5)
    step = step.to(dtype)
    if isinstance(step, ConditionalFlow):
        step.mean.normal_()
        step.std.uniform_(0.5, 2)
        return step, step, step.inverse
    return (
        step,
        lambda x, h: (
            step(h).call_and_ladj(x)
            if hasattr(step(h), "call_and_ladj")
            else (step(h)(x), step(h).log_abs_det_jacobian(x, step(h)(x)))
        ),
        lambda v, h: step(h).inv(v),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_inverse_undoes_forward(shape, name, dtype, tolerance):
    step, forward, inverse = scrambled(shape, name, dtype)
    step.eval()
    x = torch.randn(5, math.prod(shape), dtype=dtype)
    h = torch.randn(5, CONFIG.context, *shape[1:], dtype=dtype)
    v, _ = forward(x, h)
    assert v.shape == x.shape
    assert (inverse(v, h) - x).abs().max() <= tolerance * x.abs().max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_determinant_agrees_with_autograd(shape, name):
    _, forward, _ = scrambled(shape, name)
    x = torch.randn(3, math.prod(shape), dtype=torch.float64)
    h = torch.randn(3, CONFIG.context, *shape[1:], dtype=torch.float64)
    _, stated = forward(x, h)
    for k in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, k=k: forward(one[None], h[k : k + 1])[0][0], x[k]
        )
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(stated[k].item(), abs=1e-6)


def test_density_integrates_to_one():
    flow, _, _ = scrambled((2, 1, 1), "flow")
    h = torch.randn(1, CONFIG.context, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        centre = flow.inverse(torch.zeros(1, 2, dtype=torch.float64), h)
        spread = flow.inverse(torch.randn(4000, 2, dtype=torch.float64), h).std(0)
        axes = [centre[0, k] + spread[k] * torch.linspace(-12, 12, 241, dtype=torch.float64) for k in (0, 1)]
        grid = torch.cartesian_prod(*axes)
        mass = flow.log_prob(grid, h).exp().sum() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert mass.item() == pytest.approx(1, abs=0.01)


def test_every_parameter_receives_a_gradient():
    flow, _, _ = scrambled((2, 2, 2), "flow")
    x, h = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    flow.log_prob(x, h).sum().backward()
    missing = [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_one_context_serves_many_codes():
    flow, _, _ = scrambled((2, 2, 2), "flow")
    v, h = torch.randn(6, 8, dtype=torch.float64), torch.randn(1, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(v, h), flow.inverse(v, h.expand(6, -1, -1, -1)))


def test_initialisation_standardises_every_block():
    torch.manual_seed(0)
    flow = ConditionalFlow((3, 4, 4), CONFIG, torch.Generator().manual_seed(0))
    codes, h = torch.randn(512, 48) * 7 - 3, torch.randn(512, 3, 4, 4)
    flow.initialise(codes, h)
    v, log_det = flow(codes, h)
    assert v.mean(0).abs().max() < 1e-3
    assert (v.std(0) - 1).abs().max() < 1e-2
    assert log_det.mean().item() == pytest.approx(-codes.std(0).log().sum().item(), abs=0.05)


def test_far_from_the_data_nothing_explodes():
    flow, _, _ = scrambled((3, 4, 4), "flow", torch.float32)
    h = 1e6 * torch.randn(1, 3, 4, 4)
    codes = flow.inverse(torch.randn(64, 48), h)
    assert codes.isfinite().all()
    assert codes.abs().max() < 1e5


def test_weights_round_trip():
    flow, _, _ = scrambled((3, 4, 4), "flow", torch.float32)
    twin = ConditionalFlow((3, 4, 4), CONFIG, torch.Generator().manual_seed(9))
    twin.load_state_dict(flow.state_dict())
    x, h = torch.randn(3, 48), torch.randn(3, 3, 4, 4)
    assert torch.equal(flow.log_prob(x, h), twin.log_prob(x, h))


def test_importing_leaves_torch_distributions_alone():
    code = (
        "from torch.distributions import Distribution as D;"
        "a = D._validate_args, D.__dict__['arg_constraints'];"
        "import ctinv.invariance.flow; assert (D._validate_args, D.__dict__['arg_constraints']) == a"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
