"""Whatever is thrown at the adapters, they read truly or raise one of their own errors.

``--slow`` draws far more cases, and ``CTINV_FUZZ`` says how many for each test; see ``tests/conftest.py``.
"""

import contextlib

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import CtinvError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ..laws import captured
from ..toys import make

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


SCOPES = ("['', 'c', 'conv2d']", "['', 'c', 'c.0', 'x']", "['', 'r', 'relu_1']", "[]", "['']", "oops")
PLAIN = ("Relu", "Sigmoid", "Identity", "Add", "Sub", "Concat", "Split", "MaxPool", "Pool", "Quantize")
ODD = ("Transpose", "Reshape", "Shape", "Cast", "If", "Nope", "Missing", "Twice")


@st.composite
def graphs(draw):
    """Small graphs: mostly sound, of convolutions and what comes with them; some with oddities."""
    odd = draw(st.integers(0, 3)) == 0
    kind = draw(kinds) if odd else draw(st.sampled_from([1, 1, 1, 10]))
    dtype = helper.tensor_dtype_to_np_dtype(kind) if kind in (1, 10, 11) else np.float32
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    stored = {f"w{c}": rng.normal(size=(2, c, 3, 3)) for c in (1, 2, 3, 4)}
    stored |= {"back": rng.normal(size=(1, 2, 3, 3)), "one": np.ones(1), "scale": np.full((), 0.05)}
    channels = {"x": 1}
    nodes = []

    def add(op, inputs, outputs, **attributes):
        name = draw(tricky | st.just(f"/m{len(nodes) // 2}/{op}") | st.just(f"/m/m.{len(nodes)}/{op}"))
        node = helper.make_node(op, inputs, outputs, name=name, **attributes)
        if draw(st.integers(0, 3)) == 0:
            entry = node.metadata_props.add()
            entry.key, entry.value = "pkg.torch.onnx.name_scopes", draw(st.sampled_from(SCOPES))
        nodes.append(node)

    for step in range(draw(st.integers(0, 6))):
        source = draw(st.sampled_from(list(channels)[-3:]))
        count = channels[source]
        op = draw(st.sampled_from(PLAIN + ODD * odd) | st.just("Conv"))
        out = draw(tricky) if draw(st.integers(0, 9)) == 0 else f"t{step}"
        if not out or out in channels or out in stored:
            out = f"t{step}"
        channels[out] = count
        if op == "Conv":
            add(op, [source, f"w{min(count, 4)}"], [out], pads=[1] * 4)
            channels[out] = 2
        elif op in ("Add", "Sub"):
            same = [name for name, other in channels.items() if other == count and name != out]
            add(op, [source, draw(st.sampled_from([*same, "one"]))], [out])
        elif op == "Concat":
            add(op, [source, "x"], [out], axis=1)
            channels[out] = count + 1
        elif op == "Split":
            add(op, [source], [out, f"{out}_2"], axis=draw(st.sampled_from([0, 1, 2, -1])))
        elif op in ("MaxPool", "Pool"):
            name = {"Pool": "AveragePool"}.get(op, op)
            add(name, [source], [out, f"{out}_i"][: 2 - (op == "Pool")], kernel_shape=[3, 3], pads=[1] * 4)
        elif op == "Quantize":
            add("QuantizeLinear", [source, "scale"], [f"{out}_q"])
            add("DequantizeLinear", [f"{out}_q", "scale"], [out])
        elif op == "Transpose":
            add(op, [source], [out], perm=draw(st.permutations(range(4))))
        elif op == "Reshape":
            add(op, [source, "target"], [out])
        elif op == "Cast":
            add(op, [source], [out], to=draw(kinds))
        elif op == "Missing":
            add("Add", [source, "missing"], [out])
        elif op == "Twice":
            add("Relu", [source], ["t0"])
            add("Relu", [source], [out])
        else:
            add(op, [source], [out])
    last = list(channels)[-1]
    if not odd or draw(st.booleans()):
        add("Conv", [last, f"w{min(channels[last], 4)}"], ["mid"], pads=[1] * 4)
        add("Conv", ["mid", "back"], ["end"], pads=[1] * 4)
        last = "end"
    shapes = st.sampled_from([["n", 1, "h", "w"], [1, 1, 8, 8], ["n", 1, 8, 8], [2, 1, "h", "w"]])
    shape = draw(st.lists(sizes, max_size=5) | st.none()) if odd else draw(shapes)
    target = np.array(draw(st.sampled_from([[1, 1, 8, 8], [0, -1, 8, 8], [-1], [7]])))
    graph = helper.make_graph(
        nodes,
        "fuzz",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(last, kind, None)],
        [
            *(numpy_helper.from_array(v.astype(dtype), k) for k, v in stored.items()),
            numpy_helper.from_array(target, "target"),
        ],
    )
    opset = draw(st.sampled_from([7, 13, 18, 20])) if odd else 17
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check_graph(open_onnx, capture, folder, model, name):
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    before = path.read_bytes()
    denoiser = use(path, open_onnx, name)
    assert path.read_bytes() == before
    if denoiser is None:
        return
    x = np.random.default_rng(1).normal(size=(2, 1, 8, 8)).astype(np.float32)
    try:
        reference = capture(path, {"x": x})
    except Exception:  # the plain runtime takes less than we do: other batches, sizes and types
        return
    for layer in denoiser.layers:
        want = denoiser._places.get(layer.name)
        if layer.tappable and not want.scale:
            with ours():
                z = denoiser.features(x, layer.name)
                np.testing.assert_allclose(z, reference[want.tensor], rtol=1e-3, atol=1e-4)


