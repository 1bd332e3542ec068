"""Files that end the process that loads them are refused, and this process goes on."""

import errno
import os
import subprocess

import numpy as np
import onnx
import pytest
from ctinv import adapters
from ctinv.adapters.errors import ModelError
from ctinv.adapters.onnx.running import trial
from onnx import TensorProto, helper, numpy_helper

SHAPES = {
    "free": ["n", 1, "h", "w"],
    "one size": [1, 1, 24, 32],
    "pairs": [2, 1, "h", "w"],
    "channels last": ["n", "h", "w", 1],
}


def constant(value, name, dtype=np.int64):
    return numpy_helper.from_array(np.array(value, dtype), name)


def model(path, nodes, stored, *, shape="free", kind=TensorProto.FLOAT):
    """A graph from x to y with these nodes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, SHAPES[shape])],
        [helper.make_tensor_value_info("y", kind, SHAPES[shape])],
        stored,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def deadly(path, *, aside=False, shape="free", kind=TensorProto.FLOAT):
    """A graph that divides the least whole number by -1, which processors refuse; only when it is run.

    Arguments:
        path: Where to write it.
        aside: Whether its output needs none of that.
    """
    node = helper.make_node
    nodes = [
        node("Mul", ["x", "zero"], ["nothing"]),
        node("ReduceMax", ["nothing"], ["most"], keepdims=0),
        node("Cast", ["most"], ["whole"], to=TensorProto.INT64),
        node("Add", ["whole", "least"], ["number"]),
        node("Add", ["whole", "minus"], ["divisor"]),
        node("Div", ["number", "divisor"], ["quotient"]),
        node("Cast", ["quotient"], ["float"], to=kind),
        node("Mul", ["float", "nothing"], ["side"], name="side"),
        node("Add", ["x", "nothing" if aside else "side"], ["y"], name="sum"),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    stored = [constant(0, "zero", dtype), constant(-(2**63), "least"), constant(-1, "minus")]
    return model(path, nodes, stored, shape=shape, kind=kind)


def harmless(path):
    return model(path, [helper.make_node("Add", ["x", "one"], ["y"])], [constant(1, "one", np.float32)])


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.delenv(trial.TRUST, raising=False)
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found, start = [], subprocess.Popen

    def note(*words, **options):
        found.append(start(*words, **options))
        return found[-1]

    monkeypatch.setattr(trial.subprocess, "Popen", note)
    return found


@pytest.fixture
def child(monkeypatch, tmp_path):
    """Puts another program in the place of the trial's."""

    def put(code):
        (tmp_path / "child.py").write_text(f"import os, signal, sys, time\n{code}\n")
        monkeypatch.setattr(trial, "_CHILD", tmp_path / "child.py")

    return put


def load(path):
    return adapters.load(path, intensity="hu", output="image")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_that_ends_its_process_is_refused(tmp_path, shape):
    with pytest.raises(ModelError, match=r"ends its process \(SIGFPE\)"):
        load(deadly(tmp_path / "m.onnx", shape=shape))


def test_so_is_one_of_half_precision(tmp_path):
    with pytest.raises(ModelError, match=r"ends its process \(SIGFPE\)"):
        load(deadly(tmp_path / "m.onnx", kind=TensorProto.FLOAT16))


def test_layers_that_the_output_does_not_need_are_tried_too(tmp_path):
    with pytest.raises(ModelError, match="ends its process"):
        load(deadly(tmp_path / "m.onnx", aside=True))


def test_where_some_tensor_cannot_be_run_the_output_alone_is_tried(tmp_path):
    path = deadly(tmp_path / "m.onnx")
    graph = onnx.load(path)
    graph.graph.node.append(helper.make_node("Unknown", ["x"], ["odd"], domain="nobody"))
    graph.opset_import.append(helper.make_opsetid("nobody", 1))
    onnx.save(graph, path)
    with pytest.raises(ModelError, match="ends its process"):
        load(path)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL"])
