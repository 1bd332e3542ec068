"""Small networks, each awkward in one way, for every test that observes layers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


class Plain(nn.Module):
    """Conv, ReLU, conv, with names like the trained denoisers'."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        return self.conv3(self.relu2(self.conv1(x)))


class InPlace(Plain):
    """An in-place ReLU overwrites what the convolution before it returned."""

    def __init__(self):
        super().__init__()
        self.relu2 = nn.ReLU(inplace=True)


class RedCnn(nn.Module):
    """One ReLU for all, ``out += residual`` after a layer, no padding on the way in."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 5)
        self.conv2 = nn.Conv2d(3, 3, 5)
        self.tconv1 = nn.ConvTranspose2d(3, 3, 5)
        self.tconv2 = nn.ConvTranspose2d(3, 1, 5)
        self.relu = nn.ReLU()

    def forward(self, x):
        residual = x.clone()
        out = self.relu(self.conv1(x))
        inner = out.clone()
        out = self.relu(self.conv2(out))
        out = self.tconv1(out)
        out += inner
        out = self.tconv2(self.relu(out))
        out += residual
        return self.relu(out)


class Twins(nn.Module):
    """The same object under two names, in a list and by attribute."""

    def __init__(self):
        super().__init__()
        conv, relu = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()
        self.body = nn.Sequential(conv, relu, nn.Conv2d(2, 1, 3, padding=1), relu)
        self.first = conv

    def forward(self, x):
        return self.body(x)


class TupleInside(nn.Module):
    """A layer that returns a tuple with a hole, one that returns a dict, one a 1-tuple."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x):
            h = self.conv(x)
            return h, None, h.mean((2, 3))

    class Named(nn.Module):
        def forward(self, h):
            return {"h": h * 2, "gate": (h, h.abs())}

    class Single(nn.Module):
        def forward(self, h):
            return (h.sum(1, keepdim=True),)

    @dataclass
    class Record:
        image: torch.Tensor
        size: int

    class Recorder(nn.Module):
        def forward(self, x):
            return TupleInside.Record(x + 1, 3)

    def __init__(self):
        super().__init__()
        self.pair = self.Pair()
        self.named = self.Named()
        self.single = self.Single()
        self.recorder = self.Recorder()

    def forward(self, x):
        h, _, pooled = self.pair(x)
        found = self.named(h * pooled[..., None, None])
        return self.recorder(self.single(found["h"])[0]).image


class TrainMode(nn.Module):
    """Batch norm and dropout, left in training mode, one part frozen in eval mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        self.train()
        self.frozen.eval()

    def forward(self, x):
        return self.last(self.drop(self.frozen(self.norm(self.conv(x)))))


class Valid(nn.Module):
    """No padding at all: the output lacks two pixels on each side."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 3)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Lopsided(nn.Module):
    """An even kernel: the output lacks one row and column, on one side."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 2)

    def forward(self, x):
        return self.conv(x)


class Multiple8(nn.Module):
    """A U-net with skips: height and width must be multiples of eight."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1 if i == 0 else 2, 2, 2, stride=2) for i in range(3)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2, 2, 2, stride=2) for _ in range(3)])
        self.last = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        for layer, skip in zip(self.up, reversed(skips), strict=True):
            x = layer(x + skip)
        return self.last(x)


class Blocky4(nn.Module):
    """Works on any size, but returns whole blocks of four pixels only."""

    def forward(self, x):
        return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4)


class WeightNorm(nn.Module):
    """A parametrised convolution and a monkey-patched forward."""

    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 3, 3, padding=1))
        self.last = nn.Conv2d(3, 1, 3, padding=1)
        original = self.last.forward
        self.last.forward = lambda x: original(x) * 0.5

    def forward(self, x):
        return self.last(F.relu(self.conv(x)))


class NoParameters(nn.Module):
    """A mean filter: nothing to tell a device or a type from."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x):
        return self.pool(x)


class PlainTensors(nn.Module):
    """Constants and counters outside buffers, changed by forward; a buffer changed in place."""

    def __init__(self):
        super().__init__()
        self.mean = torch.full((1, 1, 1, 1), 0.25)
        self.calls = 0
        self.seen = []
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.mean = self.mean.type_as(x) * 1.0
        self.calls += 1
        self.seen.append(tuple(x.shape))
        self.count += 1
        return self.conv(x - self.mean) + self.mean


class EditsWeights(nn.Module):
    """Clamps its weights in every forward pass, past autograd's eyes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        self.conv.weight.data *= 0.5
        return self.conv(x)


class Branching(nn.Module):
    """Which layer runs depends on the image."""

    def __init__(self):
        super().__init__()
        self.bright = nn.Conv2d(1, 1, 3, padding=1)
        self.dark = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.bright(x) if x.mean() > 0 else self.dark(x)


class Functional(nn.Module):
    """Subtraction, concatenation and pixel shuffle outside any module; a dead layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 2, 3, padding=1)
        self.dead = nn.Conv2d(1, 1, 1)
        self.tail = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        n = self.tail(torch.cat((x, F.relu(self.head(x))), 1))
        return x - n


class Tokens(nn.Module):
    """Pixels as tokens (B, N, C), with a learned position that no image touches."""

    class Position(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(1, 1, 4))

        def forward(self, tokens):
            return self.table.expand(1, tokens.shape[1], 4)

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(1, 4, 1)
        self.position = self.Position()
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        self.back = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        size = x.shape[-2:]
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = self.mix(self.norm(tokens + self.position(tokens)))
        return self.back(tokens.transpose(1, 2).unflatten(2, size))


class NoiseLevel(nn.Module):
    """FFDNet's way: a second input, the noise level, spread over a map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x, sigma):
        level = sigma.repeat(1, 1, x.shape[-2], x.shape[-1])
        return self.conv(torch.cat((x, level), 1))


class Colour(nn.Module):
    """A denoiser of colour photographs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


class Half(Plain):
    """Weights in bfloat16."""

    def __init__(self):
        super().__init__()
        self.bfloat16()


class ManyOutputs(Plain):
    """The network itself returns an image and something else."""

    def forward(self, x):
        h = self.conv1(x)
        return {"image": self.conv3(self.relu2(h)), "aux": h}


TOYS: dict[str, Callable[[], nn.Module]] = {
    cls.__name__: cls
    for cls in (
        Plain,
        InPlace,
        RedCnn,
        Twins,
        TupleInside,
        TrainMode,
        Valid,
        Multiple8,
        WeightNorm,
        NoParameters,
        PlainTensors,
        EditsWeights,
        Branching,
        Functional,
        Tokens,
        Half,
    )
}
"""Networks that need no option to be wrapped; every one must obey the laws."""


def make(name: str, seed: int = 0) -> nn.Module:
    """A toy with reproducible weights (batch norm with unlike statistics)."""
    torch.manual_seed(seed)
    module = TOYS[name]()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2.0)
    return module
