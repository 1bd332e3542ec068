"""The denoisers that ship with ctinv: their names, networks, weights and model cards."""

from __future__ import annotations

import difflib
import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ctinv.adapters.errors import ModelError

if TYPE_CHECKING:
    from ctinv.adapters._types import Image, Output
    from ctinv.adapters.base import Denoiser
    from torch import nn

__all__ = ["Entry", "card", "find", "load", "metadata", "names", "network", "unlike_training"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One denoiser of the zoo.

    Its weights are ``weights/<name>.safetensors`` and its model card is ``cards/<name>.md``, beside
    this module.

    Arguments:
        name: The id that :func:`load` takes.
        module: Module in which the network's class lives.
        cls: Name of the class; it is built without arguments.
        aliases: Other ids that lead here.
        texture: The range of noise textures of low dose in which it does better than a Gaussian blur, see
            :func:`~ctinv.invariance.data.noise_level.noise_texture`.
        serves: Kernels of the simulator, see :data:`~ctinv.invariance.data.simulation.dose.KERNELS`, with
            whose noise it does; its card has the figures.
    """

    name: str
    module: str
    cls: str
    aliases: tuple[str, ...] = ()
    texture: tuple[float, float] = (0.0, math.inf)
    serves: tuple[str, ...] = ()

    @property
    def weights(self) -> Path:
        """Where the trained weights lie."""
        return _HERE / "weights" / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """Where the model card lies."""
        return _HERE / "cards" / f"{self.name}.md"


# Up to which texture each beats a Gaussian blur chosen on the target was measured on held-out patients with
# noise of smooth, medium and sharp kernels (benchmarks/kernels.py): Chen's gain vanishes between 1.7 and 2.1,
# Yang's between 1.3 and 1.7. Below 0.4 no slice of the training lies.
_CHEN_DOES, _YANG_DOES = (0.4, 1.85), (0.4, 1.4)

# A new denoiser is one file with its network (any module will do) and one line here.
_ENTRIES = (
    Entry("chen", "ctinv.zoo.networks", "Chen", ("cnn10",), _CHEN_DOES, ("smooth", "medium")),
    Entry("yang", "ctinv.zoo.networks", "Yang", ("wganvgg",), _YANG_DOES, ("smooth",)),
)


def names() -> tuple[str, ...]:
    """The ids of the zoo's denoisers, aliases left out.

    Example:
        >>> names()
        ('chen', 'yang')
    """
    return tuple(entry.name for entry in _ENTRIES)


def find(name: str) -> Entry:
    """Find an entry by its id or an alias; letter case and ``-`` or ``_`` do not matter.

    Raises:
        ModelError: Nothing in the zoo has this name; the message lists what there is.

    Example:
        >>> find("WGAN-VGG").name
        'yang'
    """
    known = {key: entry for entry in _ENTRIES for key in (entry.name, *entry.aliases)}
    wanted = name.strip().lower().replace("-", "").replace("_", "")
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    raise ModelError(f"the zoo has no denoiser {name!r}{hint} known names: {', '.join(known)}")


def unlike_training(name: str, hu: Image) -> str:
    """Why a slice's noise is not of the kind that a denoiser is for; empty where it is.

    Only the texture is looked at, that is how fine the noise is: bone and lung kernels, for Yang medium ones
    too, make it finer than where the networks do better than a blur.

    Arguments:
        name: Id or alias.
        hu: The slice (H, W), HU.
    """
    from ctinv.invariance.data.noise_level import noise_texture

    entry, texture = find(name), noise_texture(hu)
    if texture is None or entry.texture[0] <= texture <= entry.texture[1]:
        return ""
    return (
        f"the noise of this slice is {'finer' if texture > entry.texture[1] else 'coarser'} than what "
        f"{entry.name} is for (texture {texture:.2f}, for {entry.texture[0]:g} to {entry.texture[1]:g}), as "
        "with other kernels: it may do less than a plain blur here"
    )


def metadata(name: str) -> dict[str, str]:
    """What the weight file says about itself: intensity, output, recipe, data, citation, scores.

    Raises:
        ModelError: Unknown name, or the weight file is missing or damaged.
    """
    return _read(find(name))[1]


def network(name: str, pretrained: bool = True) -> nn.Module:
    """Build a network, in evaluation mode.

    It takes and returns images (N, 1, H, W) in the model's units; use :func:`load` for HU.

    Arguments:
        name: Id or alias.
        pretrained: Whether to fill in the trained weights; otherwise they are drawn from torch's
            global generator.

    Raises:
        ModelError: Unknown name, or the weight file is missing or damaged.
    """
    entry = find(name)
    build = getattr(importlib.import_module(entry.module), entry.cls)
    if not pretrained:
        fresh: nn.Module = build()
        return fresh.eval()
    tensors, _ = _read(entry)
    import torch

    with torch.device("meta"):  # draws nothing from the global generator
        net: nn.Module = build()
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as err:
        raise ModelError(f"{entry.weights} does not fit {entry.cls}; reinstall ctinv") from err
    return net.requires_grad_().eval()


def load(name: str) -> Denoiser:
    """Load a trained denoiser that takes and returns HU.

    Arguments:
        name: Id or alias: ``chen`` (``cnn10``), ``yang`` (``wganvgg``).

    Raises:
        ModelError: Unknown name, or the weight file is missing or damaged.
    """
    from ctinv import adapters

    entry = find(name)
    info = metadata(name)
    denoiser: Denoiser = adapters.wrap(
        network(name),
        intensity=info["ctinv.intensity"],
        output=cast("Output", info["ctinv.output"]),
        name=entry.name,
    )
    return denoiser


def card(name: str) -> str:
    """The model card, as Markdown: data, recipe, scores and known limits.

    Raises:
        ModelError: Unknown name, or the card is missing.
    """
    path = find(name).card
    try:
        return path.read_text(encoding="utf-8")
    except OSError as err:
        raise ModelError(f"the model card {path} cannot be read; reinstall ctinv") from err


def _read(entry: Entry) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of an entry's weight file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(entry.weights, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            info = dict(file.metadata() or {})
    except (OSError, SafetensorError) as err:
        raise ModelError(f"the weights {entry.weights} cannot be read ({err}); reinstall ctinv") from err
    if not {"ctinv.intensity", "ctinv.output"} <= info.keys():
        raise ModelError(f"the weights {entry.weights} name no units; reinstall ctinv")
    return tensors, info
