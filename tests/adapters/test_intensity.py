"""Conventions: affine maps in closed form, and texts that are none."""

import numpy as np
import pytest
from ctinv.adapters import CANDIDATES, IntensityError, parse_intensity


@pytest.mark.parametrize(
    ("spec", "shift", "scale"),
    [
        ("hu", 0, 1),
        (" HU ", 0, 1),
        ("unit:-1000:3000", -1000, 4000),
        ("unit:5:6", 5, 1),
        ("standard:-500:250", -500, 250),
        ("offset:1024", -1024, 1),
        ("offset:-7", 7, 1),
        ("offset:1024:hu", -1024, 1),
        ("offset:1024:unit:0:4096", -1024, 4096),
        ("offset:1000:standard:480:502", -520, 502),
        ("offset:1000:offset:24", -1024, 1),
        ("STANDARD:1e2:2.5e2", 100, 250),
    ],
)
def test_values_in_closed_form_and_back(spec, shift, scale):
    found = parse_intensity(spec)
    assert (found.shift, found.scale, found.spec, str(found)) == (shift, scale, spec, spec)
    hu = np.array([-1024.0, 0.0, 40.0, 3071.0])
    np.testing.assert_allclose(found.to_model(hu), (hu - shift) / scale)
    np.testing.assert_allclose(found.to_hu(found.to_model(hu)), hu)


@pytest.mark.parametrize(
    "spec",
    [
        *("", "hounsfield", "hu:1", "unit", "unit:1", "unit:1:2:3", "unit:a:b", "unit::"),
        *("standard:1", "standard:1:2:3", "standard:nan:1", "standard:0:inf", "unit:-inf:0"),
        *("offset", "offset:", "offset:x", "offset:nan", "offset:1:2", "offset:1:unit:0", "offset:1:what"),
    ],
)
def test_texts_that_are_no_convention(spec):
    with pytest.raises(IntensityError, match="is not understood; it is one of: hu, unit:LO:HI"):
        parse_intensity(spec)


@pytest.mark.parametrize(
    ("spec", "scale"), [("unit:5:5", 0), ("unit:1:-1", -2), ("standard:0:0", 0), ("standard:0:-3", -3)]
)
def test_scales_must_be_positive(spec, scale):
    for text in (spec, f"offset:10:{spec}"):
        with pytest.raises(IntensityError, match=rf"has no positive scale \({scale} HU per unit\)"):
            parse_intensity(text)


def test_every_candidate_is_a_convention_of_its_own():
    maps = [(found.shift, found.scale) for found in map(parse_intensity, CANDIDATES)]
    assert len(set(maps)) == len(maps)
    assert maps[0] == (0, 1)
