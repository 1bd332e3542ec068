"""What a run costs beside bare explanations, what a second worker gains, what millions of cases would cost.

    python benchmarks/scale.py --out FOLDER [--count 40] [--side 64] [--rounds 3] [--json FILE]

Measured, in processes forked off one that has imported everything: `Explainer.explain` alone, the same
slices by `ctinv analyze` without and with reports, one worker and two (shards of one folder at the same
time), and a restart that finds all cases there. Each is run in turn, several rounds; medians are given,
with the least and the most. The rest is arithmetic: the overhead as a share of cases of other lengths, and
1.5 million of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from endurance.forked import Command, import_everything, start
from many_slices import ASKED, draw_slices

MANY = 1_500_000
LENGTHS = (1.0, 5.0, 30.0)  # seconds of cases that the overhead is held against


def seconds(commands: Sequence[Command]) -> float:
    """How long commands that were just started take; all must end well."""
    begun = time.perf_counter()
    for command in commands:
        if command.wait() != 0:
            raise SystemExit(f"failed: {command.log.read_text(encoding='utf-8')}")
    return time.perf_counter() - begun


def bare(scans: Path, told: Path) -> None:
    """Explain all slices with nothing around it; writes the seconds of each. Runs in a child."""
    from ctinv import invariance, zoo

    (denoiser,) = [zoo.load("chen")]
    preset = {"fit.steps": "2", "fit.patches": "32"}
    fitted: Any = invariance.fit(denoiser, ["conv5"], preset="tiny", overrides=preset)
    explainer = fitted[0]
    taken = []
    for file in sorted(scans.glob("*.npy")):
        image = np.load(file)
        begun = time.perf_counter()
        explainer.explain(image, samples=2, refine=0, cache=False)
        taken.append(time.perf_counter() - begun)
    told.write_text(json.dumps(taken), encoding="utf-8")


def in_child(work: Callable[[], None]) -> None:
    """Do something in a forked child, so that all that is compared starts alike."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the bare explanations failed")


def one_round(root: Path, count: int, number: int) -> dict[str, float]:
    """Seconds for each case of every way to run them."""
    scans, few, cache = root / "scans", root / "few", {"CTINV_CACHE": str(root / "cache")}
    log = root / f"log-{number}.txt"

    def analyze(source: Path, out: str, *words: str) -> Command:
        asked = ["analyze", "-m", "chen", "-l", "conv5", "-i", source, "--keep-names", *ASKED, *words]
        return start([*asked, "-o", root / out], log, cache)

    def fresh(out: str) -> str:
        shutil.rmtree(root / out, ignore_errors=True)
        return out

    found: dict[str, float] = {}
    told = root / "bare.json"
    in_child(lambda: bare(scans, told))
    found["bare"] = float(np.mean(json.loads(told.read_text(encoding="utf-8"))[1:]))
    # What does not grow with the number of cases is taken off by a run of two.
    for name, words in (("plain", ("--no-report",)), ("reports", ())):
        short = seconds([analyze(few, fresh("short"), *words)])
        long = seconds([analyze(scans, fresh("out"), *words)])
        found[name] = (long - short) / (count - 2)
        if name == "plain":
            found["start"] = short - 2 * found[name]
            found["kept"] = max(seconds([analyze(scans, "out", *words)]) - found["start"], 0.0) / count
            shards = [
                analyze(scans, fresh("two") if k == 1 else "two", "--no-report", "--shard", f"{k}/2")
                for k in (1, 2)
            ]
            found["two workers"] = (seconds(shards) - found["start"]) / (count - 2)
    return found


def summed_up(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians and ranges of the rounds, and what follows from them by arithmetic."""
    each = {
        name: {
            "median_s": round(statistics.median(values), 4),
            "from_s": round(min(values), 4),
            "to_s": round(max(values), 4),
        }
        for name in rounds[0]
        for values in [[one[name] for one in rounds]]
    }
    middle = {name: values["median_s"] for name, values in each.items()}
    overhead = max(middle["plain"] - middle["bare"], 0.0)
    reports = max(middle["reports"] - middle["bare"], 0.0)
    efficiency = middle["plain"] / (2 * middle["two workers"]) if middle["two workers"] > 0 else None
    return {
        "rounds": len(rounds),
        "seconds_per_case": each,
        "overhead_s": round(overhead, 4),
        "overhead_with_reports_s": round(reports, 4),
        "overhead_share": {f"{s:g} s": round(overhead / s, 5) for s in LENGTHS},
        "overhead_share_with_reports": {f"{s:g} s": round(reports / s, 5) for s in LENGTHS},
        "efficiency_of_two_workers": None if efficiency is None else round(efficiency, 3),
        "days_of_1500000_cases_on_one_worker": {
            f"{s:g} s": round(MANY * (s + overhead) / 86400, 1) for s in LENGTHS
        },
        "hours_to_look_through_1500000_finished_cases": round(MANY * middle["kept"] / 3600, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    root: Path = given.out.absolute()
    os.environ["CTINV_CACHE"] = str(root / "cache")
    draw_slices(root / "scans", given.count, 0, given.side)
    draw_slices(root / "few", 2, 0, given.side)
    import_everything()
    rounds = []
    for number in range(given.rounds):
        rounds.append(one_round(root, given.count, number))
        print(json.dumps({name: round(value, 4) for name, value in rounds[-1].items()}), flush=True)
    found = {"cases": given.count, "side": given.side, **summed_up(rounds)}
    print(json.dumps(found, indent=2))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
