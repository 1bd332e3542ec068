"""Denoisers composed at random, in the way that published ones are: what exporters and optimisers meet."""

from __future__ import annotations

import random

import torch
from ctinv.invariance.infra.randomness import Purpose, torch_seed
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["random_network"]


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of an image: the axes are turned and turned back."""

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W), normalised."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WrittenOut(nn.Module):
    """The same, written out as restoration networks do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W), normalised."""
        mean = x.mean(1, keepdim=True)
        scaled = (x - mean) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return self.weight.view(1, -1, 1, 1) * scaled + self.bias.view(1, -1, 1, 1)


class Gate(nn.Module):
    """Half of the channels times the other half."""

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        a, b = x.chunk(2, dim=1)
        return a * b


class GatedBlock(nn.Module):
    """As in NAFNet: gates, channel attention and learned scales."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = WrittenOut(c)
        self.conv1, self.conv2 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.conv3, self.gate = nn.Conv2d(c, c, 1), Gate()
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.beta = nn.Parameter(torch.rand(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The image and what the block adds to it."""
        y = self.gate(self.conv2(self.conv1(self.norm(x))))
        return x + self.conv3(y * self.sca(y)) * self.beta


class Transposed(nn.Module):
    """Attention between channels, as in Restormer."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))
        self.qkv, self.project_out = nn.Conv2d(c, 3 * c, 1, bias=False), nn.Conv2d(c, c, 1)
        self.norm = LayerNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        """The image and what attention adds to it."""
        n, c, h, w = x.shape
        q, k, v = (t.reshape(n, 2, c // 2, h * w) for t in self.qkv(self.norm(x)).chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return x + self.project_out((attention @ v).reshape(n, c, h, w))


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, each alike."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Windows(nn.Module):
    """Attention within windows of four pixels, as in SwinIR and Uformer; sizes are those of the export."""

    def __init__(self, c: int, biased: bool, clipped: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.proj, self.mlp = nn.Linear(c, 3 * c, bias=biased), nn.Linear(c, c), Mlp(c)
        self.softmax = nn.Softmax(dim=-1)
        self.scale = 0.5 if clipped else 1.0
        self.table = nn.Parameter(torch.randn(2, 16, 16) * 0.1)

    def attend(self, x: Tensor) -> Tensor:
        """Windows (B, 16, C)."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        attention = self.softmax((q * self.scale) @ k.transpose(-2, -1) + self.table)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W), H and W multiples of four."""
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        y = self.norm1(tokens).view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attend(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h * w, c)
        tokens = tokens + y
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).view(n, c, h, w)


class Residual(nn.Module):
    """What a body adds to its input, scaled."""

    def __init__(self, body: nn.Module, scale: float) -> None:
        super().__init__()
        self.body, self.scale = body, scale

    def forward(self, x: Tensor) -> Tensor:
        """The image and the body's share."""
        return x + self.body(x) * self.scale


class Functional(nn.Module):
    """A convolution followed by operations that are no modules."""

    def __init__(self, c: int, kind: str) -> None:
        super().__init__()
        self.conv, self.kind = nn.Conv2d(c, c, 3, padding=1, bias=kind != "shift"), kind
        self.gain = nn.Parameter(torch.rand(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The image after both."""
        y = self.conv(x)
        if self.kind == "relu":
            return F.relu(y)
        if self.kind == "gain":
            return y * self.gain
        if self.kind == "shift":
            return F.leaky_relu(y + self.gain, 0.1)
        if self.kind == "half":
            return F.gelu(y * 0.5 - 0.25)
        return torch.sigmoid(y) * x


class Halved(nn.ReLU):
    """An activation of its own, whose last operation the next convolution may take in."""

    def forward(self, x: Tensor) -> Tensor:
        """Half of what is positive."""
        return super().forward(x) * 0.5


class Scaled(nn.Conv2d):
    """A convolution with a gain of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """The image, filtered."""
        return super().forward(x) * 0.25 + 0.125


class Keyed(nn.Module):
    """Parts in a dictionary, under keys that parts outside of it have too."""

    def __init__(self, c: int, act: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"conv": nn.Conv2d(c, c, 3, padding=1), "act": act})
        self.conv, self.act = nn.Conv2d(c, c, 1), other

    def forward(self, x: Tensor) -> Tensor:
        """The image after all four."""
        return self.act(self.conv(self.parts["act"](self.parts["conv"](x))))


class Reached(nn.Module):
    """A part whose own parts are called one by one, in another order than it would call them."""

    def __init__(self, c: int, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.conv = inner, nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The image and what the inner parts make of it."""
        h = self.conv(x)
        for part in reversed(list(self.inner.children())):
            for each in reversed(part.values()) if isinstance(part, nn.ModuleDict) else [part]:
                h = each(h)
        return x + h


class Down(nn.Module):
    """Smaller, a body, larger again."""

    def __init__(self, c: int, body: nn.Module, way: str) -> None:
        super().__init__()
        if way == "shuffle":
            self.down = nn.Sequential(nn.Conv2d(c, c // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))
            self.up = nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2))
            self.fit = nn.Conv2d(2 * c, c, 1)
            self.back = nn.Conv2d(c, 2 * c, 1)
        else:
            self.down = nn.MaxPool2d(2) if way == "pool" else nn.Conv2d(c, c, 2, 2)
            self.up = {
                "pool": nn.Upsample(scale_factor=2, mode="nearest"),
                "stride": nn.ConvTranspose2d(c, c, 2, 2),
                "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
            }[way]
            self.fit = self.back = nn.Identity()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """The image and what the smaller one knows."""
        return x + self.up(self.back(self.body(self.fit(self.down(x)))))


_ACTS = [
    nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.PReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish,
    nn.ReLU6, nn.Mish, nn.ELU, nn.Softplus, Halved, lambda: nn.GELU(approximate="tanh"), nn.Hardsigmoid,
]  # fmt: skip


def _act(rng: random.Random) -> nn.Module:
    return rng.choice(_ACTS)()


def _norm(rng: random.Random, c: int) -> nn.Module:
    kinds = [
        lambda: nn.BatchNorm2d(c), lambda: nn.BatchNorm2d(c), lambda: nn.GroupNorm(2, c),
        lambda: nn.InstanceNorm2d(c, affine=True), lambda: nn.InstanceNorm2d(c), lambda: LayerNorm2d(c),
        lambda: WrittenOut(c), lambda: nn.GroupNorm(2, c, affine=False),
    ]  # fmt: skip
    return rng.choice(kinds)()


def _conv(rng: random.Random, c: int) -> nn.Module:
    size, dilation = rng.choice([(1, 1), (3, 1), (3, 1), (3, 2)])
    padding = dilation * (size // 2)
    bias, groups = rng.random() < 0.7, rng.choice([1, 1, 1, 2, c])
    kind = Scaled if rng.random() < 0.1 else nn.Conv2d
    conv = kind(c, c, size, padding=padding, dilation=dilation, bias=bias, groups=groups)
    return nn.utils.parametrizations.weight_norm(conv) if rng.random() < 0.08 else conv


def _part(rng: random.Random, c: int, depth: int, fixed: bool) -> nn.Module:
    def inside() -> nn.Module:
        return _stack(rng, c, depth - 1, fixed, rng.randint(1, 3))

    kinds = "conv conv act norm residual gated transposed functional down norms pad none keyed reached"
    kind = rng.choice([*kinds.split(), *["windows"] * 2 * fixed])
    if depth == 0 and kind in ("residual", "down", "reached"):
        kind = "conv"
    if kind == "conv":
        parts = [_conv(rng, c), *([_norm(rng, c)] if rng.random() < 0.4 else []), _act(rng)]
        return nn.Sequential(*parts) if rng.random() < 0.6 else parts[0]
    if kind == "norms":  # back to back, so that one's last turn of axes meets the next one's first
        return nn.Sequential(LayerNorm2d(c), LayerNorm2d(c), _act(rng), LayerNorm2d(c))
    if kind == "pad":
        pad = rng.choice([nn.ZeroPad2d, nn.ReflectionPad2d])(1)
        return nn.Sequential(nn.Sequential(_conv(rng, c), pad), nn.Conv2d(c, c, 3))
    make = {
        "act": lambda: _act(rng),
        "norm": lambda: _norm(rng, c),
        "residual": lambda: Residual(inside(), rng.choice([1.0, 0.1, 0.2])),
        "gated": lambda: GatedBlock(c),
        "transposed": lambda: Transposed(c),
        "functional": lambda: Functional(c, rng.choice(["relu", "gain", "shift", "half", "gate"])),
        "down": lambda: Down(c, inside(), rng.choice(["shuffle", "pool", "stride", "bilinear"])),
        "windows": lambda: Windows(c, rng.random() < 0.5, rng.random() < 0.5),
        "keyed": lambda: Keyed(c, _act(rng), _act(rng)),
        "reached": lambda: Reached(c, Keyed(c, _act(rng), _act(rng)) if rng.random() < 0.5 else inside()),
        "none": lambda: rng.choice([nn.Identity, nn.Dropout])(),
    }
    return make[kind]()


def _stack(rng: random.Random, c: int, depth: int, fixed: bool, count: int) -> nn.Sequential:
    return nn.Sequential(*(_part(rng, c, depth, fixed) for _ in range(count)))


class RandomNetwork(nn.Module):
    """A head, parts in a row that share one activation, and a tail.

    Arguments:
        seed: What decides everything.
        fixed: Whether parts may be used that are exported for one image size only.
    """

    def __init__(self, seed: int, fixed: bool) -> None:
        super().__init__()
        rng, c = random.Random(seed), 8
        self.head = nn.Conv2d(1, c, 3, padding=1)
        self.body = nn.ModuleList(_part(rng, c, 2, fixed) for _ in range(rng.randint(1, 5)))
        self.act = _act(rng)
        self.shared = rng.random() < 0.5
        self.joined = rng.random() < 0.3
        self.fuse = nn.Conv2d(2 * c, c, 1, bias=rng.random() < 0.5)
        self.tail = nn.Conv2d(c, 1, 3, padding=1)
        self.noise = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, H, W), denoised; H and W multiples of eight."""
        h = first = self.head(x)
        for part in self.body:
            h = part(h)
            if self.shared:
                h = self.act(h)
        if self.joined:
            h = self.fuse(torch.cat([first, h], 1))
        return x - self.tail(h) if self.noise else self.tail(self.act(h))


def random_network(seed: int, fixed: bool = False) -> nn.Module:
    """A network in eval mode with random weights and statistics, the same for the same seed.

    Arguments:
        seed: What decides everything.
        fixed: Whether parts may be used that are exported for one image size only.
    """
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(seed, Purpose.WORKLOAD))
        network = RandomNetwork(seed, fixed).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm):
                for name in ("weight", "bias", "running_mean", "running_var"):
                    value = getattr(module, name, None)
                    if value is not None:
                        value.data.uniform_(0.5, 2.0)
    return network
