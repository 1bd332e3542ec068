"""The slices that a fit uses when the caller gives a folder, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import ImageError
from ctinv.invariance.infra.cache import cache_root, content_key
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.infra.store import fetch, keep, made_once
from ctinv.invariance.infra.threads import divided
from numpy.typing import NDArray

from .io.series import Found, Series, find_series, reason_of
from .ldct import DOSES, LDCTData
from .lowdose import exposure, low_dose
from .pairs import Pairs, region_of
from .phantoms.phantom import KINDS, phantom
from .scans import find_scans
from .simulation.dose import Kernel, dose_pair
from .spec import Sources, for_data, mends_for_data, sources_of

__all__ = ["fitting_set"]

_Drawn = tuple[NDArray[np.int16], NDArray[np.int16], dict[str, Any]]

_PHANTOMS = {"slices": 32, "size": 512}
_MOST_SLICES = 240
_DRAWING = (
    "lowdose",
    "phantoms/abdomen",
    "phantoms/canvas",
    "phantoms/frame",
    "phantoms/phantom",
    "phantoms/thorax",
    "phantoms/tissues",
    "phantoms/vessels",
    "simulation/dose",
    "simulation/projection",
    "sources",
    "../infra/randomness",
)


def fitting_set(
    spec: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    slices: int | None = None,
    cache: bool = True,
) -> Pairs:
    """Pairs of low-dose and high-dose slices to fit on.

    Arguments:
        spec: None or ``phantom``: made-up chest and abdomen slices (see
            :func:`~ctinv.invariance.data.phantoms.phantom.phantom`) with simulated noise, drawn once and kept
            in the cache. A folder: both doses where it holds them in any layout (training patients only,
            see :func:`~ctinv.invariance.data.scans.find_scans`), else its CT slices, whose low dose is
            simulated. ``low=FOLDER,high=FOLDER`` names the doses; ``high=FOLDER`` says that all in it
            is of full dose; ``,scale=S,offset=K`` behind either says how values become HU.
        seed: Decides phantoms, noise, and which slices of a large folder.
        progress: Told (stage, done, total).
        cache: Whether phantoms are kept in the cache.
        slices: How many; 48 phantoms or at most 240 slices where None.

    Returns:
        The pairs; ``description`` says what they are.

    Raises:
        ImageError: A folder without usable CT slices.
    """
    if spec is None or str(spec) == "phantom":
        return _phantoms(slices or _PHANTOMS["slices"], _PHANTOMS["size"], seed, progress, cache)
    with mends_for_data():
        sources = sources_of(spec)
        if (scans := find_scans(spec)) is not None:
            return LDCTData(scans).subset(slices or _MOST_SLICES, seed, progress=progress)
        return _simulated(sources, slices or _MOST_SLICES, seed, progress)


def _phantoms(count: int, size: int, seed: int, progress: Progress | None, cache: bool) -> Pairs:
    key = content_key(kind="phantom pairs", count=count, size=size, seed=seed, code=_code())
    folder = cache_root() / "phantoms" / key[:20]

    def read(place: Path) -> _Drawn:
        about = json.loads((place / "pairs.json").read_text(encoding="utf-8"))
        low, high = (np.load(place / f"{n}.npy", allow_pickle=False) for n in ("low", "high"))
        return low, high, about

    def write(place: Path, drawn: _Drawn) -> None:
        np.save(place / "low.npy", drawn[0], allow_pickle=False)
        np.save(place / "high.npy", drawn[1], allow_pickle=False)
        (place / "pairs.json").write_text(json.dumps(drawn[2]), encoding="utf-8")

    drawn = fetch(folder, read) if cache else None
    if drawn is None:
        with made_once([key]) if cache else nullcontext():
            drawn = fetch(folder, read) if cache else None  # another process may have been faster
            if drawn is None:
                new = drawn = _draw(count, size, seed, progress)
                if cache:
                    keep(folder, lambda place: write(place, new))
    low, high, about = drawn
    return Pairs(
        tuple(low.astype(np.float32)),
        tuple(high.astype(np.float32)),
        tuple(about["patients"]),
        tuple(about["regions"]),
        tuple((float(a), float(b)) for a, b in about["spacings"]),
        f"{count} made-up chest and abdomen slices of {size} x {size} pixels, their noise simulated",
    )


def _draw(count: int, size: int, seed: int, progress: Progress | None) -> _Drawn:
    low = np.empty((count, size, size), dtype=np.int16)
    high = np.empty_like(low)
    about: dict[str, Any] = {"patients": [], "regions": [], "spacings": []}

    def draw(index: int) -> tuple[str, tuple[float, float]]:
        numbers = rng(seed, Purpose.PHANTOM, index)
        kind = KINDS[index % len(KINDS)]
        region = "chest" if kind == "thorax" else "abdomen"
        truth = phantom(numbers, size, kind=kind)
        kernel: Kernel = "sharp" if numbers.uniform() < 0.15 else "smooth"
        # Tube current follows the patient: routine noise varies little between small and large ones.
        current = float(numbers.uniform(0.6, 1.6)) * exposure(truth.hu, truth.spacing, region)
        x, y = dose_pair(
            truth.hu, truth.spacing, DOSES[region], numbers, kernel=kernel, reference_fluence=current
        )
        low[index], high[index] = (np.rint(v.clip(-1024.0, 3071.0)).astype(np.int16) for v in (x, y))
        return region, truth.spacing

    for index, (region, spacing) in enumerate(divided(draw, count, os.cpu_count() or 1)):
        about["patients"].append(f"phantom-{index:03d}")
        about["regions"].append(region)
        about["spacings"].append(list(spacing))
        if progress is not None:
            progress("phantoms", index + 1, count)
    return low, high, about


def _simulated(sources: Sources, count: int, seed: int, progress: Progress | None) -> Pairs:
    folder = sources.folder or sources.high
    assert folder is not None
    known: dict[str, Any] = {"offset": sources.offset, "scale": sources.scale}
    if folder.is_dir():
        whole = find_series(folder, **known)
    else:
        whole = Found((Series(folder.name, "", (folder,), **known),))
    everything, skipped = whole.series, whole.skipped
    order = rng(seed, Purpose.SLICES)
    queues = [(s, [s.files[i] for i in order.permutation(len(s.files))]) for s in everything]
    picked: list[Series] = []
    while len(picked) < count and any(files for _, files in queues):
        for series, files in queues:
            if files and len(picked) < count:
                picked.append(replace(series, files=(files.pop(),)))
    low: list[Image] = []
    high: list[Image] = []
    patients, regions, spacings = [], [], []
    left_out = [reason_of(file, why) for file, why in skipped]
    odd: list[str] = []
    seen: set[tuple[str, Any]] = set()
    for done, one in enumerate(picked):
        try:
            parts = one.read()
        except ImageError as error:
            left_out.append(reason_of(one.files[0], str(error)))
            continue
        for part in parts:
            if doubt := part.meta.get("doubt"):
                left_out.append(str(doubt))
            if part.spacing is None or doubt or len(low) >= count:
                continue
            if (print_ := (part.digest, part.position)) in seen:  # a copy would be on both sides of a split
                left_out.append("a copy of another slice")
                continue
            seen.add(print_)
            if remark := part.meta.get("remark"):
                odd.append(str(remark))
            x, y = low_dose(part, part.spacing, one.patient, seed=seed)
            low.append(x[0])
            high.append(y)
            patients.append(one.patient or one.key)
            regions.append(region_of(y))
            spacings.append(part.spacing)
        if progress is not None:
            progress("simulating", done + 1, len(picked))
    if not low:
        why = f": {left_out[0]}" if left_out else ""
        raise ImageError(
            f"no slice in {folder} is CT in HU that tells its pixel spacing, which the dose simulation needs"
            f"{why}"
        )
    text = f"{len(low)} slices of {len(set(patients))} patients from a folder, low dose simulated"
    notes = [f"left out: {n} files: {for_data(why)}" for why, n in Counter(left_out).most_common(8)]
    told = (*notes, *(f"{n} slices: {remark}" for remark, n in Counter(odd).items()))
    return Pairs(tuple(low), tuple(high), tuple(patients), tuple(regions), tuple(spacings), text, None, told)


def _code() -> str:
    """Hash of the code that draws, so that a new version never reads an old one's cache."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for name in _DRAWING:
        digest.update((here / f"{name}.py").read_bytes())
    return digest.hexdigest()
