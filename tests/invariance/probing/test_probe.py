"""Lesion probes: closed forms of the observer, networks of known blindness, refusals."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ctinv import adapters, invariance
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.explaining.explainer import Explainer
from ctinv.invariance.networks.fitted import build_networks
from ctinv.invariance.networks.pretrained import shipped_vae
from ctinv.invariance.presets import preset
from ctinv.invariance.probing.hotelling import Hotelling, cross_fit
from ctinv.invariance.probing.lesions import (
    Lesion,
    LesionGrid,
    calm_place,
    lesion_signal,
    nearest_place,
    place_lesion,
)
from ctinv.invariance.probing.recovery import score
from ctinv.invariance.probing.report import probe_html, save
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.reader import represent
from scipy.ndimage import gaussian_filter
from torch import nn


def _truth_build_networks():
    path = Path(__file__).parents[3] / "benchmarks" / "truth_networks.py"
    spec = importlib.util.spec_from_file_location("truth_networks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truth = _truth_build_networks()


def body(seed=0, noise=12.0, side=128):
    """Tissue of 60 HU in air, with noise."""
    inside = np.hypot(*(np.indices((side, side)) - side / 2)) < 0.42 * side
    texture = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 0.7)
    return np.where(inside, 60 + noise * texture / texture.std(), -1000).astype(np.float32)


def look(net, layer, x=None, lesion=None, **options):
    options = {"realisations": 32, "spacing": (1.0, 1.0), **options}
    denoiser = adapters.wrap(net, intensity="hu")
    return invariance.probe(denoiser, layer, body() if x is None else x, lesion or Lesion(6, -15), **options)


# -- lesions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.8, 0.8), (1.0, 0.6)])
@pytest.mark.parametrize(("size", "contrast"), [(4.0, -15.0), (9.0, 40.0)])
def test_a_lesion_has_the_size_and_contrast_asked_for(size, contrast, spacing):
    signal = lesion_signal((64, 64), Lesion(size, contrast), (30, 32), spacing)
    area = float(signal.sum()) / contrast * spacing[0] * spacing[1]
    assert area == pytest.approx(np.pi / 4 * size**2, rel=0.02)
    rows, columns = np.indices(signal.shape)
    assert (signal * rows).sum() / signal.sum() == pytest.approx(32, abs=1e-3)
    assert (signal * columns).sum() / signal.sum() == pytest.approx(30, abs=1e-3)
    assert np.abs(signal).max() <= abs(contrast) * 1.001


def test_a_lesion_is_placed_in_the_calmest_tissue_each_time():
    x = np.full((96, 96), -1000.0, np.float32)
    x[8:88, 8:88] = 60 + 40 * np.sin(np.arange(80) / 3)
    x[40:80, 40:80] = 55
    place = calm_place(x, 6.0, (1.0, 1.0))
    assert place == calm_place(x.copy(), 6.0, (1.0, 1.0))
    assert all(46 <= p <= 73 for p in place)


@pytest.mark.parametrize("margin", [0, 20, 30])
def test_a_place_has_the_slice_around_it_that_is_asked_for(margin):
    x = 60 + 40 * np.sin(np.arange(80)[:, None] / 3 + np.zeros(80)).astype(np.float32)
    x[2:30, 30:50] = 55  # the calmest tissue lies at the top
    column, row = calm_place(x, 6.0, (1.0, 1.0), margin=margin)
    assert margin <= row < 80 - margin
    assert margin <= column < 80 - margin
    assert (row < 30) == (margin < 30)


def test_a_slice_without_room_for_the_margin_is_refused():
    x = np.full((40, 60), 50, np.float32)
    with pytest.raises(ImageError, match="with 20 pixels of slice around it; give a larger slice"):
        nearest_place(x, 6.0, (1.0, 1.0), margin=20)


REFUSED = {
    "outside the body": (lambda: place_lesion(body(), Lesion(6, -15, (3, 3)), (1, 1)), "outside the body"),
    "outside the slice": (
        lambda: place_lesion(body(), Lesion(6, -15, (3, 900)), (1, 1)),
        "outside the slice",
    ),
    "nothing homogeneous": (lambda: calm_place(body() - 500, 6.0, (1, 1)), "homogeneous"),
    "smaller than two pixels": (
        lambda: lesion_signal((9, 9), Lesion(1.0, 5), (4, 4), (0.8, 0.8)),
        "at least 1.6 mm",
    ),
    "no size": (lambda: Lesion(0.0, -15), "size"),
    "no contrast": (lambda: Lesion(5.0, 0.0), "HU"),
    "a word for a size": (lambda: Lesion.parse("size=big"), "'big'"),
    "an unknown key": (lambda: Lesion.parse("diameter=6"), "size=6mm"),
    "a place that is none": (lambda: Lesion.parse("at=middle"), "column:row"),
    "a grid without contrasts": (lambda: LesionGrid.parse("sizes=2:4"), "contrasts"),
    "a slice without noise": (lambda: look(truth.KeepsAll(), "blur", body(noise=0.0)), "noise"),
    "few realisations": (lambda: look(truth.KeepsAll(), "blur", realisations=4), "16 or more"),
    "a level of nothing": (lambda: look(truth.KeepsAll(), "blur", level=0.0), "positive"),
    "an unknown layer": (lambda: look(truth.KeepsAll(), "blurr"), "blur"),
    "two dimensions too many": (lambda: look(truth.KeepsAll(), "blur", body()[None, None]), "one slice"),
    "a slice too small": (
        lambda: look(truth.KeepsAll(), "blur", body(side=40), Lesion(22, -15, (20, 20))),
        "no room",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_probe_is_refused(case):
    call, said = REFUSED[case]
    with pytest.raises(CtinvError, match=said):
        call()


# -- the observer, against closed forms ---------------------------------------------------------------

SIGNAL = torch.from_numpy(lesion_signal((16, 16), Lesion(5, 1.0), (8, 8), (1, 1)))[None]


def circular(kernels):
    """A linear layer: circular convolutions (C, 16, 16) of the image."""
    spectra = torch.fft.fft2(kernels)
    return lambda x: torch.fft.ifft2(torch.fft.fft2(x) * spectra).real


def kernels(count, seed=0):
    made = torch.zeros(count, 16, 16)
    made[:, :3, :3] = torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed))
    return made


def low_pass():
    """An orthogonal projection onto the coarse half of all frequencies."""
    f = torch.fft.fftfreq(16)
    return torch.fft.ifft2(((f[:, None] ** 2 + f**2).sqrt() < 0.2).float()).real[None]


def d_prime(phi, coloured=None, n=600, sigma=0.6, seed=0):
    noise = sigma * torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    if coloured is not None:
        noise = torch.fft.ifft2(torch.fft.fft2(noise) * coloured).real
    return cross_fit(phi(noise), phi(noise + SIGNAL))


LAYERS = {  # a layer, and what of the signal is left of it for white noise
    "identity": (lambda x: x, SIGNAL),
    "invertible": (circular(kernels(1)), SIGNAL),
    "redundant": (circular(kernels(6)), SIGNAL),
    "more channels than are used": (circular(kernels(80)), SIGNAL),
    "projection": (circular(low_pass()), circular(low_pass())(SIGNAL[None])[0]),
    "projection seen through filters": (
        lambda x: circular(kernels(4))(circular(low_pass())(x)),
        circular(low_pass())(SIGNAL[None])[0],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_white_noise_gives_the_signals_norm_over_sigma(name):
    phi, left = LAYERS[name]
    found = d_prime(phi)
    wanted = float(left.norm()) / 0.6
    assert found.value == pytest.approx(wanted, abs=3.5 * found.error + 0.03 * wanted)
    assert found.error < 0.05 * wanted


def test_coloured_noise_is_prewhitened():
    f = torch.fft.fftfreq(16)
    shape = 0.3 + 3 * (f[:, None] ** 2 + f**2).sqrt()
    found = d_prime(lambda x: x, shape)
    power = torch.fft.fft2(SIGNAL[0]).abs().square() / (0.36 * 256 * shape**2)
    ideal = float(power.sum().sqrt())
    plain = float(SIGNAL.square().sum()) / float(
        (torch.fft.fft2(SIGNAL[0]).abs().square() * 0.36 * shape**2).mean().sqrt()
    )
    assert ideal > 1.1 * plain
    assert found.value == pytest.approx(ideal, abs=3.5 * found.error + 0.03 * ideal)


@pytest.mark.parametrize("seed", range(3))
def test_a_blind_layer_is_not_credited_with_chance(seed):
    """Its noise changes with the lesion, but never its mean."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(64, 8, 16, 16, generator=generator) for _ in range(2)]
    found = cross_fit(*maps)
    assert abs(found.value) < 4 * found.error
    assert found.error < 0.5


