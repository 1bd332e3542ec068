"""From a module, a file or a name to a denoiser."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote

from ._types import Output
from .base import Denoiser
from .errors import CtinvError, DeviceError, ModelError
from .intensity import Intensity, parse_intensity

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENTRY_POINTS", "load", "wrap"]

ENTRY_POINTS = "ctinv.adapters"
"""Entry-point group of loaders: each gets the source string and returns a Denoiser or None."""

_CALLABLE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)(?:\?(.*))?", re.DOTALL)
# Options of one kind of model only; None stands for what is not said.
_ONNX_ONLY = ("layout", "input_name", "verify", "threads")
_MODULE_ONLY = ("channels",)
_WEIGHTS_ONLY = {".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors"}
_FOREIGN = {".npz", ".h5", ".keras", ".pb", ".tflite", ".mlmodel", ".pt2", ".engine", ".mat"}


def wrap(
    module: nn.Module,
    *,
    intensity: Intensity | str | None = None,
    output: Output | Literal["auto"] | None = None,
    name: str | None = None,
    device: str = "auto",
    feed: Mapping[str, Any] | None = None,
    channels: int = 1,
    output_tensor: str | None = None,
) -> Denoiser:
    """Make a denoiser of a PyTorch module.

    Arguments:
        module: The network, from the model's units (N, 1, H, W) to the same. It is run in eval mode
            and left exactly as it was.
        intensity: The model's units, for example ``unit:-1024:3072``; None for what the module's
            attribute ``ctinv_intensity`` says. Without either, call :meth:`Denoiser.calibrate`.
        output: ``image`` or ``residual`` (the noise is returned), ``auto`` to find out by a probe;
            None for what the attribute ``ctinv_output`` says, else ``image``.
        name: What to call it in reports; its class name by default.
        device: ``auto`` leaves the module where it is; elsewhere a copy is run.
        feed: Further arguments of ``forward``, for example ``{"sigma": 0.05}``, in model units.
        channels: Where not 1, the grey image is repeated so often, and the output averaged.
        output_tensor: Which tensor is the image if the network returns several, as ``[0]``.

    Raises:
        UnsupportedModelError: TorchScript or an exported program, whose layers are out of reach.
        ModelError: Not a module, or ``feed`` does not fit its ``forward``.
        IntensityError: The units are malformed.
        DeviceError: The device is not there.
    """
    from torch import nn

    from .pytorch.denoiser import TorchDenoiser
    from .pytorch.state import refuse_frozen, unwrap

    if not isinstance(module, nn.Module):
        refuse_frozen(module)
        raise ModelError(
            f"wrap() takes a torch.nn.Module, not {type(module).__name__}; a plain function needs a small "
            "Denoiser class (docs/adapters.md shows one)"
        )
    inner = unwrap(module)
    denoiser = TorchDenoiser(
        module,
        intensity=_units(intensity if intensity is not None else getattr(inner, "ctinv_intensity", None)),
        output=_returns(output or getattr(inner, "ctinv_output", None)),
        name=name,
        device=device,
        feed=feed,
        channels=channels,
        output_tensor=output_tensor,
    )
    if output is None and denoiser.output is None:
        denoiser.output = "image"  # taken for granted, not stated: calibration may find otherwise
    if any(part.training for part in inner.modules()):  # of modules made by load() nobody would know
        denoiser.notices.append("the module is in training mode; it is read in eval mode and put back")
    return denoiser


def load(
    source: str | Path,
    *,
    intensity: Intensity | str | None = None,
    output: Output | Literal["auto"] | None = None,
    name: str | None = None,
    device: str = "auto",
    feed: Mapping[str, Any] | None = None,
    **options: Any,
) -> Denoiser:
    """Load a denoiser.

    Arguments:
        source: An ``.onnx`` file; or ``package.module:callable``, a callable without arguments that
            returns an ``nn.Module``, followed by ``?weights=FILE`` (safetensors, or a ``state_dict``
            saved by torch) where weights are to be filled in; or what an installed plug-in reads.
        intensity: The model's units; None for what the model or its weights say (attribute
            ``ctinv_intensity``, metadata ``ctinv.intensity``).
        output: ``image``, ``residual``, or ``auto``; None for what the model or its weights say
            (``ctinv_output``, ``ctinv.output``), else it is probed, and told in the notices.
        name: What to call it in reports.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        feed: Further inputs by name, in model units.
        options: ``output_tensor``; and those of one kind only: ``channels`` for modules; ``layout``,
            ``input_name``, ``verify``, ``threads`` for ONNX files. None stands for what is not said.

    Raises:
        ModelError: Nothing there, or nothing that can be loaded; the message tells the mend.
        IntensityError: The units are malformed.
        DeviceError: The device is not there.
    """
    text = str(source)
    options = {key: value for key, value in options.items() if value is not None}
    if str(options.get("output_tensor", "")).isdigit():
        options["output_tensor"] = f"[{options['output_tensor']}]"
    units = _units(intensity)
    returns = _returns(output)
    plugged = _from_plugins(text)
    if plugged is not None:
        return _settled(plugged, units, returns, name, device, text, {"feed": feed, **options})
    if Path(text).suffix.lower() == ".onnx":
        _require_file(Path(text))
        _refuse(options, _MODULE_ONLY, text, "an ONNX file says itself; it is for PyTorch modules")
        from .onnx.denoiser import OnnxDenoiser

        return OnnxDenoiser(
            Path(text), intensity=units, output=returns, name=name, device=device, feed=feed, **options
        )
    spec = _CALLABLE.fullmatch(text)
    if spec is None:
        raise _not_loadable(Path(text))
    _refuse(options, _ONNX_ONLY, text, "is for ONNX files")
    return _from_callable(spec, units, returns, name, device, feed, options)


def _refuse(options: Mapping[str, Any], foreign: tuple[str, ...], source: str, why: str) -> None:
    for key in foreign:
        if key in options:
            raise ModelError(f"{source!r}: {key} {why}; leave it out")


def _units(intensity: Intensity | str | None) -> Intensity | None:
    if isinstance(intensity, str):
        return None if intensity == "auto" else parse_intensity(intensity)
    return intensity


def _returns(output: str | None) -> Output | None:
    if output not in ("image", "residual", "auto", None):
        raise ModelError(f"output is image, residual or auto, not {output!r}")
    return None if output == "auto" else output  # type: ignore[return-value]


def _from_plugins(source: str) -> Denoiser | None:
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            denoiser = point.load()(source)
        except CtinvError:
            raise
        except Exception as error:
            raise ModelError(
                f"plug-in {point.name!r} ({point.value}) fails on {source!r}: {error}"
            ) from error
        if denoiser is None:
            continue
        if not isinstance(denoiser, Denoiser):
            raise ModelError(
                f"plug-in {point.name!r} ({point.value}) returned {type(denoiser).__name__}, not a "
                "Denoiser or None"
            )
        return denoiser
    return None


def _settled(
    denoiser: Denoiser,
    intensity: Intensity | None,
    output: Output | None,
    name: str | None,
    device: str,
    source: str,
    others: Mapping[str, Any],
) -> Denoiser:
    """A plug-in's denoiser with what the caller asked for."""
    given = [key for key, value in others.items() if value]
    if given:
        raise ModelError(f"{source!r} is read by a plug-in, which does not take {', '.join(given)}")
    if device != "auto" and not denoiser.device.startswith(device):
        raise DeviceError(f"{source!r} runs on {denoiser.device}, not on {device}; its plug-in chooses")
    denoiser.intensity = intensity or denoiser.intensity
    denoiser.output = output or denoiser.output
    denoiser.name = name or denoiser.name
    return denoiser


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the .onnx file in it")
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
        hint = f"close: {', '.join(close)}" if close else "check the path"
        raise ModelError(f"there is no file {path}; {hint}")


