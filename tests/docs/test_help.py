"""Every example of every ``--help`` runs as it is printed.

What an example names and the user must have (a model file, a slice, a finished run) is made here. In the
quick form nothing is fitted, and what takes more than a few seconds is only parsed; the long form
(``--slow``) runs that, and fits with the preset ``tiny``. All else is real in both. What trains or measures
for minutes is parsed in both.
"""

import contextlib
import io
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from ctinv import adapters, invariance, zoo
from ctinv.cli import cli, main
from ctinv.invariance.changes.about import About
from ctinv.invariance.changes.swap import Swap
from ctinv.invariance.data import default_slice, new_series_uid, write_dicom
from ctinv.invariance.networks.fit_record import FitRecord
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ..invariance.comparing.toys import analysis
from .conftest import Explainer

LONG = {"zoo train": "trains for minutes", "bench suite": "measures for minutes"}
SLOW = {"bench analyze": "fits", "bench sampling": "measures"}
# Of commands whose other examples are run in the quick form, too.
HEAVY = ("spectrum", "attack", "--attack", "--grid", "--protocol", "--dose", "--ellipse", "--mask", "against")


def leaves(command=cli, path=()):
    """Every command that is no group, with its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name))


def examples(command):
    """The lines below "Example:" in a command's help, as words."""
    lines = (command.help or "").splitlines()
    start = next((k for k, line in enumerate(lines) if line.strip() in ("Example:", "Examples:")), len(lines))
    return [shlex.split(line) for line in lines[start + 1 :] if line.strip()]


