"""The Jacobian's spectrum against closed forms, a dense matrix, leakage and refinement."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import ImageError
from ctinv.invariance.audit import leakage, matched_control
from ctinv.invariance.audit.spectrum import (
    change_spectrum,
    leading_gains,
    noise_gain,
    sample_blind,
    spectrum,
)
from ctinv.invariance.audit.window import Window, window
from ctinv.invariance.embed import MapEmbedder
from ctinv.invariance.observer import Linearised, Observer
from ctinv.invariance.refine import noise_change, refine
from torch import nn

SIZE = 16
GAINS = torch.from_numpy(np.geomspace(1e-3, 3, SIZE * SIZE).reshape(1, 1, SIZE, SIZE).astype(np.float32))


class Toy:
    """What an observer is to these functions, for any map of images."""

    def __init__(self, phi):
        self.phi = phi

    def __call__(self, x):
        with torch.no_grad():
            return self.phi(x)

    def linearise(self, x):
        return Linearised(self.phi, x)


def blind_half(x):
    seen = torch.ones_like(x)
    seen[..., x.shape[-1] // 2 :] = 0
    return 2 * x * seen


def stop_band(x):
    """Takes out frequencies of more than a quarter per pixel along the columns."""
    kept = (torch.fft.fftfreq(x.shape[-1]).abs() <= 0.25).to(x)
    return torch.fft.ifft2(torch.fft.fft2(x) * kept).real


STOPPED = float(np.mean(np.abs(np.fft.fftfreq(SIZE)) > 0.25))
LAYERS = {
    "identity": (lambda x: x, 0.0),
    "constant": (lambda x: 0 * x + 1, 1.0),
    "no gradient": (lambda x: torch.ones_like(x), 1.0),
    "blind half": (blind_half, 0.5),
    "stop band": (stop_band, STOPPED),
    "gains": (lambda x: GAINS * x, None),
}


def normal(spread, *shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0, spread, shape).astype(np.float32)


def image():
    return normal(100, SIZE, SIZE)


def noise(count=3):
    return normal(20, count, SIZE, SIZE)


def whole(name):
    toy = Toy(LAYERS[name][0])
    return toy, Window(toy.linearise, image(), (0, 0), SIZE)


@pytest.mark.parametrize("rho", [0.3, 0.01])
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "gains"])
def test_shares_in_closed_form(name, rho):
    share = LAYERS[name][1]
    _, look = whole(name)
    gain = noise_gain(look, noise())
    found = spectrum(look, gain, directions=16).below(rho)
    tolerance = 3 * np.sqrt(2 * share * (1 - share) / SIZE**2 / 16)  # the random directions' error
    assert found.value == pytest.approx(share, abs=tolerance + 1e-6)
    assert found.high - found.low < 1e-6
    assert spectrum(look, gain).hidden(rho) == pytest.approx(share * SIZE**2, abs=15)


@pytest.mark.parametrize("steps", [12, 40, SIZE * SIZE])
@pytest.mark.parametrize("rho", [1.0, 0.3, 0.1, 0.03])
def test_many_gains_lie_within_the_interval(rho, steps):
    _, look = whole("gains")
    found = spectrum(look, 1.0, directions=8, steps=steps).below(rho)
    truth = float((rho >= GAINS).float().mean())
    error = 4 * max(found.error, 1e-4)
    assert found.low - error <= truth <= found.high + error
    if steps > 12:
        assert found.value == pytest.approx(truth, abs=error + 0.5 * (found.high - found.low))


def test_more_steps_narrow_the_interval():
    _, look = whole("gains")
    widths = []
    for steps in (6, 24, 96):
        found = spectrum(look, 1.0, steps=steps).below(0.3)
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(2, 4, 1),
        nn.PixelShuffle(2),
    )
    denoiser = adapters.wrap(net, intensity="standard:0:100")
    layer = denoiser.layers[2].name
    embedder = MapEmbedder(2, (16, 16), 4, 4, 4)
    embedder.mean += 0.1
    embedder.std *= 0.5
    return Observer(denoiser, layer, embedder)


def test_a_network_against_its_dense_matrix(network):
    x = normal(100, 48, 48)
    look = window(network.linearise, x, (16, 20), 12, margin=12)
    dense = look.matrix()
    gain = noise_gain(look, normal(20, 8, 48, 48))
    truth = np.sqrt(np.maximum(np.linalg.eigvalsh(dense), 0)) / gain
    # Two outputs on a quarter of the pixels, the surroundings included: 128 numbers of 144 changes.
    assert (truth < 1e-3).mean() > 0.05
    rough, found = (spectrum(look, gain, directions=24, steps=steps) for steps in (40, 144))
    for rho in (2.0, 0.5, 0.1, 0.01):
        share, interval = found.below(rho), rough.below(rho)
        error = 4 * share.error
        assert share.value == pytest.approx((truth <= rho).mean(), abs=error + 0.01)
        assert interval.low - error <= (truth <= rho).mean() <= interval.high + error
    assert found.gain == pytest.approx(np.sqrt(np.mean(truth**2)), rel=0.1)
    np.testing.assert_allclose(leading_gains(look, gain, 4, rounds=8), truth[::-1][:4], rtol=1e-2)


def test_a_change_against_the_dense_matrix(network):
    x = normal(100, 48, 48)
    look = window(network.linearise, x, (16, 16), 12, margin=12)
    values, vectors = np.linalg.eigh(look.matrix())
    change = normal(5, 1, 48, 48).cumsum(1).cumsum(2)
    d = look.cut(change)[0].double().numpy()
    energy = (vectors.T @ d) ** 2 / (d**2).sum()
    found = change_spectrum(look, 0.7, change, steps=100)
    for rho in (1.0, 0.1, 0.01):
        truth = energy[np.sqrt(np.maximum(values, 0)) / 0.7 <= rho].sum()
        share = found.below(rho)
        assert share.low - 0.01 <= truth <= share.high + 0.01
        assert share.value == pytest.approx(truth, abs=0.02)
    moved = float(look.seen(look.cut(change)).norm())
    assert found.gain == pytest.approx(moved / np.linalg.norm(d) / 0.7, rel=1e-3)


@pytest.mark.parametrize("name", ["identity", "blind half", "stop band", "gains"])
def test_gains_agree_with_leakage(name):
    """For a linear layer, leakage is the change's gain over its control's."""
    toy, look = whole(name)
    x, change = image(), noise(1)
    control = matched_control(change[0], np.random.default_rng(4))[None]
    expected = change_spectrum(look, 1.0, change).gain / change_spectrum(look, 1.0, control).gain
    leaks = leakage(lambda im: toy(torch.from_numpy(im)[None, None]), x, x + change, np.random.default_rng(4))
    assert leaks[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["blind half", "stop band", "gains"])
def test_refined_changes_lie_in_the_hidden_directions(name):
    toy, look = whole(name)
    x, n, change = image(), noise(), noise(1)
    gain = noise_gain(look, n)
    refined = refine(toy, x, change, noise_change(toy, x, n), rho=0.01, rhos=(), steps=60).at(0.01)
    before, after = (change_spectrum(look, gain, c).below(0.1).value for c in (change, refined))
    assert after > 0.99
    assert after > before + 0.2
    assert np.linalg.norm(refined) ** 2 <= 1.05 * before * np.linalg.norm(change) ** 2


@pytest.mark.parametrize(("name", "left"), [("identity", 0.0), ("constant", 1.0), ("blind half", 0.5)])
def test_blind_samples_in_closed_form(name, left):
    toy, _ = whole(name)
    x, prior = image(), noise(4)
    moves = noise_change(toy, x, noise())
    found = sample_blind(toy, x, moves, prior, amplitude=50.0, rho=0.01)
    changes = found.at(0.01)
    assert np.sqrt(np.mean(changes**2)) == pytest.approx(50 * np.sqrt(left), abs=2.5)
    assert found.reached.max() <= 0.0102
    if name == "blind half":
        scaled = prior * (50 / np.sqrt(np.mean(prior**2)))
        np.testing.assert_allclose(changes[..., SIZE // 2 :], scaled[..., SIZE // 2 :], rtol=1e-3, atol=1e-3)
        assert np.abs(changes[..., : SIZE // 2]).max() < 5


def test_a_network_of_small_reach_is_shown_its_surroundings_only(network):
    x = normal(100, 96, 96)
    near, full = (Window(network.linearise, x, (40, 40), 8, margin=m) for m in (12, None))
    changes = torch.randn(3, 64)
    torch.testing.assert_close(near.gram(changes), full.gram(changes))
    chosen = window(network.linearise, x, (40, 40), 8, margin=12)
    assert chosen._x.shape[-1] < 48


def test_blindness_bound_to_a_place_is_shown_the_whole_slice():
    toy = Toy(blind_half)
    x = normal(100, 96, 96)
    look = window(toy.linearise, x, (8, 60), 8, margin=8)
    assert look._x.shape[-2:] == x.shape
    assert spectrum(look, 1.0).below(0.1).value == 1.0


@pytest.mark.parametrize(("corner", "size"), [((-1, 0), 4), ((0, 13), 4), ((0, 0), 17), ((0, 0), 0)])
def test_a_square_outside_the_slice_is_refused(corner, size):
    with pytest.raises(ImageError, match="within a slice"):
        Window(Toy(blind_half).linearise, image(), corner, size)


def test_a_change_of_nothing_is_hidden():
    _, look = whole("identity")
    found = change_spectrum(look, 1.0, np.zeros((1, SIZE, SIZE), np.float32))
    assert found.below(0.01).value == 1.0
    assert found.gain == 0.0


def test_the_seed_decides():
    _, look = whole("gains")
    assert spectrum(look, 1.0, seed=3).below(0.1) == spectrum(look, 1.0, seed=3).below(0.1)
    assert spectrum(look, 1.0, seed=3).below(0.1) != spectrum(look, 1.0, seed=4).below(0.1)
