"""A network of the zoo says where the noise is not of the kind that it is for."""

import importlib.util
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from ctinv.cli.models import ModelSpec, open_model, settle_units
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.noise_level import noise_texture, soft_noise
from ctinv.invariance.data.simulation.dose import KERNELS, simulate_low_dose
from ctinv.zoo.registry import card, find, names, unlike_training
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "ct" / "tcga"


def noisy(width, seed=0, size=96):
    """Water with Gaussian noise of 10 HU, filtered to this width in pixels."""
    noise = np.random.default_rng(seed).normal(0, 1, (size, size))
    if width:
        noise = ndimage.gaussian_filter(noise, width)
    return (10 * noise / noise.std()).astype(np.float32)


def test_texture_falls_with_smoothness_and_forgets_strength():
    found = [noise_texture(noisy(width)) for width in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found, reverse=True)
    assert noise_texture(7 * noisy(0.5)) == pytest.approx(noise_texture(noisy(0.5)), rel=0.2)
    assert noise_texture(np.full((96, 96), -1000.0, np.float32)) is None


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_noise_is_measured(strength):
    assert soft_noise(strength * noisy(0.0)) == pytest.approx(10 * strength, rel=0.1)


def scanned(kernel, seed=0, size=160, step=0.7):
    """A water cylinder at a quarter of the dose, reconstructed with a kernel of the simulator."""
    rows, columns = np.indices((size, size)) - size / 2
    hu = np.where(np.hypot(rows, columns) < 0.45 * size, 40.0, -1000.0).astype(np.float32)
    options = {"kernel": kernel, "input_dose": math.inf, "reference_fluence": 1e5}
    return simulate_low_dose(hu, (step, step), 0.25, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", names())
def test_it_is_told_for_exactly_the_kernels_that_the_network_is_not_for(name, kernel, seed):
    assert bool(unlike_training(name, scanned(kernel, seed))) is (kernel not in find(name).serves)


def scores(name):
    """Kernel class to slices, the interval of what the network does beyond the best blur, and slices told."""
    rows = re.findall(
        r"^\| (body|medium|sharp|lung and bone, as acquired) \|(.*)\|$", card(name), re.MULTILINE
    )
    found = {}
    for kernel, rest in rows:
        cells = [cell.strip() for cell in rest.split("|")]
        low, high = (float(v) for v in re.search(r"\[(-?[\d.]+), (-?[\d.]+)\]", cells[4]).groups())
        told, count = (int(v) for v in cells[5].split(" of "))
        found[kernel] = (low, high, told, count)
    return found


@pytest.mark.parametrize("name", names())
def test_the_card_claims_what_was_measured(name):
    """A network is for the kernels with which it certainly beats the blur; the others' slices are told."""
    found = scores(name)
    assert set(found) == {"body", "medium", "sharp", "lung and bone, as acquired"}
    for kernel, (low, high, told, count) in found.items():
        simulated = {"body": "smooth"}.get(kernel, kernel)
        assert (low > 0) is (simulated in find(name).serves), kernel
        assert low < high
        assert (told > count / 2) is (low <= 0), kernel


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared CT slices are not there")
def test_figures_by_kernel_come_out_again():
    """On one noise realisation, the body class of the benchmark."""
    spec = importlib.util.spec_from_file_location("kernels", ROOT / "benchmarks" / "kernels.py")
    kernels = importlib.util.module_from_spec(spec)
    sys.modules["kernels"] = kernels
    spec.loader.exec_module(kernels)
    held, acquired = kernels.held_out(SHARED)
    assert (len(held), len({p for _, p in held}), len(acquired)) == (9, 7, 4)
    for row in kernels.rows("body", list(kernels.pairs_of("body", held, 1, 0))):
        low, high, *_ = scores(row.network)["body"]
        assert low < 100 * row.gain < high
        assert row.network_lower > {"chen": 0.35, "yang": 0.29}[row.network]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("width", "told"), [(0.0, True), (0.75, False), (3.0, True)])
def test_noise_of_another_kind_is_told(name, width, told):
    note = unlike_training(name, noisy(width))
    assert bool(note) is told
    assert not told or ("finer" if width == 0.0 else "coarser") in note


def test_the_command_line_tells_it():
    image = noisy(0.0)
    one = CTSlice(image, np.ones(image.shape, bool))
    denoiser = open_model(ModelSpec("chen", device="cpu"))
    settle_units(denoiser, ModelSpec("chen"), [one, one], None)
    assert [note for note in denoiser.notices if "is for" in note] == [unlike_training("chen", image)]
