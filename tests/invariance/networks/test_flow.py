"""Laws of the flow: inverse, log-determinant, gradients, storage, no side effects."""

import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from ctinv.invariance.networks.flow import (
    ActNorm,
    ConditionalFlow,
    Coupling,
    DenseCoupling,
    Entry,
    Mixing,
    Shuffle,
)
from ctinv.invariance.presets import FlowConfig
from safetensors.torch import load_file, save_file
from torch import nn

SHAPES = [(2, 2, 2), (4, 1, 1), (3, 4, 4), (5, 1, 1)]
CONFIG = FlowConfig(blocks=2, width=6, context=3, embed_width=4)
SPLINE = dataclasses.replace(CONFIG, coupling="spline", bins=4)


def parts(shape):
    """Every kind of step, and the whole."""
    features = math.prod(shape)
    mask = torch.arange(features) % 2 == 0
    yield "actnorm", ActNorm(features)
    yield "entry", Entry(shape, CONFIG.context, CONFIG.width)
    if shape[0] <= CONFIG.context:
        yield "entry of a reading", Entry(shape, CONFIG.context, CONFIG.width, reads=True)
    if shape[0] < CONFIG.context:
        told = dataclasses.replace(CONFIG, context=CONFIG.context - shape[0])
        yield "flow of a reading", ConditionalFlow(shape, told, torch.Generator().manual_seed(0), reads=True)
    yield "coupling", Coupling(shape, mask, CONFIG.context, CONFIG.width)
    yield "spline coupling", Coupling(shape, mask, CONFIG.context, CONFIG.width, bins=4)
    if shape[1] == 1:
        yield "dense coupling", DenseCoupling(mask, CONFIG.context, 6, depth=2)
        yield "dense spline coupling", DenseCoupling(mask, CONFIG.context, 6, depth=1, bins=4)
    yield "mixing", Mixing(features)
    yield "shuffle", Shuffle(torch.randperm(features))
    yield "flow", ConditionalFlow(shape, CONFIG, torch.Generator().manual_seed(0))
    yield "spline flow", ConditionalFlow(shape, SPLINE, torch.Generator().manual_seed(0))
    if shape in [(2, 2, 2), (4, 1, 1)]:
        for name, config in ("deep flow", CONFIG), ("deep spline flow", SPLINE):
            deep = dataclasses.replace(config, blocks=12)
            yield name, ConditionalFlow(shape, deep, torch.Generator().manual_seed(0))


CASES = [pytest.param(shape, name, id=f"{shape}-{name}") for shape in SHAPES for name, _ in parts(shape)]
FLOWS = ["flow", "spline flow"]


def scrambled(shape, name, dtype=torch.float64):
    """A step with weights that make it do something, as functions forward and back."""
    torch.manual_seed(3)
    step = dict(parts(shape))[name]
    for parameter in step.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        # Twelve random blocks at full strength would be a chaotic map, which no fitted flow is.
        nn.init.normal_(parameter, std=(0.3 if "deep" in name else 1) * fan_in**-0.5)
    for module in step.modules():
        if isinstance(module, Mixing):
            module.start.copy_(0.3 * torch.randn_like(module.start).tril(-1) + torch.eye(len(module.start)))
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


