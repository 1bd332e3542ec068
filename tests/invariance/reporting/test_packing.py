"""Images packed for a page: what comes back is what went in, to half a step, within the budget."""

import base64
import zlib

import numpy as np
import pytest
from ctinv.invariance.reporting.packing import Picture, pack
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def unpack(packed, shape):
    """The inverse as the scripts of a page do it, written anew: HU by key."""
    found, first = {}, None
    for one in packed.images:
        planes = np.frombuffer(zlib.decompress(base64.b64decode(one["data"]), -15), np.uint8).astype(int)
        low, high = planes.reshape(2, *shape)
        zigzag = low + 256 * high
        numbers = np.where(zigzag % 2, -(zigzag + 1) // 2, zigzag // 2)
        if one["delta"]:
            numbers = np.cumsum(numbers, axis=1)
        if one["base"] is not None:
            numbers = numbers + first
        numbers = (numbers + 32768) % 65536 - 32768
        first = numbers if first is None else first
        found[one["key"]] = numbers * one["step"]
    return found


def some(shape=(40, 30), samples=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 300, shape).astype(np.float32)
    yield Picture("x", "x", "ct", x)
    yield Picture("f", "f(x)", "ct", (x + rng.normal(0, 20, shape)).astype(np.float32))
    for n in range(1, samples + 1):
        yield Picture(f"s{n}", "sample", "ct", (x + rng.normal(0, 2, shape)).astype(np.float32), n)
    yield Picture("std", "map", "map", np.abs(rng.normal(0, 5, shape)).astype(np.float32))


def test_values_come_back_to_half_a_step():
    pictures = list(some())
    packed = pack(pictures)
    assert (packed.step, packed.left_out, packed.shrink) == (0.125, 0, 1)
    found = unpack(packed, (40, 30))
    for p in pictures:
        np.testing.assert_allclose(found[p.key], p.pixels, atol=1 / 128 if p.kind == "map" else 1 / 16)


@given(
    x=arrays(np.float32, (3, 4), elements=st.floats(-32000, 32000, width=32)),
    other=arrays(np.float32, (3, 4), elements=st.floats(-32000, 32000, width=32)),
)
def test_any_values_come_back_also_where_differences_exceed_16_bit(x, other):
    packed = pack([Picture("x", "", "ct", x), Picture("o", "", "ct", other)])
    found = unpack(packed, (3, 4))
    most = max(np.abs(x).max(), np.abs(other).max())
    assert packed.step == 0.125 or packed.step < 2 * most / 32767
    np.testing.assert_allclose(found["x"], x, atol=packed.step / 2)
    np.testing.assert_allclose(found["o"], other, atol=packed.step / 2)


def test_whole_hu_are_exact():
    x = np.arange(-1024, 3072, dtype=np.float32).reshape(64, 64)
    np.testing.assert_array_equal(unpack(pack([Picture("x", "", "ct", x)]), (64, 64))["x"], x)


def test_a_small_budget_costs_steps_then_samples_then_pixels():
    pictures = list(some((64, 64)))
    whole = pack(pictures)
    size = lambda packed: sum(len(image["data"]) for image in packed.images)  # noqa: E731
    seen = []
    for share in (1.0, 0.8, 0.6, 0.2):
        packed = pack(pictures, round(share * size(whole)))
        assert size(packed) <= round(share * size(whole))
        seen.append((packed.step, packed.left_out, packed.shrink))
    assert seen[0] == (0.125, 0, 1)
    assert seen[1][0] > 0.125
    assert seen[1][1:] == (0, 1)
    assert seen[2][1] > 0
    assert seen[2][2] == 1
    assert seen[3][2] == 2
    # What is left is what was given, averaged.
    found = unpack(pack(pictures, round(0.2 * size(whole))), (32, 32))
    blocks = pictures[0].pixels.reshape(32, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(found["x"], blocks, atol=seen[3][0] / 2 + 1e-3)


def test_the_first_sample_stays_whatever_the_budget():
    packed = pack(list(some((16, 16))), 1)
    assert [image["key"] for image in packed.images] == ["x", "f", "s1", "std"]
    assert packed.left_out == 2


def test_smooth_images_are_written_by_differences():
    rows, columns = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).normal(0, 100, (64, 64))
    for image, by_differences in ((rows + 3.0 * columns, True), (noise, False)):
        (one,) = pack([Picture("x", "", "ct", image.astype(np.float32))]).images
        assert one["delta"] is by_differences


def test_nothing_to_pack_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        pack([])
