"""Run a module eagerly, in eval mode, and leave no trace of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from operator import is_
from typing import Any

import torch
from ctinv.adapters.errors import UnsupportedModelError
from torch import nn

__all__ = ["HOOKS", "names_of", "preserved", "refuse_frozen", "unwrap"]

# What every module has beside parameters, buffers and children: whoever adds a hook removes it.
HOOKS = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}
_SIMPLE = frozenset({bool, int, float, str, tuple, type(None)})
_CONTAINERS = (dict, list, set)


def refuse_frozen(module: nn.Module) -> None:
    """Refuse modules whose inner layers run outside Python, where hooks are accepted but never fire.

    Raises:
        UnsupportedModelError: TorchScript, or the module of an exported program.
    """
    mend = "load the eager PyTorch code, or export the model to ONNX and load that"
    if isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise UnsupportedModelError(f"a TorchScript model hides its layers; {mend}")
    if isinstance(module, torch.export.ExportedProgram) or _is_unlifted_program(module):
        raise UnsupportedModelError(f"an exported program (torch.export) hides its layers; {mend}")


def _is_unlifted_program(module: nn.Module) -> bool:
    # ExportedProgram.module() is an fx graph that calls none of the modules that hold its weights.
    if not isinstance(module, torch.fx.GraphModule):
        return False
    calls = [str(node.target) for node in module.graph.nodes if node.op == "call_module"]
    called = any(next(module.get_submodule(name).parameters(), None) is not None for name in calls)
    return not called and next(module.parameters(), None) is not None


def unwrap(module: nn.Module) -> nn.Module:
    """The eager, single-device module inside compiled and data-parallel wrappers."""
    while True:
        # Not by getattr, which is slow where there is nothing; scripted modules' dictionary has no get.
        wrapped = "_orig_mod" in module._modules
        inner = module._modules["_orig_mod"] if wrapped else None
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def names_of(root: nn.Module) -> dict[nn.Module, list[str]]:
    """Every module below ``root`` with all names under which it is registered, wrappers left out."""
    names: dict[nn.Module, list[str]] = {}

    def walk(module: nn.Module, name: str, above: tuple[nn.Module, ...]) -> None:
        for key, child in module._modules.items():
            if child is None or (inner := unwrap(child)) in above:
                continue
            full = f"{name}.{key}" if name else key
            names.setdefault(inner, []).append(full)
            walk(inner, full, (*above, inner))

    walk(root, "", (root,))
    return names


@contextlib.contextmanager
def preserved(root: nn.Module, everything: bool = False) -> Iterator[None]:
    """Eval mode without compiled code inside; attributes, buffers, flags and hooks as before outside.

    Arguments:
        root: The unwrapped module.
        everything: Guard the values of parameters too, for a network that edits its own weights.
    """
    attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
    containers: list[tuple[Any, Any]] = []
    tensors: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    # Scripted parts run outside Python: nothing but their mode can be reached, or changed, here.
    scripted = [part for part in root.modules() if _is_scripted(part) and part.training]
    modules = [part for part in root.modules() if not _is_scripted(part)]
    for module in modules:
        own = vars(module)
        attributes.append((own, dict(own)))
        for key, value in own.items():
            if key in HOOKS or type(value) in _SIMPLE:
                continue
            if isinstance(value, _CONTAINERS):
                containers.append((value, value.copy()))
                if key != "_parameters" or everything:
                    inside = value.values() if isinstance(value, dict) else value
                    tensors += [_kept(item) for item in inside if isinstance(item, torch.Tensor)]
            elif isinstance(value, torch.Tensor):
                tensors.append(_kept(value))
    try:
        for part in scripted:
            part.training = False
        for module in modules:
            _make_eager(module)
        yield
    finally:
        for part in scripted:
            part.training = True
        for container, before in containers:
            _refill(container, before)
        for own, saved in attributes:
            _refill(own, saved)
        for kept in tensors:
            _put_back(*kept)


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _make_eager(module: nn.Module) -> None:
    # Straight into the attributes: a model's own train() or __setattr__ may do more than asked.
    own = vars(module)
    own["training"] = False
    if own.get("_compiled_call_impl") is not None:
        own["_compiled_call_impl"] = None
    original = getattr(own.get("forward", type(module).forward), "_torchdynamo_orig_callable", None)
    if original is not None:
        own["forward"] = original if "forward" in own else original.__get__(module)
    for key, child in module._modules.items():
        if child is not None and (inner := unwrap(child)) is not child:
            module._modules[key] = inner


def _kept(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    alias = tensor.detach()
    return tensor, alias, alias.clone()


def _put_back(tensor: torch.Tensor, alias: torch.Tensor, values: torch.Tensor) -> None:
    with torch.no_grad():
        if _address(tensor) is None:
            tensor.copy_(values)
            return
        if _address(tensor) != _address(alias):
            tensor.data = alias
        # By values: observers of quantisation change them without counting a new version.
        if not torch.equal(alias, values):
            alias.copy_(values)


def _address(tensor: torch.Tensor) -> int | None:
    """Where a tensor's values lie; None for those that lie in several places, as sparse ones do."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return None


def _refill(container: Any, before: Any) -> None:
    if not container and not before:
        return
    if isinstance(container, dict):
        same = (
            len(container) == len(before)
            and all(map(is_, container, before))
            and all(map(is_, container.values(), before.values()))
        )
    elif isinstance(container, list):
        same = len(container) == len(before) and all(map(is_, container, before))
    else:
        same = container == before
    if same:
        return
    container.clear()
    if isinstance(container, list):
        container.extend(before)
    else:
        container.update(before)
