"""Pixels that hold no measurement are told from air."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import OUTSIDE_HU, read
from ctinv.invariance.data.io.outside import mark_outside

from .files import dicom, save


class TestOutside:
    @pytest.mark.parametrize("declared", [-2000, 63536])
    def test_D05_padding_even_when_its_sign_is_lost(self, tmp_path, stored, declared):
        values = stored.astype(np.int16)
        values[5:8, 5:8] = -2000
        ds = dicom(values)
        ds.add_new(0x00280120, "US" if declared > 0 else "SS", declared)
        found = read(save(ds, tmp_path / "a.dcm"))[0]
        np.testing.assert_array_equal(found.valid, values != -2000)
        assert (found.hu[5:8, 5:8] == OUTSIDE_HU).all()

    def test_D05_padding_range(self, tmp_path, stored):
        values = stored.astype(np.int16)
        values[:2], values[2:4] = -2000, -1990
        ds = dicom(values)
        ds.add_new(0x00280120, "SS", -2000)
        ds.add_new(0x00280121, "SS", -1985)
        assert read(save(ds, tmp_path / "a.dcm"))[0].valid.sum() == values[4:].size

    def test_undeclared_fill_below_air(self, tmp_path, stored):
        values = stored.astype(np.int16)
        values[:, :2] = values[:, -2:] = -1024  # -2048 HU, as some scanners write outside the circle
        found = read(save(dicom(values), tmp_path / "a.dcm"))[0]
        assert found.valid.sum() == values[:, 2:-2].size

    def test_noise_below_air_is_a_measurement(self, tmp_path, stored):
        values = stored.astype(np.int16)
        values[5, 5] = -60
        found = read(save(dicom(values), tmp_path / "a.dcm"))[0]
        assert found.valid.all()
        assert found.hu[5, 5] == -1084

    def test_clipped_air_counts_only_outside_a_uniform_circle(self, tmp_path):
        values = np.full((64, 64), 1024, np.uint16)
        rows, columns = np.mgrid[:64, :64] - 31.5
        beyond = np.hypot(rows, columns) > 32
        values[beyond] = 0
        values[30:34, 30:34] = 0  # air inside
        assert (read(save(dicom(values), tmp_path / "a.dcm"))[0].valid == ~beyond).all()
        values[:, :10] = 900  # the table reaches the corner: no circle was cut
        assert read(save(dicom(values), tmp_path / "b.dcm"))[0].valid.all()

    def test_only_padding_is_refused(self, tmp_path):
        ds = dicom(np.full((16, 16), -2000, np.int16))
        ds.add_new(0x00280120, "SS", -2000)
        with pytest.raises(ImageError, match="no measured pixel"):
            read(save(ds, tmp_path / "a.dcm"))


class TestMasks:
    """The rule by itself, on arrays."""

    def body(self, side=32):
        return np.random.default_rng(0).uniform(-900, 900, (side, side))

    @pytest.mark.parametrize(
        ("value", "corners", "outside"), [(-1500, 2, True), (-1500, 1, False), (-1000, 4, False)]
    )
    def test_the_smallest_value_at_two_corners(self, value, corners, outside):
        hu = self.body()
        for row, column in [(0, 0), (0, -1), (-1, 0), (-1, -1)][:corners]:
            hu[row, column] = value
        hu[16, 16] = value
        out, valid = mark_outside(hu)
        assert (~valid).sum() == (corners + 1 if outside else 0)
        assert (out[~valid] == OUTSIDE_HU).all()
        np.testing.assert_array_equal(out[valid], hu.astype(np.float32)[valid])

    @pytest.mark.parametrize("corners", [*itertools.combinations([(0, 0), (0, -1), (-1, 0), (-1, -1)], 2)])
    def test_any_two_corners_count(self, corners):
        hu = self.body()
        for place in (*corners, (16, 16)):
            hu[place] = -1500
        assert (~mark_outside(hu)[1]).sum() == 3

    @pytest.mark.parametrize(("share", "outside"), [(1.0, True), (0.96, True), (0.9, False)])
    def test_clipped_air_must_fill_the_outside_of_the_circle(self, share, outside):
        hu = self.body(64)
        rows, columns = np.mgrid[:64, :64] - 31.5
        beyond = np.hypot(rows, columns) > 32
        hu[beyond] = -1024.0
        inner = np.argwhere(beyond)[5 : 5 + round((1 - share) * beyond.sum())]
        hu[tuple(inner.T)] = 0.0
        _, valid = mark_outside(hu)
        assert (~valid).sum() == (beyond.sum() - len(inner) if outside else 0)

    @pytest.mark.parametrize(
        ("value", "border", "outside"), [(-1050, True, 9), (-1050, False, 0), (-1150, False, 9)]
    )
    def test_declared_padding_counts_at_the_border_or_far_below_air(self, value, border, outside):
        hu = self.body()
        padding = np.zeros(hu.shape, bool)
        at = slice(0, 3) if border else slice(10, 13)
        padding[at, at] = True
        hu[padding] = value
        assert (~mark_outside(hu, padding)[1]).sum() == outside

    def test_blurred_padding_takes_the_ringing_around_it(self):
        hu = self.body()
        hu[:4], hu[4], hu[20, 20], hu[25, 25] = -2000.0, -1150.0, -1600.0, -1150.0
        hu[0] += np.arange(32)
        assert (~mark_outside(hu, blurred=True)[1]).sum() == 5 * 32
        assert mark_outside(hu)[1].sum() > 27 * 32

    def test_a_slice_without_content_is_refused(self):
        with pytest.raises(ImageError, match="the image holds no measured pixel"):
            mark_outside(np.zeros((4, 4)), np.ones((4, 4), bool))
