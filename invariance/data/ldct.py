"""The LDCT-and-Projection-data collection (TCIA, doi 10.7937/9NPB-2637) as downloaded."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import ImageError
from ctinv.invariance.infra.randomness import Purpose, rng
from numpy.typing import NDArray

from .io.dicom import read_frames
from .io.slices import CTSlice
from .pairs import Pairs, Split, grouped, split_patients

__all__ = ["DOSES", "REGIONS", "LDCTData", "Scan", "find_ldct"]

_PATIENT = re.compile(r"[CLN]\d{3}")

REGIONS = {"C": "chest", "L": "abdomen", "N": "head"}
"""Body part by the first letter of the patient id."""

DOSES = {"chest": 0.10, "abdomen": 0.25, "head": 0.25}
"""Fraction of the routine dose of the simulated low-dose images."""


@dataclass(frozen=True)
class Scan:
    """Both doses of one scan.

    Arguments:
        patient: Such as ``L004``.
        region: ``chest``, ``abdomen`` or ``head``.
        low: Folder of the low-dose slices.
        high: Folder of the full-dose slices.
        names: File names that both folders hold, by number.
    """

    patient: str
    region: str
    low: Path
    high: Path
    names: tuple[str, ...]


def find_ldct(root: str | Path) -> list[Scan]:
    """Scans with both doses under a folder in the collection's layout.

    Only folders are listed, no file is opened. Scans whose twin is missing are left out, and so are
    slices without a twin.

    Arguments:
        root: ``LDCT-and-Projection-data``, the folder that holds it, or one of its parts.

    Returns:
        Scans sorted by patient; empty where the layout is another one.
    """
    top = Path(root)
    inner = top / "LDCT-and-Projection-data"
    top = inner if inner.is_dir() else top
    if not top.is_dir():
        return []
    patients = (
        [top]
        if _PATIENT.fullmatch(top.name)
        else sorted(p for p in top.iterdir() if _PATIENT.fullmatch(p.name))
    )
    scans = []
    for patient in patients:
        for study in sorted(p for p in patient.iterdir() if p.is_dir()):
            folders = sorted(p for p in study.iterdir() if p.is_dir())
            low = [p for p in folders if "low dose images" in p.name.lower()]
            high = [p for p in folders if "full dose images" in p.name.lower()]
            if len(low) == 1 and len(high) == 1:
                twins = _dicom_names(low[0]) & _dicom_names(high[0])
                names = tuple(sorted(twins, key=lambda n: [int(w) for w in re.findall(r"\d+", n)]))
                if names:
                    scans.append(Scan(patient.name, REGIONS[patient.name[0]], low[0], high[0], names))
    return scans


def _dicom_names(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.lower().endswith(".dcm")}


class LDCTData:
    """Pairs of the collection, read from disk when asked for.

    Holds file names and a bounded cache of slices as 16-bit HU: the 50,000 slices of all 150 scans
    stay well below 2 GB. It can be given to :class:`~ctinv.invariance.data.patches.PatchSampler`.

    Arguments:
        root: See :func:`find_ldct`.
        regions: Body parts to keep; all where None.
        cache_bytes: Most that the cache may hold.

    Attributes:
        scans: The scans, sorted by patient.

    Raises:
        ImageError: No scan with both doses.
    """

    def __init__(
        self, root: str | Path, *, regions: Sequence[str] | None = None, cache_bytes: int = 512 * 2**20
    ) -> None:
        self.scans = tuple(s for s in find_ldct(root) if regions is None or s.region in regions)
        if not self.scans:
            raise ImageError(
                f"{root} holds no scan with both 'Low Dose Images' and 'Full Dose Images'; give the folder "
                "LDCT-and-Projection-data as downloaded"
            )
        self._ends = np.cumsum([len(s.names) for s in self.scans])
        self._cache: OrderedDict[int, tuple[NDArray[np.int16], NDArray[np.int16]]] = OrderedDict()
        self._held = 0
        self._limit = cache_bytes

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def patients(self) -> list[str]:
        """The patient of each pair."""
        return [s.patient for s in self.scans for _ in s.names]

    @property
    def regions(self) -> list[str]:
        """The body part of each pair."""
        return [s.region for s in self.scans for _ in s.names]

    def split(self, seed: int = 0) -> dict[str, Split]:
        """Patient to part, see :func:`~ctinv.invariance.data.pairs.split_patients`."""
        return split_patients([s.patient for s in self.scans], [s.region for s in self.scans], seed)

    def _locate(self, index: int) -> tuple[Scan, str]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        scan = self.scans[which]
        return scan, scan.names[index - int(self._ends[which]) + len(scan.names)]

    def slices(self, index: int) -> tuple[CTSlice, CTSlice]:
        """Both doses of one slice with their geometry, straight from disk.

        Raises:
            ImageError: A file cannot be read, or the twins do not show the same place.
        """
        scan, name = self._locate(index)
        low, high = read_frames(scan.low / name)[0], read_frames(scan.high / name)[0]
        if low.shape != high.shape or not _same_place(low, high):
            raise ImageError(
                f"{scan.low / name} and its full-dose twin differ in size or position; download anew"
            )
        return low, high

    def __getitem__(self, index: int, /) -> tuple[Image, Image]:
        if index not in self._cache:
            low, high = (np.rint(s.hu).clip(-32768, 32767).astype(np.int16) for s in self.slices(index))
            self._cache[index] = (low, high)
            self._held += low.nbytes + high.nbytes
            while self._held > self._limit and len(self._cache) > 1:
                _, (x, y) = self._cache.popitem(last=False)
                self._held -= x.nbytes + y.nbytes
        self._cache.move_to_end(index)
        x, y = self._cache[index]
        return x.astype(np.float32), y.astype(np.float32)

    def subset(
        self, count: int, seed: int = 0, *, split: Split | None = "train", progress: Progress | None = None
    ) -> Pairs:
        """Some pairs in memory, every patient as often as possible.

        Arguments:
            count: At most so many slices.
            seed: Decides which, and the division of patients.
            split: Part to draw from; all patients where None.
            progress: Told ("reading", done, total).

        Raises:
            ImageError: The part has no patient, or a file cannot be read.
        """
        order = rng(seed, Purpose.SLICES)
        parts = self.split(seed)
        starts = self._ends - [len(s.names) for s in self.scans]
        queues = [
            list(order.permutation(len(scan.names)) + start)
            for scan, start in zip(self.scans, starts, strict=True)
            if split is None or parts[scan.patient] == split
        ]
        if not queues:
            raise ImageError(f"no patient falls to the {split} part; give data of more patients")
        picked: list[int] = []
        while len(picked) < count and any(queues):
            for queue in (q for q in queues if q):
                picked.append(int(queue.pop()))
        picked = sorted(picked[:count])
        low, high, patients, regions, spacings = [], [], [], [], []
        for done, index in enumerate(picked):
            x, y = self.slices(index)
            scan, _ = self._locate(index)
            low.append(x.hu)
            high.append(y.hu)
            patients.append(scan.patient)
            regions.append(scan.region)
            spacings.append(x.spacing)
            if progress is not None:
                progress("reading", done + 1, len(picked))
        text = f"{len(picked)} slices of {len(set(patients))} patients of LDCT-and-Projection-data"
        return Pairs(
            tuple(low),
            tuple(high),
            tuple(patients),
            tuple(regions),
            tuple(spacings),
            text,
            None if split is None else grouped(parts),
        )


def _same_place(low: CTSlice, high: CTSlice) -> bool:
    if low.position is None or high.position is None:
        return True
    return bool(np.allclose(low.position, high.position, atol=0.01))
