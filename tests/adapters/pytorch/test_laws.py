"""What a batch must not change, what must not change from run to run, and what gradients must leave alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ctinv import adapters
from ctinv.adapters.errors import RowsError, UnsupportedModelError
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ..laws import image, state_of

UNITS = "unit:-160:240"


def wrap(module, **options):
    return adapters.wrap(module, **{"intensity": UNITS, "output": "image", **options})


def conv(into, out):
    return nn.Conv2d(into, out, 3, padding=1)


class Around(nn.Module):
    """Two convolutions around something between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.between, self.last = conv(1, 8), between, conv(8, 1)

    def forward(self, x):
        return x - 0.1 * self.last(self.between(self.first(x)))


class Of(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, h):
        return self.function(self, h)


def attention_over_the_batch(self, h):
    tokens = h.flatten(2).transpose(1, 2)
    return self.mha(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).unflatten(2, h.shape[-2:])


MIXING = {
    "batch statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "mean of the batch": lambda: Of(lambda _, h: h - h.mean(0, keepdim=True)),
    "largest of the batch": lambda: Of(lambda _, h: h / h.abs().max()),
    "attention over the batch": lambda: Of(attention_over_the_batch, mha=nn.MultiheadAttention(8, 2)),
    "images one after the other": lambda: Of(
        lambda self, h: torch.cat([self.conv(one) for one in h.split(1)]), conv=conv(8, 8)
    ),
    "one image only": lambda: Of(lambda _, h: h.view(1, 8, *h.shape[-2:])),
    "median of the first image": lambda: Of(lambda _, h: h.clamp(max=h.flatten()[:300].median())),
    "likeness among images": lambda: Of(
        lambda _, h: (torch.softmax(h.flatten(1) @ h.flatten(1).T, -1) @ h.flatten(1)).view_as(h)
    ),
    "neighbours in the batch": lambda: Of(lambda _, h: h + h.roll(1, 0)),
}


@pytest.mark.parametrize("kind", MIXING)
def test_mixed_images_are_run_one_by_one(kind):
    torch.manual_seed(0)
    module, x = Around(MIXING[kind]()).eval(), image(3, 24, 24)
    x[0] *= 3
    denoiser = wrap(module)
    for name in ("between", "last", "@output"):
        alone = np.concatenate([denoiser.features(x[k : k + 1], name) for k in range(3)])
        np.testing.assert_allclose(denoiser.features(x, name), alone, rtol=1e-4, atol=1e-4, err_msg=name)
    assert any("one by one" in notice for notice in denoiser.notices)


def test_what_lies_before_the_mixing_is_read_in_batches():
    module = Around(MIXING["mean of the batch"]()).eval()
    denoiser, sizes = wrap(module), []
    assert denoiser.layers
    module.first.register_forward_hook(lambda _m, _a, z: sizes.append(len(z)))
    denoiser.features(image(3), "first")  # a new size is tried on one image
    denoiser.features(image(3), "last")
    assert sizes == [1, 3, 1, 1, 1]


RANDOM = {
    "dropout": lambda: Of(lambda _, h: F.dropout(h, 0.2)),
    "noise": lambda: Of(lambda _, h: h + torch.randn_like(h)),
    "memory": lambda: Of(lambda self, h: h * len(self.kept.append(1) or self.kept), kept=Kept()),
}


class Kept:
    """Remembers past runs, out of reach of what puts a module back."""

    def __init__(self):
        self.runs = []

    def append(self, value):
        self.runs.append(value)

    def __len__(self):
        return len(self.runs)


@pytest.mark.parametrize("kind", RANDOM)
def test_networks_that_are_never_the_same_twice_are_refused(kind):
    for ask in (lambda d: d.layers, lambda d: d.denoise(image()), lambda d: d.features(image(), "last")):
        with pytest.raises(UnsupportedModelError, match="two runs of 'Around' on one image differ"):
            ask(wrap(Around(RANDOM[kind]()).eval()))


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_that_may_come_out_alike_is_refused(seed):
    """One of two channels is dropped at most, so that two runs are often the same."""
    torch.manual_seed(seed)
    module = Around(Of(lambda _, h: torch.cat([F.dropout2d(h[:, :1], 0.3), h[:, 1:]], 1))).eval()
    with pytest.raises(UnsupportedModelError, match="two runs"):
        _ = wrap(module).layers


