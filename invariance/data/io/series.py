"""The CT series below a folder: found from headers alone, one entry for each phase of each."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ctinv.adapters.errors import ImageError

from .arrays import array_kind, read_array, refuse_unread
from .decode import refuse_without_rescale
from .dicom import open_ct, read_frames
from .order import notes_on, sort_slices
from .slices import CTSlice
from .tags import derived, floats, line, phase_words, refuse_by_tags, text

__all__ = [
    "Found",
    "Reading",
    "Series",
    "files_below",
    "find_series",
    "read_file",
    "reason_of",
]

_Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reading:
    """What came of reading a series.

    Arguments:
        slices: Its slices, sorted by place along the slice normal, else by number, else by name.
        left_out: Files that could not be read, each with the reason.
        notes: What a user should know of the series as a whole.
    """

    slices: tuple[CTSlice, ...]
    left_out: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """The files of one CT series, in no particular order.

    Arguments:
        key: What picks it: the series UID, or for files that are not DICOM their folder and suffix.
        description: The series description.
        files: Its files.
        patient: Patient id, or the name of the folder.
        number: Series number, if any.
        offset: See :func:`~ctinv.invariance.data.io.read.read`.
        scale: See there.
    """

    key: str
    description: str
    files: tuple[Path, ...]
    patient: str = ""
    number: str = ""
    offset: float | None = None
    scale: float | None = None

    def load(self, progress: _Progress | None = None) -> Reading:
        """Read every file; those that cannot be read are left out, with the reason.

        Raises:
            ImageError: None of them can be read; the first reason.
        """
        left_out: list[tuple[Path, str]] = []
        slices = [one for _, _, one in self.walk(left_out, progress)]
        if not slices:
            raise ImageError(left_out[0][1])
        ordered = sort_slices(slices)
        return Reading(tuple(ordered), tuple(left_out), tuple(notes_on(ordered)))

    def walk(
        self, left_out: list[tuple[Path, str]], progress: _Progress | None = None
    ) -> Iterator[tuple[Path, int, CTSlice]]:
        """Read file by file: each slice once, with its file and its number in it, as the files lie.

        Arguments:
            left_out: Gets the files that cannot be read, with the reason.
            progress: Told ("reading", done, total).

        Raises:
            ImageError: The only file cannot be read.
        """
        seen: set[tuple[Any, ...]] = set()
        for done, file in enumerate(self.files):
            try:
                parts = read_file(file, self.offset, self.scale)
            except ImageError as error:
                if len(self.files) == 1:
                    raise
                left_out.append((file, str(error)))
                parts = []
            for number, part in enumerate(parts):
                own = None if array_kind(file) is None else (file, number)  # alike, but no copies
                digest = hashlib.sha256(part.hu.tobytes()).digest()
                print_ = (own, part.meta.get("sop_uid"), part.meta.get("frame"), part.position, digest)
                if print_ not in seen:
                    yield file, number, part
                seen.add(print_)
            if progress is not None:
                progress("reading", done + 1, len(self.files))

    def read(self, progress: _Progress | None = None) -> list[CTSlice]:
        """The slices of :meth:`load`."""
        return list(self.load(progress).slices)

    def __str__(self) -> str:
        words = self.description or self.key
        number = f"{self.number} " if self.number else ""
        return f"{number}{words!r} ({len(self.files)} files, {self.key})"


@dataclass(frozen=True)
class Found:
    """What a folder holds: its CT series and the files left out, with the reason."""

    series: tuple[Series, ...]
    skipped: tuple[tuple[Path, str], ...] = field(default=())


@dataclass(frozen=True)
class _Header:
    """What the header of one DICOM slice says."""

    file: Path
    group: tuple[str, ...]
    place: tuple[float, ...] | None
    sop_uid: str
    instance: float
    phases: dict[str, str]
    derived: bool
    about: tuple[str, str, str]


def files_below(folder: Path) -> list[Path]:
    """Every file at any depth, hidden ones aside, in the order of their names."""
    return sorted(
        p
        for p in folder.rglob("*")
        if not any(part.startswith((".", "__MACOSX")) for part in p.relative_to(folder).parts) and p.is_file()
    )


def reason_of(path: Path, reason: str) -> str:
    """A reason without the file's path, for places where paths must not stand."""
    return reason.replace(str(path), "").strip(" :")


def find_series(
    folder: str | Path,
    *,
    offset: float | None = None,
    scale: float | None = None,
    all_derived: bool = False,
) -> Found:
    """Every CT series under a folder; of DICOM files only headers are read.

    Series are told apart by study, patient, series UID and orientation, and where slices lie at the
    same places, by phase.

    Arguments:
        folder: Searched at any depth.
        offset: See :func:`~ctinv.invariance.data.io.read.read`.
        scale: See there.
        all_derived: Keep what was derived from other images (reformats, secondary results) although
            there are original slices too.

    Raises:
        ImageError: No CT in it; the message tells what it holds instead.
    """
    root = Path(folder)
    headers: list[_Header] = []
    arrays: dict[str, list[Path]] = defaultdict(list)
    skipped: list[tuple[Path, str]] = []
    for file in files_below(root):
        kind = array_kind(file)
        if kind is not None:
            name = str(file.relative_to(root))
            arrays[name if kind != ".npy" else str(Path(name).parent / "*.npy")].append(file)
            continue
        try:
            headers.append(_header(file, root))
        except ImageError as error:
            if not _belongs_to_a_header(file):
                skipped.append((file, str(error)))
    originals = [h for h in headers if not h.derived]
    if originals and not all_derived:
        skipped += [
            (h.file, f"{h.file} was derived from other images (ImageType); give it alone, or name its series")
            for h in headers
            if h.derived
        ]
        headers = originals
    # A DICOM folder often carries masks or previews; only without DICOM do arrays count.
    if headers:
        skipped += [
            (f, f"{f} is no DICOM file, as others here are") for files in arrays.values() for f in files
        ]
        series = [s for group in _grouped(headers) for s in group]
    else:
        series = []
        for key, files in sorted(arrays.items()):
            kept = [f for f in files if not _unlike_ct(f, offset, scale, skipped)]
            if kept:
                series.append(Series(key, key, tuple(_natural(kept)), kept[0].parent.name))
    if not series:
        raise ImageError(_nothing(root, skipped))
    return Found(tuple(replace(s, offset=offset, scale=scale) for s in series), tuple(skipped))


