"""Files of scanners and of other projects, read beside an independent reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import OUTSIDE_HU, inspect, read

from .files import save

DATA = Path(__file__).parents[5] / "shared" / "data"


REAL = [
    *[f"ct/tcga/{n}" for n in sorted(p.name for p in (DATA / "ct/tcga").glob("*.dcm"))],
    *[f"ct/dcmqi_ct3/{n:02d}.dcm" for n in (1, 2, 3)],
    "awkward/robyoung_pydicom_CT_small.dcm",
]


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data: real files are not checked")


def raw_values(file):
    """Stored values straight from the bytes, for uncompressed files."""
    ds = pydicom.dcmread(file)
    kind = "i2" if ds.PixelRepresentation else "u2"
    return ds, np.frombuffer(ds.PixelData, "<" + kind).reshape(ds.Rows, ds.Columns).astype(np.float64)


@needs_data
class TestRealFiles:
    @pytest.mark.parametrize("name", REAL)
    def test_hu_to_the_last_unit(self, name):
        ds, stored = raw_values(DATA / name)
        expected = stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        (found,) = read(DATA / name)
        np.testing.assert_array_equal(found.hu[found.valid], expected[found.valid].astype(np.float32))
        assert (found.hu[~found.valid] == OUTSIDE_HU).all()
        # What was taken out held one of the values that scanners write outside the circle.
        assert set(np.unique(stored[~found.valid])) <= {-2000.0, -1024.0, 0.0}
        assert found.hu.min() >= -1100

    def test_the_manifest_agrees(self):
        import csv

        with (DATA / "ct/tcga/manifest.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 40
        for row in rows:
            (found,) = read(DATA / "ct/tcga" / row["file"])
            assert float(found.hu.max()) == pytest.approx(float(row["HUmax"]), abs=1e-3)
            assert found.meta["patient"] == row["patient"]
            if float(row["HUmin"]) < -1100:
                assert 0.2 < 1 - found.valid.mean() < 0.23  # all outside the circle, 1 - pi / 4 = 0.215

    def test_jpeg2000_with_the_wrong_sign(self):
        from io import BytesIO

        from PIL import Image
        from pydicom.encaps import generate_frames

        file = DATA / "awkward/pydicom302_J2K_pixelrep_mismatch.dcm"
        ds = pydicom.dcmread(file)
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
        plain = np.asarray(Image.open(BytesIO(frame))).astype(np.int64) >> 3  # Pillow scales 13 bits to 16
        signed = np.where(plain >= 4096, plain - 8192, plain).astype(np.float32)  # 13 bits, two's complement
        (found,) = read(file)
        np.testing.assert_array_equal(found.hu[found.valid], signed[found.valid])
        assert set(np.unique(signed[~found.valid])) == {-2000.0}

    def test_jpeg_lossless_with_the_optional_decoders(self, tmp_path):
        pytest.importorskip("gdcm", reason="the extra 'dicom' is not installed: JPEG lossless is not checked")
        ds = pydicom.dcmread(DATA / "awkward/robyoung_pydicom_JPGLosslessP14SV1_1s_1f_8b.dcm")
        ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "CT", "1", "-100"
        (found,) = read(save(ds, tmp_path / "a.dcm"))
        assert (found.hu.min(), found.hu.max()) == (-100, 155)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("dcmqi_seg_liver.dcm", "is SEG, not CT"),
            ("dynamo_missing_external_data_dncnn_25.onnx", "not a DICOM file"),
            ("html_saved_as_dncnn.onnx", "not a DICOM file but a web page"),
            ("robyoung_pydicom_ExplVR_BigEnd.dcm", "is US, not CT"),
            ("robyoung_pydicom_ExplVR_LitEndNoMeta.dcm", "is RTPLAN, not CT"),
            ("robyoung_pydicom_JPEG2000.dcm", "is NM, not CT"),
            ("robyoung_pydicom_JPGLosslessP14SV1_1s_1f_8b.dcm", "is US, not CT"),
            ("robyoung_pydicom_MR_small.dcm", "is MR, not CT"),
            ("robyoung_pydicom_MR_small_bigendian.dcm", "is MR, not CT"),
            ("robyoung_pydicom_MR_small_padded.dcm", "is MR, not CT"),
            ("robyoung_pydicom_MR_truncated.dcm", "is MR, not CT"),
            ("robyoung_pydicom_OBXXXX1A_2frame.dcm", "is US, not CT"),
        ],
    )
    def test_refused(self, name, words):
        with pytest.raises(ImageError, match=words):
            read(DATA / "awkward" / name)

    def test_every_awkward_file_has_an_expectation(self):
        source = Path(__file__).read_text()
        assert [p.name for p in (DATA / "awkward").iterdir() if p.name not in source] == []

    def test_series_of_three(self):
        found = read(DATA / "ct/dcmqi_ct3")
        heights = [s.height for s in found]
        assert heights == sorted(heights)
        assert inspect(DATA / "ct/dcmqi_ct3")["series"][0]["slice_distance"] == pytest.approx(1.0)

    def test_metaimage_pattern(self):
        folder = DATA / "ct/lcd_ct_fbp/dose_100/signal_absent"
        found = read(folder / "signal_absent.mhd", offset=1000)
        assert len(found) == 10
        raw = np.frombuffer((folder / "signal_absent_004.raw").read_bytes(), "<i2").reshape(256, 256)
        np.testing.assert_array_equal(found[3].hu, raw.astype(np.float32) - 1000)
