"""Gradients of both orders through attention that is forced into a fused kernel, and compiled code."""

import contextlib
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ctinv import adapters
from ctinv.adapters.pytorch.gradients import differentiable
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True)
def _distributions_as_before():
    """PyTorch's compiler switches their checks off when it is first imported."""
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution._validate_args = before


def plain(q, k, v, bias=0.0):
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias, -1) @ v


def fused(q, k, v):
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        return F.scaled_dot_product_attention(q, k, v)


@sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True)
def preferred(q, k, v):
    return torch.ops.aten.scaled_dot_product_attention(q, k, v)


def switched(q, k, v):
    with torch.backends.cuda.sdp_kernel(enable_flash=True, enable_math=False, enable_mem_efficient=False):
        return F.scaled_dot_product_attention(q, k, v)


def masked(q, k, v):
    mask = create_block_mask(lambda _b, _h, i, j: i >= j, None, None, q.shape[-2], k.shape[-2], device="cpu")
    return flex_attention(q, k, v, block_mask=mask)


def causal(q, k, v):
    return plain(q, k, v, torch.full((q.shape[-2],) * 2, -torch.inf).triu(1))


TABLE = torch.linspace(-1, 1, 128)


def biased(q, k, v):
    return flex_attention(q, k, v, score_mod=lambda s, _b, _h, i, j: s + TABLE[i - j + 63])


def by_hand(q, k, v):
    i = torch.arange(q.shape[-2])
    return plain(q, k, v, TABLE[i[:, None] - i + 63])


def compiled(q, k, v):
    return torch.compile(plain, backend="aot_eager")(q, k, v)


KINDS = {
    "fused": (fused, plain),
    "preferred": (preferred, plain),
    "switched": (switched, plain),
    "flexible": (flex_attention, plain),
    "flexible, masked": (masked, causal),
    "flexible, biased": (biased, by_hand),
    "compiled": (compiled, plain),
}


class Net(nn.Module):
    def __init__(self, attention):
        super().__init__()
        torch.manual_seed(0)
        self.attention = attention
        self.emb, self.qkv, self.proj = nn.Conv2d(1, 16, 8, 8), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up = nn.ConvTranspose2d(16, 1, 8, 8)

    def forward(self, x):
        h = self.emb(x)
        q, k, v = self.qkv(h.flatten(2).transpose(1, 2)).unflatten(2, (3, 1, 16)).permute(2, 0, 3, 1, 4)
        t = self.proj(self.attention(q, k, v).transpose(1, 2).flatten(2))
        return x - 0.1 * self.up(t.transpose(1, 2).unflatten(2, h.shape[-2:]))


def both(run, x):
    """Gradients of the first and the second order, by the same outer derivative."""
    y = x.clone().requires_grad_()
    z = run(y)
    probe = torch.linspace(-1, 1, z.numel()).view(z.shape).requires_grad_()
    (first,) = torch.autograd.grad(z, y, probe, create_graph=True)
    return first.detach(), torch.autograd.grad(first.square().sum(), probe)[0]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["proj", "@output"])
def test_attention_can_be_differentiated_twice(kind, layer):
    own, reference = KINDS[kind]
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 100, (2, 1, 64, 64)).astype(np.float32))
    denoisers = [adapters.wrap(Net(how).eval(), intensity="unit:-160:240") for how in (own, reference)]
    got, want = (both(partial(each.features, layer=layer, grad=True), x) for each in denoisers)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-8)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_read_while_its_operations_are_counted(kind):
    own, reference = KINDS[kind]
    x = np.random.default_rng(0).normal(0, 100, (2, 1, 64, 64)).astype(np.float32)
    denoiser, other = (adapters.wrap(Net(how).eval(), intensity="unit:-160:240") for how in (own, reference))
    want = other.features(x, "proj")
    assert denoiser.layers
    with FlopCounterMode(display=False):
        np.testing.assert_allclose(denoiser.features(x, "proj"), want, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_flexible_attention_returns_what_else_it_was_asked_for():
    q = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    asked = AuxRequest(lse=True)
    _, want = flex_attention(q, q, q, return_aux=asked)
    with differentiable():
        _, got = flex_attention(q, q, q, return_aux=asked)
    torch.testing.assert_close(got.lse, want.lse)


def test_attention_of_others_is_refused_as_ever():
    """What stands in for PyTorch's functions is gone afterwards, also after an error."""
    q = torch.zeros(1, 1, 16, 16, requires_grad=True)
    with contextlib.suppress(ZeroDivisionError), differentiable():
        raise ZeroDivisionError
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        flex_attention(q, q, q)


def test_compiled_functions_are_compiled_again_afterwards():
    calls = []

    def backend(graph, _inputs):
        calls.append(1)
        return graph

    double = torch.compile(lambda x: x * 2, backend=backend)
    assert "torch._dynamo" in sys.modules
    with differentiable():
        double(torch.ones(2))
        assert not calls
    double(torch.ones(2))
    assert calls
