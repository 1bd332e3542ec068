"""Pairs of doses from a folder of CT slices: real twins where there are any, simulated ones otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ctinv.adapters._types import Progress
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import LDCTData, find_scans, find_series
from ctinv.invariance.data.io.series import reason_of
from ctinv.invariance.data.ldct import DOSES
from ctinv.invariance.data.lowdose import kernel_of, low_dose
from ctinv.invariance.data.spec import for_data, mends_for_data, sources_of

from .pairs import Pair, TrainingSet

__all__ = ["DOSES", "load_pairs"]

_MOST_TWINS = 240


def load_pairs(
    folder: str | Path,
    doses: Mapping[str, float] = DOSES,
    realisations: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainingSet:
    """Read the CT slices below a folder and simulate their low-dose twins.

    Slices reconstructed with a lung or bone kernel are left out: their own noise exceeds what the
    lower dose adds, so that no denoiser can come nearer to them.

    Arguments:
        folder: DICOM files at any depth; or both doses in any layout, or ``low=FOLDER,high=FOLDER``: then
            up to 240 slices of the training patients are used with their own low dose, and the other
            arguments do not apply.
        doses: Fraction of the routine dose for ``abdomen`` and ``chest``.
        realisations: Independent noise realisations per slice.
        seed: Decides the noise; that of a slice does not depend on which others are there.
        progress: Told ("reading", done, total) in series.

    Returns:
        The pairs, sorted by patient and file name.

    Raises:
        ImageError: No CT slice with a body kernel and known pixel spacing, or a region's dose is missing.
    """
    missing = {"abdomen", "chest"} - set(doses)
    if missing:
        raise ImageError(f"doses lack {' and '.join(sorted(missing))}; give a fraction for both regions")
    with mends_for_data():
        sources = sources_of(folder)
        if (scans := find_scans(folder)) is not None:
            return _twins(LDCTData(scans), progress)
        everything = find_series(
            sources.folder or sources.high or folder, offset=sources.offset, scale=sources.scale
        )
    pairs, odd = [], []
    left_out = [reason_of(file, why) for file, why in everything.skipped]
    for done, series in enumerate(everything.series):
        try:
            reading = series.load()
        except ImageError as error:
            left_out.append(reason_of(series.files[0], str(error)))
            continue
        left_out += [reason_of(file, why) for file, why in reading.left_out]
        for part in reading.slices:
            if doubt := part.meta.get("doubt"):
                left_out.append(str(doubt))
            elif part.spacing is not None and kernel_of(part) == "smooth":
                low, full = low_dose(
                    part, part.spacing, series.patient, seed=seed, count=realisations, doses=doses
                )
                if remark := part.meta.get("remark"):
                    odd.append(str(remark))
                pairs.append(Pair(low, full, series.patient, part.source.name if part.source else ""))
        if progress is not None:
            progress("reading", done + 1, len(everything.series))
    if not pairs:
        raise ImageError(
            f"no slice in {folder} has a body kernel and tells its pixel spacing;"
            " the dose simulation needs both"
        )
    notes = [f"left out: {count} files: {for_data(why)}" for why, count in Counter(left_out).most_common(8)]
    notes += [f"{count} slices: {remark}" for remark, count in Counter(odd).items()]
    return TrainingSet(sorted(pairs, key=lambda pair: (pair.patient, pair.label)), notes=notes)


def _twins(data: LDCTData, progress: Progress | None) -> TrainingSet:
    chosen = data.subset(_MOST_TWINS, progress=progress)
    pairs = zip(chosen.low, chosen.high, chosen.patients, strict=True)
    return TrainingSet(
        [Pair(low[None], high, patient) for low, high, patient in pairs], chosen.split, chosen.notes
    )
