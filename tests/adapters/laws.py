"""What must hold for every adapter: readings equal an independent capture, and nothing is left behind."""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import UnsupportedModelError
from torch import nn

Reference = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]


def image(count: int = 3, height: int = 16, width: int = 24, seed: int = 5) -> np.ndarray:
    """Images (N, 1, H, W) in HU, like soft tissue with noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(40.0, 60.0, size=(count, 1, height, width)).astype(np.float32)


def captured(module: nn.Module, u: torch.Tensor, **feed: float) -> dict[str, torch.Tensor]:
    """Every layer's output by patching ``forward`` on a copy, without a hook of PyTorch's.

    Keys are ``name``, or ``name@k`` for repeated calls, with ``[0]`` or ``["key"]`` inside nested
    results, as the adapters write them.
    """
    clone = copy.deepcopy(module).eval()
    firsts: dict[int, str] = {}
    modules = [(name, part) for name, part in clone.named_modules() if name]
    calls: dict[str, list[dict[str, torch.Tensor]]] = {}

    def nested(value, path=""):
        if isinstance(value, torch.Tensor):
            return {path: value.detach().clone().float()}
        items = []
        if isinstance(value, dict):
            items = [(f'["{k}"]', v) for k, v in value.items()]
        elif isinstance(value, tuple | list):
            items = [(f"[{i}]", v) for i, v in enumerate(value)]
        elif hasattr(value, "__dataclass_fields__"):
            items = [(f'["{k}"]', getattr(value, k)) for k in value.__dataclass_fields__]
        return {k: t for part, v in items for k, t in nested(v, path + part).items()}

    def patch(name, part):
        original = part.forward

        def forward(*args, **kwargs):
            value = original(*args, **kwargs)
            calls.setdefault(name, []).append(nested(value))
            return value

        part.forward = forward

    for name, part in modules:
        if id(part) not in firsts:
            firsts[id(part)] = name
            patch(name, part)
    with torch.no_grad():
        clone(u, **feed)
    found: dict[str, torch.Tensor] = {}
    for name, seen in calls.items():
        for k, tensors in enumerate(seen):
            stem = f"{name}@{k}" if len(seen) > 1 else name
            for path, tensor in tensors.items():
                found[stem if len(tensors) == 1 else stem + path] = tensor
    return found


def assert_reads_truly(
    denoiser: Denoiser,
    reference: Reference,
    x: np.ndarray,
    tolerance: float = 1e-5,
    choose: Callable[[list[str]], list[str]] = list,
) -> int:
    """Every listed layer that can be read equals the reference, alone, beside others and image by image.

    Arguments:
        denoiser: Any adapter with known units.
        reference: From images in model units to layer name and tensor.
        x: Images (N, 1, H, W), HU.
        tolerance: Largest difference over the layer's largest value.
        choose: Picks some of the layers' names; where it does, less is tried.

    Returns:
        How many layers were compared.
    """
    u = denoiser.intensity.to_model(torch.from_numpy(x.copy()))
    expected = reference(u)
    known = {layer.name: layer for layer in denoiser.layers if layer.tappable and layer.name in expected}
    chosen = choose(list(known))

    def compare(z, name):
        want = expected[name].float().numpy()
        assert isinstance(z, np.ndarray), name
        assert z.dtype == np.float32, name
        assert z.shape == want.shape, name
        assert np.abs(z - want).max() <= tolerance * np.abs(want).max() + 1e-7, name

    every = len(chosen) == len(known)
    for name in chosen if every else chosen[::3]:
        compare(denoiser.features(x, name), name)
    for name in chosen:
        assert all(denoiser.resolve(alias).name == name for alias in known[name].aliases), name
    for name, z in denoiser.features(x, chosen).items():
        compare(z, name)
    for name in chosen if every else ():
        if len(expected[name]) == len(x) or len(x) == 1:
            compare(denoiser.features(x, name, batch_size=1), name)
        else:  # several rows for each image, in an order that other networks may not share
            with pytest.raises(UnsupportedModelError, match="told apart by image"):
                denoiser.features(x, name, batch_size=1)
    return len(chosen)


def state_of(module: nn.Module) -> dict[str, object]:
    """Everything about a module that a reading must leave alone, in comparable form."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return (
                id(value),
                value.dtype,
                tuple(value.shape),
                value.detach().clone().flatten().view(torch.uint8).numpy().tobytes(),
            )
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, bool | int | float | str | type(None)):
            return value
        return id(value)

    return {name: plain(vars(part)) for name, part in module.named_modules(remove_duplicate=False)}
