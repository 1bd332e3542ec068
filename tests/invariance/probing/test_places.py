"""Which lesions count as lost, and where they are put where the slice has little room."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from ctinv import adapters, invariance
from ctinv.invariance.probing.lesions import Lesion, LesionGrid
from scipy.ndimage import gaussian_filter
from torch import nn


def load(name):
    path = Path(__file__).parents[3] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truth = load("truth_networks")


def body(seed=0, noise=12.0, side=128):
    """Tissue of 60 HU in air, with noise."""
    inside = np.hypot(*(np.indices((side, side)) - side / 2)) < 0.42 * side
    texture = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 0.7)
    return np.where(inside, 60 + noise * texture / texture.std(), -1000).astype(np.float32)


def look(net, layer, x, lesion, **options):
    options = {"realisations": 32, "spacing": (1.0, 1.0), **options}
    denoiser = adapters.wrap(net.eval(), intensity="hu")
    return invariance.probe(denoiser, layer, x, lesion, **options)


@pytest.mark.parametrize("noise", [10.0, 15.0])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3, 4))])
def test_traces_of_a_lesion_do_not_pass_for_it(seed, noise):
    """With little noise even what is left of a filled lesion exceeds any d'."""
    net = truth.DropsSmallDark()
    grid = LesionGrid((4.0, 6.0, 8.0, 10.0, 12.0), (-20.0,))
    options = {"grid": grid, "realisations": 64, "seed": seed}
    found = look(net, "narrow", body(seed, noise=noise), Lesion(6, -20), **options)
    (size,), (own,) = found.thresholds("layer"), found.thresholds("image")
    assert abs(size - net.diameter) <= 2.0
    assert own == 4.0
    kept = look(truth.KeepsAll(), "blur", body(seed, noise=noise), Lesion(6, -20), **options)
    assert kept.thresholds("layer") == [4.0]


class Edges(nn.Module):
    """A layer that shows edges only: the larger a lesion, the less of its change is left."""

    def __init__(self):
        super().__init__()
        self.edges = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        with torch.no_grad():
            self.edges.weight[:] = torch.tensor(
                [[[0, 0, 0], [-1.0, 1, 0], [0, 0, 0]], [[0, -1, 0], [0, 1, 0], [0, 0, 0]]]
            )[:, None]

    def forward(self, x):
        return x + 0 * self.edges(x).sum(1, keepdim=True)


def test_a_layer_of_edges_keeps_its_lesions():
    found = look(
        Edges(), "edges", body(noise=8.0), Lesion(6, -20), grid=LesionGrid((4.0, 8.0, 12.0), (-20.0,))
    )
    assert found.thresholds("layer") == found.thresholds("image")


def narrow_body(width):
    """Soft tissue in a band of so many pixels, in air."""
    x = np.full((96, 96), -1000.0, np.float32)
    x[48 - width // 2 : 48 + width // 2, 8:88] = 60 + np.random.default_rng(0).normal(
        0, 5, (width // 2 * 2, 80)
    )
    return x


def test_a_lesion_without_room_is_put_where_the_nearest_fits():
    roomy = look(truth.KeepsAll(), "blur", body(), Lesion(6, -30))
    assert not roomy.meta.notices
    for width, told in ((20, "one of 6 mm with 2.5 mm"), (12, "one of 5 mm with 0 mm")):
        found = look(
            truth.KeepsAll(),
            "blur",
            narrow_body(width),
            Lesion(6, -30),
            grid=LesionGrid((3.0, 6.0), (-30.0,)),
        )
        (notice,) = found.meta.notices
        assert told in notice
        assert f"column {found.finding.lesion.at[0]}" in notice
        assert f"{found.finding.lesion.size:g} mm with" in notice
        assert abs(found.finding.lesion.at[1] - 47.5) <= 4
    assert found.grid.sizes == (3.0,)
    assert np.abs(found.signal[narrow_body(12) < -500]).max() < 5