def test_whatever_ends_it_is_told(child, tmp_path, name):
    child(f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(ModelError, match=rf"ends its process \({name}\) on this model; export it again"):
        load(harmless(tmp_path / "m.onnx"))


def test_a_file_is_tried_once(started, cache, tmp_path):
    path = harmless(tmp_path / "m.onnx")
    x = np.ones((1, 1, 16, 16), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(load(path).denoise(x), x + 1)
    assert len(started) == 1
    (kept,) = (cache / "models").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    raw = path.read_bytes()
    deadly(path)
    with pytest.raises(ModelError, match="ends its process"):
        load(path)
    with pytest.raises(ModelError, match="ends its process"):
        load(path)
    assert len(started) == 2
    path.write_bytes(raw)
    load(path)
    assert len(started) == 2


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, perhaps for want of memory"),
        ("time.sleep(60)", "did not end within"),
    ],
)
def test_what_may_have_been_chance_is_tried_again(child, started, monkeypatch, tmp_path, code, told):
    monkeypatch.setattr(trial, "_SECONDS", 1.0)
    child(code)
    path = harmless(tmp_path / "m.onnx")
    for _ in range(2):
        with pytest.raises(ModelError, match=told):
            load(path)
    assert len(started) == 2
    assert all(one.poll() is not None for one in started)


def test_an_error_of_the_trial_itself_does_no_harm(child, started, tmp_path):
    child("raise ImportError")
    path = harmless(tmp_path / "m.onnx")
    load(path)
    load(path)
    assert len(started) == 2


def test_without_processes_the_file_is_loaded_with_a_notice(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(trial.subprocess, "Popen", refuse)
    found = load(harmless(tmp_path / "m.onnx"))
    assert any("could not be tried in a process of its own" in notice for notice in found.notices)


def test_a_cache_that_cannot_be_written_costs_another_trial(started, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "file"))
    path = harmless(tmp_path / "m.onnx")
    load(path)
    load(path)
    assert len(started) == 2


def test_who_trusts_a_file_can_do_without(started, monkeypatch, tmp_path):
    monkeypatch.setenv(trial.TRUST, "1")
    load(harmless(tmp_path / "m.onnx"))
    assert started == []


HUGE = {
    "ConstantOfShape": ([10**6, 10**6], "shape"),
    "Expand": ([10**9, 1, 1, 1], "shape"),
    "Tile": ([1, 1, 10**5, 10**5], "shape"),
    "Range": (10**12, "limit"),
    "Resize": ([1, 1, 10**6, 10**6], "shape"),
    "Pad": ([0, 0, 10**6, 10**6, 0, 0, 0, 0], "shape"),
    "OneHot": (10**13, "limit"),
}


def huge(path, op):
    """A file of a few hundred bytes whose graph asks for terabytes."""
    node = helper.make_node
    first = {
        "ConstantOfShape": node(op, ["shape"], ["large"]),
        "Range": node(op, ["nought", "limit", "step"], ["large"]),
        "Resize": node(op, ["x", "", "", "shape"], ["large"]),
        "OneHot": node(op, ["list", "limit", "pair"], ["large"]),
    }.get(op, node(op, ["x", "shape"], ["large"]))
    nodes = [
        first,
        node("Cast", ["large"], ["float"], to=TensorProto.FLOAT),
        node("ReduceMax", ["float"], ["most"], keepdims=0),
        node("Add", ["x", "most"], ["y"]),
    ]
    stored = [constant(*HUGE[op]), constant(0, "nought"), constant(1, "step"), constant([0, 1], "pair")]
    stored.append(constant([0], "list"))
    return model(path, nodes, stored)


@pytest.mark.parametrize("op", HUGE)
def test_a_graph_that_asks_for_terabytes_is_refused(tmp_path, op):
    with pytest.raises(ModelError, match="memory"):
        load(huge(tmp_path / "m.onnx", op))
