"""Jacobian products and refinement onto the fibre, against closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ctinv import adapters, zoo
from ctinv.adapters.errors import UnsupportedModelError
from ctinv.invariance.refinement.jacobian import Linearised
from ctinv.invariance.refinement.krylov import Krylov
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.refine import RHO, RHOS, TOLERANCE, affordable, longest, noise_change, refine
from torch import nn

from .toys import SIZE, draw, half, layer, plain


def band(x):
    rows, columns = x.shape[-2:]
    radius = torch.hypot(torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(columns))
    return torch.fft.irfft2(torch.fft.rfft2(x) * (radius < 0.2), s=(rows, columns))


class Convolutions(nn.Sequential):
    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
        )
        self.double()
        for p in self.parameters():
            p.data.copy_(p.data.round(decimals=3))
        self.float()


MAPS = {
    "identity": lambda x: x,
    "square": lambda x: x**2,
    "band": band,
    "convolutions": Convolutions(),
    "pooled": lambda x: nn.functional.max_pool2d(torch.tanh(x / 30), 2),
    "vector": lambda x: x.mean((2, 3)),
}


@pytest.mark.parametrize("name", MAPS)
def test_products_are_those_of_the_dense_jacobian(name):
    phi, size = MAPS[name], SIZE if name == "band" else 8
    x = torch.from_numpy(draw(1, 1, size))[None]
    dense = torch.autograd.functional.jacobian(phi, x).reshape(-1, size * size).double()
    jacobian = Linearised(phi, x)
    d = torch.from_numpy(draw(2, 1, size))[None]
    r = torch.randn(jacobian.value.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jacobian.value, phi(x).detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        jacobian.forward(d).flatten().double(), dense @ d.flatten().double(), rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(
        jacobian.adjoint(r).flatten().double(), dense.T @ r.flatten().double(), rtol=1e-4, atol=1e-4
    )
    for _ in range(2):  # products do not use the graph up
        assert torch.equal(jacobian.forward(d), jacobian.forward(d))


def test_a_constant_map_has_no_jacobian():
    jacobian = Linearised(lambda x: torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 8, 8))
    assert not jacobian.forward(torch.ones(1, 1, 8, 8)).any()
    assert not jacobian.adjoint(torch.ones(1, 2, 3, 3)).any()


@pytest.mark.parametrize("model", ["chen", "yang"])
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_is_linearised_as_torch_is(model, dynamo, tmp_path):
    zoo.export(model, tmp_path / "m.onnx", exporter="dynamo" if dynamo else "torchscript")
    network = zoo.load(model)
    name = [entry.name for entry in network.layers][2]
    graph = adapters.load(tmp_path / "m.onnx")
    channels = network.features(np.zeros((1, 1, 32, 32), np.float32), name).shape[1]
    x, d = (torch.from_numpy(draw(k, 1, 32))[None] for k in (3, 4))
    one, other = (
        Observer(source, name, plain(channels)).linearise(x).forward(d) for source in (network, graph)
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_model_without_gradients_says_so():
    observer = layer(lambda x: x)
    assert observer.differentiable is True
    observer._look.denoiser.differentiable = False
    assert not observer.differentiable
    with pytest.raises(UnsupportedModelError, match="differentiated"):
        observer.linearise(torch.zeros(1, 1, SIZE, SIZE))


def refined(function, channels=1, *, seed=0, most=60, **more):
    observer = layer(function, channels)
    x, changes = draw(seed, 1)[0], draw(seed + 1)
    moves = noise_change(observer, x, draw(seed + 2) / 3)
    return observer, x, changes, moves, refine(observer, x, changes, moves, most=most, **more)


def test_an_identity_layer_leaves_only_what_the_noise_ratio_allows():
    _, _, changes, moves, found = refined(lambda x: x)
    for row, rho in enumerate(found.rhos):
        size = np.linalg.norm(found.changes[row].reshape(3, -1), axis=1)
        np.testing.assert_allclose(size, np.minimum(rho * moves, np.linalg.norm(changes[0])), rtol=0.02)


def test_a_constant_layer_leaves_every_change_as_it_is():
    *_, changes, moves, found = refined(lambda x: torch.ones_like(x))
    assert moves == 0
    np.testing.assert_allclose(found.at(RHO), changes, rtol=1e-5, atol=1e-5)
    assert not found.reached.any()


def test_what_half_an_image_hides_is_kept_and_the_rest_taken_away():
    *_, changes, _, found = refined(half)
    blind, seen = found.at(RHO)[:, :, : SIZE // 2], found.at(RHO)[:, :, SIZE // 2 :]
    np.testing.assert_allclose(blind, changes[:, :, : SIZE // 2], rtol=1e-3, atol=1e-3)
    assert np.sqrt(np.mean(seen**2)) < 0.5


def test_a_blind_band_holds_nearly_all_energy():
    *_, found = refined(band)
    change = torch.from_numpy(found.at(0.01))
    assert (band(change).norm() ** 2 / change.norm() ** 2).item() < 0.01
    # and the band itself is untouched
    hidden = change - band(change)
    wanted = torch.from_numpy(draw(1)) - band(torch.from_numpy(draw(1)))
    torch.testing.assert_close(hidden, wanted, rtol=1e-3, atol=1e-2)


def test_the_krylov_solution_is_the_dense_one():
    net = Convolutions()
    x, change = (torch.from_numpy(draw(k, 1, 10))[None] for k in (5, 6))
    jacobian = Linearised(net, x)
    dense = torch.autograd.functional.jacobian(net, x).reshape(-1, 100).double()
    krylov = Krylov(jacobian, change)
    krylov.extend(90)
    projection = krylov.projection()
    for mu in (1e-3, 1e-2, 1.0):
        wanted = torch.linalg.solve(
            dense.T @ dense / mu + torch.eye(100, dtype=torch.float64), change.flatten().double()
        )
        found = krylov.solve(mu).flatten().double()
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=5e-2)
        assert projection.seen(mu) == pytest.approx((dense @ wanted).norm().item(), rel=1e-2)
        assert projection.size(mu) == pytest.approx(wanted.norm().item(), rel=1e-2)
        assert projection.seen(projection.shift(projection.seen(mu))) == pytest.approx(
            projection.seen(mu), rel=1e-3
        )


@pytest.mark.parametrize("rho", [0.1, 0.03])
@pytest.mark.parametrize("name", ["three convolutions", "yang conv7", "yang conv15", "chen conv5"])
def test_a_converged_change_is_as_large_as_the_dense_solution(name, rho):
    """On 32 x 32 pixels, to 1 %, of the linearised layer."""
    size = 32
    x = (draw(7, 1, size)[0] + 40).astype(np.float32)
    changes, noise = draw(8, 2, size), draw(9, 2, size) / 2
    if name == "three convolutions":
        observer = layer(Convolutions(3), 4)
    else:
        model, at = name.split()
        denoiser = zoo.load(model)
        z = torch.as_tensor(denoiser.features(torch.from_numpy(x)[None, None], at))
        std, mean = torch.std_mean(z[0], (1, 2), keepdim=True)
        observer = Observer(denoiser, at, SimpleNamespace(mean=mean, std=std))
    moves = noise_change(observer, x, noise)
    jacobian = observer.linearise(torch.from_numpy(x)[None, None])
    eye = torch.eye(size * size).reshape(-1, 1, 1, size, size)
    dense = torch.stack([jacobian.forward(d[None, 0]).flatten() for d in eye], 1).double()
    values, vectors = torch.linalg.eigh(dense.T @ dense)
    values, limit = values.clamp_min(0), rho * moves
    for change in torch.from_numpy(changes)[:, None, None]:
        krylov = Krylov(jacobian, change)
        assert krylov.grow(limit, 1000, TOLERANCE) < TOLERANCE
        found = krylov.solve(krylov.projection().shift(limit))
        along = vectors.T @ change.flatten().double()
        low, high = -30.0, 30.0
        for _ in range(100):
            mu = 10 ** ((low + high) / 2)
            seen = (values.sqrt() * along * mu / (values + mu)).norm()
            low, high = (low, (low + high) / 2) if seen > limit else ((low + high) / 2, high)
        exact = vectors @ (along * mu / (values + mu))
        assert found.norm().item() == pytest.approx(exact.norm().item(), rel=0.01)
        away = found.flatten().double() - exact
        assert away.norm() <= 0.1 * exact.norm()


def test_what_has_not_converged_says_so():
    *_, short = refined(Convolutions(2), 4, most=3)
    *_, full = refined(Convolutions(2), 4, most=400)
    assert not short.converged
    assert short.growth >= TOLERANCE
    assert short.steps == 3
    assert full.converged
    assert full.steps > 16


def test_air_around_the_body_is_left_out_and_nothing_changes():
    """A layer that forgets the left half; the body covers a quarter of the slice."""
    x = np.full((96, 96), -1000.0, np.float32)
    x[8:40, 8:40] = 30
    changes = np.zeros((1, 96, 96), np.float32)
    changes[0, 8:40, 8:40] = draw(3, 1, 32)[0]

    def left_of_24(image):  # where the body lies, whatever part of the image is shown
        seen = torch.zeros(image.shape[-1])
        seen[24:] = 1
        return image * seen

    observer = layer(left_of_24)
    moves = noise_change(observer, x, draw(4, 2, 96))
    found = refine(observer, x, changes, moves).at(RHO)[0]
    np.testing.assert_allclose(found[:, :24], changes[0, :, :24], rtol=1e-3, atol=1e-3)
    assert np.abs(found[72:]).max() == 0


@pytest.mark.parametrize("rho", [0.3, 0.03, 0.003])
def test_the_true_layer_moves_no_more_than_the_noise_ratio_says(rho):
    observer, x, _, moves, found = refined(Convolutions(1), 4, rho=rho)
    base = torch.from_numpy(x)[None, None]
    z = observer(base)
    for change in found.at(rho):
        moved = (observer(base + torch.from_numpy(change)[None, None]) - z).norm().item()
        assert moved <= 1.011 * rho * moves
        assert moved >= 0.8 * rho * moves  # and uses what it may


def test_where_linearisation_fails_the_change_shrinks_until_it_holds():
    def jump(x):  # flat at x, steep a little way off
        return torch.relu(x - 100) * 1e4 + x * 1e-3

    observer = layer(jump)
    x = np.full((SIZE, SIZE), 99.0, np.float32)
    moves = noise_change(observer, x, np.full((1, SIZE, SIZE), 0.5, np.float32))
    found = refine(observer, x, np.full((1, SIZE, SIZE), 30.0, np.float32), moves)
    assert found.reached[found.rhos.index(RHO)] <= 1.01 * RHO
    assert found.at(RHO).max() <= 1.01


def test_smaller_noise_ratios_and_fewer_steps_give_smaller_changes():
    *_, few = refined(Convolutions(2), 4, most=3)
    *_, many = refined(Convolutions(2), 4, most=20)
    sizes = [np.linalg.norm(f.changes.reshape(len(f.rhos), 3, -1), axis=2) for f in (few, many)]
    for size in sizes:
        assert (np.diff(size, axis=0) <= 1e-4 * size[:-1]).all()
    assert (sizes[0] <= 1.05 * sizes[1]).all()
    assert few.rhos == tuple(sorted(RHOS, reverse=True))


def test_no_change_stays_no_change():
    observer = layer(lambda x: x)
    found = refine(observer, draw(0, 1)[0], np.zeros((1, SIZE, SIZE), np.float32), 1.0)
    assert not found.changes.any()
    assert not found.reached.any()


def test_dear_layers_get_fewer_samples():
    cheap = layer(lambda x: x)
    torch.manual_seed(0)
    wide = nn.Conv2d(1, 512, 15, padding=7)
    dear = layer(wide, 512)
    x = draw(0, 1, 256)[0]
    dear(torch.from_numpy(x)[None, None])
    assert affordable(cheap, x) == 8
    assert affordable(dear, x) < 8
    assert longest(cheap, x, 3) == 400
    assert longest(dear, x, 3) < 400


@pytest.mark.parametrize(("share", "count"), [(7.5, 7), (100, 8), (0.1, 3)])
def test_the_work_decides_how_many_samples_are_taken_on(monkeypatch, share, count):
    """One pass for the image and two for each step and each product of the start."""
    observer, x = layer(nn.Conv2d(1, 4, 3, padding=1), 4), draw(0, 1)[0]
    observer(torch.from_numpy(x)[None, None])
    one = 2 * SIZE**2 * 4 * 9
    monkeypatch.setattr("ctinv.invariance.refinement.refine._WORK", share * 83 * one)
    assert affordable(observer, x) == count


@pytest.mark.parametrize(
    ("share", "count", "steps"), [(210, 3, 70), (210, 2, 105), (1e4, 3, 400), (1, 3, 32)]
)
def test_the_work_decides_how_long_a_search_may_take(monkeypatch, share, count, steps):
    observer, x = layer(nn.Conv2d(1, 4, 3, padding=1), 4), draw(0, 1)[0]
    observer(torch.from_numpy(x)[None, None])
    monkeypatch.setattr("ctinv.invariance.refinement.refine._LONGEST", share * 2 * 2 * SIZE**2 * 4 * 9)
    assert longest(observer, x, count) == steps


def test_progress_is_told_and_what_was_not_read_is_no_number():
    told = []
    *_, found = refined(half, progress=lambda *step: told.append(step))
    assert told == [("refinement", k, 3) for k in (1, 2, 3)]
    for row, rho in enumerate(found.rhos):
        assert np.isfinite(found.reached[row]).tolist() == [True, True, rho == RHO]
        np.testing.assert_allclose(found.reached[row, :2], min(rho, found.reached[0, 0]), rtol=0.02)


def test_noise_moves_a_layer_by_the_mean_of_its_changes():
    observer, x = layer(half), draw(0, 1)[0]
    noise = draw(5) * np.array([1, 2, 6])[:, None, None]
    sizes = np.linalg.norm(noise[:, :, SIZE // 2 :].reshape(3, -1), axis=1)
    assert noise_change(observer, x, noise.astype(np.float32)) == pytest.approx(sizes.mean(), rel=1e-5)


def test_a_layer_that_needs_patches_is_shown_them_side_by_side():
    observer = layer(lambda x: x)
    observer._patch = 8
    x = torch.from_numpy(draw(0, 1, 20))[None]
    z = observer(x)
    starts = [0, 8, 12]
    wanted = torch.stack([x[0, :, i : i + 8, j : j + 8] for i in starts for j in starts])
    assert torch.equal(z, wanted)
    assert torch.equal(observer(x[..., :8, :8]), x[..., :8, :8])


def test_a_layer_that_jumps_at_any_change_is_left_alone():
    """No change is small enough: it shrinks until the image no longer changes in single precision."""
    x = np.full((SIZE, SIZE), 99.0, np.float32)
    observer = layer(lambda image: image * 1e-3 + 1e3 * torch.sign((image - 99).abs()))
    moves = noise_change(observer, x, np.full((1, SIZE, SIZE), 0.5, np.float32))
    assert moves == pytest.approx(1e3 * SIZE, rel=1e-3)
    found = refine(observer, x, np.full((1, SIZE, SIZE), 30.0, np.float32), moves, rhos=())
    assert found.rhos == (RHO,)
    assert found.reached[0, 0] == 0
    assert (x + found.changes[0, 0] == x).all()
