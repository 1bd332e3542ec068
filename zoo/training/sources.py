"""Pairs of doses from a folder of CT slices: real twins where there are any, simulated ones otherwise."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import CTSlice, find_series, noise_realisations

from .pairs import Pair, Pairs, body_mask

__all__ = ["DOSES", "kernel_of", "load_pairs", "region_of"]

DOSES: Mapping[str, float] = MappingProxyType({"abdomen": 0.25, "chest": 0.1})
"""Fraction of the routine dose that is simulated, by region, as in LDCT-and-Projection-data."""

_LUNG_HU = -500.0
_LUNG_SHARE = 0.15
_SHARP = re.compile(r"lung|bone|edge|detail", re.IGNORECASE)


def load_pairs(
    folder: str | Path,
    doses: Mapping[str, float] = DOSES,
    realisations: int = 2,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Pairs:
    """Read every CT slice below a folder and simulate its low-dose twin.

    Arguments:
        folder: DICOM files at any depth.
        doses: Fraction of the routine dose for ``abdomen`` and ``chest``.
        realisations: Independent noise realisations per slice.
        seed: Decides the noise; that of a slice does not depend on which others are there.
        progress: Told ("reading", done, total) in series.

    Returns:
        The pairs, sorted by patient and file name.

    Raises:
        ImageError: No CT slice with known pixel spacing, or a region's dose is missing.
    """
    missing = {"abdomen", "chest"} - set(doses)
    if missing:
        raise ImageError(
            f"doses name no {' and no '.join(sorted(missing))}; give a fraction for both regions"
        )
    pairs = []
    series = find_series(folder).series
    for done, found in enumerate(series):
        for part in found.read():
            if part.spacing is not None:
                pairs.append(_simulated(part, part.spacing, found.patient, doses, realisations, seed))
        if progress is not None:
            progress("reading", done + 1, len(series))
    if not pairs:
        raise ImageError(f"no slice in {folder} tells its pixel spacing, which the dose simulation needs")
    return Pairs(sorted(pairs, key=lambda pair: (pair.patient, pair.label)))


def region_of(part: CTSlice) -> Literal["abdomen", "chest"]:
    """Whether a slice shows lungs: more than 15 % of the body below -500 HU."""
    body = body_mask(part.hu)
    return "chest" if body.any() and (part.hu[body] < _LUNG_HU).mean() > _LUNG_SHARE else "abdomen"


def kernel_of(part: CTSlice) -> Literal["smooth", "sharp"]:
    """The simulator's kernel that is nearest to the one the slice was reconstructed with.

    GE names its kernels (LUNG, BONE, EDGE and DETAIL are sharp); Siemens numbers them (sharp from
    B45 on); others count as smooth.
    """
    text = str(part.meta.get("kernel", ""))
    number = re.search(r"[A-Z](\d\d)[a-z]*\b", text)
    sharp = bool(_SHARP.search(text)) or (number is not None and int(number[1]) >= 45)
    return "sharp" if sharp else "smooth"


def _simulated(
    part: CTSlice,
    spacing: tuple[float, float],
    patient: str,
    doses: Mapping[str, float],
    count: int,
    seed: int,
) -> Pair:
    label = part.source.name if part.source else ""
    digest = hashlib.sha256(f"{seed}/{patient}/{label}/{part.meta.get('frame', 0)}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    full = np.clip(part.hu, -1024.0, 3071.0).astype(np.float32)
    low = noise_realisations(full, spacing, doses[region_of(part)], count, rng, kernel=kernel_of(part))
    return Pair(np.stack(list(low)), full, patient, label)
