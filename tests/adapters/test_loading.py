"""From files, names and plug-ins to denoisers; every refusal names what was given and the mend."""

import importlib.metadata
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters import DeviceError, ModelError, UnsupportedModelError
from safetensors.torch import save_file
from torch import nn

from .laws import image
from .toys import Plain, make


@pytest.fixture
def nets(monkeypatch):
    """A user's package ``mynets`` with a few callables."""
    module = types.ModuleType("mynets")
    module.plain = Plain
    module.ready = make("Plain")
    module.number = lambda: 3
    module.constant = 3
    module.needy = lambda width: width
    module.denoiser = lambda: adapters.wrap(Plain(), intensity="hu")

    def tagged():
        net = Plain()
        net.ctinv_intensity = "unit:-300:300"
        return net

    module.tagged = tagged
    monkeypatch.setitem(sys.modules, "mynets", module)
    return module


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("kind", ["safetensors", "pt", "nested"])
def test_weights_are_filled_in(nets, tmp_path, kind, prefix):
    weights = {prefix + key: value for key, value in make("Plain", 7).state_dict().items()}
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(weights, path, {"ctinv.intensity": "unit:-160:240", "ctinv.output": "image"})
    else:
        torch.save({"epoch": 3, "state_dict": weights} if kind == "nested" else weights, path)
    denoiser = adapters.load(f"mynets:plain?weights={path}", device="cpu")
    if kind == "safetensors":
        assert (str(denoiser.intensity), denoiser.output) == ("unit:-160:240", "image")
    else:
        denoiser.intensity = adapters.parse_intensity("unit:-160:240")
    want = adapters.wrap(make("Plain", 7), intensity="unit:-160:240").features(image(), "conv3")
    assert np.array_equal(denoiser.features(image(), "conv3"), want)
    assert denoiser.name == "plain"
    assert not any("training mode" in notice for notice in denoiser.notices)
    assert any("'state_dict'" in notice for notice in denoiser.notices) == (kind == "nested")


def test_modules_and_denoisers_of_a_package_are_taken(nets):
    assert adapters.load("mynets:ready", device="cpu").kind == "torch"
    assert adapters.load("mynets:tagged").intensity.spec == "unit:-300:300"
    assert adapters.load("mynets:tagged", intensity="hu").intensity.spec == "hu"
    own = adapters.load("mynets:denoiser", name="mine", intensity="unit:-1000:1000", output="residual")
    assert (own.name, own.intensity.spec, own.output) == ("mine", "unit:-1000:1000", "residual")


class _Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_pickled_code_is_never_run(nets, tmp_path, capsys):
    path = tmp_path / "bad.pth"
    torch.save({"conv1.weight": _Code()}, path)
    with pytest.raises(ModelError, match=r"bad\.pth holds more than tensors .*save model\.state_dict\(\)"):
        adapters.load(f"mynets:plain?weights={path}")
    assert "must not run" not in capsys.readouterr().out


def _files(folder):
    (folder / "net.pth").write_bytes(b"x")
    (folder / "model.onnx.txt").write_text("x")
    (folder / "denoiser.onnx").write_bytes(b"x")
    (folder / "junk.pth").write_bytes(b"no weights at all")
    torch.save(torch.zeros(3), folder / "tensor.pth")
    torch.save({"other": torch.zeros(3)}, folder / "foreign.pth")
    torch.save({k: v.double()[None] for k, v in Plain().state_dict().items()}, folder / "shapes.pth")
    (folder / "broken.safetensors").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{0}/net.pth", r"net\.pth can hold weights.*package\.module:callable\?weights=.*net\.pth"),
        ("{0}/gone.pt", r"gone\.pt \(and there is no such file\)"),
        ("{0}", "is a folder; a model is"),
        ("{0}/model.onnx.txt", "no kind of model known here"),
        ("{0}/net.h5", "export the model to ONNX"),
        ("{0}/denoisr.onnx", r"there is no file .*denoisr\.onnx; close: denoiser\.onnx"),
        ("chen", r"'chen' is no file .*ctinv\.zoo\.load"),
        ("mynets:plian", "mynets has no 'plian'; close: plain"),
        ("nopackage.nets:plain", "no module named 'nopackage'.*PYTHONPATH"),
        ("mynets:number", r"returned int, not a torch\.nn\.Module"),
        ("mynets:constant", "is int, which cannot be called"),
        ("mynets:needy", "fails when called without arguments: TypeError"),
        ("mynets:plain?weight=x", "only weights=FILE may follow.*not weight"),
        ("mynets:plain?weights={0}/gone.pth", r"there is no weight file .*gone\.pth"),
        ("mynets:plain?weights={0}/junk.pth", r"junk\.pth"),
        ("mynets:plain?weights={0}/tensor.pth", "holds Tensor, not a state dict"),
        ("mynets:plain?weights={0}/foreign.pth", r"4 missing \(conv1\.weight.*1 unknown \(other\)"),
        ("mynets:plain?weights={0}/shapes.pth", r"conv1\.weight is \(1, 4, 1, 3, 3\) in the file"),
        ("mynets:plain?weights={0}/broken.safetensors", "not a readable safetensors file"),
    ],
)
def test_refusals_name_what_was_given_and_the_mend(nets, tmp_path, source, message):
    _files(tmp_path)
    with pytest.raises(ModelError, match=message):
        adapters.load(source.format(tmp_path))


