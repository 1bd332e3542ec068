"""Both ends of a layer's spectrum, against closed forms and the dense Jacobian."""

import math

import numpy as np
import pytest
import torch
from ctinv import zoo
from ctinv.adapters.errors import CtinvError, UnsupportedModelError
from ctinv.invariance.refinement.extremes import _Restricted, _run, curvature, extremes, radius
from ctinv.invariance.refinement.refine import RHO, refine
from ctinv.invariance.refinement.sight import Joint, Sight
from torch import nn

from .toys import SIZE, draw, half, sight

WEIGHTS = torch.linspace(0.5, 3.0, 64).reshape(8, 8)


def weighted(x):
    return x * WEIGHTS if x.shape[-1] == 8 else x  # other sizes are tried on wrapping


def convolved(seed=3):
    torch.manual_seed(seed)
    net = nn.Conv2d(1, 3, 3, padding=1).requires_grad_(False)
    return lambda x: net(x)


def dense(look):
    x = torch.from_numpy(look.x)[None, None]
    jacobian = look.observer.linearise(x)
    eye = torch.eye(look.x.size).reshape(-1, 1, 1, *look.x.shape)
    return torch.stack([jacobian.forward(d).flatten() for d in eye], 1).double()


def rms(image):
    return float(np.sqrt(np.mean(np.square(image, dtype=np.float64))))


def test_of_a_diagonal_layer_the_ends_are_its_weakest_and_strongest_pixels():
    look = sight(weighted, size=8)
    found = extremes(look, count=2, steps=64)
    for entry, pixel in zip(found.hidden + found.amplified, (0, 1, 63, 62), strict=True):
        assert np.abs(entry.change).argmax() == pixel
        assert rms(entry.change) == pytest.approx(1)
        assert entry.change.ravel()[pixel] == pytest.approx(8, rel=1e-3)  # all of it in one pixel of 64
        assert entry.gain == pytest.approx(float(WEIGHTS.ravel()[pixel]) / found.noise_gain, rel=1e-3)
        assert entry.error < 1e-3
    noise = np.square(look.noise, dtype=np.float64)
    wanted = math.sqrt((noise * WEIGHTS.numpy() ** 2).sum() / noise.sum())
    assert found.noise_gain == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("where", ["everywhere", "in a region"])
def test_gains_are_the_singular_values_of_the_dense_jacobian(where):
    look = sight(convolved(), 3, size=10)
    region = np.zeros((10, 10), dtype=bool)
    region[2:8, 3:9] = True
    if where == "everywhere":
        region[:] = True
    found = extremes(look, region, count=3, steps=int(region.sum()))
    values = torch.linalg.svdvals(dense(look)[:, torch.from_numpy(region.ravel())]).numpy()
    np.testing.assert_allclose([e.gain for e in found.amplified], values[:3] / found.noise_gain, rtol=1e-3)
    np.testing.assert_allclose([e.gain for e in found.hidden], values[::-1][:3] / found.noise_gain, rtol=1e-2)
    for entry in found.hidden + found.amplified:
        assert not entry.change[~region].any()
        assert rms(entry.change[region]) == pytest.approx(1)


def test_few_steps_find_the_large_gains_and_never_too_small_or_too_large_ones():
    look = sight(convolved(), 3, size=16)
    values = torch.linalg.svdvals(dense(look)).numpy()
    found = extremes(look, count=1, steps=24)
    top, bottom = (e.gain * found.noise_gain for e in (found.amplified[0], found.hidden[0]))
    assert top == pytest.approx(values[0], rel=0.01)
    assert top <= values[0] * 1.001
    assert bottom >= values[-1] * 0.999
    assert bottom < 0.3 * values[0]


