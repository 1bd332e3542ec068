"""Hand a PyTorch tensor to ONNX Runtime where it lies, without a copy through the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

__all__ = ["run_bound"]


def run_bound(
    session: ort.InferenceSession, names: Sequence[str], feeds: Mapping[str, Any]
) -> list[np.ndarray]:
    """Run a session whose feeds may hold PyTorch tensors, on any device.

    A tensor is made contiguous and of the declared type first: the runtime reads raw memory and
    would not notice. The tensor's device is waited for before the run, the outputs after it.

    Arguments:
        session: The session.
        names: Outputs to fetch.
        feeds: Arrays and tensors by input name.

    Returns:
        Outputs in host memory.
    """
    types = {value.name: value.type for value in session.get_inputs()}
    binding = session.io_binding()
    held = []  # until the run is done, the memory must stay
    for name, value in feeds.items():
        if isinstance(value, np.ndarray):
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
            continue
        dtype = _numpy_type(types[name])
        tensor = value.detach().to(getattr(_torch(), dtype.name)).contiguous()
        if tensor.is_cuda:
            _torch().cuda.current_stream(tensor.device).synchronize()
        held.append(tensor)
        binding.bind_input(
            name, tensor.device.type, tensor.device.index or 0, dtype, tuple(tensor.shape), tensor.data_ptr()
        )
    for name in names:
        binding.bind_output(name, "cpu")
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    values: list[np.ndarray] = binding.copy_outputs_to_cpu()
    held.clear()
    return values


def _torch() -> Any:
    import torch

    return torch


def _numpy_type(text: str) -> np.dtype[Any]:
    kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    return np.dtype(kinds[text])
