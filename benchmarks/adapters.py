"""What observing a layer costs over the least that could do it.

PyTorch: ``features`` against one forward hook that copies, on the same module; the last layer is
read, so that neither can stop early. ONNX: ``features`` against ONNX Runtime run on the same cut of
the graph. Both sides convert HU to model units and take turns within one run; the median ratio of their
paired times is reported with its quartiles. On a busy machine trust the processor time.

A second table tells what an early layer costs: its time as a share of the whole network's, beside the
share of multiplications that lie before it.

    python benchmarks/adapters.py [--side 128] [--batch 1] [--rounds 60] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx.utils
import onnxruntime as ort
import torch
from ctinv import adapters
from ctinv.invariance.infra.randomness import Purpose, rng, torch_seed
from torch import nn

UNITS = "unit:-1024:3072"


def network(width: int = 32, depth: int = 8) -> nn.Module:
    """A plain denoiser of 3x3 convolutions, as most are."""
    torch.manual_seed(torch_seed(0, Purpose.WORKLOAD))
    inner = [part for _ in range(depth - 2) for part in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
    ends = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
    return nn.Sequential(ends[0], nn.ReLU(), *inner, ends[1]).eval()


def export(module: nn.Module, path: Path, side: int) -> None:
    """The module as ONNX, with free batch and size."""
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        image = torch.zeros(1, 1, side, side)
        torch.onnx.export(module, (image,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)


def bare_hook(module: nn.Module, layer: str) -> Callable[[np.ndarray], np.ndarray]:
    """One forward hook that copies, and nothing else."""
    part = module.get_submodule(layer)
    units = adapters.parse_intensity(UNITS)

    def run(x: np.ndarray) -> np.ndarray:
        kept: list[torch.Tensor] = []
        handle = part.register_forward_hook(lambda _m, _i, z: kept.append(z.detach().clone()))
        with torch.no_grad():
            module(units.to_model(torch.from_numpy(x)))
        handle.remove()
        return kept[0].numpy()

    return run


def bare_session(path: Path, tensor: str, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """ONNX Runtime on the part of the graph that a tensor needs."""
    model = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(onnx.load(path))).extract_model(
        ["x"], [tensor]
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    units = adapters.parse_intensity(UNITS)

    def run(x: np.ndarray) -> np.ndarray:
        (z,) = session.run([tensor], {"x": units.to_model(x)})
        return np.asarray(z)

    return run


def race(
    tap: Callable[[np.ndarray], np.ndarray],
    bare: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    rounds: int,
) -> dict[str, float]:
    """Medians of both in milliseconds, and quartiles of the overhead from call to call."""
    np.testing.assert_allclose(tap(x), bare(x), rtol=1e-4, atol=1e-5)
    for _ in range(3):
        tap(x), bare(x)
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    spent: dict[str, list[list[float]]] = {"tap": [], "bare": []}
    for turn in range(rounds):
        pair = [("tap", tap), ("bare", bare)]
        for name, run in pair if turn % 2 else reversed(pair):
            start = [clock() for clock in clocks.values()]
            run(x)
            stop = [clock() for clock in clocks.values()]
            spent[name].append([1e3 * (b - a) for a, b in zip(start, stop, strict=True)])
    row: dict[str, float] = {}
    for index, clock in enumerate(clocks):
        taps, bares = ([times[index] for times in spent[name]] for name in ("tap", "bare"))
        ratios = statistics.quantiles([a / b for a, b in zip(taps, bares, strict=True)], n=4)
        row[f"{clock}_tap_ms"], row[f"{clock}_bare_ms"] = statistics.median(taps), statistics.median(bares)
        names = ("low", "median", "high")
        row |= {f"{clock}_{n}_percent": 100 * (r - 1) for n, r in zip(names, ratios, strict=True)}
    return row


def before(module: nn.Module, index: int) -> float:
    """Percentage of a plain network's multiplications up to and with one of its layers."""
    counts = [part.weight.numel() if isinstance(part, nn.Conv2d) else 0 for part in module.children()]
    return 100 * sum(counts[: index + 1]) / sum(counts)


