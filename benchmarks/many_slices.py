"""Thousands of slices in one run: is memory flat, and do kills lose, double or change anything?

    python benchmarks/many_slices.py --out FOLDER [--count 2000] [--kills 20] [--seed 0] [--json FILE]

Draws small slices, analyses them once undisturbed and once killed (SIGKILL) at random moments and started
again, and compares all arrays, results and rows of both; times are left out. The fit is a short one of
preset tiny. A folder that holds a part of it is gone on with.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.invariance.infra.randomness import Purpose, rng
from endurance.forked import Command, import_everything, start

SIDE = 32
FLAT = 0.05  # what the second half of the cases may take more than the first
ASKED = ("--preset", "tiny", "--set", "fit.steps=2", "--set", "fit.patches=32", "-n", "2", "--refine", "0")


def draw_slices(folder: Path, count: int, seed: int, side: int = SIDE, noise: float = 25.0) -> None:
    """Discs of soft tissue in air with noise, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = rng(seed, Purpose.WORKLOAD)
    rows, columns = np.mgrid[:side, :side]
    for number in range(count):
        row, column = generator.uniform(0.375 * side, 0.625 * side, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < generator.uniform(0.25 * side, 0.375 * side) ** 2
        image = np.where(disc, 40.0, -1000.0) + generator.normal(0, noise, (side, side))
        np.save(folder / f"{number:05d}.npy", image.astype(np.float32))


def finished(out: Path) -> int:
    """About how many cases are there: their folders, counted."""
    return len(os.listdir(out)) if out.is_dir() else 0


def watch(command: Command, out: Path, every: float = 1.0) -> list[tuple[int, int]]:
    """Pairs of finished cases and bytes of memory, until a command ends."""
    seen = []
    while not command.over():
        if done := finished(out):
            seen.append((done, command.memory()))
        time.sleep(every)
    return seen


def flatness(seen: list[tuple[int, int]], count: int) -> dict[str, Any]:
    """Memory over the first half of the cases and over the second, in MB."""
    halves = ([m for n, m in seen if n <= count // 2 and m], [m for n, m in seen if n > count // 2 and m])
    found: dict[str, Any] = {"looks": [len(half) for half in halves]}
    for name, measure in (("mean", np.mean), ("peak", np.max)):
        values = [float(measure(half)) / 1e6 for half in halves if half]
        found[f"{name}_mb"] = [round(value, 1) for value in values]
        if len(values) == 2:
            found[f"{name}_growth"] = round(values[1] / values[0] - 1, 4)
    return found


def undisturbed(root: Path, words: list[Any], count: int, seed: int, cache: dict[str, str]) -> dict[str, Any]:
    """The run that nobody kills, with its memory; what an earlier call has found of it is taken."""
    told = root / "plain.json"
    if not told.exists():
        begun = time.monotonic()
        command = start([*words, "-o", root / "plain"], root / "plain.log", cache)
        seen = watch(command, root / "plain")
        found = {"count": count, "seed": seed, "plain_code": command.code}
        found |= {"plain_s": round(time.monotonic() - begun, 1), "memory": flatness(seen, count)}
        told.write_text(json.dumps(found), encoding="utf-8")
    known: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return known


def comparable(out: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """All that a run has found, and its rows, without times."""
    found: dict[str, bytes] = {}
    for file in sorted(out.rglob("*")):
        if file.name == "arrays.npz":
            found[str(file.relative_to(out))] = file.read_bytes()
        elif file.name == "result.json":
            values = json.loads(file.read_text(encoding="utf-8"))
            values.pop("timings", None)
            found[str(file.relative_to(out))] = json.dumps(values, sort_keys=True).encode()
    with (out / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]
    return found, rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    root: Path = given.out
    draw_slices(root / "scans", given.count, given.seed)
    import_everything()
    words = [
        "analyze",
        "-m",
        "chen",
        "-l",
        "conv5",
        "-i",
        root / "scans",
        "--keep-names",
        "--no-report",
        *ASKED,
    ]
    cache = {"CTINV_CACHE": str(root / "cache")}

    found = undisturbed(root, words, given.count, given.seed, cache)
    print(json.dumps(found), flush=True)

    dice = random.Random(given.seed)
    at = sorted(dice.uniform(0, given.count) for _ in range(given.kills))
    killed, codes = [], []
    for moment in at:  # somewhere within the case that is then under way
        command = start([*words, "-o", root / "killed"], root / "killed.log", cache)
        while not command.over() and finished(root / "killed") < moment:
            time.sleep(0.1)
        time.sleep(dice.uniform(0, 0.3))
        command.kill()
        codes.append(command.code)
        killed.append(finished(root / "killed"))
    last = start([*words, "-o", root / "killed"], root / "killed.log", cache)
    last.wait(10**6)
    plain, other = comparable(root / "plain"), comparable(root / "killed")
    folders = [row["folder"] for row in other[1]]
    found |= {
        "kills": sum(code == -9 for code in codes),
        "killed_after": killed,
        "last_code": last.code,
        "rows": len(folders),
        "rows_once": len(set(folders)) == len(folders) == given.count,
        "files": len(other[0]),
        "equal": plain == other,
        "left_behind": len([p for p in (root / "killed").rglob(".*") if p.name.endswith(".part")]),
    }
    growth = [found["memory"].get(f"{name}_growth", 1.0) for name in ("mean", "peak")]
    good = found["equal"] and found["rows_once"] and found["last_code"] == 0 and max(growth) <= FLAT
    found["reached"] = good
    print(json.dumps(found, indent=2))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
