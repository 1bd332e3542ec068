"""What exports of other projects' denoisers keep: names of all convolutions, and PyTorch twins.

That every layer reads true is told in test_adapters_laws.
"""

import numpy as np
import pytest
import torch
from torch import nn

from .laws import captured, image
from .peers import FIXED, PEERS, bound

UNITS = "unit:-1024:3072"
# One size only, or one image at a time: nothing that PyTorch could be given other images with.
NO_TWIN = {"transct", "deepinv swinir"}


def cases():
    """Each exporter with each peer; what takes long, or is like another, in the long form only."""
    for kind in ("legacy", "dynamo"):
        for name, about in PEERS.items():
            long = kind == "dynamo" or about.heavy or about.like
            yield pytest.param(kind, name, marks=pytest.mark.slow if long else ())


@pytest.mark.parametrize(("kind", "name"), list(cases()))
def test_exports_keep_names_and_have_twins(kind, name, exported, open_onnx):
    about, net = PEERS[name], bound(name)
    free = not (about.heavy or (name, kind) in FIXED)
    denoiser = open_onnx(exported(net, name, kind, (1, 1, *about.size), free), intensity=UNITS)
    x = image(1 if about.heavy else 2, *about.size)
    expected = captured(net, denoiser.intensity.to_model(torch.from_numpy(x)))
    layers = [layer for layer in denoiser.layers if layer.tappable]
    named = [layer.name for layer in layers if layer.name in expected]
    convolutions = {key for key, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    lost = {key.partition("@")[0] for key in expected} & convolutions - {n.partition("@")[0] for n in named}
    # A convolution that batch normalisation was folded into bears another name, or the normalisation's.
    every = {key for layer in layers for key in (layer.name, *layer.aliases)}
    after = {key: ".".join([*key.split(".")[:-1], str(int(key.split(".")[-1]) + 1)]) for key in lost}
    assert all(f"{key}+bn" in every or after[key] in every for key in lost), lost
    for layer in (named[0], named[-1]):
        twin = denoiser.twin(layer)
        assert (twin is None) == (name in NO_TWIN), layer
        if twin is not None:
            want = expected[layer].numpy()
            assert np.abs(twin[0].features(x, twin[1]) - want).max() <= 2e-5 * np.abs(want).max() + 1e-7
