"""Whatever is thrown at the ONNX adapter, it works truly or raises one of our errors.

``CTINV_FUZZ=5000`` raises the number of cases; ``--slow`` runs the long form.
"""

import contextlib
import os

import numpy as np
import onnx
import pytest
from ctinv.adapters.errors import CtinvError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

FEW = int(os.environ.get("CTINV_FUZZ", "25"))
MANY = max(FEW, 500)
RELAXED = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}

tricky = st.sampled_from(
    [
        "",
        "x",
        "y",
        "a",
        "@input",
        "@output",
        "relu@0",
        "/relu/Relu",
        "//",
        "/",
        "a.b",
        "module.",
        "net[0]",
        "é",
        " ",
    ]
) | st.text(max_size=12)
sizes = st.sampled_from([0, -1, 1, 2, 3, 4, 7, 8, 16, 2**40, "n", "h", "", None])
kinds = st.sampled_from(
    [1, 10, 11, 16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT64, TensorProto.STRING, 0]
)


@contextlib.contextmanager
def ours():
    """Lets our own errors pass, if they are one line."""
    try:
        yield
    except CtinvError as caught:
        message = str(caught)
        if "\n" in message:
            raise


def use(path, open_onnx, name="", **options):
    """Do everything a user does; anything but our errors escapes."""
    x = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    with ours():
        denoiser = open_onnx(path, **options)
        layers = denoiser.layers
        assert len({layer.name for layer in layers}) == len(layers)
        for wanted in [*(layer.name for layer in layers), name]:
            with ours():
                assert denoiser.features(x, wanted).dtype == np.float32
        assert denoiser.denoise(x).shape[:2] == (2, 1)
        return denoiser
    return None


@st.composite
def graphs(draw):
    """Small graphs of convolutions, activations and oddities, valid or not."""
    kind = draw(st.sampled_from([1, 1, 1, 10, 11])) if draw(st.booleans()) else draw(kinds)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = np.float32
    if kind in (1, 10, 11):
        dtype = helper.tensor_dtype_to_np_dtype(kind)
    stored = {
        "w": rng.normal(size=(2, 1, 3, 3)),
        "v": rng.normal(size=(1, 2, 3, 3)),
        "one": np.ones(1),
        "map": np.ones((1, 1, 8, 8)),
    }
    tensors = ["x"]
    nodes = []
    for _ in range(draw(st.integers(1, 6))):
        op = draw(
            st.sampled_from(
                [
                    "Conv",
                    "Conv1",
                    "Relu",
                    "Add",
                    "Sub",
                    "Transpose",
                    "Reshape",
                    "Shape",
                    "Cast",
                    "Split",
                    "MaxPool",
                    "Bad",
                ]
            )
        )
        source = draw(st.sampled_from(tensors[-3:]))
        out = draw(tricky) if draw(st.integers(0, 9)) == 0 else f"t{len(tensors)}"
        name = draw(tricky)
        if op == "Conv":
            node = helper.make_node("Conv", [source, "w"], [out], name=name, pads=[1] * 4)
        elif op == "Conv1":
            node = helper.make_node("Conv", [source, "v"], [out], name=name, pads=[1] * 4)
        elif op in ("Add", "Sub"):
            other = draw(st.sampled_from([*tensors, "one", "map", "missing"]))
            node = helper.make_node(op, [source, other], [out], name=name)
        elif op == "Transpose":
            perm = draw(st.permutations(range(4)))
            node = helper.make_node(op, [source], [out], name=name, perm=perm)
        elif op == "Reshape":
            node = helper.make_node(op, [source, "target"], [out], name=name)
        elif op == "Cast":
            node = helper.make_node(op, [source], [out], name=name, to=draw(kinds))
        elif op == "Split":
            node = helper.make_node(op, [source], [out, out + "_2"], name=name, axis=draw(st.integers(-1, 3)))
        elif op == "MaxPool":
            node = helper.make_node(op, [source], [out, out + "_i"], name=name, kernel_shape=[2, 2])
        elif op == "Bad":
            node = helper.make_node(
                draw(st.sampled_from(["Nope", "If", "Loop", "Conv"])), [source], [out], name=name
            )
        else:
            node = helper.make_node(op, [source], [out], name=name)
        if draw(st.integers(0, 4)) == 0:
            entry = node.metadata_props.add()
            entry.key = "pkg.torch.onnx.name_scopes"
            entry.value = draw(
                st.sampled_from(["['', 'c', 'conv2d']", "['', 'c', 'c.0', 'x']", "[]", "['']", "oops"])
            )
        nodes.append(node)
        tensors.append(out)
    shape = draw(st.one_of(st.just(["n", 1, "h", "w"]), st.just([1, 1, 8, 8]), st.lists(sizes, max_size=5)))
    target = numpy_helper.from_array(
        np.array(draw(st.sampled_from([[1, 1, 8, 8], [0, -1, 8, 8], [-1], [7]]))), "target"
    )
    graph = helper.make_graph(
        nodes,
        "fuzz",
        [helper.make_tensor_value_info("x", kind, draw(st.just(shape) | st.none()))],
        [helper.make_tensor_value_info(draw(st.sampled_from(tensors)), kind, None)],
        [*(numpy_helper.from_array(v.astype(dtype), k) for k, v in stored.items()), target],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", draw(st.sampled_from([7, 13, 18, 20])))]
    )