@given(model=graphs(), name=tricky)
def test_fuzz_graphs(open_onnx, capture, tmp_path, model, name):
    check_graph(open_onnx, capture, tmp_path, model, name)


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


@given(changes=edits, cut=st.sampled_from([0, 0, 0, 1, 50, 400]))
def test_fuzz_damaged_bytes(whole, open_onnx, tmp_path, changes, cut):
    check_bytes(whole, open_onnx, tmp_path, changes, cut)


NAMES = {
    "onnx": ["c1", "r", "c2", "a", "b", "y", "conv2", "relu1"],
    "torch": ["pair", "pair[0]", "pair[2]", "named['h']", "named[gate][1]", "single", "conv", "recorder@0"],
}
KINDS = ("float16", "float64", "int16", "uint8", "complex64", "bool", "U1")


@st.composite
def readings(draw, adapter):
    """What to ask an adapter for: mostly a layer that is there, for images; else something odd."""

    def odd():
        return draw(st.integers(0, 3)) == 0

    side = st.integers(1, 20)
    image, any_shape = st.tuples(side, st.just(1), side, side), st.lists(st.integers(0, 9), max_size=5)
    shape = draw(any_shape if odd() else image)
    kind = draw(st.sampled_from(KINDS)) if odd() else "float32"
    layer = draw(tricky) if odd() else draw(st.sampled_from(NAMES[adapter]))
    return shape, kind, layer, draw(st.booleans())


@pytest.fixture(scope="module")
def readable(conv_graph, open_onnx, capture):
    """By kind of adapter: a denoiser, names of layers, and every layer's true values for images."""
    path = conv_graph()
    module = make("TupleInside")

    def tensors(x):
        found = capture(path, {"x": x})
        return {name: found[tensor] for name, tensor in (("c1", "a"), ("r", "b"), ("c2", "y"))}

    def modules(x):
        return {name: z.numpy() for name, z in captured(module, torch.from_numpy(x)).items()}

    return {
        "onnx": (open_onnx(path), tensors),
        "torch": (adapters.wrap(module, intensity="hu"), modules),
    }


def check_reading(denoiser, reference, shape, kind, layer, as_tensor):
    """A reading is the true one, and of the image's kind; or one of our errors says why there is none."""
    rng = np.random.default_rng(len(layer))
    x = np.asarray(100 * rng.normal(size=shape)).astype(kind)
    given = torch.from_numpy(x) if as_tensor and x.dtype.kind != "U" else x
    with ours():
        z = denoiser.features(given, layer)
        assert isinstance(z, type(given))
        z = np.asarray(z)
        assert z.dtype == np.float32
        if layer not in ("@input", "@output"):
            want = reference(x.astype(np.float32))[denoiser.resolve(layer).name]
            np.testing.assert_allclose(z, want, rtol=1e-3, atol=1e-3)
            return True
    return False


@pytest.mark.parametrize("adapter", sorted(NAMES))
@given(data=st.data())
def test_fuzz_images_and_names(readable, adapter, data):
    check_reading(*readable[adapter], *data.draw(readings(adapter)))


@pytest.mark.parametrize("adapter", sorted(NAMES))
def test_fuzz_reads_some_images(readable, adapter):
    """The fuzz above would be worthless if it met nothing but refusals."""
    read = []

    @given(request=readings(adapter))
    def look(request):
        read.append(check_reading(*readable[adapter], *request))

    look()
    assert sum(read) > len(read) / 10


def test_fuzz_makes_graphs_that_work(open_onnx, tmp_path):
    """As above, for the fuzz of graphs."""
    opened = []

    @given(model=graphs())
    def look(model):
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        denoiser = use(path, open_onnx)
        opened.append(denoiser is not None and any(layer.tappable for layer in denoiser.layers))

    look()
    assert sum(opened) > len(opened) / 4
