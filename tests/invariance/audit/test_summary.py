"""The audit's figures in closed form: a layer that sees half of the image, a network that changes nothing."""

import dataclasses

import numpy as np
import pytest
from ctinv.invariance.audit.leakage import Seen
from ctinv.invariance.audit.record import figure
from ctinv.invariance.audit.regions import by_frequency, leakage_by_tissue, quiet
from ctinv.invariance.audit.summary import audit
from ctinv.invariance.data.metrics import fine_share, quality, transfer_cut_off
from ctinv.invariance.data.simulation.noise import noise_like

from .test_controls import SIZE, change, evidence

HALF = slice(SIZE // 2, None)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    inside = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2)) < 20
    return np.where(inside, 40 + rng.normal(0, 15, inside.shape), -1000).astype(np.float32)


@pytest.fixture(scope="module")
def noise(image):
    return noise_like(image, 3, np.random.default_rng(0))


@pytest.fixture(scope="module")
def shifted(image, noise):
    """Evidence whose reconstruction is not the image."""
    given = evidence(image, noise)
    reconstruction = image + change(9.0, seed=7)
    return dataclasses.replace(given, reconstruction=reconstruction)


def rms(values, inside):
    return float(np.sqrt(np.mean(np.square(values[..., inside], dtype=np.float64))))


@pytest.fixture(scope="module")
def found(shifted):
    return audit(shifted)


def test_maps_and_embedding(shifted, found):
    inside = shifted.x > -900
    assert found.map.std.value == pytest.approx(rms(shifted.std, inside))
    assert found.map.std_flow.value == pytest.approx(rms(shifted.std_flow, inside))
    assert found.map.noise.value == pytest.approx(rms(shifted.noise, inside))
    assert (found.map.std.rho, found.map.std.n) == (0.03, len(shifted.flow))
    assert found.embedding.rmse.value == pytest.approx(rms(shifted.reconstruction - shifted.x, inside))
    assert found.embedding.cut_off.value == transfer_cut_off(shifted.reconstruction, shifted.x)
    alike = quality(shifted.reconstruction, shifted.x, None, data_range=3024.0)
    assert found.embedding.ssim.value == pytest.approx(alike.ssim)


def test_how_far_samples_move_layer_and_output(shifted, found):
    inside = shifted.x > -900
    start, refined = shifted.flow, shifted.refined.at(0.03)
    moves = [np.linalg.norm((one - shifted.x)[:, HALF]) / shifted.noise_moves for one in start]
    assert found.noise_ratio.flow.value == pytest.approx(np.median(moves), rel=1e-4)
    moves = [np.linalg.norm(one[:, HALF]) / shifted.noise_moves for one in refined]
    assert found.noise_ratio.refined.value == pytest.approx(np.median(moves), rel=1e-3)
    assert found.noise_ratio.refined.value <= 0.0301
    out = [rms(one - shifted.reconstruction, inside) for one in start]
    assert found.output.flow.value == pytest.approx(np.median(out), rel=1e-4)
    assert found.output.refined.value == pytest.approx(
        np.median([rms(one, inside) for one in refined]), rel=1e-3
    )
    assert (found.output.flow.n, found.output.refined.n) == (3, 3)


def test_leakage_is_the_seen_share_of_what_a_random_change_shows(found):
    """The layer sees one half of any change; refined, next to nothing of it."""
    assert found.leakage.flow.value == pytest.approx(1, abs=0.25)
    assert found.leakage.flow_from_reconstruction.value == pytest.approx(1, abs=0.25)
    assert found.leakage.refined.value < 0.05
    assert found.leakage.flow.low < found.leakage.flow.value < found.leakage.flow.high


def test_the_curve_has_spread_and_fineness_at_every_noise_ratio(shifted, found):
    inside = shifted.x > -900
    for row, rho in enumerate(shifted.refined.rhos):
        point, changes = found.curve[f"{rho:g}"], shifted.refined.changes[row]
        assert point.value == pytest.approx(rms(changes.std(0, ddof=1), inside), rel=1e-5)
        assert point.fine == pytest.approx(fine_share(changes - changes.mean(0)))
        assert (point.rho, point.n) == (rho, len(changes))
        assert point.reached == pytest.approx(np.nanmedian(shifted.refined.reached[row]))


def test_what_one_unrefined_sample_changes_is_counted_from_the_reconstruction(shifted):
    """With several samples the part that all share, a wrong start too, would drop out."""
    one = dataclasses.replace(shifted, refined=None, flow=shifted.flow[:1])
    wanted = by_frequency(one.flow - one.reconstruction, one.noise, None)
    assert audit(one).where.frequency.value == pytest.approx(wanted.median_changes)
    assert audit(one).where.frequency.noise == pytest.approx(wanted.median_noise)


def test_one_sample_has_no_spread(shifted):
    few = dataclasses.replace(shifted.refined, changes=shifted.refined.changes[:, :1])
    curve = audit(dataclasses.replace(shifted, refined=few)).curve
    assert {(point.value, point.n) for point in curve.values()} == {(0.0, 1)}


@pytest.mark.parametrize(("values", "low", "high"), [(np.arange(21.0), 1, 19), (np.arange(201.0), 10, 190)])
def test_a_figure_of_many_is_their_median_and_ninety_percent(values, low, high):
    found = figure(values[::-1], "HU", "Many.")
    assert (found.value, found.low, found.high) == (np.median(values), low, high)
    assert (found.n, found.interval, found.unit, found.meaning) == (len(values), "90 %", "HU", "Many.")
    assert figure(values, "HU", "Many.", 7).n == 7


def test_a_figure_of_one_has_no_interval():
    found = figure(3.0, "", "One.", title="Three")
    assert (found.value, found.n, found.low, found.high, found.interval) == (3.0, 1, None, None, None)
    assert found.title == "Three"


def test_leakage_is_counted_at_the_places_of_each_tissue():
    """A layer of half the image's size: each place stands over the pixel right below its middle."""
    places = np.arange(80.0).reshape(1, 8, 10)
    seen = Seen(moved=places, control=np.full((1, 8, 10), 4.0))
    clean = np.full((16, 20), 40.0, np.float32)
    clean[:, :2] = -100.0  # fat over the first column of places
    clean[-1, -1] = 900.0  # bone under the last place, beyond its middle
    clean[0, 10] = -1000.0  # air above no middle
    found = leakage_by_tissue(seen, clean)
    fat = np.zeros((8, 10), bool)
    fat[:, 0] = True
    bone = np.zeros((8, 10), bool)
    bone[-1, -1] = True
    for tissue, where in (("fat", fat), ("bone", bone), ("soft", ~fat & ~bone)):
        wanted = np.sqrt(places[0][where].sum() / (4 * where.sum()))
        assert getattr(found, tissue).value == pytest.approx(wanted)
    assert found.air is None


@pytest.mark.parametrize(("shape", "told"), [((8, 8), True), ((7, 9), False), ((9, 7), False)])
def test_leakage_by_tissue_needs_a_map(shape, told):
    seen = Seen(np.ones((1, *shape)), np.ones((1, *shape)))
    assert (leakage_by_tissue(seen, np.zeros((32, 32), np.float32)).soft is not None) == told


def test_tissues_of_next_to_no_area_are_left_out():
    seen = Seen(np.ones((1, 20, 20)), np.ones((1, 20, 20)))
    clean = np.zeros((20, 20), np.float32)
    clean[0, 0] = 900
    assert leakage_by_tissue(seen, clean).bone is None
    clean[0, 1] = 900
    assert leakage_by_tissue(seen, clean).bone is not None


def test_the_slice_without_noise():
    x = np.zeros((9, 9), np.float32)
    x[4, 4] = 1.0
    assert quiet(x, x + 1).min() == 1
    smooth = quiet(x, np.zeros((7, 7), np.float32))
    assert smooth.shape == x.shape
    assert smooth.max() == pytest.approx(1 / (2 * np.pi * 1.5**2), rel=0.05)
