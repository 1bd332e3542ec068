"""Execution providers: nothing falls back in silence, numbers are exact, memory is read right."""

import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
from ctinv.adapters.errors import DeviceError, ModelError
from ctinv.adapters.onnx.running import sessions as _onnx_sessions
from ctinv.adapters.onnx.running.binding import run_bound


def image(n=2, h=24, w=20):
    return np.random.default_rng(0).normal(size=(n, 1, h, w)).astype(np.float32)


@pytest.fixture
def no_gpu(monkeypatch):
    """As on a machine with onnxruntime-gpu and no GPU."""
    monkeypatch.setattr(_onnx_sessions, "_no_cuda", lambda: "no NVIDIA driver (libcuda.so.1) is installed")


@pytest.fixture
def silent_fallback(monkeypatch):
    """As where the CUDA libraries are broken: a session for CUDA comes back on the CPU, without a word."""
    seen = []
    plain = ort.InferenceSession

    def session(source, options, providers, enable_fallback):
        assert not enable_fallback
        seen.append((providers, options))
        if providers[-1] != "CPUExecutionProvider":
            raise RuntimeError("nodes are assigned to the CPU EP, but fallback has been disabled")
        return plain(source, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(_onnx_sessions, "_no_cuda", lambda: "")
    monkeypatch.setattr(_onnx_sessions.ort, "InferenceSession", session)
    return seen


def test_E01_cuda_without_a_gpu_is_an_error(conv_graph, open_onnx, no_gpu):
    for device in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError, match=r"no NVIDIA driver.*device cpu or auto"):
            open_onnx(conv_graph(), device=device)


def test_E01_auto_without_a_gpu_says_so_once(conv_graph, open_onnx, no_gpu):
    denoiser = open_onnx(conv_graph(), device="auto")
    assert denoiser.features(image(), "r").shape == (2, 3, 24, 20)
    assert denoiser.layers
    assert [notice for notice in denoiser.notices if "CPU" in notice] == [
        "running on the CPU: no NVIDIA driver (libcuda.so.1) is installed"
    ]
    assert denoiser.device == "cpu"


def test_E01_silent_fallback_of_the_runtime_is_seen(conv_graph, open_onnx, silent_fallback):
    with pytest.raises(DeviceError, match=r"'cuda' was asked for but .*could not start its CUDA provider"):
        open_onnx(conv_graph(), device="cuda")
    denoiser = open_onnx(conv_graph(), device="auto")
    assert denoiser.device == "cpu"
    assert sum("running on the CPU" in notice for notice in denoiser.notices) == 1


def test_E01_cpu_asks_for_no_gpu_and_says_nothing(conv_graph, open_onnx, silent_fallback):
    denoiser = open_onnx(conv_graph(), device="cpu")
    assert denoiser.device == "cpu"
    assert not denoiser.notices
    assert [providers for providers, _ in silent_fallback] == [["CPUExecutionProvider"]]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "mps", "CUDA"])
def test_E01_unknown_devices(conv_graph, open_onnx, device):
    with pytest.raises(DeviceError, match="auto, cpu, cuda or cuda:N"):
        open_onnx(conv_graph(), device=device)


def test_E02_nodes_may_not_fall_back_when_cuda_is_demanded(conv_graph, open_onnx, silent_fallback):
    key = "session.disable_cpu_ep_fallback"
    with pytest.raises(DeviceError):
        open_onnx(conv_graph(), device="cuda")
    open_onnx(conv_graph(), device="auto")
    (_, demanded), (_, preferred), *_ = silent_fallback
    assert demanded.get_session_config_entry(key) == "1"
    with pytest.raises(RuntimeError):
        preferred.get_session_config_entry(key)


