"""Low and high dose, paired slice by slice in whatever folders they lie."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError

from .doses import (
    Dose,
    dose_of,
    doses_in_names,
    kernel_in,
    patient_in,
    thickness_in,
    undosed,
    unnumbered,
)
from .io.arrays import array_kind, refuse_unread
from .io.dicom import open_ct
from .io.series import files_below
from .io.tags import floats, line, refuse_by_tags, says_deidentified, text

__all__ = ["Match", "Record", "match", "records_of"]

_CONTRADICTION = "folder, file name and tags contradict each other on its dose"
_PATIENTS = "folder, file name and tags name different patients"
_SAME_PLACE = 0.1  # mm along the normal; twins are reconstructed at the same places
_SAME_FIELD = 1.0  # mm within the plane


@dataclass(frozen=True)
class Record:
    """What is known of one slice (or one file of slices) before its pixels are read.

    Arguments:
        file: Its file.
        name: Its path below the folder that was given.
        dose: What names and tags say of the dose; None where nothing.
        patient: Whose it is; empty where nothing says so.
        key: What twins share beside their place: kernel, thickness, direction.
        place: Position in mm, or None.
        normal: Direction across the slice, or None.
        number: Instance number, 0 where unknown.
        series: Series UID.
        region: Body part, as the tags name it.
        public: The tags say that identity was removed.
        doubt: Why it cannot be used; empty where it can.
        said: The dose that each source states: see ``doses_in_names``, then description and patient's name.
    """

    file: Path
    name: str
    dose: Dose | None
    patient: str
    key: tuple[str, ...]
    place: tuple[float, ...] | None = None
    normal: tuple[float, ...] | None = None
    number: int = 0
    series: str = ""
    region: str = ""
    public: bool = False
    doubt: str = ""
    said: tuple[Dose | None, ...] = ()

    @property
    def height(self) -> float | None:
        """Place along the normal, mm."""
        if self.place is None or self.normal is None:
            return None
        return float(np.dot(self.place, self.normal))


@dataclass(frozen=True)
class Match:
    """One line of the report on pairs.

    Arguments:
        low: The low-dose slice, or None.
        high: The high-dose slice, or None.
        problem: Why it is left out; empty for a pair.
    """

    low: Record | None
    high: Record | None
    problem: str = ""


def records_of(root: Path, dose: Dose | None = None) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Every slice below a folder, from headers and names alone.

    Arguments:
        root: Searched at any depth.
        dose: What the user says it is; names and tags must not say otherwise.

    Returns:
        The records, and files left out with the reason.
    """
    records: list[Record] = []
    left_out: list[tuple[Path, str]] = []
    files = files_below(root) if root.is_dir() else [root]
    base = root if root.is_dir() else root.parent
    for file in files:
        try:
            record = _record(file, base)
        except ImageError as error:
            left_out.append((file, str(error)))
            continue
        if dose is not None:
            against = record.dose not in (None, dose)
            told = f"given as {dose} dose, but names or tags say {record.dose} dose"
            record = replace(record, dose=dose, doubt=told if against else record.doubt)
        records.append(record)
    return (records if dose is not None else _without_shared(records)), left_out


def _without_shared(records: list[Record]) -> list[Record]:
    """The records without what all of them say alike, where others of their names tell both doses.

    A folder ``LDCT`` above a whole study, or files that all start with it, are called after the study.
    """
    if all(record.doubt != _CONTRADICTION for record in records):
        return records
    count = max(len(record.said) for record in records)
    padded = [(*r.said, *[None] * (count - len(r.said))) for r in records]
    shared = {k for k in range(count) if len({said[k] for said in padded}) == 1}
    again = [
        _judged(r, [dose for k, dose in enumerate(said) if k not in shared], r.doubt == _PATIENTS)
        for r, said in zip(records, padded, strict=True)
    ]
    return again if {record.dose for record in again} == {"low", "high"} else records


def _record(file: Path, root: Path) -> Record:
    """What names and tags say of a file.

    Arguments:
        file: The file.
        root: The folder that was given.

    Raises:
        ImageError: No CT slice in HU, as far as headers tell.
    """
    relative = file.relative_to(root)
    folders = [root.name, *relative.parts[:-1]]
    said = doses_in_names(root.name, folders[1:], file.name)
    if array_kind(file) is not None:
        stem = unnumbered(file.name.split(".")[0])
        patient, clash = patient_in("", [*reversed(relative.parts[:-1]), stem])
        key = (kernel_in("", folders), "", undosed("/".join((*relative.parts[:-1], file.name))))
        return _judged(Record(file, str(relative), None, patient, key), said, clash)
    refuse_unread(file)
    dataset = open_ct(file, pixels=None)
    try:
        refuse_by_tags(file, dataset)
        name = text(dataset, "PatientName")
        said += [dose_of(text(dataset, "SeriesDescription")), dose_of(name)]
        patient, clash = patient_in(
            text(dataset, "PatientID"), [name, file.name, *reversed(relative.parts[:-1])]
        )
        return _judged(replace(_tagged(dataset, file, relative, folders), patient=patient), said, clash)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{file} is a broken DICOM file ({line(error)}); export it anew") from error