def _not_loadable(path: Path) -> ModelError:
    forms = "an .onnx file, or package.module:callable, with ?weights=FILE where it needs weights"
    suffix = path.suffix.lower()
    if path.is_dir():
        return ModelError(f"{path} is a folder; a model is {forms}")
    if suffix in _WEIGHTS_ONLY:
        absent = "" if path.exists() else " (and there is no such file)"
        return ModelError(
            f"{path}{absent} can hold weights, not the network's code, and pickled code is never run; "
            f"give both as package.module:callable?weights={path}"
        )
    if suffix in _FOREIGN:
        return ModelError(f"{path} cannot be read; export the model to ONNX and give the .onnx file")
    if path.exists():
        return ModelError(f"{path} is no kind of model known here; a model is {forms}")
    return ModelError(
        f"{str(path)!r} is no file and no package.module:callable; a model is {forms} "
        "(names of trained denoisers belong to ctinv.zoo.load)"
    )


def _from_callable(
    spec: re.Match[str],
    intensity: Intensity | None,
    output: Output | None,
    name: str | None,
    device: str,
    feed: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Denoiser:
    from torch import cuda, nn

    from .pytorch.denoiser import TorchDenoiser
    from .pytorch.state import unwrap
    from .pytorch.weights import fill

    asked = _weights_of(spec)
    model = _made(spec)
    if isinstance(model, Denoiser):
        others = {"weights": asked, "feed": feed, **options}
        return _settled(model, intensity, output, name, device, spec.group(), others)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.group()!r} returned {type(model).__name__}, not a torch.nn.Module")
    inner = unwrap(model)
    notes, told = ([], {}) if asked is None else fill(inner, Path(asked))
    units = getattr(inner, "ctinv_intensity", None) or told.get("ctinv.intensity")
    returns = getattr(inner, "ctinv_output", None) or told.get("ctinv.output")
    denoiser = TorchDenoiser(
        model,
        intensity=intensity or _units(units),
        output=output or _returns(returns),
        name=name or spec.group(2).rsplit(".", 1)[-1],
        device=("cuda" if cuda.is_available() else "cpu") if device == "auto" else device,
        feed=feed,
        **options,
    )
    denoiser.notices.extend(notes)
    return denoiser