def test_E02_operators_without_a_kernel_are_told_from_a_broken_provider(conv_graph, open_onnx, monkeypatch):
    plain = ort.InferenceSession

    def session(source, options, providers, enable_fallback):
        assert not enable_fallback
        if providers[-1] != "CPUExecutionProvider":
            raise RuntimeError("nodes are assigned to the CPU EP, but fallback has been disabled")
        made = plain(source, options, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(made, "get_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
        return made

    monkeypatch.setattr(_onnx_sessions, "_no_cuda", lambda: "")
    monkeypatch.setattr(_onnx_sessions.ort, "InferenceSession", session)
    with pytest.raises(ModelError, match="no CUDA kernel"):
        open_onnx(conv_graph(), device="cuda")
    assert open_onnx(conv_graph(), device="auto").device == "cuda:0"


def test_E03_cuda_libraries_are_preloaded_before_the_first_session(
    conv_graph, open_onnx, silent_fallback, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        _onnx_sessions.ort, "preload_dlls", lambda: calls.append(len(silent_fallback)), raising=False
    )
    open_onnx(conv_graph(), device="cpu")
    assert not calls
    open_onnx(conv_graph(), device="auto")
    assert calls == [1], "once, and before its session"
    monkeypatch.delattr(_onnx_sessions.ort, "preload_dlls")
    open_onnx(conv_graph(), device="auto")


def test_E03_numpy_use_imports_no_torch_and_the_package_no_runtime(conv_graph):
    code = (
        "import sys, numpy as np\n"
        "import ctinv.adapters\n"
        "assert not {'onnx', 'onnxruntime', 'torch'} & set(sys.modules), 'import'\n"
        f"d = ctinv.adapters.load({str(conv_graph())!r}, intensity='hu', output='image', device='cpu')\n"
        "d.layers, d.features(np.zeros((1, 1, 32, 32), np.float32), 'r'), d.denoise(np.zeros((2, 1, 9, 9)))\n"
        "assert 'torch' not in sys.modules, 'use'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_E04_tf32_is_off(conv_graph, open_onnx, silent_fallback):
    open_onnx(conv_graph(), device="auto")
    (providers, _), *_ = silent_fallback
    assert providers == [
        ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"}),
        "CPUExecutionProvider",
    ]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16"])
def test_E05_bound_memory_is_contiguous_and_of_the_declared_type(conv_graph, kind):
    import torch

    session = ort.InferenceSession(str(conv_graph()), providers=["CPUExecutionProvider"])
    x = torch.from_numpy(image(2, 20, 24)).to(getattr(torch, kind)).permute(0, 1, 3, 2)
    assert not x.is_contiguous()
    (found,) = run_bound(session, ["y"], {"x": x})
    (expected,) = session.run(["y"], {"x": np.ascontiguousarray(x.float().numpy())})
    np.testing.assert_array_equal(found, expected)


def test_E05_bound_and_plain_feeds_mix(conv_graph):
    import torch
    from onnx import TensorProto, helper

    sigma = helper.make_tensor_value_info("sigma", TensorProto.FLOAT, [1])
    path = conv_graph(
        extra_inputs=[sigma], extra_nodes=[helper.make_node("Mul", ["y", "sigma"], ["z"])], outputs="z"
    )
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = run_bound(
        session, ["z"], {"x": torch.from_numpy(image()), "sigma": np.ones(4, np.float32)[1:2]}
    )
    (expected,) = session.run(["z"], {"x": image(), "sigma": np.ones(1, np.float32)})
    np.testing.assert_array_equal(found, expected)


def test_E07_threads_are_left_to_the_runtime_unless_given(conv_graph, open_onnx):
    for threads in (0, 1, 2):
        denoiser = open_onnx(conv_graph(), threads=threads)
        assert denoiser._sessions._options(False, False).intra_op_num_threads == threads
        assert denoiser.features(image(), "r").shape == (2, 3, 24, 20)


@pytest.mark.gpu
def test_E04_gpu_equals_cpu(onnx_toy, open_onnx):
    path = onnx_toy("twisted", "legacy").path
    cpu, gpu = open_onnx(path), open_onnx(path, device="cuda")
    assert gpu.device == "cuda:0"
    x = image(3, 64, 64)
    for layer in cpu.layers:
        if layer.tappable:
            expected = cpu.features(x, layer.name)
            span = max(1.0, float(np.abs(expected).max()))
            assert np.abs(gpu.features(x, layer.name) - expected).max() < 1e-4 * span, layer.name


@pytest.mark.gpu
def test_E06_kernels_still_running_are_waited_for(onnx_toy, open_onnx):
    import torch

    denoiser = open_onnx(onnx_toy("plain", "legacy").path, device="cuda")
    base = torch.randn(4, 1, 256, 256, device="cuda")
    expected = denoiser.features(base.clone(), "conv3")
    big = torch.randn(2048, 2048, device="cuda")
    for _ in range(100):
        busy = big @ big
        x = base + 0 * busy[0, 0]  # ready only once the product is
        z = denoiser.features(x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), "conv3")
        assert z.is_cuda
        assert torch.allclose(z, expected, atol=1e-4)
