"""How fast CT data is made and read, and in how much memory: simulator, phantoms, DICOM and patches.

Each part runs in a process of its own for a few seconds on one thread; peak memory is that of the
process, libraries included. The last part shows what the whole of LDCT-and-Projection-data needs: give it
a minute (``--seconds 60``) for its cache to fill up.

    python benchmarks/data.py [FOLDER] [--seconds 5] [--json FILE]

FOLDER holds CT slices; without one, phantoms are written as DICOM and read back.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from ctinv.invariance.data import (
    CTSlice,
    LDCTData,
    Pairs,
    PatchSampler,
    dose_pair,
    find_series,
    phantom,
    read,
    write_dicom,
)
from ctinv.invariance.data import simulate_low_dose as simulate
from ctinv.invariance.infra.randomness import Purpose, rng

_SIZE, _PATCHES = 512, 64
_DOSES = ("1.000000-Low Dose Images-1", "1.000000-Full Dose Images-2")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_Work = Callable[[], int]  # does a little and says how many slices or patches that were


def phantoms(_: Path) -> _Work:
    """Draw phantoms."""
    numbers = rng(0, Purpose.WORKLOAD)

    def work() -> int:
        phantom(numbers, _SIZE)
        return 1

    return work


def simulator(_: Path) -> _Work:
    """Simulate a quarter of the dose on one slice again and again."""
    numbers = rng(0, Purpose.WORKLOAD)
    truth = phantom(numbers, _SIZE)

    def work() -> int:
        simulate(truth.hu, truth.spacing, 0.25, numbers)
        return 1

    return work


def reading(folder: Path) -> _Work:
    """Read the folder's slices file by file, round and round."""
    files = [file for series in find_series(folder).series for file in series.files]
    place = iter(range(10**9))

    def work() -> int:
        return len(read(files[next(place) % len(files)]))

    return work


def patches(_: Path) -> _Work:
    """Draw batches of 128 x 128 patches from four pairs in memory."""
    numbers = rng(0, Purpose.WORKLOAD)
    made = [phantom(numbers, _SIZE) for _ in range(4)]
    low, high = zip(*(dose_pair(m.hu, m.spacing, 0.25, numbers) for m in made), strict=True)
    names = tuple(f"P{i}" for i in range(4))
    pairs = Pairs(low, high, names, ("abdomen",) * 4, tuple(m.spacing for m in made), "phantoms")
    sampler = PatchSampler(pairs, size=128, seed=0)

    def work() -> int:
        return len(sampler.draw(_PATCHES)[0])

    return work


def collection(_: Path) -> _Work:
    """Draw patches from as many slices as LDCT-and-Projection-data has, each from another slice.

    The 150 scans of 333 slices at two doses are names of one pair of files; all of them are read.
    """
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    truth = phantom(rng(0, Purpose.WORKLOAD), _SIZE)
    one = CTSlice(truth.hu, np.ones(truth.hu.shape, bool), truth.spacing)
    for dose in _DOSES:
        write_dicom(one, None, root / f"{dose}.dcm", "phantom")
    for scan in range(150):
        for dose in _DOSES:
            folder = root / "LDCT-and-Projection-data" / f"{'CLN'[scan % 3]}{scan:03d}" / "study" / dose
            folder.mkdir(parents=True)
            for number in range(1, 334):
                os.link(root / f"{dose}.dcm", folder / f"1-{number:03d}.dcm")
    sampler = PatchSampler(LDCTData(root), size=128, seed=0, split="train")

    def work() -> int:
        return len(sampler.draw(1)[0])

    return work


PARTS: dict[str, tuple[Callable[[Path], _Work], str]] = {
    "phantoms": (phantoms, f"slices of {_SIZE} x {_SIZE}"),
    "simulator": (simulator, f"slices of {_SIZE} x {_SIZE}"),
    "reading": (reading, "slices"),
    "patches": (patches, "patches of 128 x 128"),
    "collection": (collection, "patches of 128 x 128, one per slice read"),
}


def measure(part: str, folder: Path, seconds: float, pipe: Connection) -> None:
    """Run one part and send its figures."""
    work = PARTS[part][0](folder)
    work()  # what is loaded or planned once does not count
    count, clock, start = 0, time.process_time(), time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += work()
    busy = time.process_time() - clock
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    pipe.send({"count": count, "per_second": count / spent, "per_cpu_second": count / busy, "peak_mb": peak})


@contextmanager
def ct_folder(given: Path | None) -> Iterator[Path]:
    """The folder given, or eight phantoms as DICOM."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as name:
        numbers = rng(0, Purpose.WORKLOAD)
        for number in range(1, 9):
            truth = phantom(numbers, _SIZE)
            one = CTSlice(truth.hu, np.ones(truth.hu.shape, bool), truth.spacing)
            write_dicom(one, None, Path(name) / f"{number}.dcm", "phantom", instance=number)
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="CT slices to read")
    parser.add_argument("--seconds", type=float, default=5.0, help="per part")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    if args.folder is not None and not args.folder.is_dir():
        parser.error(f"{args.folder} is no folder; give one with CT slices")
    for name in _THREADS:
        os.environ[name] = "1"  # for the processes started below
    context = multiprocessing.get_context("spawn")
    figures = {}
    with ct_folder(args.folder) as folder:
        for part in PARTS:
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(part, folder, args.seconds, send))
            process.start()
            send.close()
            try:
                figures[part] = receive.recv()
            except EOFError:
                sys.exit(f"{part} failed; its error is above")
            process.join()
    print("| part | unit | per second | per CPU second | peak memory [MB] |")
    print("|---|---|---:|---:|---:|")
    for part, row in figures.items():
        rates = f"{row['per_second']:.1f} | {row['per_cpu_second']:.1f}"
        print(f"| {part} | {PARTS[part][1]} | {rates} | {row['peak_mb']:.0f} |")
    report = {"settings": {"folder": str(args.folder or "phantoms"), "seconds": args.seconds}}
    text = json.dumps({**report, "figures": figures}, indent=2)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(f"\n{text}")


if __name__ == "__main__":
    main()