def check_graph(open_onnx, folder, model, name):
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    before = path.read_bytes()
    use(path, open_onnx, name)
    assert path.read_bytes() == before


@settings(max_examples=FEW, **RELAXED)
@given(model=graphs(), name=tricky)
def test_fuzz_graphs(open_onnx, tmp_path, model, name):
    check_graph(open_onnx, tmp_path, model, name)


@pytest.mark.slow
@settings(max_examples=MANY, **RELAXED)
@given(model=graphs(), name=tricky)
def test_fuzz_graphs_long(open_onnx, tmp_path, model, name):
    check_graph(open_onnx, tmp_path, model, name)


def check_bytes(whole, open_onnx, folder, changes, cut):
    data = bytearray(whole)
    for position, value in changes:
        data[position % len(data)] = value
    path = folder / "model.onnx"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    use(path, open_onnx, "c1")


edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


@pytest.fixture(scope="module")
def whole(conv_graph):
    return conv_graph().read_bytes()


@settings(max_examples=FEW, **RELAXED)
@given(changes=edits, cut=st.sampled_from([0, 0, 0, 1, 50, 400]))
def test_fuzz_damaged_bytes(whole, open_onnx, tmp_path, changes, cut):
    check_bytes(whole, open_onnx, tmp_path, changes, cut)


@pytest.mark.slow
@settings(max_examples=MANY, **RELAXED)
@given(changes=edits, cut=st.sampled_from([0, 0, 0, 1, 50, 400]))
def test_fuzz_damaged_bytes_long(whole, open_onnx, tmp_path, changes, cut):
    check_bytes(whole, open_onnx, tmp_path, changes, cut)


@settings(max_examples=FEW, **RELAXED)
@given(
    shape=st.lists(st.integers(0, 9), max_size=5),
    kind=st.sampled_from(["float32", "float64", "float16", "int16", "complex64", "bool", "U1"]),
    layer=tricky | st.sampled_from(["c1", "r", "c2"]),
)
def test_fuzz_images_and_names(conv_graph, open_onnx, shape, kind, layer):
    if not hasattr(test_fuzz_images_and_names, "denoiser"):
        test_fuzz_images_and_names.denoiser = open_onnx(conv_graph())
    denoiser = test_fuzz_images_and_names.denoiser
    x = np.zeros(shape, dtype=kind)
    with ours():
        z = denoiser.features(x, layer)
        assert z.shape[0] == shape[0]
        assert z.dtype == np.float32


def test_fuzz_can_find_a_working_graph(open_onnx, conv_graph):
    """The fuzz above would be worthless if nothing ever ran."""
    denoiser = use(conv_graph(), open_onnx, "r")
    assert denoiser is not None
    assert onnx.__version__