def _header(file: Path, root: Path) -> _Header:
    """The header of one slice.

    Raises:
        ImageError: Not a CT slice in HU, as far as headers tell.
    """
    refuse_unread(file)
    dataset = open_ct(file, pixels=None)
    try:
        refuse_by_tags(file, dataset)
        refuse_without_rescale(file, dataset)
        uid = text(dataset, "SeriesInstanceUID") or str(file.parent.relative_to(root))
        position = floats(dataset.get("ImagePositionPatient"), 3)
        orientation = floats(dataset.get("ImageOrientationPatient"), 6)
        turned = "" if orientation is None else str([round(v, 1) + 0.0 for v in orientation])
        words = [text(dataset, w) for w in ("SeriesDescription", "PatientID", "SeriesNumber")]
        number = floats(dataset.get("InstanceNumber"), 1)
        group = (text(dataset, "StudyInstanceUID"), words[1], uid, turned)
        return _Header(
            file,
            group,
            None if position is None else tuple(round(v, 2) for v in position),
            text(dataset, "SOPInstanceUID"),
            number[0] if number else 0.0,
            phase_words(dataset),
            derived(dataset),
            (words[0], words[1] or file.parent.name, words[2]),
        )
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{file} is a broken DICOM file ({line(error)}); export it anew") from error


def _unlike_ct(
    file: Path, offset: float | None, scale: float | None, skipped: list[tuple[Path, str]]
) -> bool:
    """Whether a file of numbers is no CT; label maps beside the images, above all."""
    try:
        read_array(file, offset, scale)
    except ImageError as error:
        skipped.append((file, str(error)))
        return True
    return False


def _grouped(headers: Sequence[_Header]) -> list[list[Series]]:
    """Series by series, each as its phases; keys are UIDs, numbered where one UID has several."""
    groups: dict[tuple[str, ...], list[_Header]] = defaultdict(list)
    for header in headers:
        groups[header.group].append(header)
    by_uid: dict[str, list[list[_Header]]] = defaultdict(list)
    for group in sorted(groups):
        by_uid[group[2]].extend(_phases(groups[group]))
    result = []
    for uid, parts in sorted(by_uid.items()):
        several = len(parts) > 1
        one: list[Series] = []
        for index, part in enumerate(parts, start=1):
            description, patient, number = part[0].about
            one.append(
                Series(
                    f"{uid}#{index}" if several else uid,
                    f"{description} (part {index} of {len(parts)})".strip() if several else description,
                    tuple(_natural([h.file for h in part])),
                    patient,
                    number,
                )
            )
        result.append(one)
    return result


def _phases(headers: Sequence[_Header]) -> list[list[_Header]]:
    """Slices at the same places, told apart: by a tag that does so evenly, else in their order."""
    if any(h.place is None for h in headers):
        return [list(headers)]
    at: dict[tuple[float, ...] | None, dict[str, list[_Header]]] = defaultdict(lambda: defaultdict(list))
    for h in sorted(headers, key=lambda h: (h.instance, str(h.file))):
        at[h.place][h.sop_uid or str(h.file)].append(h)  # the same UID at the same place: a copy
    most = max(len(uids) for uids in at.values())
    if most == 1 or len(at) == 1:
        return [list(headers)]
    for keyword in dict.fromkeys(k for h in headers for k in h.phases):
        parts: dict[str, list[_Header]] = defaultdict(list)
        for h in headers:
            parts[h.phases.get(keyword, "")].append(h)
        if len(parts) == most and all(
            len({h.place for h in p}) == len({h.sop_uid or h.file for h in p}) for p in parts.values()
        ):
            return [parts[value] for value in sorted(parts)]
    ordered: list[list[_Header]] = [[] for _ in range(most)]
    for uids in at.values():
        for index, copies in enumerate(uids.values()):
            ordered[index].extend(copies)
    return ordered


def read_file(path: Path, offset: float | None = None, scale: float | None = None) -> list[CTSlice]:
    """Every slice of one file, whatever its format; see :func:`~ctinv.invariance.data.io.read.read`.

    Raises:
        ImageError: Not CT in HU, or not readable.
    """
    if array_kind(path) is not None:
        return read_array(path, offset, scale)
    refuse_unread(path)
    return read_frames(path, offset, scale)


def _belongs_to_a_header(file: Path) -> bool:
    return file.suffix.lower() in (".raw", ".zraw") and any(file.parent.glob("*.mhd"))


def _natural(files: Sequence[Path]) -> list[Path]:
    return sorted(files, key=lambda p: [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", str(p))])


def _nothing(root: Path, skipped: Sequence[tuple[Path, str]]) -> str:
    if not skipped:
        return f"{root} is empty; give a folder of CT slices"
    reasons = "; ".join(reason for _, reason in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"{root} holds no CT slice among {len(skipped)} files: {reasons}{more}"
