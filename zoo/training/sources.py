"""Pairs of doses from a folder of CT slices: real twins where there are any, simulated ones otherwise."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import CTSlice, LDCTData, find_ldct, find_series, noise_realisations
from ctinv.invariance.data.simulation.dose import REFERENCE_FLUENCE
from ctinv.invariance.data.sources import region_of
from ctinv.invariance.infra.randomness import Purpose, rng

from .noise import own_fluence
from .pairs import Pair, TrainingSet

__all__ = ["DOSES", "is_sharp", "load_pairs"]

DOSES: Mapping[str, float] = MappingProxyType({"abdomen": 0.25, "chest": 0.1})
"""Fraction of the routine dose that is simulated, by region, as in LDCT-and-Projection-data."""

_MOST_TWINS = 240
_SHARP = re.compile(r"lung|bone|edge|detail", re.IGNORECASE)


def load_pairs(
    folder: str | Path,
    doses: Mapping[str, float] = DOSES,
    realisations: int = 2,
    seed: int = 0,
    match: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> TrainingSet:
    """Read the CT slices below a folder and simulate their low-dose twins.

    Slices reconstructed with a lung or bone kernel are left out: their own noise exceeds what the
    lower dose adds, so that no denoiser can come nearer to them.

    Arguments:
        folder: DICOM files at any depth; or the layout of LDCT-and-Projection-data, whose own low-dose
            images are used, up to 240 slices of the training patients, and to which the other arguments
            do not apply.
        doses: Fraction of the routine dose for ``abdomen`` and ``chest``.
        realisations: Independent noise realisations per slice.
        seed: Decides the noise; that of a slice does not depend on which others are there.
        match: Whether the dose is that fraction of the dose the slice was taken with, told from its
            own noise; otherwise of the simulator's fixed routine dose.
        progress: Told ("reading", done, total) in series.

    Returns:
        The pairs, sorted by patient and file name.

    Raises:
        ImageError: No CT slice with a body kernel and known pixel spacing, or a region's dose is missing.
    """
    missing = {"abdomen", "chest"} - set(doses)
    if missing:
        raise ImageError(f"doses lack {' and '.join(sorted(missing))}; give a fraction for both regions")
    if find_ldct(folder):
        return _twins(LDCTData(folder), progress)
    pairs = []
    series = find_series(folder).series
    for done, found in enumerate(series):
        for part in found.read():
            if part.spacing is not None and not is_sharp(part):
                pairs.append(_simulated(part, part.spacing, found.patient, doses, realisations, seed, match))
        if progress is not None:
            progress("reading", done + 1, len(series))
    if not pairs:
        raise ImageError(
            f"no slice in {folder} has a body kernel and tells its pixel spacing;"
            " the dose simulation needs both"
        )
    return TrainingSet(sorted(pairs, key=lambda pair: (pair.patient, pair.label)))


def is_sharp(part: CTSlice) -> bool:
    """Whether a slice was reconstructed with a lung or bone kernel.

    GE names its kernels (LUNG, BONE, EDGE and DETAIL are such); Siemens numbers them (from B60 on).
    """
    text = str(part.meta.get("kernel", ""))
    number = re.search(r"[A-Z](\d\d)[a-z]*\b", text)
    return bool(_SHARP.search(text)) or (number is not None and int(number[1]) >= 60)


def _simulated(
    part: CTSlice,
    spacing: tuple[float, float],
    patient: str,
    doses: Mapping[str, float],
    count: int,
    seed: int,
    match: bool,
) -> Pair:
    label = part.source.name if part.source else ""
    digest = hashlib.sha256(f"{patient}/{label}/{part.meta.get('frame', 0)}".encode()).digest()
    noise = rng(seed, Purpose.DOSE, int.from_bytes(digest[:8]))
    full = np.clip(part.hu, -1024.0, 3071.0).astype(np.float32)
    fluence = own_fluence(full, spacing, "smooth", noise) if match else REFERENCE_FLUENCE
    low = noise_realisations(
        full, spacing, doses[region_of(part.hu)], count, noise, reference_fluence=fluence
    )
    return Pair(np.stack(list(low)), full, patient, label)


def _twins(data: LDCTData, progress: Callable[[str, int, int], None] | None) -> TrainingSet:
    chosen = data.subset(_MOST_TWINS, progress=progress)
    pairs = zip(chosen.low, chosen.high, chosen.patients, strict=True)
    return TrainingSet([Pair(low[None], high, patient) for low, high, patient in pairs], chosen.split)