def _weights_of(spec: re.Match[str]) -> str | None:
    """The weight file named behind the question mark; its name may hold any signs, as it is or escaped."""
    text = spec.group(3)
    if text is None:
        return None
    key, sign, file = text.partition("=")
    if key == "weights" and sign and Path(file).is_file():
        return file
    wrong = [key for key, _ in parse_qsl(text, keep_blank_values=True) if key != "weights"]
    if wrong or key != "weights":
        named = wrong[0] if wrong else key
        raise ModelError(f"{spec.group()!r}: only weights=FILE may follow the question mark, not {named}")
    return unquote(file)


def _made(spec: re.Match[str]) -> Any:
    """Import what a ``package.module:callable`` names and call it."""
    module_name, path = spec.group(1), spec.group(2)
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{spec.group()!r}: no module named {error.name!r}; install it or add its folder to PYTHONPATH"
        ) from error
    except Exception as error:
        raise ModelError(f"{spec.group()!r}: importing {module_name} fails: {error}") from error
    for part in path.split("."):
        if not hasattr(target, part):
            close = difflib.get_close_matches(part, dir(target), n=3)
            hint = f"; close: {', '.join(close)}" if close else ""
            raise ModelError(f"{spec.group()!r}: {module_name} has no {part!r}{hint}")
        target = getattr(target, part)
    from torch import nn

    if isinstance(target, nn.Module | Denoiser):
        return target
    if not callable(target):
        raise ModelError(f"{spec.group()!r} is {type(target).__name__}, which cannot be called")
    make: Callable[[], Any] = target
    try:
        return make()
    except CtinvError:
        raise
    except Exception as error:
        raise ModelError(
            f"{spec.group()!r} fails when called without arguments: {type(error).__name__}: {error}"
        ) from error
