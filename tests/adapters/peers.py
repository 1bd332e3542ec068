"""Denoisers of other projects, from their own packages with random weights, or with published ones.

Only the modules that hold the networks are imported: their packages' fronts would bring in training
code and libraries that no network needs. Absent packages make the tests skip, and say so.
"""

import contextlib
import importlib
import importlib.util
import sys
import types
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


class Blur(nn.Module):
    """Stands in for torchvision's GaussianBlur, which is the same fixed convolution."""

    def __init__(self, kernel_size: int, sigma: float):
        super().__init__()
        self.half = kernel_size // 2
        taps = torch.exp(-0.5 * (torch.arange(-self.half, self.half + 1) / sigma) ** 2)
        self.kernel = torch.outer(taps, taps)[None, None] / taps.sum() ** 2

    def forward(self, x):
        return F.conv2d(F.pad(x, [self.half] * 4, mode="reflect"), self.kernel)


@contextlib.contextmanager
def _shells(*names: str) -> Iterator[None]:
    """Packages whose front is not run; torchvision too where it is absent."""
    made: dict[str, types.ModuleType] = {}
    for name in names:
        if name not in sys.modules:
            folder = importlib.util.find_spec(names[0]).submodule_search_locations[0]
            made[name] = types.ModuleType(name)
            made[name].__path__ = ["/".join([folder, *name.split(".")[1:]])]
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms"):
            made[name] = types.ModuleType(name)
            made[name].GaussianBlur = Blur
            made[name].__getattr__ = lambda name: object  # imported beside it, not used by networks
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:  # what was imported stays, shells do not
            del sys.modules[name]


def _network(package: str, module: str, name: str, *shells: str) -> type[nn.Module]:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (pip install ctinv[peers])")
    with _shells(*shells):
        return getattr(importlib.import_module(module), name)


def _ldct(method: str, **options) -> Callable[[], nn.Module]:
    def make():
        network = _network("ldctbench", f"ldctbench.methods.{method}.network", "Model")
        return network(Namespace(), **options)

    return make


def _deepinv(module: str, name: str, **options) -> Callable[[], nn.Module]:
    def make():
        shells = ("deepinv", "deepinv.models", "deepinv.utils")
        return _network("deepinv", f"deepinv.models.{module}", name, *shells)(pretrained=None, **options)

    return make


def _kair():
    """DnCNN as its trained weights are laid out; the noise is subtracted inside."""
    weights = SHARED / "models" / "cszn_KAIR_dncnn_25.pth"
    if not weights.exists():
        pytest.skip("no shared data beside the repository")

    class DnCnn(nn.Module):
        def __init__(self):
            super().__init__()
            inner = [part for _ in range(15) for part in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
            ends = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 1, 3, padding=1)
            self.model = nn.Sequential(ends[0], nn.ReLU(), *inner, ends[1])

        def forward(self, x):
            return x - self.model(x)

    module = DnCnn()
    module.load_state_dict(torch.load(weights, weights_only=True))
    return module


@dataclass(frozen=True)
class Peer:
    """One network.

    Arguments:
        make: Makes it.
        size: Height and width of images that it takes.
        feed: What else it is fed.
        heavy: Whether it is tried in the long form only.
        like: Whether its graph has nothing that other peers' lack.
    """

    make: Callable[[], nn.Module]
    size: tuple[int, int] = (32, 40)
    feed: dict[str, float] = field(default_factory=dict)
    heavy: bool = False
    like: bool = False


PEERS = {
    "kair dncnn": Peer(_kair, like=True),
    "cnn10": Peer(_ldct("cnn10"), like=True),
    "redcnn": Peer(_ldct("redcnn")),
    "wganvgg": Peer(_ldct("wganvgg"), like=True),
    "dugan": Peer(_ldct("dugan"), like=True),
    "qae": Peer(_ldct("qae")),
    "resnet": Peer(_ldct("resnet", n_blocks=2)),
    "transct": Peer(_ldct("transct"), size=(512, 512), heavy=True),
    "deepinv dncnn": Peer(_deepinv("dncnn", "DnCNN", in_channels=1, out_channels=1, depth=8), like=True),
    "deepinv drunet": Peer(
        _deepinv("drunet", "DRUNet", in_channels=1, out_channels=1, nc=(8, 16, 16, 32), nb=1),
        feed={"sigma": 0.05},
    ),
    "deepinv swinir": Peer(
        _deepinv("swinir", "SwinIR", img_size=32, in_chans=1, embed_dim=12, depths=(2, 2), num_heads=(2, 2))
    ),
}

# Exported for free sizes, it runs at no other than its own.
FIXED = {("deepinv swinir", "dynamo")}


def peer(name: str) -> nn.Module:
    """A peer's network with the same random weights every time."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        torch.manual_seed(0)
        return PEERS[name].make().eval()


class Fed(nn.Module):
    """A network whose further inputs are bound."""

    def __init__(self, net, feed):
        super().__init__()
        self.net, self.feed = net, feed

    def forward(self, x):
        return self.net(x, **self.feed)


def bound(name: str) -> nn.Module:
    """A peer's network that needs nothing but the image."""
    feed = PEERS[name].feed
    return Fed(peer(name), feed) if feed else peer(name)
