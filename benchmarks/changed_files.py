"""Random or published networks, exported, changed by every optimiser that is installed, and read by name.

    python benchmarks/changed_files.py --networks 2000
    python benchmarks/changed_files.py --public

Each name that an ONNX file's layers answer to, and each name of the network's modules, must give what a
hook on the module saw, or be refused, or be announced as something else. Optimisers that are not
installed (onnxsim, onnxslim, onnxoptimizer) are left out, and the output says so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from ctinv import adapters
from ctinv.adapters.errors import CtinvError
from ctinv.adapters.onnx.running.trial import TRUST
from ctinv.invariance.infra.randomness import Purpose, rng
from public_networks import FREE, NETWORKS, public_network
from random_networks import random_network
from torch import nn

SIZE = 16
Change = Callable[[Path, Path], None]
LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")


def reuse_translations() -> None:
    """Let PyTorch's exporter keep its table of operators, which it else builds anew for every network."""
    from torch.onnx._internal.exporter import _registration

    kept = staticmethod(functools.cache(_registration.ONNXRegistry.from_torchlib))
    _registration.ONNXRegistry.from_torchlib = kept  # type: ignore[assignment,method-assign]


def export(network: nn.Module, path: Path, exporter: str, fixed: bool, opset: int = 17) -> None:
    """Write a network with the exporter ``torchscript``, in this opset, or ``dynamo``."""
    x = (torch.rand(1 if exporter == "torchscript" else 2, 1, SIZE, SIZE),)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = {"x": {0: "n"} if fixed else {0: "n", 2: "h", 3: "w"}}
            names = {"input_names": ["x"], "dynamic_axes": axes}
            torch.onnx.export(network, x, str(path), dynamo=False, opset_version=opset, **names)
        else:
            free = torch.export.Dim.DYNAMIC
            axes = ({0: free} if fixed else {0: free, 2: free, 3: free},)
            torch.onnx.export(
                network, x, str(path), dynamo=True, dynamic_shapes=axes, verbose=False, external_data=False
            )


def runtime(level: str) -> Change:
    """What saves a file as ONNX Runtime optimised it."""

    def change(source: Path, target: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
        options.optimized_model_filepath = str(target)
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return change


def optimisers() -> dict[str, Change]:
    """Every optimiser that is installed, by name."""
    found: dict[str, Change] = {f"ORT {level}": runtime(level) for level in LEVELS}
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
        self._values: tuple[adapters.Denoiser | None, dict[str, np.ndarray]] = (None, {})

    def show(self, title: str) -> None:
        """Print what came so far."""
        print(title)
        for name, count in sorted(self.counts.items()):
            print(f"{count:8d} {name}")
        print("refusals by reason:")
        for name, count in self.refusals.most_common(40):
            print(f"{count:8d} {name}")
        for text in self.wrong[:40]:
            print("WRONG", text, flush=True)

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
                layer = denoiser.resolve(name)
                z = self._read(denoiser, x, layer.name)
            except CtinvError as error:
                self.counts[f"{kind}: refused"] += 1
                self.refusals[_reason(error)] += 1
                continue
            call = re.search(r"@(-?\d+)$", name)
            calls, number = seen[_module(name)], int(call[1]) if call else 0
            same = -len(calls) <= number < len(calls) and _equal(z, calls[number])
            told = bool(layer.note) or any("layer" in text for text in denoiser.notices[before:])
            if same:
                self.counts[f"{kind}: right"] += 1
            elif told:
                self.counts[f"{kind}: other, and told"] += 1
            else:
                self.counts[f"{kind}: WRONG"] += 1
                self.wrong.append(f"{what}: {name} -> {layer.name} ({layer.op}) {z.shape}")

    def _read(self, denoiser: adapters.Denoiser, x: np.ndarray, name: str) -> np.ndarray:
        """One layer; all that can be read are read at once, which is much faster."""
        if self._values[0] is not denoiser:
            self._values = (denoiser, {})
            with contextlib.suppress(CtinvError):
                every = [layer.name for layer in denoiser.layers if layer.tappable]
                self._values = (denoiser, denoiser.features(x, every))
        kept = self._values[1].get(name)
        return denoiser.features(x, name) if kept is None else kept


def _equal(z: np.ndarray, right: np.ndarray) -> bool:
    return z.shape == right.shape and bool(np.abs(z - right).max() <= 2e-3 * max(np.abs(right).max(), 1e-3))


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
    parser.add_argument("--public", action="store_true", help="the six published networks instead")
    parser.add_argument("--every", type=int, default=0, help="print what came so far after so many networks")
    parser.add_argument("--keep", help="a folder for the files, which another run then need not make again")
    parser.add_argument("--exporters", default="torchscript,dynamo")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ[TRUST] = "1"  # files made here need no trial
    torch.set_num_threads(1)
    reuse_translations()
    tools, tally = optimisers(), Tally()
    for name in {"onnxsim", "onnxslim", "onnxoptimizer"} - set(tools):
        print(f"{name} is not installed: left out")
    chosen: Sequence[int | str] = range(given.first, given.first + given.networks)
    if given.public:
        chosen = sorted(NETWORKS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.keep or scratch)
        for count, network in enumerate(chosen, 1):
            for exporter in given.exporters.split(","):
                each(network, exporter, tools, tally, folder)
            if not given.keep:
                for left in folder.iterdir():
                    left.unlink()
            if given.every and count % given.every == 0:
                tally.show(f"{count} networks, up to {network}")
    tally.show(f"{len(chosen)} networks from {chosen[0]} to {chosen[-1]}")
    sys.exit(bool(tally.wrong))


def each(
    which: int | str,
    exporter: str,
    tools: dict[str, Callable[[Path, Path], None]],
    tally: Tally,
    folder: Path,
) -> None:
    """One network, one exporter, every optimiser; files that are in the folder already are used again.

    Arguments:
        which: The seed of a random network, or the name of a public one.
        exporter: ``torchscript`` or ``dynamo``.
        tools: What changes files, by name.
        tally: Is told what comes of each file.
        folder: Where the files are put.
    """
    if isinstance(which, str):
        fixed, network, opset = which not in FREE, public_network(which), 18  # patches laid over each other
    else:
        fixed, opset = which % 3 == 0, 17
        network = random_network(which, fixed)
    plain = folder / f"{which}-{exporter}.onnx"
    name = f"not exported by {exporter}"
    if not _made(plain, tally, name, lambda target: export(network, target, exporter, fixed, opset)):
        return
    tally.counts["networks exported"] += 1
    tally.file(plain, network, f"{which} {exporter}")
    for name, change in tools.items():
        changed = folder / f"{which}-{exporter}-{name.replace(' ', '-')}.onnx"
        if _made(changed, tally, f"not changed by {name}", functools.partial(change, plain)):
            tally.file(changed, network, f"{which} {exporter} {name}")


def _made(target: Path, tally: Tally, failure: str, make: Callable[[Path], None]) -> bool:
    """Whether a file is there, or could be made; tools raise whatever they like."""
    mark = target.with_suffix(".failed")
    if not target.exists() and not mark.exists():
        draft = target.with_suffix(".draft.onnx")
        try:
            make(draft)
            draft.replace(target)
        except Exception as error:
            mark.write_text(type(error).__name__)
    if target.exists():
        return True
    tally.counts[failure] += 1
    tally.refusals[f"{failure}: {mark.read_text()}"] += 1
    return False


if __name__ == "__main__":
    main()
