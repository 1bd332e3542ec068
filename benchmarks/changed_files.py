"""Random networks, exported, changed by every optimiser that is installed, and read by name.

    python benchmarks/changed_files.py --networks 2000

Each name that an ONNX file's layers answer to, and each name of the network's modules, must give what a
hook on the module saw, or be refused, or be announced as something else. Optimisers that are not
installed (onnxsim, onnxslim, onnxoptimizer) are left out, and the output says so.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from ctinv import adapters
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, rng
from random_networks import random_network
from torch import nn

SIZE = 16
LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")


def export(network: nn.Module, path: Path, exporter: str, fixed: bool) -> None:
    """Write a network with the exporter ``torchscript`` or ``dynamo``."""
    x = (torch.rand(1 if exporter == "torchscript" else 2, 1, SIZE, SIZE),)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = {"x": {0: "n"} if fixed else {0: "n", 2: "h", 3: "w"}}
            torch.onnx.export(
                network, x, str(path), dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=17
            )
        else:
            free = torch.export.Dim.DYNAMIC
            axes = ({0: free} if fixed else {0: free, 2: free, 3: free},)
            torch.onnx.export(
                network, x, str(path), dynamo=True, dynamic_shapes=axes, verbose=False, external_data=False
            )


def runtime(level: str) -> Callable[[Path, Path], None]:
    """What saves a file as ONNX Runtime optimised it."""

    def change(source: Path, target: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
        options.optimized_model_filepath = str(target)
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return change


def optimisers() -> dict[str, Callable[[Path, Path], None]]:
    """Every optimiser that is installed, by name."""
    found = {f"ORT {level}": runtime(level) for level in LEVELS}
    with contextlib.suppress(ImportError):
        import onnxsim

        found["onnxsim"] = lambda a, b: onnx.save(onnxsim.simplify(onnx.load(a))[0], b)
    with contextlib.suppress(ImportError):
        import onnxslim

        found["onnxslim"] = lambda a, b: onnx.save(onnxslim.slim(onnx.load(a)), b)
    with contextlib.suppress(ImportError):
        import onnxoptimizer

        every = onnxoptimizer.get_fuse_and_elimination_passes()
        found["onnxoptimizer"] = lambda a, b: onnx.save(onnxoptimizer.optimize(onnx.load(a), every), b)
    return found


def hooked(network: nn.Module, u: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What every module returned at every call, model units."""
    seen: dict[str, list[np.ndarray]] = {}
    handles = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: (
                seen.setdefault(name, []).append(out.detach().clone().numpy())
                if isinstance(out, torch.Tensor)
                else None
            )
        )
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network(torch.from_numpy(u))
    for handle in handles:
        handle.remove()
    return seen


class Tally:
    """What came of all names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.wrong: list[str] = []

    def file(self, path: Path, network: nn.Module, what: str) -> None:
        """Read a file by every name and compare."""
        x = rng(0, Purpose.WORKLOAD).normal(0, 300, (2, 1, SIZE, SIZE)).astype(np.float32)
        seen = hooked(network, (x + 1024) / 4096)
        try:
            denoiser = adapters.load(
                path, intensity="unit:-1024:3072", output="image", device="cpu", threads=1
            )
            layers = denoiser.layers
        except CtinvError as error:
            self.counts["files refused"] += 1
            self.refusals[f"file: {_reason(error)}"] += 1
            return
        self.counts["files read"] += 1
        asked = {name: "module" for name in seen if name}
        for layer in layers:
            if layer.tappable:
                names = (layer.name, *layer.aliases)
                asked.update({name: "listed" for name in names if _module(name) in seen})
        for name, kind in asked.items():
            before = len(denoiser.notices)
            try:
                z = denoiser.features(x, name)
            except CtinvError as error:
                self.counts[f"{kind}: refused"] += 1
                self.refusals[_reason(error)] += 1
                continue
            layer, call = denoiser.resolve(name), re.search(r"@(-?\d+)$", name)
            right = seen[_module(name)][int(call[1]) if call else 0]
            same = z.shape == right.shape and np.abs(z - right).max() <= 2e-3 * max(np.abs(right).max(), 1e-3)
            told = bool(layer.note) or any("layer" in text for text in denoiser.notices[before:])
            if same:
                self.counts[f"{kind}: right"] += 1
            elif told:
                self.counts[f"{kind}: other, and told"] += 1
            else:
                self.counts[f"{kind}: WRONG"] += 1
                self.wrong.append(f"{what}: {name} -> {layer.name} ({layer.op}) {z.shape} for {right.shape}")


def _module(name: str) -> str:
    return re.sub(r"@-?\d+$", "", name)


def _reason(error: CtinvError) -> str:
    text = re.sub(r"'[^']*'|\"[^\"]*\"|[\w./]*\.onnx", "...", str(error))
    return re.sub(r"[\d.]+", "#", re.sub(r"\([^()]*\)|[;:] .*?(nearest|close|layers are).*", "", text))[:110]


def main() -> None:
    """Run and print; the exit code is 1 where a name lied."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--exporters", default="torchscript,dynamo")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    tools, tally = optimisers(), Tally()
    for name in {"onnxsim", "onnxslim", "onnxoptimizer"} - set(tools):
        print(f"{name} is not installed: left out")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.first, given.first + given.networks):
            for exporter in given.exporters.split(","):
                each(seed, exporter, tools, tally, Path(folder))
    for name, count in sorted(tally.counts.items()):
        print(f"{count:8d} {name}")
    print("refusals by reason:")
    for name, count in tally.refusals.most_common(40):
        print(f"{count:8d} {name}")
    for text in tally.wrong[:40]:
        print("WRONG", text)
    sys.exit(bool(tally.wrong))


def each(
    seed: int, exporter: str, tools: dict[str, Callable[[Path, Path], None]], tally: Tally, folder: Path
) -> None:
    """One network, one exporter, every optimiser."""
    fixed = seed % 3 == 0
    network = random_network(seed, fixed)
    path, changed = folder / "plain.onnx", folder / "changed.onnx"
    try:
        export(network, path, exporter, fixed)
    except Exception as error:  # exporters raise whatever they like
        tally.counts[f"not exported by {exporter}"] += 1
        tally.refusals[f"export: {type(error).__name__}"] += 1
        return
    tally.counts["networks exported"] += 1
    tally.file(path, network, f"{seed} {exporter}")
    for name, change in tools.items():
        changed.unlink(missing_ok=True)
        try:
            change(path, changed)
        except Exception as error:  # as above
            tally.counts[f"not changed by {name}"] += 1
            tally.refusals[f"{name}: {type(error).__name__}"] += 1
            continue
        tally.file(changed, network, f"{seed} {exporter} {name}")


if __name__ == "__main__":
    main()
