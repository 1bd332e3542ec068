"""Slices at both doses, read from disk when asked for: LDCT-and-Projection-data and other layouts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import ImageError
from ctinv.invariance.infra.randomness import Purpose, rng
from numpy.typing import NDArray

from .io.series import read_file
from .io.slices import CTSlice
from .pairs import Pairs, Split, grouped, region_of, split_patients
from .scans import Scan, Scans, find_ldct, find_scans
from .twins import check_doses

__all__ = ["DOSES", "LDCTData"]

DOSES = {"chest": 0.10, "abdomen": 0.25, "head": 0.25}
"""Fraction of the routine dose of the simulated low-dose images."""


class LDCTData:
    """Pairs of low and high dose, read from disk when asked for.

    Holds file names and a bounded cache of slices as 16-bit HU: the 50,000 slices of all 150 scans
    stay well below 2 GB. It can be given to :class:`~ctinv.invariance.data.patches.PatchSampler`.

    Arguments:
        root: What :func:`~ctinv.invariance.data.scans.find_scans` takes or returns.
        regions: Body parts to keep; all where None.
        cache_bytes: Most that the cache may hold.

    Attributes:
        scans: The scans, sorted by patient.
        found: The same with what was left out.

    Raises:
        ImageError: No scan with both doses.
    """

    def __init__(
        self,
        root: str | Path | Scans,
        *,
        regions: Sequence[str] | None = None,
        cache_bytes: int = 512 * 2**20,
    ) -> None:
        scans = root if isinstance(root, Scans) else _found(root)
        self.scans = tuple(s for s in scans.scans if regions is None or s.region in regions)
        if not self.scans:
            raise ImageError(
                f"{root} holds no scan with both 'Low Dose Images' and 'Full Dose Images'; give the folder "
                "LDCT-and-Projection-data as downloaded, or low=FOLDER,high=FOLDER"
            )
        self.found = scans
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

    def _locate(self, index: int) -> tuple[Scan, tuple[Path, Path, int]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        scan = self.scans[which]
        return scan, scan.files(index - int(self._ends[which]) + len(scan.names))

    def slices(self, index: int) -> tuple[CTSlice, CTSlice]:
        """Both doses of one slice with their geometry, straight from disk.

        Raises:
            ImageError: A file cannot be read, or the twins do not show the same place.
        """
        _, (low_file, high_file, frame) = self._locate(index)
        found = self.found
        low, high = (read_file(file, found.offset, found.scale)[frame] for file in (low_file, high_file))
        for one in (low, high):
            if doubt := one.meta.get("doubt"):
                raise ImageError(f"{one.source}: {doubt}")
        if low.shape != high.shape or not _same_place(low, high):
            raise ImageError(f"{low_file} and its full-dose twin differ in size or position; download anew")
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
            regions.append(scan.region if scan.region != "other" else region_of(y.hu))
            spacings.append(x.spacing)
            if progress is not None:
                progress("reading", done + 1, len(picked))
        for patient in sorted(set(patients)):
            own = [k for k, name in enumerate(patients) if name == patient]
            check_doses([low[k] for k in own], [high[k] for k in own], patient)
        text = f"{len(picked)} slices of {len(set(patients))} patients of {self.found.what}"
        return Pairs(
            tuple(low),
            tuple(high),
            tuple(patients),
            tuple(regions),
            tuple(spacings),
            text,
            None if split is None else grouped(parts),
            self.found.notes,
        )


def _found(root: str | Path) -> Scans:
    """The scans of a folder; none where it holds one dose alone."""
    path = Path(root)
    quick = tuple(find_ldct(path))
    if quick or (not path.exists() and "=" not in str(root)):
        return Scans(quick, "LDCT-and-Projection-data")
    try:
        return find_scans(root) or Scans((), "")
    except ImageError as error:
        if "no CT" in str(error):
            return Scans((), "")
        raise


def _same_place(low: CTSlice, high: CTSlice) -> bool:
    if low.position is None or high.position is None:
        return True
    return bool(np.allclose(low.position, high.position, atol=0.01))