def test_the_basis_stays_orthonormal_where_gains_differ_much():
    """Gains from 1 to 10,000: the largest ones come back again and again without orthogonalisation."""
    weights = torch.logspace(4, 0, 256).reshape(16, 16)
    look = sight(lambda x: x * weights if x.shape[-1] == 16 else x, size=16)
    jacobian = look.observer.linearise(torch.from_numpy(look.x)[None, None])
    operator = _Restricted(jacobian, np.ones((16, 16), bool))
    start = torch.from_numpy(draw(1, 1, 16)).flatten()
    found = torch.eye(256)[:2]  # as if from an earlier run
    basis, projected = _run(operator, start, found, 120, 3, 1e-9)
    assert len(basis) > 60
    both = torch.cat([found, basis]).double()
    np.testing.assert_allclose(both @ both.T, np.eye(len(both)), atol=2e-6)
    highest = np.sqrt(np.linalg.eigvalsh(projected, UPLO="U")[:-4:-1])
    np.testing.assert_allclose(highest, weights.ravel()[2:5], rtol=1e-4)  # each once
    whole = projected + np.triu(projected, 1).T
    np.testing.assert_allclose(
        whole / 1e8, (basis.double() * weights.ravel().double() ** 2) @ basis.double().T / 1e8, atol=1e-6
    )


def test_the_search_ends_where_more_steps_find_nothing_else():
    """Three gains only, of which each comes with a quarter of the pixels or more."""
    weights = torch.ones(16, 16)
    weights[:4], weights[4:8] = 3.0, 2.0
    look = sight(lambda x: x * weights if x.shape[-1] == 16 else x, size=16)
    assert extremes(look, count=1, steps=200).steps <= 4
    spread = torch.linspace(1, 3, 256).reshape(16, 16)
    look = sight(lambda x: x * spread if x.shape[-1] == 16 else x, size=16)
    found = extremes(look, count=1, steps=200)
    assert found.steps < 100
    gains = [e.gain * found.noise_gain for e in (found.hidden[0], found.amplified[0])]
    np.testing.assert_allclose(gains, [1, 3], rtol=0.02)


