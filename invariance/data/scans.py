"""Scans with both doses, in any layout: where their files lie, and what was left out."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctinv.adapters.errors import ImageError

from .io.arrays import array_kind
from .io.series import read_file, reason_of
from .pairing import Match, Record, match, records_of
from .spec import Sources, mends_for_data, sources_of
from .twins import refuse_hidden_low_dose

__all__ = ["REGIONS", "Scan", "Scans", "find_ldct", "find_scans"]

REGIONS = {"C": "chest", "L": "abdomen", "N": "head"}
"""Body part by the first letter of the patient id in LDCT-and-Projection-data."""

_PATIENT = re.compile(r"[CLN]\d{3}")
_BODY = (
    ("chest", ("chest", "thorax", "lung")),
    ("abdomen", ("abdomen", "pelvis", "liver")),
    ("head", ("head", "brain")),
)


@dataclass(frozen=True)
class Scan:
    """Both doses of one scan.

    Arguments:
        patient: Such as ``L004``.
        region: ``chest``, ``abdomen``, ``head`` or ``other``.
        low: Folder of the low-dose slices.
        high: Folder of the full-dose slices.
        names: Files of the low dose below ``low``, slice by slice.
        twins: Those of the full dose below ``high``; None where the names are the same.
        frames: Which slice of each file; None for the first of each.
    """

    patient: str
    region: str
    low: Path
    high: Path
    names: tuple[str, ...]
    twins: tuple[str, ...] | None = None
    frames: tuple[int, ...] | None = None

    def files(self, index: int) -> tuple[Path, Path, int]:
        """The low-dose file, the full-dose file and the slice in both."""
        twin = self.names[index] if self.twins is None else self.twins[index]
        frame = 0 if self.frames is None else self.frames[index]
        return self.low / self.names[index], self.high / twin, frame


@dataclass(frozen=True)
class Scans:
    """Scans with both doses.

    Arguments:
        scans: Sorted by patient.
        what: What to call them in reports.
        matches: Slice by slice, what was paired and what was left out and why; empty where only folder
            names were looked at.
        notes: The same in a few lines, without any name.
        offset: What must be taken off all values to come to HU; None where nobody said so.
        scale: What the values must be multiplied by before; None where nobody said so.
    """

    scans: tuple[Scan, ...]
    what: str
    matches: tuple[Match, ...] = ()
    notes: tuple[str, ...] = ()
    offset: float | None = None
    scale: float | None = None


def find_ldct(root: str | Path) -> list[Scan]:
    """Scans with both doses under a folder in the layout of LDCT-and-Projection-data.

    Only folders with descriptive names are understood, and only listed: no file is opened. Scans whose
    twin is missing are left out, and so are slices without a twin. For every other layout see
    :func:`find_scans`.

    Arguments:
        root: ``LDCT-and-Projection-data``, the folder that holds it, or one of its parts.

    Returns:
        Scans sorted by patient; empty where the layout is another one.
    """
    scans = []
    for patient, low, high in _studies(Path(root)):
        if low is not None and high is not None:
            twins = _dicom_names(low) & _dicom_names(high)
            names = tuple(sorted(twins, key=lambda n: [int(w) for w in re.findall(r"\d+", n)]))
            if names:
                scans.append(Scan(patient, REGIONS[patient[0]], low, high, names))
    return scans


def _studies(root: Path) -> Iterator[tuple[str, Path | None, Path | None]]:
    """Patient, low-dose folder and full-dose folder of each study; None where there is not exactly one."""
    inner = root / "LDCT-and-Projection-data"
    top = inner if inner.is_dir() else root
    if not top.is_dir():
        return
    patients = (
        [top]
        if _PATIENT.fullmatch(top.name)
        else sorted(p for p in top.iterdir() if _PATIENT.fullmatch(p.name) and p.is_dir())
    )
    for patient in patients:
        for study in sorted(p for p in patient.iterdir() if p.is_dir()):
            folders = sorted(p for p in study.iterdir() if p.is_dir())
            low = [p for p in folders if "low dose images" in p.name.lower()]
            high = [p for p in folders if "full dose images" in p.name.lower()]
            yield patient.name, low[0] if len(low) == 1 else None, high[0] if len(high) == 1 else None


def _twinless(root: Path) -> tuple[str, ...]:
    """What :func:`find_ldct` leaves out, counted."""
    scans = slices = 0
    for _, low, high in _studies(root):
        if (low is None) != (high is None):
            scans += 1
        elif low is not None and high is not None:
            slices += len(_dicom_names(low) ^ _dicom_names(high))
    told = ((scans, "scans"), (slices, "slices"))
    return tuple(f"left out: {count} {what}: no twin at the other dose" for count, what in told if count)


def _dicom_names(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.lower().endswith(".dcm")}


@mends_for_data()
def find_scans(spec: str | Path) -> Scans | None:
    """Scans with both doses, whatever the folders are called.

    Folder names, file names, series descriptions and patients' names tell the dose; slices pair that
    have the same patient, kernel, thickness and place. Known so are AAPM/Mayo 2016 in both orders of
    folders and LDCT-and-Projection-data in both forms of download.

    Arguments:
        spec: A folder, or ``low=FOLDER,high=FOLDER``; see :func:`~ctinv.invariance.data.spec.sources_of`.

    Returns:
        The scans; None where nothing speaks of low dose, so that all is high dose.

    Raises:
        ImageError: There is low dose, but no pair: it must not be taken for high dose. Or two series
            of one patient show the same places, one with clearly more noise, and nothing says which
            is of low dose.
    """
    sources = sources_of(spec)
    if sources.folder is None and sources.low is None:
        return None
    if sources.folder is not None and (quick := find_ldct(sources.folder)):
        notes = _twinless(sources.folder)
        return Scans(
            tuple(quick),
            "LDCT-and-Projection-data",
            notes=notes,
            offset=sources.offset,
            scale=sources.scale,
        )
    records, left_out = _records(sources)
    matches = match(records) if any(r.dose == "low" or r.doubt for r in records) else []
    pairs = [(m.low, m.high) for m in matches if m.low is not None and m.high is not None]
    if not pairs:
        _refuse_low_dose(records, matches, str(spec), left_out)
        refuse_hidden_low_dose(records, sources.offset, sources.scale)
        return None
    problems = Counter(m.problem for m in matches if m.problem)
    problems.update(reason_of(file, reason) for file, reason in left_out)
    notes = tuple(f"left out: {count} files: {problem}" for problem, count in problems.most_common(8))
    root_low = sources.folder or sources.low
    root_high = sources.folder or sources.high
    assert root_low is not None
    assert root_high is not None
    roots = [p if p.is_dir() else p.parent for p in (root_low, root_high)]
    scans = _scans(pairs, roots[0], roots[1], sources)
    return Scans(tuple(scans), "slices at both doses", tuple(matches), notes, sources.offset, sources.scale)


def _records(sources: Sources) -> tuple[list[Record], list[tuple[Path, str]]]:
    if sources.folder is not None:
        return records_of(sources.folder)
    assert sources.low is not None
    assert sources.high is not None
    low, out_low = records_of(sources.low, "low")
    high, out_high = records_of(sources.high, "high")
    return low + high, out_low + out_high


def _scans(pairs: Sequence[tuple[Record, Record]], low: Path, high: Path, sources: Sources) -> list[Scan]:
    """Pairs patient by patient; patients whose tags do not say that they are public get numbers."""
    by_patient: dict[str, list[tuple[Record, Record]]] = defaultdict(list)
    for pair in pairs:
        by_patient[pair[0].patient].append(pair)
    scans = []
    for number, (patient, own) in enumerate(sorted(by_patient.items()), start=1):
        public = bool(_PATIENT.fullmatch(patient)) or all(a.public and b.public for a, b in own)
        names, twins, frames = [], [], []
        for a, b in own:
            for frame in range(_slices_in(a, b, sources)):
                names.append(str(a.file.relative_to(low)))
                twins.append(str(b.file.relative_to(high)))
                frames.append(frame)
        label = patient if public and patient else f"patient-{number:02d}"
        region = _region(patient, own[0][0].region)
        scans.append(Scan(label, region, low, high, tuple(names), tuple(twins), tuple(frames)))
    return scans


def _slices_in(low: Record, high: Record, sources: Sources) -> int:
    if array_kind(low.file) is None and array_kind(high.file) is None:
        return 1
    counts = [len(read_file(r.file, sources.offset, sources.scale)) for r in (low, high)]
    if counts[0] != counts[1]:
        raise ImageError(
            f"{low.file} holds {counts[0]} slices, its twin {high.file.name} {counts[1]}; give equal ones"
        )
    return counts[0]


def _region(patient: str, part: str) -> str:
    if _PATIENT.fullmatch(patient):
        return REGIONS[patient[0]]
    return next((name for name, words in _BODY if any(word in part for word in words)), "other")


def _refuse_low_dose(
    records: Sequence[Record], matches: Sequence[Match], spec: str, left_out: Sequence[tuple[Path, str]]
) -> None:
    low = [r for r in records if r.dose == "low" or r.doubt]
    if not low and "low=" not in spec:
        return
    problems = Counter(m.problem for m in matches if m.problem).most_common(2)
    why = "; ".join(problem for problem, _ in problems) or next((reason for _, reason in left_out), "empty")
    example = f", such as {low[0].name}," if low else ""
    raise ImageError(
        f"{spec} holds {len(low)} files of low or doubtful dose{example} and no pair ({why}); low dose is "
        "never taken for high dose: give low=FOLDER,high=FOLDER, or high=FOLDER with full dose alone"
    )
