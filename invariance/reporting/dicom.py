"""An analysis as DICOM: maps as Parametric Maps, images as derived CT, all over the slice itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.parametric import Algorithm, check_parametric, parametric_map
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.io.write import dicom_file, new_series_uid

from .result import AnalysisResult

__all__ = ["check_dicom", "dicom_files"]


def check_dicom(template: CTSlice) -> None:
    """Make sure, before anything long, that an analysis of this slice can be written as DICOM.

    Raises:
        ImageError: highdicom is not installed, or the slice tells no pixel spacing.
    """
    check_parametric()
    if template.spacing is None:
        raise ImageError(
            f"{template.name} tells no pixel spacing, which DICOM output needs; give a DICOM slice"
        )


def dicom_files(result: AnalysisResult, template: CTSlice, *, deidentify: bool = False) -> dict[str, bytes]:
    """The images and maps of an analysis as DICOM files.

    Maps (``std.dcm``, ``std_noise.dcm``, ``reading_error.dcm``) are Parametric Maps: float32, HU, equal
    bit for bit to those of ``arrays.npz``. Images (``sample-01.dcm`` and so on, ``reconstruction.dcm``,
    ``reading.dcm``, ``denoised.dcm``) are derived CT in steps of 0.1 HU or the smallest that 16 bits
    allow, marked as synthetic where they are. The samples share one series.

    Arguments:
        result: The analysis.
        template: The slice that it is of.
        deidentify: Leave out what tells the patient, see
            :func:`~ctinv.invariance.data.io.write.write_dicom`.

    Returns:
        The files by name.

    Raises:
        ImageError: See :func:`check_dicom`; or the slice has another size than the analysis.
    """
    check_dicom(template)
    meta = result.meta
    where = f"{meta.layer or 'a layer'} of {meta.model or 'a denoiser'}"
    algorithm = Algorithm(f"ctinv: what {where} cannot see", version("ctinv"), (meta.model_hash or "")[:16])
    series = new_series_uid()
    files = {}
    for number, (name, label, words, values) in enumerate(_maps(result), start=1):
        files[f"{name}.dcm"] = parametric_map(
            values,
            template,
            label,
            f"{words} {where}",
            algorithm,
            series_uid=series,
            instance=number,
            derivation=" ".join(result.audit.verdict),
            deidentify=deidentify,
        )
    source = template if "sop_uid" in template.meta else None
    shared = new_series_uid()
    for name, words, hu, number in _images(result):
        files[f"{name}.dcm"] = dicom_file(
            CTSlice(hu, template.valid, template.spacing, template.position, template.orientation),
            source,
            f"{words} {where}",
            series_uid=shared if name.startswith("sample") else None,
            instance=number,
            deidentify=deidentify,
            synthetic=words.startswith("SYNTHETIC"),
        )
    return files


def _maps(result: AnalysisResult) -> Iterator[tuple[str, str, str, Image]]:
    """Name, label, words and values of each map."""
    yield "std", "STD_ANATOMY", "Spread of images alike to", result.std
    if result.std_noise is not None:
        yield "std_noise", "STD_NOISE", "Spread of noise alike to", result.std_noise
    if result.reading is not None:
        yield (
            "reading_error",
            "READING_ERROR",
            "Error of what is read from",
            np.abs(result.x - result.reading),
        )


def _images(result: AnalysisResult) -> Iterator[tuple[str, str, Image, int]]:
    """Name, words, values and number in its series of each image."""
    for number, sample in enumerate(result.samples, start=1):
        yield f"sample-{number:02d}", f"SYNTHETIC sample {number}, alike to", sample, number
    yield "reconstruction", "SYNTHETIC, by the autoencoder for", result.reconstruction, 1
    yield "denoised", "Denoised image, seen beside", result.denoised, 1
    if result.reading is not None:
        yield "reading", "SYNTHETIC, read back from", result.reading, 1
