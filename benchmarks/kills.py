"""Commands killed (SIGKILL) at random moments: is anything half-written, and does the next run end alike?

    python benchmarks/kills.py --out FOLDER [--kills 200] [--seed 0] [--only analyze,fit] [--json FILE]

The commands are analyze, fit, sample, probe, zoo export and zoo train, each in a form that takes seconds.
Each is run once undisturbed; then it is started and killed, at moments drawn over the time that it takes,
and at the end run once more. After every kill all files under their final names must be whole; after the
last run they must equal those of the undisturbed one, times aside. Commands are forked off a process that
has imported everything, so that a kill costs no start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from endurance.forked import import_everything, run, start
from endurance.whole import content, damage
from many_slices import draw_slices

SIDE = 64
SHORT = ("--preset", "tiny", "--set", "fit.steps=4", "--set", "fit.patches=32")


@dataclass(frozen=True)
class Trial:
    """A command and where it writes.

    Arguments:
        name: What it is called.
        words: The command line for a folder that it writes into.
        prepare: Words of a command that must have run before, for such a folder; none where none must.
    """

    name: str
    words: Callable[[Path], Sequence[object]]
    prepare: Callable[[Path], Sequence[object]] | None = None


def trials(root: Path) -> list[Trial]:
    """All commands."""
    scans = root / "scans"
    model = ("-m", "chen", "-l", "conv5")
    drawn = ("-n", "2", "--refine", "0")
    probe = ("--realisations", "16")
    fitted, pairs = root / "fitted", f"low={scans},high={root / 'quiet'}"
    given = (*SHORT, "--data", pairs)
    return [
        Trial(
            "analyze", lambda out: ["analyze", *model, "-i", scans, "--keep-names", *given, *drawn, "-o", out]
        ),
        Trial("fit", lambda out: ["fit", *model, *given, "-o", out / "fit"]),
        Trial(
            "sample",
            lambda out: ["sample", "-m", "chen", "--explainer", fitted, "-i", scans, *drawn, "-o", out],
            lambda _: ["fit", *model, *given, "-o", fitted],
        ),
        Trial("probe", lambda out: ["probe", *model, "-i", scans / "00000.npy", *probe, "-o", out]),
        Trial("export", lambda out: ["zoo", "export", "chen", out / "chen.onnx"]),
        Trial("train", lambda out: ["zoo", "train", "chen", "--steps", "4", "--data", pairs, "-o", out]),
    ]


def prepare(root: Path, slices: int, seed: int) -> None:
    """Draw what the commands work on, at two levels of noise, and import what they need."""
    draw_slices(root / "scans", slices, seed, SIDE)
    draw_slices(root / "quiet", slices, seed, SIDE, noise=5.0)
    import_everything()


def comparable(out: Path) -> dict[str, str]:
    """SHA-256 of what each file says, times aside, by its path; hidden files are no results."""
    found = {}
    for file in sorted(out.rglob("*")):
        name = file.relative_to(out)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            found[str(name)] = hashlib.sha256(content(file)).hexdigest()
    return found


def faults(out: Path) -> list[str]:
    """What is half-written, of all files under final names."""
    found = []
    for file in sorted(out.rglob("*")) if out.is_dir() else ():
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(out).parts):
            reason = damage(file)
            if reason:
                found.append(f"{file.name}: {reason}")
    return found


def attempt(trial: Trial, root: Path, kills: int, dice: random.Random) -> dict[str, Any]:
    """One command, killed so often."""
    home = root / trial.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    log = home / "log.txt"
    caches = {name: {"CTINV_CACHE": str(home / f"cache-{name}")} for name in ("plain", "killed")}
    if trial.prepare is not None and not (root / "fitted").exists():
        assert run(trial.prepare(home), log, caches["plain"]) == 0, log.read_text()
    plain, killed = home / "plain", home / "killed"
    for out in (plain, killed):
        out.mkdir()
    begun = time.monotonic()
    code = run(trial.words(plain), log, caches["plain"])
    takes = time.monotonic() - begun
    assert code == 0, log.read_text()
    wanted = comparable(plain)
    codes, wrong = [], []
    for number in range(kills):
        if number % 4 == 0:  # all anew; otherwise it goes on
            shutil.rmtree(killed)
            killed.mkdir()
            shutil.rmtree(home / "cache-killed", ignore_errors=True)
        command = start(trial.words(killed), log, caches["killed"])
        time.sleep(dice.uniform(0, 1.05) * takes)
        command.kill()
        codes.append(command.code)
        wrong += faults(killed)
    last = run(trial.words(killed), log, caches["killed"])
    found = comparable(killed)
    return {
        "command": trial.name,
        "takes_s": round(takes, 1),
        "kills": sum(one == -9 for one in codes),
        "ended_before": sum(one == 0 for one in codes),
        "other_codes": sorted({one for one in codes if one not in (0, -9)}),
        "half_written": wrong,
        "last_code": last,
        "files": len(wanted),
        "unequal": sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    root: Path = given.out.absolute()
    prepare(root, given.slices, given.seed)
    chosen = [t for t in trials(root) if not given.only or t.name in given.only.split(",")]
    each = [len(part) for part in np.array_split(range(given.kills), len(chosen))]
    dice = random.Random(given.seed)
    rows = []
    for trial, kills in zip(chosen, each, strict=True):
        rows.append(attempt(trial, root, kills, dice))
        print(json.dumps(rows[-1]), flush=True)
        if given.json:
            given.json.write_text(json.dumps({"seed": given.seed, "rows": rows}, indent=2) + "\n")
    good = not any(
        row["half_written"] or row["unequal"] or row["other_codes"] or row["last_code"] for row in rows
    )
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
