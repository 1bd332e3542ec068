"""Small ONNX models for tests, made once per run: both exporters, and graphs built by hand."""

import contextlib
import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def _plain_net():
    from torch import nn

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, 5, padding=2)
            self.relu2 = nn.ReLU()
            self.conv3 = nn.Conv2d(4, 3, 3, padding=1)
            self.relu4 = nn.ReLU(inplace=True)
            self.conv5 = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, x):
            return self.conv5(self.relu4(self.conv3(self.relu2(self.conv1(x)))))

    return Plain()


def _twisted_net():
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU())
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(F.relu(self.body(self.act(self.conv(x)))) + x)

    class Twisted(nn.Module):
        """Nested, repeated, folded, vanished and functional operations."""

        def __init__(self):
            super().__init__()
            self.enc = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.mid = nn.ModuleList(
                nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.PReLU(4)) for _ in range(2)
            )
            self.relu = nn.ReLU()
            self.net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(), nn.Identity(), nn.Conv2d(4, 4, 1))
            self.drop = nn.Dropout()
            self.blk = Block()
            self.last = Block()
            self.tail = nn.ReLU()  # merged with the ReLU at the end of the block before it
            self.pool = nn.MaxPool2d(2)
            self.up = nn.Upsample(scale_factor=2)
            self.gn = nn.GroupNorm(2, 4)
            self.ps = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.PixelShuffle(2))
            self.down = nn.Conv2d(1, 1, 3, stride=2, padding=1)

        def forward(self, x):
            h = self.enc(x)
            for m in self.mid:
                h = self.relu(m(h)) + h
            h = self.drop(self.net(h))
            h = self.blk(self.blk(h))
            h = self.tail(self.last(self.gn(h)))
            h = self.up(self.pool(h))
            return x - self.down(self.ps(h))

    net = Twisted()
    norm = net.enc[1]
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2.0)
    return net


NETS: dict[str, Callable] = {"plain": _plain_net, "twisted": _twisted_net}


def export(net, path: Path, exporter: str, shape=(1, 1, 32, 32), free: bool = True) -> Path:
    """Write a network with the exporter that the name says: ``legacy`` or ``dynamo``."""
    import torch

    axes = {0: "n", 2: "h", 3: "w"} if free else None
    x = torch.randn(shape)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            if exporter == "legacy":
                torch.onnx.export(
                    net,
                    (x,),
                    str(path),
                    dynamo=False,
                    input_names=["x"],
                    dynamic_axes={"x": axes} if axes else None,
                )
            else:
                shapes = (
                    {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},
                )
                torch.onnx.export(
                    net, (x,), str(path), dynamo=True, dynamic_shapes=shapes if axes else None, verbose=False
                )
    finally:
        logging.disable(level)
    return path


