"""ONNX's own tests of operators: what a twin computes is right, or it is refused."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from ctinv.adapters.onnx.twin.ops import BUILDERS

from .test_ops import CASES

LEAST = 1100


@pytest.fixture(scope="module")
def scoreboard():
    """The benchmark that prints the table, and its cases."""
    folder = str(Path(__file__).parents[4] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import onnx_nodes

        return onnx_nodes, onnx_nodes.cases()
    finally:
        sys.path.remove(folder)


@pytest.mark.filterwarnings("ignore")  # some cases divide by zero on purpose
def test_no_node_test_comes_out_wrong(scoreboard):
    board, cases = scoreboard
    found = {case.name: board.outcome(case) for case in cases}
    assert not {name: why for name, (kind, why) in found.items() if kind == "WRONG"}
    assert Counter(kind for kind, _ in found.values())["right"] >= LEAST
    fine = [case for case in cases if found[case.name][0] == "right"]
    right = {node.op_type for case in fine for node in case.model.graph.node}
    tried = {node.op_type for nodes in CASES.values() for node in nodes}
    assert not set(BUILDERS) - right - tried


def test_a_wrong_operator_is_found(scoreboard, monkeypatch):
    board, cases = scoreboard
    case = next(case for case in cases if case.name == "test_relu")
    assert board.outcome(case) == ("right", "")
    monkeypatch.setitem(BUILDERS, "Relu", lambda _: lambda x: x)
    assert board.outcome(case)[0] == "WRONG"
    monkeypatch.delitem(BUILDERS, "Relu")
    assert board.outcome(case) == ("not built", "Relu")


def test_the_table_counts_every_outcome(scoreboard):
    board, _ = scoreboard
    lines = board.table(iter([("a", "right", ""), ("a", "refused", "why"), ("b", "right", "")])).splitlines()
    assert lines[2:] == ["| a | 1 | 1 | 0 | 0 |", "| b | 1 | 0 | 0 | 0 |", "| all | 2 | 1 | 0 | 0 |"]