def test_a_constant_layer_tells_nothing():
    found = cross_fit(torch.ones(32, 4, 8, 8), torch.ones(32, 4, 8, 8))
    assert (found.value, found.error) == (0.0, 0.0)


def test_observers_are_used_again_without_change():
    noise = torch.randn(64, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    known: list[Hotelling] = []
    cross_fit(noise, noise + SIGNAL, known)
    assert len(known) == 2
    assert cross_fit(noise, noise + 2 * SIGNAL, known) == cross_fit(noise, noise + 2 * SIGNAL)


# -- networks of known blindness ----------------------------------------------------------------------


class Scaled(nn.Module):
    """The image in other units; half of it is put out; one average for all."""

    def __init__(self):
        super().__init__()
        self.same, self.right, self.none = nn.Identity(), nn.Identity(), nn.Identity()
        self.centred, self.vector = nn.Identity(), nn.Identity()

    def forward(self, x):
        self.same(3 * x - 50)
        self.right(torch.where(torch.arange(x.shape[-1]) < 64, x, 0 * x))
        self.none(torch.zeros_like(x))
        self.vector(x.mean((2, 3)))
        return x + 0 * self.centred(x - x.mean((2, 3), keepdim=True))


def test_layers_of_one_network():
    names = ["same", "right", "none", "vector", "centred"]
    grid = LesionGrid((4.0, 8.0), (-30.0,))
    found = look(Scaled(), names, lesion=Lesion(6, -30, (90, 64)), grid=grid)
    same, right, none, vector, centred = found
    image = same.finding.image.value
    assert image > 3
    assert same.finding.layer.value == pytest.approx(image, rel=1e-3)
    assert same.finding.efficiency == pytest.approx(1, rel=1e-3)
    assert centred.finding.layer.value == pytest.approx(image, rel=0.05)
    for blind in (right, none):
        assert blind.finding.layer.value == 0
        assert (blind.shift.local, blind.shift.whole) == (0, 0)
        assert blind.finding.says() == "lost"
        assert blind.thresholds("layer") == [None]
        assert "Lost" in blind.verdict[0]
    assert abs(vector.finding.layer.value) < image
    # What averages over the slice must be shown all of it.
    assert "whole" in same.meta["shown"]
    for p in found:
        json.dumps(p.result, allow_nan=False)
        assert p.finding.image == same.finding.image


@pytest.mark.parametrize("seed", [0, 1])
def test_the_size_from_which_small_dark_lesions_are_seen_is_found(seed):
    net = truth.DropsSmallDark()
    grid = LesionGrid((4.0, 6.0, 8.0, 10.0, 12.0), (-20.0,))
    x = body(seed, noise=20.0)
    found = look(net, "narrow", x, Lesion(6, -20), grid=grid, realisations=64, seed=seed)
    (size,), (own,) = found.thresholds("layer"), found.thresholds("image")
    assert abs(size - net.diameter) <= 2.0
    assert own < size
    assert found.finding.says() == "lost"
    assert any(f"from {size:g} mm" in line for line in found.verdict)
    kept = look(truth.KeepsAll(), "blur", x, Lesion(6, -20), grid=grid, realisations=64, seed=seed)
    assert kept.finding.says() == "visible"
    (size,), (own,) = kept.thresholds("layer"), kept.thresholds("image")
    assert abs(size - own) <= 2.0, "a step of the grid, as both come from few realisations"
    assert kept.finding.efficiency == pytest.approx(1, abs=0.1)


def test_a_probe_depends_on_nothing_but_its_seed():
    first, again, other = (look(truth.KeepsAll(), "blur", seed=s) for s in (3, 3, 4))
    assert first.result["figures"] == again.result["figures"]
    assert first.finding.layer.value != other.finding.layer.value
    assert first.finding.layer.value == pytest.approx(other.finding.layer.value, rel=0.5)


def test_a_crop_says_what_the_whole_slice_says(monkeypatch):
    crop = look(truth.KeepsAll(), "blur")
    monkeypatch.setattr("ctinv.invariance.probing.observation._MARGINS", ())
    whole = look(truth.KeepsAll(), "blur")
    assert ("crop" in crop.meta["shown"], "whole" in whole.meta["shown"]) == (True, True)
    assert crop.finding.layer.value == pytest.approx(whole.finding.layer.value, rel=1e-3)


def test_spacing_that_is_not_known_is_assumed_and_told():
    found = look(truth.KeepsAll(), "blur", spacing=None)
    assert (found.result["spacing"], found.result["spacing_known"]) == ([0.8, 0.8], False)


# -- samples ------------------------------------------------------------------------------------------


def explainer(net, layer):
    """Not fitted: what it draws has nothing to do with the image, which refinement must mend."""
    torch.manual_seed(3)
    chosen = preset("tiny")
    denoiser = adapters.wrap(net, intensity="hu")
    blank = np.zeros((64, 64), np.float32)
    z = represent(denoiser, layer, blank[None, None])
    geometry = probe_geometry(z, (64, 64), chosen.vae.patch)
    flow, embedder = build_networks(chosen, geometry, 0, torch.Generator().manual_seed(0))
    embedder.initialise(100 * torch.randn(4, *z.shape[1:]))
    return Explainer(denoiser, layer, chosen, shipped_vae(chosen.vae), flow.eval(), embedder.eval(), geometry)


@pytest.mark.parametrize(("layer", "kept"), [("seen", True), ("unseen", False)])
def test_samples_keep_what_the_layer_sees_and_lose_what_it_does_not(layer, kept):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.unseen = nn.Identity(), nn.Identity()

        def forward(self, x):
            self.unseen(torch.where(torch.arange(x.shape[-1]) < x.shape[-1] - 40, 0 * x, x))
            return self.seen(x + 0)

    fitted = explainer(Half(), layer)
    lesion = Lesion(6, -40, (64, 64))
    found = invariance.probe(
        fitted.denoiser,
        layer,
        body(),
        lesion,
        realisations=16,
        spacing=(1.0, 1.0),
        explainers={layer: fitted},
        samples=4,
    ).recovery
    assert found.contrast == -40
    assert found.flow.n == 4
    if kept:
        assert found.refined.mean == pytest.approx(-40, abs=2)
        assert "keep it" in found.sentence(layer)
    else:
        assert abs(found.flow.mean) < 1e-3  # the same draws, with the lesion and without it
        assert found.refined.mean > -20 or found.refined.mean < -60


@pytest.mark.parametrize("level", [0.0, 70.0])
def test_contrast_is_measured_over_level_and_slope(level):
    disc = lesion_signal((24, 24), Lesion(6, 1.0), (12, 12), (1, 1))
    rows, columns = np.indices(disc.shape)
    images = np.stack([level + 0.5 * rows - columns + c * disc for c in (-15.0, 0.0, 8.0)])
    assert score(images, disc) == pytest.approx([-15, 0, 8], abs=1e-4)


# -- files --------------------------------------------------------------------------------------------


def test_files_are_whole_and_selfcontained(tmp_path):
    found = look(truth.KeepsAll(), "blur", grid=LesionGrid((4.0, 8.0), (-15.0, 30.0)))
    paths = save(found, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"figure.png", "report.html", "result.json"}
    stored = json.loads(paths["result.json"].read_text(encoding="utf-8"))
    assert stored["kind"] == "probe"
    assert np.array(stored["grid"]["detectability"]["layer"]).shape == (2, 2)
    assert paths["figure.png"].read_bytes().startswith(b"\x89PNG")
    text = probe_html([found, found])
    assert "http" not in text.replace("http-equiv", "")
    assert all(line.split("(")[0].strip() in text.replace("&#39;", "'") for line in found.verdict)


def test_errors_are_the_users():
    with pytest.raises(ImageError):
        place_lesion(body(), Lesion(6, -15, (0, 0)), (1, 1))
