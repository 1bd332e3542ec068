"""Where air and water lie: negated values, maps of noise, lost slopes, and crops that are CT all the same."""

from __future__ import annotations

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.cli import main
from ctinv.invariance.data import fitting_set, inspect, read, simulate_low_dose

from .files import dicom, save
from .test_values import body


def noise(size=128, spread=12.0, seed=0):
    return np.random.default_rng(seed).normal(0, spread, (size, size))


def difference(size=256):
    """Low minus full dose of one slice: uneven, and 0 where both were clipped."""
    full = body(size).astype(np.float32)
    low = simulate_low_dose(full, (2.0, 2.0), 0.1, np.random.default_rng(0))
    return np.rint(low.clip(-1020, 3000)) - full


def stored(tmp_path, hu, kind):
    if kind == "npy":
        np.save(tmp_path / "a.npy", hu)
    else:
        save(dicom(np.rint(hu).astype(np.int16), RescaleIntercept="0"), tmp_path / "a.dcm")
    return tmp_path / f"a.{kind}"


KINDS = pytest.mark.parametrize("kind", ["npy", "dcm"])


@KINDS
@pytest.mark.parametrize(
    ("hu", "words", "mend"),
    [
        (-body(128), "negated", {"scale": -1.0}),
        (-body(128).clip(-1024, None) - 24, "negated", {"scale": -1.0}),
        (10 * body(128) - 100, "slope was lost; --scale 0.1", {"scale": 0.1}),
        (np.rint(0.1 * body(128)), "slope was lost; --scale 10", {"scale": 10.0}),
        (body(128) + 1000 + noise(spread=30), r"HU \+ 1000", {"offset": 1000.0}),
    ],
    ids=["negated", "negated and shifted", "times 10", "tenth", "noisy air at 0"],
)
def test_doubted_and_mended(tmp_path, hu, words, mend, kind):
    import re

    file = stored(tmp_path, hu, kind)
    (one,) = read(file)
    assert re.search(words, one.meta["doubt"]), one.meta
    assert re.search(words, inspect(file)["series"][0]["note"])
    (one,) = read(file, **mend)
    assert "doubt" not in one.meta
    assert abs(float(np.median(one.hu[0])) + 1000) < 60, "air comes to lie where it is"
    assert "doubt" not in read(file, offset=0.0)[0].meta


@KINDS
def test_a_difference_of_two_doses_is_doubted(tmp_path, kind):
    file = stored(tmp_path, difference(), kind)
    assert "difference of two images" in read(file)[0].meta["doubt"]
    assert main(["analyze", "-m", "yang", "-l", "conv7", "-i", str(file), "-o", str(tmp_path / "o")]) == 2
    with pytest.raises(ImageError, match="difference of two images"):
        fitting_set(tmp_path)


@KINDS
@pytest.mark.parametrize("spread", [3.5, 12.0, 60.0])
def test_even_noise_about_0_is_noted_but_may_be_water(tmp_path, spread, kind):
    hu = noise(spread=spread)
    file = stored(tmp_path, hu if kind == "npy" else np.rint(hu), kind)
    (one,) = read(file)
    assert "doubt" not in one.meta
    assert "plain water" in one.meta["remark"]
    assert "plain water" in inspect(file)["series"][0]["note"]
    assert "remark" not in read(file, offset=0.0)[0].meta


def tissue(middle, spread, fat=False):
    hu = middle + noise(64, spread, 3)
    if fat:
        hu[:, :30] -= 160.0
    return np.rint(hu)


@KINDS
@pytest.mark.parametrize(
    "hu",
    [
        tissue(110, 12),
        tissue(60, 10),
        tissue(60, 12, fat=True),
        tissue(35, 5),
        tissue(180, 20),
        tissue(60, 8),
    ],
)
def test_a_crop_of_soft_tissue_is_ct(tmp_path, hu, kind):
    (one,) = read(stored(tmp_path, hu, kind))
    assert "doubt" not in one.meta
    assert ("remark" in one.meta) == (hu.min() > 0)
    np.testing.assert_array_equal(one.hu, hu)


@pytest.mark.parametrize("hu", [body(128), body(128) + noise(spread=40)])
def test_ct_is_neither_doubted_nor_noted(tmp_path, hu):
    (one,) = read(stored(tmp_path, hu, "npy"))
    assert not {"doubt", "remark"} & set(one.meta)


def test_pictures_of_8_bits_are_still_refused(tmp_path):
    np.save(tmp_path / "a.npy", tissue(110, 12).astype(np.uint8))
    with pytest.raises(ImageError, match="8-bit picture"):
        read(tmp_path / "a.npy")


def test_standardised_noise_is_still_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise(spread=1.0))
    with pytest.raises(ImageError, match="standardised"):
        read(tmp_path / "a.npy")


@KINDS
@pytest.mark.parametrize("lowest", [-160, -400])
def test_a_display_window_is_noted(tmp_path, lowest, kind):
    (one,) = read(stored(tmp_path, body(128).clip(lowest, 240), kind))
    assert f"clipped at {lowest} HU" in one.meta["remark"]
    assert "clipped" in inspect(tmp_path)["series"][0]["note"]


@KINDS
def test_a_lost_sign_is_told(tmp_path, kind):
    hu = body(128).astype(np.int16).view(np.uint16)
    if kind == "npy":
        np.save(tmp_path / "a.npy", hu)
    else:
        save(dicom(hu, RescaleIntercept="0"), tmp_path / "a.dcm")
    assert "stored without their sign" in read(tmp_path / f"a.{kind}")[0].meta["doubt"]


def test_0_around_the_field_of_view_is_not_measured(tmp_path):
    hu = body(128)
    outside = np.hypot(*(np.mgrid[:128, :128] - 63.5)) > 64
    hu[outside] = 0
    (one,) = read(stored(tmp_path, hu, "npy"))
    np.testing.assert_array_equal(one.valid, ~outside)
    hu[~outside] = hu[~outside].clip(-300)
    assert read(stored(tmp_path, hu, "npy"))[0].valid.all(), "where no air is, it may be water"


def test_remarks_reach_those_who_fit(tmp_path):
    save(dicom(np.rint(body(128).clip(-160, 240)).astype(np.int16), RescaleIntercept="0"), tmp_path / "a.dcm")
    assert any("1 slices: values are clipped at -160 HU" in note for note in fitting_set(tmp_path).notes)


@pytest.mark.parametrize("spread", [0.0, 10.0, 30.0])
@pytest.mark.parametrize("offset", [1000, 1024])
def test_clipped_noise_in_air_does_not_hide_the_offset(tmp_path, offset, spread):
    hu = np.rint(body(128).clip(-1000) * (spread > 0) - 1000 * (spread == 0) + noise(spread=spread, seed=5))
    hu[40:90, 40:90] = 40 + np.rint(noise(50, 10))
    (one,) = read(stored(tmp_path, (hu + offset).clip(0), "npy"))
    assert f"--offset {offset} takes" in one.meta["doubt"]