class Toy:
    """An exported network and the module it came from."""

    def __init__(self, module, path: Path, exporter: str):
        self.module = module
        self.path = path
        self.exporter = exporter

    def reference(self, x: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Every module's output at every call, by hooks on a copy; the network's own under ''."""
        import torch

        net = copy.deepcopy(self.module)
        seen: dict[str, list[np.ndarray]] = {}
        for name, module in net.named_modules():
            module.register_forward_hook(
                lambda _m, _i, out, name=name: seen.setdefault(name, []).append(out.detach().clone().numpy())
            )
        with torch.no_grad():
            net(torch.from_numpy(x))
        return seen


@pytest.fixture(scope="session")
def onnx_toy(tmp_path_factory):
    """``onnx_toy(net, exporter)``: an exported network, made once."""
    made: dict[tuple[str, str], Toy] = {}
    folder = tmp_path_factory.mktemp("onnx")

    def get(net: str, exporter: str) -> Toy:
        if (net, exporter) not in made:
            import torch

            with torch.random.fork_rng():
                torch.manual_seed(0)
                module = NETS[net]().eval()
                path = export(module, folder / f"{net}_{exporter}.onnx", exporter)
            made[net, exporter] = Toy(module, path, exporter)
        return made[net, exporter]

    return get


@pytest.fixture(scope="session")
def export_onnx():
    """The function that exports a network."""
    return export


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """``exported(module, name, exporter, shape, free)``: a file, written once for each name and exporter."""
    made: dict[tuple[str, str], Path] = {}
    folder = tmp_path_factory.mktemp("exported")

    def get(module, name: str, exporter: str, shape=(2, 1, 16, 24), free: bool = True) -> Path:
        if (name, exporter) not in made:
            path = folder / f"{len(made)}" / "model.onnx"
            path.parent.mkdir()
            made[name, exporter] = export(copy.deepcopy(module), path, exporter, shape, free)
        return made[name, exporter]

    return get


@pytest.fixture
def some(request):
    """A few of some names, from first to last; all of them in the long form."""

    def choose(names):
        if request.config.getoption("--slow") or len(names) <= 6:
            return names
        return [names[round(k * (len(names) - 1) / 5)] for k in range(6)]

    return choose


@pytest.fixture(scope="session")
def open_onnx():
    """``open_onnx(path, **options)``: a denoiser on the CPU whose units are HU."""
    from ctinv.adapters.intensity import parse_intensity
    from ctinv.adapters.onnx.denoiser import OnnxDenoiser

    def get(path, **options):
        options = {
            "intensity": parse_intensity("hu"),
            "output": "image",
            "device": "cpu",
            "threads": 1,
            **options,
        }
        if isinstance(options["intensity"], str):
            options["intensity"] = parse_intensity(options["intensity"])
        return OnnxDenoiser(path, **options)

    return get


@pytest.fixture(scope="session")
def capture():
    """Every tensor of a file by ONNX Runtime without optimisation: the independent reference."""
    import onnx
    import onnxruntime as ort

    def get(path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        model = onnx.load(str(path))
        known = {value.name for value in model.graph.output}
        names = [name for node in model.graph.node for name in node.output if name]
        for node in model.graph.node:
            node.ClearField("name")
        for name in names:
            if name not in known:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, feeds), strict=True))

    return get


@pytest.fixture(scope="session")
def folder_state():
    """Names, sizes, times and contents of all files of a folder."""

    def get(folder: Path) -> dict[str, tuple[int, int, str]]:
        return {
            str(path.relative_to(folder)): (
                path.stat().st_size,
                path.stat().st_mtime_ns,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return get


@pytest.fixture(scope="session")
def conv_graph(tmp_path_factory):
    """``conv_graph(**changes)``: a file with Conv - Relu - Conv built by hand; returns its path."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("hand")
    count = iter(range(10**6))

    def get(
        shape=("n", 1, "h", "w"),
        kind=TensorProto.FLOAT,
        names=("c1", "r", "c2"),
        tensors=("a", "b", "y"),
        extra_nodes=(),
        extra_inputs=(),
        extra_outputs=(),
        extra_stored=(),
        outputs=None,
        opset=17,
        ir=9,
        metadata=None,
        functions=(),
        domains=(),
        change=None,
        save=None,
    ):
        rng = np.random.default_rng(1)
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        a, b, y = tensors
        stored = {
            "w1": rng.normal(size=(3, 1, 3, 3)) * 0.5,
            "b1": rng.normal(size=3) * 0.1,
            "w2": rng.normal(size=(1, 3, 3, 3)) * 0.3,
            "b2": rng.normal(size=1) * 0.1,
        }
        nodes = [
            helper.make_node("Conv", ["x", "w1", "b1"], [a], name=names[0], pads=[1] * 4),
            helper.make_node("Relu", [a], [b], name=names[1]),
            helper.make_node("Conv", [b, "w2", "b2"], [y], name=names[2], pads=[1] * 4),
        ]
        graph = helper.make_graph(
            [*nodes, *extra_nodes],
            "hand",
            [helper.make_tensor_value_info("x", kind, shape), *extra_inputs],
            [helper.make_tensor_value_info(outputs or y, kind, [shape[0], 1, None, None]), *extra_outputs],
            [*(numpy_helper.from_array(v.astype(dtype), k) for k, v in stored.items()), *extra_stored],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)],
            ir_version=ir,
            functions=list(functions),
        )
        for key, value in (metadata or {}).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        if change:
            change(model)
        path = folder / f"{next(count)}" / "model.onnx"
        path.parent.mkdir()
        onnx.save_model(model, str(path), **(save or {}))
        return path

    return get


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Files that others made; tests are skipped where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the repository")
    return SHARED