def test_a_draw_that_is_fixed_is_read():
    def fixed(_self, h):
        torch.manual_seed(0)
        return h + torch.randn(h.shape[1:])

    assert wrap(Around(Of(fixed)).eval()).features(image(2), "last").shape[0] == 2


def test_several_rows_for_an_image_are_told():
    def windows(self, h):
        rows = h.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(0, 2, 4, 1, 3, 5)
        seen = self.conv(rows.flatten(0, 2)).view(rows.shape)
        return seen.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    denoiser = wrap(Around(Of(windows, conv=conv(8, 8))).eval())
    layer = denoiser.resolve("between.conv")
    assert layer.note == "64 rows for each image"
    assert denoiser.features(image(2, 16, 24), "between.conv").shape == (12, 8, 8, 8)
    with pytest.raises(RowsError, match="told apart by image"):
        denoiser.features(image(2, 16, 24), "between.conv", batch_size=1)


# -- gradients --------------------------------------------------------------------------------------


def attention(_, h):
    q = h.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).unflatten(2, h.shape[-2:])


class OwnCheckpoint(torch.autograd.Function):
    """Runs a block again when gradients are asked for, as some projects' own code does."""

    @staticmethod
    def forward(ctx, block, h):
        ctx.block = block
        ctx.save_for_backward(h)
        with torch.no_grad():
            return block(h)

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            return None, torch.autograd.grad(ctx.block(h), h, grad)[0]


def block():
    return nn.Sequential(conv(8, 8), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.GELU())


BLOCKS = {
    "attention": lambda: Of(attention),
    "checkpoint": lambda: Of(lambda s, h: checkpoint(s.block, h, use_reentrant=False), block=block()),
    "re-entrant": lambda: Of(lambda s, h: checkpoint(s.block, h, use_reentrant=True), block=block()),
    "sequential": lambda: Of(
        lambda s, h: checkpoint_sequential(s.block, 2, h, use_reentrant=False), block=block()
    ),
}


def plain(module):
    """What a block computes without checkpointing."""
    return (lambda h: attention(None, h)) if module.function is attention else module.block


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("kind", BLOCKS)
def test_gradients_of_first_and_second_order_leave_the_network_alone(kind):
    torch.manual_seed(0)
    module, x = Around(BLOCKS[kind]()).train(), torch.from_numpy(image(2, 8, 8))
    before = state_of(module)
    denoiser, y = wrap(module), x.clone().requires_grad_()
    z = denoiser.features(y, "last", grad=True)
    probe = torch.randn_like(z).requires_grad_()
    (first,) = torch.autograd.grad(z, y, probe, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), probe)
    assert state_of(module) == before
    module.eval()
    y = x.clone().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        h = module.first(denoiser.intensity.to_model(y))
        want = module.last(plain(module.between)(h))
    (own,) = torch.autograd.grad(want, y, probe, create_graph=True)
    torch.testing.assert_close(first, own, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        second, torch.autograd.grad(own.square().sum(), probe)[0], rtol=1e-3, atol=1e-6
    )


def test_what_runs_again_for_gradients_runs_as_it_did_before():
    torch.manual_seed(0)
    module = Around(Of(lambda s, h: OwnCheckpoint.apply(s.block, h), block=block())).train()
    before = state_of(module)
    y = torch.from_numpy(image(2, 8, 8)).requires_grad_()
    (got,) = torch.autograd.grad(wrap(module).features(y, "last", grad=True).sum(), y)
    assert state_of(module) == before
    module.eval()
    want = module.last(module.between.block(module.first(wrap(module).intensity.to_model(y))))
    torch.testing.assert_close(got, torch.autograd.grad(want.sum(), y)[0])


def test_checkpointing_of_others_goes_on_meanwhile():
    from ctinv.adapters.pytorch.gradients import differentiable

    layer, runs = conv(1, 1), []
    layer.register_forward_pre_hook(lambda *_: runs.append(1))
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    with differentiable():
        checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert len(runs) == 1
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert len(runs) == 3