def costs(
    denoiser: adapters.Denoiser, layers: dict[int, str], x: np.ndarray, rounds: int
) -> dict[int, dict[str, float]]:
    """Reading a layer: median milliseconds, and the median percentage of the whole network's time."""
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    names = {**layers, -1: adapters.OUTPUT}
    spent: dict[int, list[list[float]]] = {index: [] for index in names}
    for turn in range(rounds + 3):
        for index, name in names.items():
            start = [clock() for clock in clocks.values()]
            denoiser.features(x, name)
            if turn >= 3:  # the first runs list layers and open sessions
                stop = [clock() for clock in clocks.values()]
                spent[index].append([1e3 * (b - a) for a, b in zip(start, stop, strict=True)])
    rows: dict[int, dict[str, float]] = {}
    for index in layers:
        rows[index] = {}
        for k, clock in enumerate(clocks):
            own, whole = ([times[k] for times in spent[i]] for i in (index, -1))
            rows[index][f"{clock}_ms"] = statistics.median(own)
            share = statistics.median(a / b for a, b in zip(own, whole, strict=True))
            rows[index][f"{clock}_percent"] = 100 * share
    return rows


def main() -> None:
    """Measure, print two tables, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=128, help="pixels per side")
    parser.add_argument("--batch", type=int, default=1, help="images per call")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    module = network()
    shape = (args.batch, 1, args.side, args.side)
    x = rng(0, Purpose.WORKLOAD).normal(40, 100, shape).astype(np.float32)
    last = len(list(module.children())) - 1
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export(module, path, args.side)
        wrapped = adapters.wrap(module, intensity=UNITS)
        figures["torch"] = race(
            partial(wrapped.features, layer=str(last)), bare_hook(module, str(last)), x, args.rounds
        )
        loaded = adapters.load(path, intensity=UNITS, output="image", device="cpu", threads=args.threads)
        for index in (2, last // 2, last - 1):
            tensor = f"/{index}/{'Relu' if index % 2 else 'Conv'}_output_0"
            figures[f"onnx {index}"] = race(
                partial(loaded.features, layer=tensor),
                bare_session(path, tensor, args.threads),
                x,
                args.rounds,
            )
        early = {index: str(index) for index in (0, 2, last // 2, last - 1)}
        shares = {
            kind: costs(denoiser, early, x, args.rounds)
            for kind, denoiser in (("torch", wrapped), ("onnx", loaded))
        }
    print(f"{'reading':10} {'clock':6} {'tap ms':>9} {'bare ms':>9} {'overhead':>9}   quartiles")
    for name, row in figures.items():
        for clock in ("wall", "cpu"):
            print(
                f"{name:10} {clock:6} {row[f'{clock}_tap_ms']:9.2f} {row[f'{clock}_bare_ms']:9.2f} "
                f"{row[f'{clock}_median_percent']:8.1f}%   "
                f"{row[f'{clock}_low_percent']:.1f}% to {row[f'{clock}_high_percent']:.1f}%"
            )
    print(f"\n{'layer':10} {'clock':6} {'ms':>9} {'of the whole':>13} {'of its multiplications':>23}")
    for kind, rows in shares.items():
        for index, row in rows.items():
            figures[f"{kind} {index} of whole"] = {**row, "multiplications_percent": before(module, index)}
            for clock in ("wall", "cpu"):
                print(
                    f"{f'{kind} {index}':10} {clock:6} {row[f'{clock}_ms']:9.2f} "
                    f"{row[f'{clock}_percent']:12.1f}% {before(module, index):22.1f}%"
                )
    about = {**{k: v for k, v in vars(args).items() if k != "json"}, "torch": torch.__version__}
    report = {"settings": {**about, "onnxruntime": ort.__version__}, "figures": figures}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    else:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
