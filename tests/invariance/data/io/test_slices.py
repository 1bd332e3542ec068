"""Pixels that hold no measurement are told from air."""

from __future__ import annotations

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import OUTSIDE_HU, read

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