def _tagged(dataset: Any, file: Path, relative: Path, folders: Sequence[str]) -> Record:
    thickness = thickness_in((floats(dataset.get("SliceThickness"), 1) or (None,))[0], folders)
    turned = floats(dataset.get("ImageOrientationPatient"), 6)
    normal = None if turned is None else tuple(float(v) for v in np.cross(turned[:3], turned[3:]))
    direction = "" if normal is None else str([round(v, 1) + 0.0 for v in normal])
    number = floats(dataset.get("InstanceNumber"), 1)
    key = (
        kernel_in(text(dataset, "ConvolutionKernel"), folders),
        f"{thickness or 0:g}",
        direction,
        f"{text(dataset, 'Rows')}x{text(dataset, 'Columns')}",
    )
    return Record(
        file,
        str(relative),
        None,
        "",
        key,
        floats(dataset.get("ImagePositionPatient"), 3),
        normal,
        int(number[0]) if number else 0,
        text(dataset, "SeriesInstanceUID"),
        text(dataset, "BodyPartExamined").lower(),
        says_deidentified(dataset),
    )


def _judged(record: Record, said: Sequence[Dose | None], clash: bool) -> Record:
    """The record with its dose, or the doubt where its names and tags contradict each other."""
    record = replace(record, said=tuple(said), dose=None, doubt="")
    doses = {dose for dose in said if dose is not None}
    if len(doses) > 1:
        return replace(record, doubt=_CONTRADICTION)
    return replace(record, dose=next(iter(doses), None), doubt=_PATIENTS if clash else "")


def match(records: Sequence[Record]) -> list[Match]:
    """Pair low with high dose of the same patient, kernel, thickness and place.

    Every record comes out once: in a pair, or alone with the reason.
    """
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    result: list[Match] = []
    for record in records:
        if record.doubt or record.dose is None:
            result.append(_alone(record, record.doubt or "nothing tells its dose"))
        else:
            groups[(record.patient, record.key)].append(record)
    for _, group in sorted(groups.items(), key=lambda item: str(item[0])):
        result += _match_group(group)
    return result


def _match_group(group: Sequence[Record]) -> list[Match]:
    sides = {dose: [r for r in group if r.dose == dose] for dose in ("low", "high")}
    if not sides["low"] or not sides["high"]:
        other = "high" if sides["low"] else "low"
        return [_alone(r, f"no {other}-dose twin of its patient, kernel and thickness") for r in group]
    placed = all(r.height is not None for r in group)
    at: dict[float, list[Record]] = defaultdict(list)
    for record in group:
        at[_step(record, placed)].append(record)
    result: list[Match] = []
    for step, here in sorted(at.items()):
        # A place that falls on the border of two steps has its twin in the next one.
        if len(here) == 1 and len(at.get(step + 1, ())) == 1 and placed:
            after = at[step + 1][0]
            if after.dose != here[0].dose and abs((after.height or 0) - (here[0].height or 0)) <= _SAME_PLACE:
                at[step + 1] = [*here, after]
                continue
        result += _at_one_place(at[step])
    return result


def _step(record: Record, placed: bool) -> float:
    if placed:
        return round((record.height or 0.0) / _SAME_PLACE)
    return float(record.number)


def _at_one_place(here: Sequence[Record]) -> list[Match]:
    doses = Counter(r.dose for r in here)
    if doses["low"] > 1 or doses["high"] > 1:
        return [
            _alone(r, "several slices of one dose lie at its place; which is meant is open") for r in here
        ]
    low = next((r for r in here if r.dose == "low"), None)
    high = next((r for r in here if r.dose == "high"), None)
    if low is None or high is None:
        return [_alone(here[0], f"no {'high' if low is not None else 'low'}-dose twin at its place")]
    if low.place and high.place and np.abs(np.subtract(low.place, high.place)).max() > _SAME_FIELD:
        return [_alone(r, "its twin shows another field of view") for r in here]
    return [Match(low, high)]


def _alone(record: Record, problem: str) -> Match:
    return Match(None, record, problem) if record.dose == "high" else Match(record, None, problem)
