"""Thousands of wrong models, weights, images and command lines: one line and 0 or 2, or a fault.

    python benchmarks/batteries.py [--only models,weights,images,commands] [--count 10000] [--seed 0]
                                   [--json FILE]

Each is given to the command line itself, a hundred in one forked child with 4 GB of memory each and a
minute of a processor. A fault is any other exit code, a traceback, more than one line of error, or the end
of the process. Graphs are loaded without their trial in a process of its own, so that many can be tried;
those that end the process are given to the command once more, with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.invariance.infra.randomness import Purpose, rng
from endurance.batches import Outcome, call_all, summary
from endurance.forked import import_everything
from endurance.mutants import garbled, mutated_graph, seed_weights

Call = tuple[str, Callable[[Path], Sequence[str]]]
TRUST = {"CTINV_TRUST_MODELS": "1"}
WEIGHTS = ("safetensors", "pt", "old.pt")
WORDS = (
    *(
        "analyze",
        "fit",
        "sample",
        "layers",
        "gather",
        "cache",
        "info",
        "prune",
        "probe",
        "zoo",
        "list",
        "data",
    ),
    *("inspect", "compare", "spectrum", "hide", "attack", "swap", "audit", "-m", "--model", "chen", "yang"),
    *("-l", "conv1", "all", "*", "[", "-i", "-o", "out", "--shard", "0/0", "1/2", "9/3", "--samples", "-1"),
    *("1e9", "nan", "inf", "--json", "--set", "a=b", "=", "fit.steps=x", "--preset", "tiny", "huge", "", " "),
    *("\u202e", "\u0000", "é" * 400, "--", "--seed", "2", "--rho", "0", "--quantiles", "1,2", "--memory"),
    *(
        "-5GB",
        "9" * 30 + "TB",
        "--intensity",
        "unit:::",
        "/dev/null",
        "/",
        "..",
        "--scheduler",
        "x",
        "--help",
    ),
    *(
        "--no-report",
        "--format",
        "dicom",
        "--feed",
        "--channels",
        "0",
        "--lesion",
        "size=0mm",
        "--doses",
        ",",
    ),
)
VALUES = ("", " ", "0", "-1", "x", "/dev/null", "/proc", "9" * 40, "1GB", "\u202e", "nan", "nowhere/at/all")
VARIABLES = ("CTINV_CACHE", "CTINV_CACHE_SIZE", "CTINV_TRUST_MODELS", "WORLD_SIZE", "HOME", "TMPDIR")


def models(count: int, seed: int) -> list[Call]:
    """Mutated graphs."""

    def make(number: int) -> Callable[[Path], Sequence[str]]:
        def call(home: Path) -> Sequence[str]:
            (home / "m.onnx").write_bytes(mutated_graph(number, seed))
            return ["layers", "-m", str(home / "m.onnx"), "--json"]

        return call

    return [(f"model {number}", make(number)) for number in range(count)]


def weights(count: int, seed: int) -> list[Call]:
    """Garbled weight files."""
    whole = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in WEIGHTS:
            seed_weights(Path(folder) / f"w.{kind}", kind)
            whole[kind] = (Path(folder) / f"w.{kind}").read_bytes()

    def make(number: int) -> Callable[[Path], Sequence[str]]:
        def call(home: Path) -> Sequence[str]:
            dice = random.Random(f"{seed} {number}")
            kind = WEIGHTS[number % len(WEIGHTS)]
            raw = whole[kind]
            if dice.random() < 0.5:  # mostly in what tells the shape of things, not in the numbers
                cut = 2000 if kind != "pt" else len(raw)
                raw = garbled(raw[:cut], dice) + raw[cut:]
            else:
                raw = garbled(raw, dice)
            (home / f"w.{kind}").write_bytes(raw)
            return ["layers", "-m", f"ctinv.zoo.networks:Chen?weights={home / f'w.{kind}'}", "--json"]

        return call

    return [(f"weights {number}", make(number)) for number in range(count)]


def images(count: int, seed: int) -> list[Call]:
    """Garbled images of all kinds."""
    whole = image_seeds()
    names = sorted(whole)

    def make(number: int) -> Callable[[Path], Sequence[str]]:
        def call(home: Path) -> Sequence[str]:
            dice = random.Random(f"{seed} {number}")
            name = names[number % len(names)]
            raw = whole[name]
            cut = min(len(raw), 400 if dice.random() < 0.6 else len(raw))
            (home / name).write_bytes(garbled(raw[:cut], dice) + raw[cut:])
            return ["data", "inspect", str(home / name), "--json"]

        return call

    return [(f"image {number}", make(number)) for number in range(count)]


def image_seeds() -> dict[str, bytes]:
    """One good file of each kind."""
    import zlib

    import nibabel
    import nrrd
    import tifffile
    from pydicom.data import get_testdata_file

    stack = rng(0, Purpose.WORKLOAD).normal(40, 30, (2, 24, 24)).astype(np.int16)
    found = {"a.dcm": Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "a.npy", stack)
        np.savez_compressed(folder / "a.npz", stack)
        for kind in ("nii", "nii.gz"):
            nibabel.save(nibabel.Nifti1Image(stack, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"a.{kind}")
        nrrd.write(str(folder / "a.nrrd"), stack)
        tifffile.imwrite(folder / "a.tif", stack)
        head = "NDims = 3\nDimSize = 24 24 2\nElementSpacing = 1 1 2\nElementType = MET_SHORT\n"
        head += "CompressedData = True\nElementDataFile = LOCAL\n"
        (folder / "a.mha").write_bytes(head.encode() + zlib.compress(stack.tobytes()))
        found |= {file.name: file.read_bytes() for file in folder.iterdir()}
    return found


def commands(count: int, seed: int) -> list[Call]:
    """Drawn words, and drawn settings of the environment."""

    def make(number: int) -> Callable[[Path], Sequence[str]]:
        def call(_: Path) -> Sequence[str]:
            dice = random.Random(f"{seed} {number}")
            for name in VARIABLES:
                os.environ.pop(name, None)
                if dice.random() < 0.15:
                    os.environ[name] = dice.choice(VALUES)
            return [dice.choice(WORDS) for _ in range(dice.randrange(1, 9))]

        return call

    return [(f"command {number}", make(number)) for number in range(count)]


KINDS: dict[str, Callable[[int, int], list[Call]]] = {
    "models": models,
    "weights": weights,
    "images": images,
    "commands": commands,
}
SHARES = {"models": 0.8, "weights": 0.2, "images": 1.0, "commands": 0.2}  # of the count


def with_trial(calls: Sequence[Call], found: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, once more and with a trial where the process was ended."""
    again = [call for call, one in zip(calls, found, strict=True) if one.code is not None and one.code < 0]
    if not again:
        return list(found)
    with tempfile.TemporaryDirectory() as cache:
        second = {one.name: one for one in call_all(again, {"CTINV_TRUST_MODELS": "", "CTINV_CACHE": cache})}
    return [second.get(one.name, one) for one in found]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import_everything()
    told: dict[str, Any] = {"seed": given.seed}
    for kind in given.only.split(","):
        calls = KINDS[kind](max(1, round(SHARES[kind] * given.count)), given.seed)
        with tempfile.TemporaryDirectory() as cache:
            first = call_all(calls, {**TRUST, "CTINV_CACHE": cache})
        told[kind] = summary(with_trial(calls, first))
        told[kind]["ended_the_process_without_a_trial"] = sum((one.code or 0) < 0 for one in first)
        print(json.dumps({kind: told[kind]}, indent=1), flush=True)
        if given.json:
            given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 1 if any(told[kind]["faults"] for kind in given.only.split(",")) else 0


if __name__ == "__main__":
    sys.exit(main())
