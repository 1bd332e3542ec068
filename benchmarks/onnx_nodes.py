"""ONNX's own tests of operators, run on the operators that twins are made of.

    python benchmarks/onnx_nodes.py

Prints, for all 1,884 tests of ``onnx.backend.test.case.node`` (their number follows the installed onnx),
how many come out right, are refused, are of operators that are not rebuilt, or are wrong; the exit code
is 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from ctinv.adapters.onnx.twin import module as _registry  # registers every operator
from ctinv.adapters.onnx.twin.ops import BUILDERS, NotPlainError
from ctinv.adapters.onnx.twin.program import read_steps, run_steps
from onnx import numpy_helper

__all__ = ["cases", "outcome", "table"]

_ORDER = ("right", "refused", "not built", "WRONG")
# What an operator raises at tensors that it is not made for; making a twin ends there as well.
_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, NotImplementedError, AttributeError)


def cases() -> list[Any]:
    """Every node test that comes with onnx."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


def outcome(case: Any) -> tuple[str, str]:
    """``right``, ``refused``, ``not built`` or ``WRONG``, and why."""
    graph = case.model.graph
    foreign = sorted({n.op_type for n in graph.node if n.op_type not in BUILDERS and n.op_type != "Constant"})
    if foreign or any(node.domain not in ("", "ai.onnx") for node in graph.node):
        return "not built", ", ".join(foreign) or "other domains"
    for inputs, expected in case.data_sets:
        try:
            found = _run(case.model, inputs)
        except NotPlainError as error:
            return "refused", str(error)
        except _FAILURES as error:
            return "refused", f"{type(error).__name__}: {error}"
        for ours, theirs in zip(found, expected, strict=True):
            if not _same(ours, theirs, case.rtol, case.atol):
                return "WRONG", f"{np.asarray(ours).shape} for {np.asarray(theirs).shape}"
    return "right", ""


def _run(model: onnx.ModelProto, inputs: list[Any]) -> list[Any]:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    names = [value.name for value in model.graph.input]
    values: dict[str, Any] = {name: _tensor(value) for name, value in zip(names, inputs, strict=True)}
    outputs = [value.name for value in model.graph.output]
    steps, _ = read_steps(model.graph, opset, set(names), outputs, values.__setitem__)
    run_steps(steps, values)
    return [values[name] for name in outputs]


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _tensor(given: Any) -> torch.Tensor:
    value = _array(given)
    value = np.asarray(value) if isinstance(value, np.generic) else value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise NotPlainError(f"values that are {getattr(value, 'dtype', type(value).__name__)}")
    return torch.from_numpy(np.array(value))


def _same(ours: Any, theirs: Any, rtol: float, atol: float) -> bool:
    a, b = np.asarray(ours), np.asarray(_array(theirs))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    finite = b[np.isfinite(b)] if b.dtype.kind == "f" else np.zeros(0)
    span = float(np.abs(finite).max(initial=0.0))  # zeros need not come out as such beside large values
    return bool(np.allclose(a, b, rtol=rtol, atol=max(atol, 1e-6 * span), equal_nan=True))


def table(found: Iterator[tuple[str, str, str]]) -> str:
    """Counts of outcomes for each group of operators, as a table in Markdown."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for group, kind, _ in found:
        rows[group][kind] += 1
        rows["all"][kind] += 1
    lines = [f"| tests | {' | '.join(_ORDER)} |", f"|{'---|' * (1 + len(_ORDER))}"]
    for group in sorted(rows, key=lambda name: (name == "all", name)):
        lines.append(f"| {group} | {' | '.join(str(rows[group][kind]) for kind in _ORDER)} |")
    return "\n".join(lines)


def _group(case: Any) -> str:
    return "of functions written out" if "_expanded" in case.name else "of operators"


def main() -> None:
    """Print the table, and with ``--why`` every test that is not right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--why", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    assert _registry.GraphModule
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in cases():
            kind, why = outcome(case)
            found.append((_group(case), kind, why))
            if kind == "WRONG" or (given.why and kind != "right"):
                print(f"{kind}: {case.name}: {why}"[:200])
    print(table(iter(found)))
    sys.exit(any(kind == "WRONG" for _, kind, _ in found))


if __name__ == "__main__":
    main()
