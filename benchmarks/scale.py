"""What a run costs beside bare explanations, what a second worker gains, what millions of cases would cost.

    python benchmarks/scale.py --out FOLDER [--count 120] [--side 64] [--rounds 3] [--json FILE]

Measured, in processes forked off one that has imported everything: `Explainer.explain` alone, figure and
page alone, the same slices by `ctinv analyze`, a restart that finds all cases there, and one worker and
two (shards of one folder at the same time). Costs are seconds of a processor, so that other work on the
machine counts little; what two workers gain is read from the clock, on a machine that has nothing else to
do. All is done in turn, in several rounds; medians are given, with the least and the most. The rest is
arithmetic: the overhead as a share of cases of other lengths, and 1.5 million of them.
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
FEW = 51  # slices of the shorter run: more than a run whose answers go into the cache as well
DRAWN = 5  # slices whose figure and page are timed
LENGTHS = (1.0, 5.0, 30.0)  # seconds of cases that the overhead is held against


def taken(commands: Sequence[Command]) -> tuple[float, float]:
    """Seconds of processors, and on the clock, of commands that were just started; all must end well."""
    begun = time.perf_counter()
    for command in commands:
        if command.wait() != 0:
            raise SystemExit(f"failed: {command.log.read_text(encoding='utf-8')}")
    return sum(command.processor for command in commands), time.perf_counter() - begun


def bare(scans: Path, told: Path) -> None:
    """Explain all slices with nothing around it; writes the seconds of each. Runs in a child."""
    from ctinv import invariance, zoo

    (denoiser,) = [zoo.load("chen")]
    preset = {"fit.steps": "2", "fit.patches": "32"}
    fitted: Any = invariance.fit(denoiser, ["conv5"], preset="tiny", overrides=preset)
    explainer = fitted[0]
    each, pages = [], []
    for file in sorted(scans.glob("*.npy")):
        image = np.load(file)
        begun = time.process_time()
        found = explainer.explain(image, samples=2, refine=0, cache=False)
        each.append(time.process_time() - begun)
        if len(each) <= DRAWN:
            pages.append(drawing(found, told.with_suffix("")))
    told.write_text(json.dumps({"bare": each[1:], "pages": pages[1:]}), encoding="utf-8")


def drawing(found: Any, folder: Path) -> float:
    """Seconds of a processor that figure and page of one explanation take."""
    moments = []
    for report in (True, False):
        begun = time.process_time()
        found.save(folder, report=report)
        moments.append(time.process_time() - begun)
    return moments[0] - moments[1]


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
        asked = ["analyze", "-m", "chen", "-l", "conv5", "-i", source, "--keep-names", "--no-report"]
        return start([*asked, *ASKED, *words, "-o", root / out], log, cache)

    def fresh(out: str) -> str:
        shutil.rmtree(root / out, ignore_errors=True)
        return out

    told = root / "bare.json"
    in_child(lambda: bare(scans, told))
    found = {name: float(np.mean(values)) for name, values in json.loads(told.read_text("utf-8")).items()}
    # What does not grow with the number of cases is taken off by a shorter run.
    short = taken([analyze(few, fresh("short"))])
    long = taken([analyze(scans, fresh("out"))])
    found["run"] = (long[0] - short[0]) / (count - FEW)
    start_up = short[0] - FEW * found["run"]
    found["there already"] = max(taken([analyze(scans, "out")])[0] - start_up, 0.0) / count
    found["one worker, clock"] = (long[1] - short[1]) / (count - FEW)
    fresh("two")
    shards = taken([analyze(scans, "two", "--shard", f"{k}/2") for k in (1, 2)])
    found["two workers, clock"] = (shards[1] - short[1] + FEW * found["one worker, clock"]) / count
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
    overhead = max(middle["run"] - middle["bare"], 0.0)
    reports = overhead + middle["pages"]
    one, two = middle["one worker, clock"], middle["two workers, clock"]
    return {
        "rounds": len(rounds),
        "seconds_per_case": each,
        "overhead_s": round(overhead, 4),
        "overhead_with_reports_s": round(reports, 4),
        "overhead_share": {f"{s:g} s": round(overhead / s, 5) for s in LENGTHS},
        "overhead_share_with_reports": {f"{s:g} s": round(reports / s, 5) for s in LENGTHS},
        "efficiency_of_two_workers": round(one / (2 * two), 3) if two > 0 else None,
        "days_of_1500000_cases_on_one_worker": {
            f"{s:g} s": round(MANY * (s + overhead) / 86400, 1) for s in LENGTHS
        },
        "hours_to_look_through_1500000_finished_cases": round(MANY * middle["there already"] / 3600, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    root: Path = given.out.absolute()
    os.environ["CTINV_CACHE"] = str(root / "cache")
    draw_slices(root / "scans", given.count, 0, given.side)
    draw_slices(root / "few", FEW, 0, given.side)
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
