"""Analyses on a GPU: the same as on the processor, as far as its arithmetic allows."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from ctinv import adapters, invariance, zoo
from ctinv.adapters.errors import DeviceError, ModelError
from ctinv.adapters.onnx.running import sessions, trial
from onnx import TensorProto, helper

pytestmark = pytest.mark.gpu

SHORT = {"fit.steps": "20", "fit.patches": "128"}


def image(side=64, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] - side / 2
    disc = np.where(rows**2 + columns**2 < (0.4 * side) ** 2, 40.0, -1000.0)
    return (disc + rng.normal(0, 25, (side, side))).astype(np.float32)


@pytest.fixture(scope="module", params=["chen", "yang"])
def pair(request, tmp_path_factory):
    """A network of the zoo and its ONNX file."""
    path = tmp_path_factory.mktemp("models") / f"{request.param}.onnx"
    zoo.export(request.param, path)
    return request.param, path


def module(name, device):
    about = zoo.metadata(name)
    return adapters.wrap(
        zoo.network(name), intensity=about["ctinv.intensity"], output=about["ctinv.output"], device=device
    )


def test_auto_takes_the_gpu(pair):
    name, path = pair
    assert module(name, "auto").device.startswith("cuda")
    assert adapters.load(path, device="auto").device.startswith("cuda")
    assert adapters.load("ctinv.zoo.networks:Chen", intensity="hu", device="auto").device.startswith("cuda")


def test_torch_and_onnx_agree_on_the_gpu(pair):
    """Layer by layer, for arrays and for tensors that lie on the GPU."""
    name, path = pair
    ours, theirs = module(name, "cuda"), adapters.load(path, device="cuda")
    reference = module(name, "cpu")
    x = np.stack([image(seed=s)[None] for s in range(3)])
    on_gpu = torch.from_numpy(x).cuda()
    for layer in ours.layers:
        expected = reference.features(x, layer.name)
        span = max(1.0, float(np.abs(expected).max()))
        for found in (
            ours.features(x, layer.name),
            theirs.features(x, layer.name),
            ours.features(on_gpu, layer.name).cpu().numpy(),
            theirs.features(on_gpu, layer.name).cpu().numpy(),
        ):
            assert np.abs(found - expected).max() < 1e-3 * span, layer.name


def explained(name, device, **options):
    denoiser = module(name, device)
    (explainer,) = invariance.fit(denoiser, ["conv5"], preset="tiny", overrides=SHORT, cache=False, **options)
    return explainer, explainer.explain(image(), samples=8, refine=2, cache=False)


def test_a_whole_analysis():
    """Fit, samples, refinement and audit on the GPU: the same numbers twice, and sound ones."""
    explainer, one = explained("chen", "cuda")
    _, other = explained("chen", "cuda")
    assert next(explainer.flow.parameters()).is_cuda
    np.testing.assert_array_equal(one.std, other.std)
    assert np.isfinite(one.std).all()
    assert np.isfinite(one.samples).all()
    assert one.meta.provider.startswith("cuda")
    _, there = explained("chen", "cpu")
    np.testing.assert_allclose(one.denoised, there.denoised, atol=0.5)
    assert 0.2 < float(one.std.mean() / there.std.mean()) < 5  # another arithmetic, another fit


def test_an_autoencoder_is_trained():
    """For which no weights ship, in the half precision of the GPU."""
    overrides = {**SHORT, "vae.code_channels": "4", "fit.vae_steps": "20"}
    (explainer,) = invariance.fit(
        module("chen", "cuda"), ["conv5"], preset="tiny", overrides=overrides, cache=False
    )
    found = explainer.explain(image(), samples=4, refine=0, cache=False)
    assert np.isfinite(found.reconstruction).all()


def test_memory_of_the_gpu():
    from ctinv.invariance.infra.memory import Budget, available_memory

    device = torch.device("cuda")
    free = available_memory(device)
    assert 0 < free <= torch.cuda.get_device_properties(0).total_memory
    tried = []

    def work(batch):
        tried.append(batch)
        torch.empty(batch * free // 4, dtype=torch.uint8, device=device)
        return batch

    assert Budget(64, memory=2**62).run(work) <= 4
    assert tried[:3] == [64, 32, 16]


def unusual(path):
    """A graph with an operator that has no kernel on the GPU."""
    node = helper.make_node
    nodes = [
        node("Unique", ["x"], ["values"], sorted=1),
        node("ReduceMax", ["values"], ["most"], keepdims=0),
        node("Add", ["x", "most"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_operators_without_a_kernel(tmp_path):
    path = unusual(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no CUDA kernel"):
        adapters.load(path, device="cuda").layers  # noqa: B018
    assert adapters.load(path, device="auto", intensity="hu", output="image").denoise(image()).shape == (
        64,
        64,
    )


def test_a_provider_that_does_not_start(pair, monkeypatch):
    monkeypatch.setattr(sessions.ort.InferenceSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="could not start its CUDA provider"):
        adapters.load(pair[1], device="cuda").layers  # noqa: B018
    assert any("CPU" in notice for notice in adapters.load(pair[1], device="auto").notices)


def test_a_file_is_tried_before_it_is_loaded(pair, monkeypatch, tmp_path):
    """The trial itself leaves the GPU alone."""
    monkeypatch.delenv(trial.TRUST, raising=False)
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path))
    assert adapters.load(pair[1], device="cuda").device.startswith("cuda")
    assert len(list((tmp_path / "models").iterdir())) == 1


def command(*words, module="ctinv.cli"):
    done = subprocess.run([sys.executable, "-m", module, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_bench(tmp_path):
    command("bench", "sampling", "--preset", "tiny", "--device", "auto", "--json")
    from ctinv.invariance.bench.suite import bench_suite

    found = bench_suite(tmp_path, presets=("tiny",), devices=("cuda",))
    assert found["sampling"]
    assert found["flows"]


def test_the_bench_of_large_decoders():
    """Those with attention."""
    command("bench", "sampling", "--preset", "paper2024", "-n", "4", "--device", "cuda", "--json")


def test_processes_join_where_there_is_a_gpu(tmp_path):
    """Two processes on the processor, whose group also knows how to speak between GPUs."""
    start = "--nproc-per-node 2 -m ctinv.cli fit -m chen -l conv5 --device cpu --preset tiny"
    fields = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    command(*start.split(), *fields, "-o", tmp_path / "fit", module="torch.distributed.run")
    assert os.listdir(tmp_path / "fit")
