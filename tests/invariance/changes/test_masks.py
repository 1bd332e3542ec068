"""Masks from volumes and DICOM segmentations: the plane that is the slice's, and no other."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.changes.masks import read_mask
from ctinv.invariance.data import default_slice, load, new_series_uid, write_dicom

COUNT = 3


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three slices of 40 x 48 pixels, 5 mm apart, as DICOM."""
    folder = tmp_path_factory.mktemp("series")
    whole, uid, study = default_slice(), new_series_uid(), new_series_uid()
    x, y, z = whole.position
    for k in range(COUNT):
        hu = whole.hu[20:60, 30:78] + k
        place = (x, y, z + 5 * k)
        one = replace(whole, hu=hu, valid=np.ones(hu.shape, bool), position=place, source=None, meta={})
        path = write_dicom(one, None, folder / f"{k}.dcm", "s", instance=k + 1, series_uid=uid)
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = study
        dataset.save_as(path)
    return folder


@pytest.fixture(scope="module")
def slices(series):
    return sorted(load(series).slices, key=lambda one: one.position[2])


def marks():
    """A region in each plane: a column of pixels as long as the plane's number, from row 5 on."""
    found = np.zeros((COUNT, 40, 48), np.uint8)
    for k in range(COUNT):
        found[k, 5 : 6 + k, 10] = 1
    return found


def as_nifti(path, slices, values):
    import nibabel

    first = slices[0]
    rows, columns = (step * np.asarray(first.orientation[a:b]) for step, a, b in
                     ((first.spacing[1], 0, 3), (first.spacing[0], 3, 6)))  # fmt: skip
    affine = np.eye(4)
    affine[:3] = np.stack([rows, columns, [0, 0, 5.0], first.position], 1)
    affine = np.diag([-1, -1, 1, 1]) @ affine
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)
    return path


def as_segmentation(path, series, values, fractional=False):
    import highdicom
    from highdicom.sr.coding import CodedConcept

    sources = sorted(
        (pydicom.dcmread(p) for p in series.glob("*.dcm")), key=lambda d: d.ImagePositionPatient[2]
    )
    told = CodedConcept("108369006", "SCT", "Neoplasm")
    described = highdicom.seg.SegmentDescription(
        1, "mark", told, told, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    kind = highdicom.seg.SegmentationTypeValues
    highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=values.astype(np.float32) * 0.8 if fractional else values,
        segmentation_type=kind.FRACTIONAL if fractional else kind.BINARY,
        segment_descriptions=[described],
        series_instance_uid=new_series_uid(),
        series_number=9,
        sop_instance_uid=new_series_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.filterwarnings("ignore")  # highdicom's, on the series that is made up
def test_of_many_planes_the_slices_own_is_taken(series, slices, tmp_path, number):
    for path in (
        as_nifti(tmp_path / "m.nii.gz", slices, marks()),
        as_segmentation(tmp_path / "seg.dcm", series, marks()),
        as_segmentation(tmp_path / "part.dcm", series, marks(), fractional=True),
    ):
        np.testing.assert_array_equal(read_mask(path, slices[number]), marks()[number] > 0)


@pytest.mark.filterwarnings("ignore")
def test_a_segmentation_without_references_is_laid_by_its_place(series, slices, tmp_path):
    path = as_segmentation(tmp_path / "seg.dcm", series, marks())
    file = pydicom.dcmread(path)
    for frame in file.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    file.save_as(path)
    np.testing.assert_array_equal(read_mask(path, slices[2]), marks()[2] > 0)


def test_one_plane_needs_no_place(slices, tmp_path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(marks()[1:2].transpose(2, 1, 0), None), tmp_path / "one.nii")
    found = read_mask(tmp_path / "one.nii", (40, 48))
    assert found.sum() == 2


def moved(slices, by):
    x, y, z = slices[1].position
    return replace(slices[1], position=(x, y, z + by), meta={})


@pytest.mark.filterwarnings("ignore")
def test_masks_of_other_places_are_refused(series, slices, tmp_path):
    volume = as_nifti(tmp_path / "m.nii", slices, marks())
    drawn = as_segmentation(tmp_path / "seg.dcm", series, marks())
    for one, path, said in (
        (moved(slices, 2.5), volume, "no plane"),
        (moved(slices, 50), volume, "no plane"),
        (replace(slices[1], position=None), volume, "cannot be told"),
        ((40, 48), volume, "cannot be told"),
        (moved(slices, 2.5), drawn, "no frame"),
        ((40, 48), drawn, "3 frames"),
        (slices[0], series / "0.dcm", "no DICOM segmentation"),
    ):
        with pytest.raises(ImageError, match=said):
            read_mask(path, one)
    empty = as_nifti(tmp_path / "empty.nii", slices, 0 * marks())
    with pytest.raises(ImageError, match="empty"):
        read_mask(empty, slices[0])
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="no mask that can be read"):
        read_mask(tmp_path / "bad.dcm", slices[0])
