"""All measurements in one go, as JSON, a Markdown table and a picture."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from ctinv.adapters._types import Progress
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.presets import Precision
from ctinv.invariance.sampling.sampler import decoding_type

from .commands import bench_commands
from .flows import bench_flows
from .sampling import bench_sampling

__all__ = ["bench_suite", "markdown"]

_LOOP = {"tiny": 60, "small": 40}
_SAMPLES = {"tiny": 500, "small": 250}


def bench_suite(
    out: str | Path,
    *,
    presets: Sequence[str] = ("tiny", "small", "paper2024"),
    devices: Sequence[str] = ("cpu",),
    commands: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure everything and write ``bench.json``, ``bench.md`` and ``bench.png``.

    Arguments:
        out: Folder to write into.
        presets: Presets to sample with.
        devices: Devices to sample on.
        commands: The module that is the command line, to be timed too; None for not.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: The folder cannot be written, or a command failed.
    """
    kinds = {device: _precisions(device) for device in devices}
    total = sum(len(presets) * len(kinds[device]) + 1 for device in devices) + (commands is not None)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress("benchmark", done, total)

    measured: dict[str, Any] = {"schema_version": 1, "sampling": [], "flows": []}
    for device in devices:
        for preset, precision in product(presets, kinds[device]):
            large = device != "cpu"
            measured["sampling"].append(
                bench_sampling(
                    preset,
                    device=device,
                    samples=250 if large else _SAMPLES.get(preset, 20),
                    loop=20 if large else _LOOP.get(preset, 3),
                    precision=precision,
                )
            )
            step()
        measured["flows"].append(bench_flows(device=device))
        step()
    if commands is not None:
        measured["commands"] = bench_commands(commands)
        step()
    write_files(
        out,
        {
            "bench.json": (json.dumps(measured, indent=2) + "\n").encode(),
            "bench.md": markdown(measured).encode(),
            "bench.png": _plot(measured),
        },
    )
    return measured


def _precisions(device: str) -> tuple[Precision, ...]:
    """Types of number that the device computes with."""
    few = decoding_type("auto", torch.device(device)) is torch.bfloat16
    return ("float32", "bfloat16") if few else ("float32",)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(measured: Mapping[str, Any]) -> str:
    """The figures as Markdown tables.

    Arguments:
        measured: What :func:`bench_suite` returns.
    """
    parts = []
    rows = [
        [
            row["preset"],
            f"{row['machine']['device']}, {row['dtype']}",
            f"{row['samples_per_s']:.3g}",
            f"{row['published_samples_per_s']:.3g}",
            f"{row['ratio_to_published_loop']:.1f}",
            f"{row['relative_error']:.0e}",
            f"{100 * row['share_of_matmul_rate']:.0f} %",
            f"{row['seconds_per_slice']:.0f} s",
        ]
        for row in measured["sampling"]
    ]
    heads = (
        "preset",
        "device, decoder",
        "samples/s",
        "published loop",
        "ratio",
        "difference",
        "of matrix rate",
        "slice of 512 x 512, 250 samples",
    )
    parts.append(_table(heads, rows))
    for flows in measured["flows"]:
        best = flows["samples_per_s"]
        rows = [[name, f"{rate:.0f}", f"{best['ctinv'] / rate:.1f}"] for name, rate in best.items()]
        rows += [[name, "not installed", ""] for name in flows["skipped"]]
        rows.append(["arithmetic bound", f"{flows['bound_samples_per_s']:.0f}", ""])
        parts.append(
            _table((f"flow alone, {flows['machine']['device']}", "samples/s", "ctinv is faster by"), rows)
        )
    if "commands" in measured:
        rows = [
            [name, f"{row['seconds']:.1f} s", f"{row['peak_mbytes']:.0f} MB"]
            for name, row in measured["commands"]["commands"].items()
        ]
        parts.append(
            _table((f"command, preset {measured['commands']['preset']}", "time", "peak memory"), rows)
        )
    about = measured["sampling"][0]["machine"] if measured["sampling"] else measured["flows"][0]["machine"]
    parts.append(
        f"{about['name']}, {about['threads']} threads, {about['matmul_gflops']:.0f} GFLOP/s, "
        f"{about['bandwidth_gbytes']:.0f} GB/s, torch {about['torch']}"
    )
    return "\n\n".join(parts) + "\n"


def _plot(measured: Mapping[str, Any]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, row in enumerate(measured["sampling"]):
        left.bar(k - 0.2, row["samples_per_s"], 0.4, color="#1f6f8b", label=None if k else "ctinv")
        left.bar(
            k + 0.2,
            row["published_samples_per_s"],
            0.4,
            color="#b0b0b0",
            label=None if k else "published loop",
        )
    names = [f"{row['preset']}\n{row['dtype']}" for row in measured["sampling"]]
    left.set_xticks(range(len(names)), names, fontsize=7)
    left.set_yscale("log")
    left.set_ylabel("samples/s")
    left.legend(frameon=False)
    for flows in measured["flows"][:1]:
        names = list(flows["samples_per_s"])[::-1]
        colours = ["#1f6f8b" if name.startswith("ctinv") else "#b0b0b0" for name in names]
        right.barh(names, [flows["samples_per_s"][name] for name in names], color=colours)
        right.axvline(flows["bound_samples_per_s"], color="black", linestyle=":", label="arithmetic bound")
        right.set_xlabel("flow alone, samples/s")
        right.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
