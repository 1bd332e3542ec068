"""Formats other than DICOM."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import read


class TestArrays:
    def test_npy(self, tmp_path):
        hu = np.random.default_rng(0).normal(0, 100, (3, 12, 14))
        np.save(tmp_path / "a.npy", hu)
        found = read(tmp_path / "a.npy")
        np.testing.assert_array_equal([s.hu for s in found], hu.astype(np.float32))
        np.save(tmp_path / "b.npy", hu[0].astype(np.int16) + 1024)
        np.testing.assert_array_equal(read(tmp_path / "b.npy", offset=1024)[0].hu, hu[0].astype(np.int16))

    def test_folder_of_npy_is_one_series_in_natural_order(self, tmp_path):
        for i in (10, 9, 1):
            np.save(tmp_path / f"s{i}.npy", np.full((12, 12), float(-i)))
        assert [s.hu[0, 0] for s in read(tmp_path)] == [-1, -9, -10]

    @pytest.mark.parametrize("suffix", ["npy", "npz", "tif"])
    @pytest.mark.parametrize(
        ("shape", "count"),
        [
            *(((5, 1, 12, 14), 5), ((5, 12, 14, 1), 5), ((1, 5, 12, 14), 5), ((1, 1, 5, 12, 14), 5)),
            *(((12, 14, 1), 1), ((1, 12, 14), 1), ((1, 1, 12, 14), 1)),
        ],
    )
    def test_axes_of_length_one_are_no_slices(self, tmp_path, shape, count, suffix):
        hu, path = np.random.default_rng(0).normal(0, 100, shape).astype(np.float32), tmp_path / f"a.{suffix}"
        if suffix == "tif":
            pytest.importorskip("tifffile").imwrite(path, hu)
        else:
            (np.save if suffix == "npy" else np.savez)(path, hu)
        np.testing.assert_array_equal([s.hu for s in read(path)], hu.reshape(count, 12, 14))

    @pytest.mark.parametrize("slices", [5, 40, 65, 300])
    def test_slices_that_come_last_are_told(self, tmp_path, slices):
        path = tmp_path / "a.npy"
        np.save(path, np.zeros((64, 64, slices), np.float32))
        with pytest.raises(ImageError, match=r"slices seem to come last; give .*moveaxis"):
            read(path)
        np.save(path, np.random.default_rng(0).normal(0, 100, (slices, 64, 64)))
        assert len(read(path)) == slices

    @pytest.mark.parametrize("shape", [(12, 14), (12, 14, 1, 1)])
    def test_nifti_of_one_slice(self, tmp_path, shape):
        nibabel = pytest.importorskip("nibabel")
        hu = np.random.default_rng(0).normal(0, 100, shape).astype(np.float32)
        image = nibabel.Nifti1Image(hu, np.diag([-0.7, -0.8, 2.0, 1.0]))
        image.to_filename(tmp_path / "a.nii.gz")
        (found,) = read(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(found.hu, hu.reshape(12, 14).T)
        assert found.spacing == pytest.approx((0.8, 0.7))

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (np.array([[np.nan, 1.0]]), "NaN or infinity"),
            (np.array([[np.inf, 1.0]]), "NaN or infinity"),
            (np.zeros((2, 2), complex), "complex128"),
            (np.zeros(5), r"shape \(5,\)"),
            (np.zeros((9, 9, 3)), "colour"),
            (np.zeros((0, 4)), "shape"),
            (np.linspace(0, 1, 16).reshape(4, 4), "not HU"),
            (np.array(["a"]), "<U1"),
        ],
    )
    def test_refused_npy(self, tmp_path, array, words):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ImageError, match=words):
            read(tmp_path / "a.npy")

    @pytest.mark.parametrize(
        "beside", [{"spacing": np.ones(3)}, {"mask": np.ones((64, 64), bool)}, {"patient": np.array("P")}]
    )
    def test_npz_with_one_image_among_its_arrays(self, tmp_path, beside):
        hu = np.random.default_rng(0).normal(0, 100, (64, 64)).astype(np.float32)
        np.savez(tmp_path / "a.npz", image=hu, **beside)
        np.testing.assert_array_equal(read(tmp_path / "a.npz")[0].hu, hu)
        np.savez(tmp_path / "a.npz", low=hu, high=hu, **beside)
        with pytest.raises(ImageError, match="2 images among 3 arrays"):
            read(tmp_path / "a.npz")

    def test_tiff_with_images_of_several_sizes(self, tmp_path):
        tifffile = pytest.importorskip("tifffile")
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for side in (64, 32):
                writer.write(np.full((side, side), -5.0, np.float32))
        with pytest.raises(ImageError, match=r"2 images \(\(64, 64\), \(32, 32\)\)"):
            read(tmp_path / "a.tif")

    def test_pickles_are_never_opened(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"x": 1}]), allow_pickle=True)
        with pytest.raises(ImageError, match=r"not a usable \.npy"):
            read(tmp_path / "a.npy")
        (tmp_path / "b.npy").write_bytes(b"not numpy")
        with pytest.raises(ImageError, match=r"not a usable \.npy"):
            read(tmp_path / "b.npy")

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("local", [False, True])
    def test_metaimage(self, tmp_path, big, local):
        hu = np.random.default_rng(0).integers(-1000, 1000, (2, 5, 7)).astype(">i2" if big else "<i2")
        header = (
            "NDims = 3\nDimSize = 7 5 2\nElementSpacing = 0.5 0.6 2\nElementType = MET_SHORT\n"
            f"BinaryDataByteOrderMSB = {big}\nElementDataFile = {'LOCAL' if local else 'a.raw'}\n"
        )
        (tmp_path / "a.mhd").write_bytes(header.encode() + (hu.tobytes() if local else b""))
        (tmp_path / "a.raw").write_bytes(hu.tobytes())
        found = read(tmp_path / "a.mhd")
        np.testing.assert_array_equal([s.hu for s in found], hu.astype(np.float32))
        assert found[1].spacing == (0.6, 0.5)
        assert found[1].height is None, "the header states no place"
        assert found[1].meta["slice_spacing"] == 2.0

    def test_metaimage_that_does_not_add_up(self, tmp_path):
        head = "NDims = 2\nDimSize = 7 5\nElementType = MET_SHORT\nElementDataFile = {}"
        (tmp_path / "a.mhd").write_text(head.format("a.raw"))
        with pytest.raises(ImageError, match=r"needs a\.raw beside it"):
            read(tmp_path / "a.mhd")
        (tmp_path / "a.raw").write_bytes(b"12")
        with pytest.raises(ImageError, match="70 bytes, but has 2"):
            read(tmp_path / "a.mhd")
        (tmp_path / "b.mhd").write_text("hello")
        with pytest.raises(ImageError, match="no dimsize"):
            read(tmp_path / "b.mhd")

    def test_tiff(self, tmp_path):
        tifffile = pytest.importorskip("tifffile")
        hu = np.random.default_rng(0).normal(0, 100, (12, 14)).astype(np.float32)
        tifffile.imwrite(tmp_path / "a.tif", hu)
        np.testing.assert_array_equal(read(tmp_path / "a.tif")[0].hu, hu)

    def test_nifti_shows_the_patient_as_dicom_does(self, tmp_path):
        nibabel = pytest.importorskip("nibabel")
        volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 100  # right, front, up
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.6, 2.0, 1.0])), tmp_path / "a.nii.gz")
        found = read(tmp_path / "a.nii.gz")
        assert len(found) == 4
        assert found[0].spacing == pytest.approx((0.6, 0.5))
        assert found[0].hu[0, 0] == volume[1, 2, 0]  # the patient's right and front come first

    @pytest.mark.parametrize("name", ["nibabel", "tifffile"])
    def test_missing_reader_names_the_extra(self, tmp_path, monkeypatch, name):
        monkeypatch.setitem(sys.modules, name, None)
        file = tmp_path / {"nibabel": "a.nii", "tifffile": "a.tif"}[name]
        file.write_bytes(b"x")
        with pytest.raises(ImageError, match=r"pip install 'ctinv\[formats\]'"):
            read(file)
