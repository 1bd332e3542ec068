"""The bench on denoisers whose transfer, noise and bias are known."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.invariance.data.phantoms.phantom import phantom
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.probing.quality.bench import bench_figures
from ctinv.invariance.probing.quality.bias import hu_bias
from torch import nn
from torch.nn import functional as F


class Known(nn.Module):
    """A Gaussian blur of 1 mm (0.8 mm pixels) that adds 3 HU."""

    def __init__(self):
        super().__init__()
        line = torch.exp(-0.5 * (torch.arange(-6, 7) / 1.25) ** 2)
        self.register_buffer("kernel", (line[:, None] * line / line.sum() ** 2)[None, None])

    def forward(self, x):
        return F.conv2d(F.pad(x, [6] * 4, mode="replicate"), self.kernel) + 3


@pytest.fixture(scope="module")
def found():
    denoiser = adapters.wrap(Known().eval(), intensity="hu")
    return bench_figures(denoiser, contrasts=(30.0,), doses=(1.0,), realisations=12)


def test_the_transfer_of_a_blur_is_found_through_noise(found):
    (one,) = found.transfers
    frequency = one.output.frequency
    truth = np.exp(-2 * (np.pi * 1.0 * frequency) ** 2)
    used = truth > 0.15
    assert one.output.value[used] / one.image.value[used] == pytest.approx(truth[used], abs=0.02)
    assert one.output.contrast == pytest.approx(30, rel=0.02)


@pytest.mark.parametrize("where", ["uniform", "patient"])
def test_noise_falls_and_grows_coarser(found, where):
    image, output = getattr(found, where)
    assert output.magnitude < 0.7 * image.magnitude
    assert output.mean < image.mean
    for one in (image, output):
        assert one.power.integral == pytest.approx(one.magnitude**2, rel=0.01)


def test_what_a_denoiser_adds_is_its_bias(found):
    """That of the phantom without noise, blurred and brightened."""
    truth = phantom(rng(0, Purpose.PHANTOM, 0), 256, kind="abdomen", lesions=0).hu
    blurred = Known()(torch.from_numpy(truth)[None, None])[0].numpy()
    wanted = {b.tissue: b.value for b in hu_bias(blurred, truth)}
    assert {b.tissue for b in found.bias} == set(wanted)
    for one in found.bias:
        assert one.value == pytest.approx(wanted[one.tissue], abs=0.5 + 4 * one.error)
    names = [row["figure"] for row in found.rows()]
    assert len(names) == len(set(names)) == 2 + 8 + len(found.bias)