COMMANDS = {" ".join(path): command for path, command in leaves()}
EXAMPLES = [(name, words) for name, command in COMMANDS.items() for words in examples(command)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_of_itself(name):
    shown = examples(COMMANDS[name])
    assert shown
    for words in shown:
        given = words[words.index("ctinv.cli") + 1 :] if "ctinv.cli" in words else words[1:]
        assert words[0] in ("ctinv", "torchrun")
        assert given[: len(name.split())] == name.split()


def test_the_probe_with_nothing_but_a_layer_is_among_them():
    assert ("probe", ["ctinv", "probe", "-m", "yang", "-l", "conv7"]) in EXAMPLES


@cache
def model(seed):
    """A small denoiser as an ONNX file that says its units: seven convolutions near the identity."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for k in range(1, 8):
        shape = (1 if k == 7 else 2, 1 if k == 1 else 2, 3, 3)
        kernel = rng.normal(0, 0.05, shape)
        for o in range(shape[0]):
            kernel[o, o % shape[1], 1, 1] += 1
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{k}"))
        nodes.append(helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], name=f"conv{k}", pads=[1, 1, 1, 1]))
        last = f"c{k}"
        if k < 7:
            nodes.append(helper.make_node("Relu", [last], [f"r{k}"], name=f"relu{k}"))
            last = f"r{k}"
    size = ["batch", 1, "height", "width"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("x", last)]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, value in (("intensity", "unit:-1024:3072"), ("output", "image"), ("name", f"small{seed}")):
        made.metadata_props.add(key=f"ctinv.{key}", value=value)
    return made


def body(words):
    """The middle of the shipped slice; where the example names places, that in one of 512 x 512 pixels."""
    small = default_slice()
    if not {"--ellipse", "--mask"} & set(words):
        hu = small.hu[16:112, 16:112]
        return replace(small, hu=hu, valid=np.ones(hu.shape, bool), source=None, meta={})
    hu = np.full((512, 512), -1000, np.float32) + np.random.default_rng(0).normal(0, 10, (512, 512))
    hu[236:364, 186:314] = small.hu
    hu = hu.astype(np.float32)
    return replace(small, hu=hu, valid=np.ones(hu.shape, bool), source=None, meta={})


def write_scans(folder, noise=5.0, count=2, study=None):
    """A small series of one patient."""
    import pydicom

    whole, series = default_slice(), new_series_uid()
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, count + 1):
        x, y, z = whole.position
        hu = whole.hu + rng.normal(0, noise, whole.shape).astype(np.float32)
        one = replace(whole, hu=hu, position=(x, y, z + 5 * number), source=None, meta={})
        path = write_dicom(one, None, folder / f"{number}.dcm", "s", instance=number, series_uid=series)
        if study is not None:
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = study
            dataset.save_as(path)


def write_run(folder, words):
    """A finished run of the models that the example names; of Yang where it names none."""
    files = [word for word in words if word.endswith(".onnx")]
    for name in files or ["yang"]:
        if files:
            onnx.save(model(len(name) + ord(name[0])), name)
        known = adapters.load(name) if files else zoo.load(name)
        x = default_slice().hu[32:96, 32:96]
        e = analysis(
            known.name,
            "conv3",
            x=x,
            model_hash=known.fingerprint,
            intensity=str(known.intensity),
            output=known.output,
            spacing=[0.7, 0.7],
            source="slice",
            preset_fields={"vae": {"patch": 32}},
        )
        replace(e, meta=replace(e.meta, fit=FitRecord(key="kept"))).save(folder / known.name)
    from ctinv.invariance.infra.cache import cache_root

    kept = cache_root() / "explainers" / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "config.json").write_text("{}")


def make(name, words):
    """What a user has who types that word, if it names something."""
    path = Path(name)
    if name.endswith(".onnx") and "export" not in words and not path.exists():
        onnx.save(model(7), path)
    elif name.endswith(".dcm"):
        hu = body(words)
        write_dicom(hu if name == "slice.dcm" else replace(hu, hu=hu.hu[::-1].copy()), None, path, name)
    elif name.endswith(".png"):
        mask = np.zeros((512, 512), np.uint8)
        mask[296:306, 246:254] = 255
        Image.fromarray(mask).save(path)
    elif name == "scans":
        write_scans(path, study=new_series_uid())
    elif name == "fitted" and "sample" in words:
        path.mkdir()
    elif name.startswith("low="):
        study = new_series_uid()
        for part, noise in zip(name.split(","), (40, 5), strict=True):
            write_scans(Path(part.partition("=")[2]), noise, study=study)
    elif name in ("out", "out-chen", "out-yang") and words[1] in ("gather", "audit", "compare"):
        write_run(path, words)


class Fitted(Explainer):
    """A stand-in for a fit that can swap and attack, too."""

    def attack(self, image, **options):
        return invariance.attack(self.denoiser, image, layers=[self.layer], **options)

    def swap(self, image, other, *, seed, rho, **_):
        x, other = np.asarray(image.hu), np.asarray(getattr(other, "hu", other))
        about = About.of(self.denoiser, self.layer, image, seed=seed, rho=rho)
        return Swap(about, x, other, x, other, other, x, 0.03, 0.5, 0.4)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))
    return tmp_path


def make_all(words):
    for word in dict.fromkeys(words[1:]):
        make(word, words)


def run_as_printed(words):
    """Run an example; of one for several processes, what each of them runs."""
    make_all(words)
    given = words[words.index("ctinv.cli") + 1 :] if "ctinv.cli" in words else words[1:]
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = main(given)
    assert code == 0, f"{' '.join(words)} ends with {code}: {err.getvalue()}"


def only_parsed(name, words):
    make_all(words)
    COMMANDS[name].make_context(name, words[1 + len(name.split()) :])


def ids(example):
    return " ".join(example[1])


def heavy(example):
    return any(word in HEAVY for word in example[1])


@pytest.mark.parametrize("example", EXAMPLES, ids=ids)
def test_an_example_runs(example, home, stand_in, monkeypatch):
    name, words = example
    if name in LONG | SLOW or heavy(example):
        return only_parsed(name, words)
    run_without_fits(words, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in EXAMPLES if heavy(e)], ids=ids)
def test_a_longer_example_runs(example, home, stand_in, monkeypatch):
    run_without_fits(example[1], monkeypatch)


def run_without_fits(words, monkeypatch):
    from ctinv.invariance.explaining import explainer

    def fit(denoiser, layers, **_):
        return [Fitted(denoiser, layer) for layer in ([layers] if isinstance(layers, str) else layers)]

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    monkeypatch.setattr(explainer.Explainer, "load", Fitted.load)  # of the kept fit, for doses
    run_as_printed(words)


FITTED = [e for e in EXAMPLES if e[0] in ("analyze", "fit", "swap", *SLOW)]


@pytest.mark.slow
@pytest.mark.parametrize("example", FITTED, ids=ids)
def test_an_example_that_fits_runs(example, home, tiny):
    run_as_printed(example[1])
