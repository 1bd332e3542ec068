"""Every place where the code takes another way on a GPU is reached by a test that runs on one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("adapters", "zoo", "invariance", "cli", "testing")
HERE = "tests/gpu/test_cuda.py"
SESSIONS = "tests/adapters/onnx/running/test_sessions.py"
WAITED = f"{SESSIONS}::test_E06_kernels_still_running_are_waited_for"
AUTO = f"{HERE}::test_auto_takes_the_gpu"
PARITY = f"{HERE}::test_torch_and_onnx_agree_on_the_gpu"
WHOLE = f"{HERE}::test_a_whole_analysis"
TRAINED = f"{HERE}::test_an_autoencoder_is_trained"
BENCH = f"{HERE}::test_the_bench"

REACHED = {
    "adapters/loading.py:_from_callable": AUTO,
    "adapters/onnx/denoiser.py:_native": PARITY,
    "adapters/onnx/running/binding.py:run_bound": WAITED,
    "adapters/onnx/running/sessions.py:_no_cuda": AUTO,
    "adapters/onnx/running/sessions.py:choose_device": AUTO,
    "adapters/onnx/running/sessions.py:__init__": PARITY,
    "adapters/onnx/running/sessions.py:device": AUTO,
    "adapters/onnx/running/sessions.py:_demanded": PARITY,
    "adapters/onnx/running/sessions.py:_open": f"{HERE}::test_operators_without_a_kernel",
    "adapters/onnx/running/sessions.py:_started": f"{HERE}::test_operators_without_a_kernel",
    "adapters/onnx/running/sessions.py:_refusal": f"{HERE}::test_operators_without_a_kernel",
    "adapters/onnx/running/sessions.py:_no_provider": f"{HERE}::test_a_provider_that_does_not_start",
    "adapters/onnx/running/trial.py:_environment": f"{HERE}::test_a_file_is_tried_before_it_is_loaded",
    "invariance/bench/flows.py:bench_flows": BENCH,
    "invariance/bench/machine.py:machine": BENCH,
    "invariance/bench/suite.py:bench_suite": BENCH,
    "invariance/bench/timing.py:wait": BENCH,
    "invariance/fitting/fit_layers.py:_fitted_autoencoder": TRAINED,
    "invariance/fitting/fit_layers.py:_training_device": WHOLE,
    "invariance/fitting/flow_loop.py:_loss": WHOLE,
    "invariance/fitting/flow_loop.py:__init__": WHOLE,
    "invariance/infra/distributed.py:device": WHOLE,
    "invariance/infra/distributed.py:joined": f"{HERE}::test_processes_join_where_there_is_a_gpu",
    "invariance/infra/memory.py:available_memory": f"{HERE}::test_memory_of_the_gpu",
    "invariance/infra/memory.py:run": f"{HERE}::test_memory_of_the_gpu",
    "invariance/sampling/sampler.py:decoding_type": WHOLE,
    "invariance/sampling/decoder.py:_attend": f"{HERE}::test_the_bench_of_large_decoders",
    "invariance/sampling/decoder.py:_fewer": WHOLE,
    "invariance/sampling/sampler.py:__init__": WHOLE,
    "invariance/sampling/slices.py:drawing_threads": WHOLE,
    "cli/bench.py:_device": BENCH,
}
"""The function of each such place, and the test that reaches it."""


def _about_gpus(function):
    """Whether a function names CUDA, or asks for the processor; its text for readers does not count."""
    doc = ast.get_docstring(function, clean=False)
    for node in ast.walk(function):
        text = getattr(node, "attr", getattr(node, "id", ""))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != doc:
            text = node.value
        if "cuda" in text.lower():
            return True
        if isinstance(node, ast.Compare) and any(
            isinstance(side, ast.Constant) and side.value == "cpu" for side in (node.left, *node.comparators)
        ):
            return True
    return False


def places(root):
    """Every such function, as ``file:function``."""
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and _about_gpus(node):
                    yield f"{file.relative_to(root).as_posix()}:{node.name}"


def gpu_tests(root):
    """Every test that is marked for a GPU, as ``file::test``."""
    for file in sorted((root / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        everything = re.search(r"^pytestmark = .*gpu", text, re.MULTILINE)
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
                if everything or "mark.gpu" in marks:
                    yield f"{file.relative_to(root).as_posix()}::{node.name}"


def test_every_place_is_reached():
    found = set(places(ROOT))
    assert found - set(REACHED) == set()
    assert set(REACHED) - found == set()  # nothing that is gone is listed


def test_what_reaches_them_is_there():
    assert set(REACHED.values()) - set(gpu_tests(ROOT)) == set()


def test_a_new_place_is_seen(tmp_path):
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "new.py").write_text(
        'def a(x):\n    """cuda"""\n    return x\n\ndef b(x):\n    return x.is_cuda\n\n'
        'def c(x):\n    return x == "cuda:0"\n'
    )
    assert sorted(places(tmp_path)) == ["cli/new.py:b", "cli/new.py:c"]