def test_what_half_an_image_hides_has_no_gain_and_no_end():
    look = sight(half)
    found = extremes(look, count=2)
    seen = np.sqrt((look.noise[:, :, SIZE // 2 :] ** 2).sum() / (look.noise**2).sum())
    for entry in found.hidden:
        assert entry.gain < 1e-3
        assert rms(entry.change[:, SIZE // 2 :]) < 1e-3
        assert radius(look, entry.change) == math.inf
    for entry in found.amplified:
        assert rms(entry.change[:, : SIZE // 2]) < 1e-2
        assert entry.gain == pytest.approx(1 / seen, rel=1e-3)


def test_a_layer_that_sees_nothing_has_no_gains():
    look = sight(lambda x: torch.ones_like(x))
    found = extremes(look, count=2)
    assert [e.gain for e in found.hidden + found.amplified] == [0] * len(found.hidden + found.amplified)
    assert look.ratio(found.hidden[0].change) == 0


def test_of_an_identity_all_changes_are_alike():
    found = extremes(sight(lambda x: x), count=2)
    assert [e.gain for e in found.hidden] == pytest.approx([1, 1], rel=1e-4)
    assert found.steps == 1


def test_the_radius_of_a_linear_layer_is_that_of_its_gain():
    look = sight(weighted, size=8)
    entry = extremes(look, count=1, steps=64).hidden[0]
    per_unit = entry.gain * rms(entry.change) * 8  # |d| of 1 HU RMS on 64 pixels
    noise_gain = extremes(look, count=1, steps=64).noise_gain
    wanted = RHO * look.moves / (per_unit * noise_gain)
    for guess in (1e-9, wanted, 5.0, np.inf):
        assert radius(look, entry.change, guess=guess) == pytest.approx(wanted, rel=0.01)
    assert curvature(look, 10 * entry.change[None], noise_gain)[0] < 1e-4


def test_where_the_linear_reading_fails_is_told():
    """A square: flat at zero in one direction, and its remainder is the square of the change."""
    look = sight(lambda x: x**2, size=8)
    look.x[:] = 20
    change = np.ones((8, 8), np.float32)
    noise_gain = 40.0
    assert curvature(look, 5 * change[None], noise_gain) == pytest.approx([25 / (40 * 5)], rel=1e-3)
    moves = look.moves
    size = radius(look, change, rho=0.5)
    moved = np.linalg.norm((20 + size) ** 2 * change - 400)
    assert moved <= 0.5 * moves
    assert moved == pytest.approx(0.5 * moves, rel=0.01)


def test_what_is_never_hidden_has_no_radius():
    jump = sight(lambda x: x + 1e4 * torch.sign(x.sum((2, 3), keepdim=True) - 64 * 20), size=8)
    jump.x[:] = 20
    change = np.ones((8, 8), np.float32)
    assert radius(Sight(jump.observer, jump.x, jump.noise, (8, 8), 1.0), change) == 0


def test_ends_of_a_real_layer_are_those_of_its_dense_jacobian():
    x = (draw(7, 1, 16)[0] + 40).astype(np.float32)
    look = Sight.of(zoo.load("yang"), "conv7", x, patch=16)
    region = np.zeros(look.x.shape, dtype=bool)
    region[4:12, 3:13] = True
    values = torch.linalg.svdvals(dense(look)[:, torch.from_numpy(region.ravel())]).numpy()
    found = extremes(look, region, count=1, steps=80)
    gains = [e.gain * found.noise_gain for e in (found.amplified[0], found.hidden[0])]
    np.testing.assert_allclose(gains, values[[0, -1]], rtol=1e-2)


def test_bad_requests_are_refused():
    look = sight(half)
    with pytest.raises(CtinvError, match="holds no pixel"):
        extremes(look, np.zeros(look.x.shape, dtype=bool))
    with pytest.raises(CtinvError, match="must agree"):
        extremes(look, np.ones((4, 4), dtype=bool))
    with pytest.raises(CtinvError, match="ask for one or more"):
        extremes(look, count=0)
    look.observer._look.denoiser.differentiable = False
    with pytest.raises(UnsupportedModelError, match="differentiated"):
        extremes(look)


def test_the_search_is_told_and_can_be_repeated():
    told = []
    one = extremes(sight(convolved(), 3), count=2, steps=8, progress=lambda *step: told.append(step))
    assert told == [*(("spectrum", step, 8) for step in range(1, 9)), ("spectrum", 8, 8)]
    other = extremes(sight(convolved(), 3), count=2, steps=8)
    assert [e.gain for e in one.hidden] == [e.gain for e in other.hidden]
    assert extremes(sight(convolved(), 3), count=2, steps=8, seed=1).hidden[0].gain != one.hidden[0].gain


def test_two_layers_as_one_see_what_either_sees():
    left, other = sight(half), sight(lambda x: half(x.flip(-1)).flip(-1))
    joint = Joint([left, other])
    assert joint.whole
    assert joint.differentiable
    base = torch.from_numpy(left.x)[None, None]
    change = draw(9, 1)[0]
    moved = (joint(base + torch.from_numpy(change)[None, None]) - joint(base)).norm().item()
    wanted = math.sqrt((left.ratio(change) ** 2 + other.ratio(change) ** 2) / 2)
    assert moved == pytest.approx(wanted, rel=1e-4)
    both = refine(joint, left.x, change[None], 1.0).at(RHO)[0]
    assert rms(both) < 0.1 * rms(change)  # nothing is hidden from both


def test_the_same_layer_twice_is_that_layer():
    look = sight(convolved(), 3)
    alone = refine(look.observer, look.x, draw(4), look.moves).at(RHO)
    twice = refine(Joint([look, look]), look.x, draw(4), 1.0).at(RHO)
    np.testing.assert_allclose(twice, alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max())


def test_layers_that_noise_does_not_move_take_no_part():
    blind, look = sight(lambda x: torch.ones_like(x)), sight(half)
    twice = refine(Joint([look, blind]), look.x, draw(4), 1.0).at(RHO)
    alone = refine(look.observer, look.x, draw(4), look.moves).at(RHO)
    np.testing.assert_allclose(twice, alone, atol=1e-3)
    assert refine(Joint([blind]), look.x, draw(4), 1.0).at(RHO) == pytest.approx(draw(4), abs=1e-4)