@pytest.mark.parametrize(("shape", "name"), CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_inverse_undoes_forward(shape, name, dtype, tolerance):
    step, forward, inverse = scrambled(shape, name, dtype)
    step.eval()
    x = torch.randn(40, math.prod(shape), dtype=dtype)
    h = torch.randn(40, CONFIG.context, *shape[1:], dtype=dtype)
    v, _ = forward(x, h)
    assert v.shape == x.shape
    assert (inverse(v, h) - x).abs().max() <= tolerance * x.abs().max()


@pytest.mark.parametrize(("shape", "name"), [case for case in CASES if "deep" not in case.id])
def test_log_determinant_agrees_with_autograd(shape, name):
    _, forward, _ = scrambled(shape, name)
    x = torch.randn(2, math.prod(shape), dtype=torch.float64)
    h = torch.randn(2, CONFIG.context, *shape[1:], dtype=torch.float64)
    _, stated = forward(x, h)
    for k in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, k=k: forward(one[None], h[k : k + 1])[0][0], x[k], vectorize=True
        )
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(stated[k].item(), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("name", FLOWS)
def test_the_temperature_stretches_what_is_drawn(name, temperature):
    flow, _, _ = scrambled((3, 4, 4), name)
    v = torch.randn(5, 48, dtype=torch.float64)
    h = torch.randn(5, CONFIG.context, 4, 4, dtype=torch.float64)
    code = flow.inverse(temperature * v, h)
    _, plain = flow(code, h)
    flow.temperature.fill_(temperature)
    torch.testing.assert_close(flow.inverse(v, h), code)
    back, log_det = flow(code, h)
    torch.testing.assert_close(back, v)
    torch.testing.assert_close(log_det, plain - 48 * math.log(temperature))


def test_a_new_flow_is_a_normal_law():
    """Of the mean and spread of the codes, times the temperature."""
    flow = ConditionalFlow((3, 4, 4), CONFIG, torch.Generator().manual_seed(0)).double()
    flow.mean.normal_()
    flow.std.uniform_(0.5, 2)
    flow.temperature.fill_(1.5)
    code, h = torch.randn(5, 48, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    law = torch.distributions.Normal(flow.mean, 1.5 * flow.std)
    torch.testing.assert_close(flow.log_prob(code, h), law.log_prob(code).sum(1))


@pytest.mark.parametrize("count", [6, 12, 40, 4000])
def test_mixing_whitens_what_it_is_initialised_on(count):
    """But for a share of the covariance, larger for few codes, that goes to its mean diagonal."""
    codes = torch.randn(count, 8).double() @ torch.randn(8, 8).double()
    mixing = Mixing(8).double()
    mixing.initialise(codes)
    covariance = torch.cov(codes.T)
    share = min(0.5, 1e-4 + 0.5 * max(0, 8 / count - 0.25) ** 2)
    mixed = (1 - share) * covariance + share * covariance.trace() / 8 * torch.eye(8)
    whole = factors(mixing)
    torch.testing.assert_close(whole @ mixed.double() @ whole.T, torch.eye(8).double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        whole, whole.T, rtol=1e-4, atol=1e-5
    )  # of all such maps the one that moves least
    torch.testing.assert_close(mixing()(codes), codes @ whole.T)


def test_mixing_takes_a_map_that_follows_into_itself():
    mixing = Mixing(7).double()
    with torch.no_grad():
        mixing.start.copy_(torch.eye(7) + 0.3 * torch.randn(7, 7))
        mixing.strength.fill_(0.7)
        mixing.change.normal_()
    after = torch.eye(7).double() + 0.3 * torch.randn(7, 7)
    x = torch.randn(5, 7).double()
    with torch.no_grad():
        wanted = mixing()(x) @ after.T
        mixing.follow(after)
        torch.testing.assert_close(mixing()(x), wanted)
        torch.testing.assert_close(mixing()(x) @ torch.linalg.inv(factors(mixing)).T, x)


def factors(mixing):
    """The product of a mixing's two factors."""
    matrix = mixing.matrix()
    return matrix.tril() @ (matrix.triu(1) + torch.eye(len(matrix)))


@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one(name):
    flow, _, _ = scrambled((2, 1, 1), name)
    h = torch.randn(1, CONFIG.context, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        centre = flow.inverse(torch.zeros(1, 2, dtype=torch.float64), h)
        spread = flow.inverse(torch.randn(4000, 2, dtype=torch.float64), h).std(0)
        axes = [centre[0, k] + spread[k] * torch.linspace(-12, 12, 241, dtype=torch.float64) for k in (0, 1)]
        grid = torch.cartesian_prod(*axes)
        mass = flow.log_prob(grid, h).exp().sum() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert mass.item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_parameter_receives_a_gradient(shape, name):
    flow, _, _ = scrambled(shape, name)
    x = torch.randn(4, math.prod(shape), dtype=torch.float64)
    h = torch.randn(4, 3, *shape[1:], dtype=torch.float64)
    flow.log_prob(x, h).sum().backward()
    missing = [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_context_serves_many_codes(shape, name):
    flow, _, _ = scrambled(shape, name)
    v = torch.randn(6, math.prod(shape), dtype=torch.float64)
    h = torch.randn(1, 3, *shape[1:], dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(v, h), flow.inverse(v, h.expand(6, -1, -1, -1)))


@pytest.mark.parametrize("config", [CONFIG, SPLINE], ids=["affine", "spline"])
@pytest.mark.parametrize("shape", [(3, 4, 4), (48, 1, 1)], ids=str)
def test_initialisation_standardises_every_block(shape, config):
    torch.manual_seed(0)
    flow = ConditionalFlow(shape, config, torch.Generator().manual_seed(0))
    codes, h = torch.randn(700, 48) * 7 - 3, torch.randn(700, 3, *shape[1:])  # more than are mapped at once
    flow.initialise(codes, h)
    v, log_det = flow(codes, h)
    assert v.mean(0).abs().max() < 1e-3
    assert (v.std(0) - 1).abs().max() < 1e-2
    assert log_det.mean().item() == pytest.approx(-codes.std(0).log().sum().item(), abs=0.05)


@pytest.mark.parametrize("told", [False, True], ids=["nothing read", "read"])
@pytest.mark.parametrize("shape", [(3, 4, 4), (48, 1, 1)], ids=str)
def test_a_fresh_flow_of_a_reading_draws_about_it(shape, told):
    """Codes of the mean that was read and of the covariance with which they differed from it."""
    torch.manual_seed(0)
    flow = ConditionalFlow(shape, CONFIG, torch.Generator().manual_seed(0), reads=True)
    away = torch.randn(4000, 48) @ torch.randn(48, 48) / 7
    read = 3 * torch.randn(4000, 48) * told
    codes = read + away + torch.arange(48)
    std, mean = torch.std_mean(codes, 0)
    known = (read + torch.arange(48) - mean) / std

    def context(code):
        own = torch.randn(len(code), CONFIG.context, *shape[1:])
        return torch.cat([own, code.view(-1, *shape)], 1)

    flow.initialise(codes, context(known))
    drawn = flow.inverse(torch.randn(20000, 48), context(known[:1]))
    expected = read[0] + torch.arange(48)
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.15, rtol=0)
    error = torch.cov(drawn.T) - torch.cov(away.T)
    assert error.norm() < 0.08 * torch.cov(away.T).norm()


def test_a_reading_far_out_is_held_within_the_range_of_codes():
    entry = Entry((2, 1, 1), 3, 4, reads=True)
    assert entry.start(torch.tensor([0.0, 1e6, -3.0]).view(1, 3, 1, 1)).tolist() == [[12.0, -3.0]]


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("shape", [(3, 4, 4), (48, 1, 1)], ids=str)
def test_far_from_the_data_nothing_explodes(shape, name):
    flow, _, _ = scrambled(shape, name, torch.float32)
    h = 1e6 * torch.randn(1, 3, *shape[1:])
    codes = flow.inverse(torch.randn(64, 48), h)
    assert codes.isfinite().all()
    assert codes.abs().max() < 1e5


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("shape", [(3, 4, 4), (48, 1, 1)], ids=str)
def test_weights_round_trip(shape, name, tmp_path):
    flow, _, _ = scrambled(shape, name, torch.float32)
    save_file(flow.state_dict(), tmp_path / "flow.safetensors")
    config = SPLINE if name == "spline flow" else CONFIG
    twin = ConditionalFlow(shape, config, torch.Generator().manual_seed(9))
    twin.load_state_dict(load_file(tmp_path / "flow.safetensors"))
    x, h = torch.randn(3, 48), torch.randn(3, 3, *shape[1:])
    assert torch.equal(flow.log_prob(x, h), twin.log_prob(x, h))
    assert torch.equal(flow.inverse(x, h), twin.inverse(x, h))


@pytest.mark.parametrize("bins", [0, 5], ids=["affine", "spline"])
def test_new_couplings_are_the_identity(bins):
    mask = torch.arange(6) % 2 == 0
    x = 3 * torch.randn(4, 6, dtype=torch.float64)
    for step, h in (
        (DenseCoupling(mask, 3, 8, 2, bins), torch.randn(4, 3, 1, 1, dtype=torch.float64)),
        (Coupling((6, 1, 1), mask, 3, 8, bins), torch.randn(4, 3, 1, 1, dtype=torch.float64)),
    ):
        v, log_det = step.double()(h).call_and_ladj(x)
        torch.testing.assert_close(v, x)
        torch.testing.assert_close(log_det, torch.zeros(4, dtype=torch.float64))


def test_a_spline_bends_what_an_affine_map_cannot():
    torch.manual_seed(0)
    step = DenseCoupling(torch.tensor([True, False]), 3, 8, 1, bins=8).double()
    nn.init.normal_(step.out.bias)
    x = torch.stack([torch.zeros(9), torch.linspace(-4, 4, 9)], 1).double()
    v = step(torch.zeros(1, 3, 1, 1, dtype=torch.float64))(x)[:, 1]
    assert (v.diff() > 0).all()
    assert v.diff().diff().abs().max() > 0.1


def test_importing_leaves_torch_distributions_alone():
    code = (
        "from torch.distributions import Distribution as D;"
        "a = D._validate_args, D.__dict__['arg_constraints'];"
        "import ctinv.invariance.networks.flow; assert (D._validate_args, D.__dict__['arg_constraints']) == a"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