def test_folder_called_onnx_is_refused(tmp_path):
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"is a folder; give the \.onnx file in it"):
        adapters.load(folder)


def test_importing_a_broken_package_tells_its_error(tmp_path, monkeypatch):
    (tmp_path / "brokennets.py").write_text("raise ValueError('half a file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="importing brokennets fails: half a file"):
        adapters.load("brokennets:net")


def test_functions_are_not_modules():
    with pytest.raises(ModelError, match=r"not function; .*docs/adapters\.md"):
        adapters.wrap(lambda x: x)


def test_unknown_output_and_units_are_refused():
    with pytest.raises(ModelError, match="output is image, residual or auto"):
        adapters.wrap(nn.Identity(), output="noise")
    with pytest.raises(adapters.IntensityError, match="'hounsfield' is not understood"):
        adapters.wrap(nn.Identity(), intensity="hounsfield")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_E01_absent_device_is_an_error(nets):
    with pytest.raises(DeviceError, match=r"device 'cuda' is not available.*use cpu or auto"):
        adapters.wrap(Plain(), device="cuda")
    with pytest.raises(DeviceError, match="device 'cuda:1'"):
        adapters.load("mynets:plain", device="cuda:1")
    with pytest.raises(DeviceError, match="'gpu' is not available"):
        adapters.wrap(Plain(), device="gpu")


class _Point:
    """Stands for an installed entry point."""

    def __init__(self, loader):
        self.name, self.value, self._loader = "mine", "my_package:open_mine", loader

    def load(self):
        return self._loader


@pytest.fixture
def plugged(monkeypatch):
    def plug(loader):
        def found(*, group):
            assert group == "ctinv.adapters"
            return [_Point(loader)]

        monkeypatch.setattr(importlib.metadata, "entry_points", found)

    return plug


def test_plug_ins_are_asked_first_and_may_pass(plugged, nets):
    plugged(lambda source: adapters.wrap(Plain(), intensity="hu") if source == "mine:1" else None)
    assert adapters.load("mine:1", name="one", intensity="unit:0:1").intensity.spec == "unit:0:1"
    assert adapters.load("mynets:plain", device="cpu").name == "plain"
    with pytest.raises(ModelError, match="read by a plug-in, which does not take feed"):
        adapters.load("mine:1", feed={"sigma": 1.0})
    with pytest.raises(DeviceError, match="runs on cpu, not on cuda"):
        adapters.load("mine:1", device="cuda")


def test_faulty_plug_ins_are_named(plugged):
    plugged(lambda source: 1 / 0)
    with pytest.raises(ModelError, match=r"plug-in 'mine' \(my_package:open_mine\) fails on 'a:b'"):
        adapters.load("a:b")
    plugged(lambda source: 3)
    with pytest.raises(ModelError, match="returned int, not a Denoiser or None"):
        adapters.load("a:b")
    plugged(lambda source: adapters.wrap(torch.jit.ScriptModule()))
    with pytest.raises(UnsupportedModelError):
        adapters.load("a:b")


def test_example_of_the_guide_works(plugged):
    from pathlib import Path

    from .laws import assert_reads_truly

    guide = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL):
        if "Unsharp" in block:  # the others are calls that tests/docs follows
            exec(compile(block, "docs/adapters.md", "exec"), names)
    plugged(names["open_unsharp"])
    denoiser = adapters.load("unsharp:0.25")
    x = image()
    low = denoiser.features(x, "low")
    np.testing.assert_allclose(denoiser.denoise(x), low + 0.25 * (x - low), rtol=1e-5, atol=1e-3)
    one = names["Unsharp"](0.25)
    reference = {name: torch.from_numpy(one._run(x, [name], False)[name]) for name in ("low", "high")}
    assert assert_reads_truly(denoiser, lambda u: reference, x) == 2
    assert denoiser.fingerprint == one.fingerprint
    assert isinstance(denoiser.features(torch.from_numpy(x), "high"), torch.Tensor)


def _imported(code):
    program = (
        f"{code}\nimport sys\nprint(sorted({{'torch', 'onnx', 'onnxruntime', 'scipy'}} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_importing_adapters_imports_no_heavy_library():
    assert _imported("import ctinv.adapters") == "[]"
    assert _imported("from ctinv.adapters import Denoiser, load, wrap, LayerError") == "[]"
    assert "torch" in _imported("import ctinv.adapters as a; a.TorchDenoiser")  # the test can fail


def test_numpy_only_use_imports_no_torch():
    code = """
import hashlib, numpy as np
from ctinv.adapters import OUTPUT, Denoiser, Layer, parse_intensity
class Half(Denoiser):
    layers, device, fingerprint = (Layer("a", "Half", (1, 8, 8)),), "cpu", ""
    def _native(self, x): return np.asarray(x, dtype=np.float32)
    def _run(self, x, names, grad): return {name: x / 2 for name in names}
d = Half("half", parse_intensity("hu"))
x = np.ones((3, 1, 8, 8), np.float32)
assert d.features(x, "a", batch_size=1).mean() == 0.5 and d.denoise(x).mean() == 0.5
"""
    assert _imported(code) == "[]"


def test_public_names_exist():
    for name in adapters.__all__:
        assert getattr(adapters, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = adapters.Nonsense
