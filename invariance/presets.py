"""Presets: every size and hyperparameter of a fit, in frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ctinv.adapters.errors import CtinvError

__all__ = [
    "PRESETS",
    "FitConfig",
    "FlowConfig",
    "Precision",
    "Preset",
    "ReadingConfig",
    "TileConfig",
    "VAEConfig",
    "preset",
]

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class VAEConfig:
    """The data representation ``code = E(x)`` and its decoder.

    The default is a map of 8x8x8 numbers, one for every 8 pixels, not the papers' vector of 256 for
    128x128 pixels, one for every 64: a picture of what a layer misses is worth no more than what the
    code can carry. On held-out patients ``small`` is 24 to 26 HU (RMSE) off the noise-free image.

    Arguments:
        patch: Side of the square patch that is encoded, in pixels.
        code_channels: Channels of the code map.
        code_size: Side of the code map; 1 makes the code a vector.
        widths: Channels of the plain encoder and decoder, from the code map's resolution up to half
            the patch's; ``patch`` is ``code_size`` times 2 to the number of widths.
        sigma: Standard deviation (HU) of the decoder's Gaussian; it sets the weight of the KL term.
        encoder: ``plain`` or one of the residual networks ``resnet18`` to ``resnet101``.
        decoder: ``plain`` or ``biggan``.
        channels: Channels of the BigGAN decoder at the patch's resolution, its unit of width.
        mapping: Hidden widths of the network that turns the code into what the BigGAN decoder's
            normalisations share.
        conditional: Whether encoder, decoder and critic also see the denoiser's output ``f(x)``.
        critic: Channels of the critic's first layer; 0 trains without a critic.
        adversarial: Weight of the critic's verdict in the loss.
        penalty: Weight of the critic's gradient penalty.
        perceptual: Weight of the distance in features that the caller gives.
    """

    patch: int = 64
    code_channels: int = 8
    code_size: int = 8
    widths: tuple[int, ...] = (128, 96, 64)
    sigma: float = 25.0
    encoder: Literal["plain", "resnet18", "resnet34", "resnet50", "resnet101"] = "plain"
    decoder: Literal["plain", "biggan"] = "plain"
    channels: int = 96
    mapping: tuple[int, ...] = ()
    conditional: bool = False
    critic: int = 0
    adversarial: float = 0.0
    penalty: float = 10.0
    perceptual: float = 0.0

    def __post_init__(self) -> None:
        # JSON knows no tuples.
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "mapping", tuple(self.mapping))

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the code map."""
        return self.code_channels, self.code_size, self.code_size

    @property
    def code_dim(self) -> int:
        """Numbers in one code."""
        return self.code_channels * self.code_size**2


@dataclass(frozen=True)
class FlowConfig:
    """The conditional flow ``code -> v`` and its embedder ``h = H(z)``.

    Arguments:
        blocks: Invertible blocks (actnorm, two couplings, shuffle).
        width: Hidden channels of each coupling's network.
        context: Channels of ``h``, a map as large as the code map.
        embed_width: Channels of the embedder's first convolution.
        coupling: ``affine`` or ``spline`` (monotonic rational-quadratic, the identity far out).
        bins: Bins of a spline.
        depth: Hidden layers after the first in the dense couplings of vector codes.
        jitter: Noise on the codes that are learned from, in units of their spread.
    """

    blocks: int = 4
    width: int = 48
    context: int = 32
    embed_width: int = 32
    coupling: Literal["affine", "spline"] = "affine"
    bins: int = 8
    depth: int = 2
    jitter: float = 0.002


@dataclass(frozen=True)
class FitConfig:
    """The maximum-likelihood fit of flow and embedder.

    Arguments:
        steps: Optimiser steps at most.
        batch: Patches a step.
        patches: Patches drawn from the fitting slices.
        rate: Peak learning rate of Adam.
        warmup: Steps over which the rate rises.
        clip: Gradient norm above which gradients are scaled down.
        check: Steps between two looks at the held-out likelihood.
        patience: Looks without improvement after which the fit stops.
        settled: Gain of the held-out likelihood from one look to the next, in bits per dimension, below
            which the learning rate falls to its end within ``check`` steps; 0 makes all the steps.
        holdout: Share of the fitting slices kept for the held-out likelihood.
        vae_steps: Optimiser steps of an autoencoder for which no weights ship.
        checkpoint: Steps between two checkpoints; 0 for none. It does not change the result.
        vae_batch: Patches a step of the autoencoder's.
        vae_rate: Peak learning rate of the autoencoder's Adam.
        calibrated: Held-out patches that the flow's error bars are tested on; 0 for no test.
    """

    steps: int = 450
    batch: int = 32
    patches: int = 4096
    rate: float = 4e-3
    warmup: int = 30
    clip: float = 5.0
    check: int = 60
    patience: int = 3
    settled: float = 0.03
    holdout: float = 0.2
    vae_steps: int = 1500
    checkpoint: int = 50
    calibrated: int = 128
    vae_batch: int = 32
    vae_rate: float = 2e-3


@dataclass(frozen=True)
class ReadingConfig:
    """How the image is read back from the layer's output.

    Arguments:
        slices: Fitting slices that it is learned from; two of them are held out for its error.
        places: Places drawn from each slice for the linear part.
        window: Side of its window at most; smaller where the layer has many channels.
        width: Channels of the network; 0 for none.
        steps: Optimiser steps of the network.
        crops: Crops kept of each slice for the network.
        side: Side of a crop, in places.
        batch: Crops a step.
        rate: Peak learning rate of Adam.
    """

    slices: int = 10
    places: int = 1500
    window: int = 5
    width: int = 24
    steps: int = 200
    crops: int = 24
    side: int = 36
    batch: int = 12
    rate: float = 4e-3


@dataclass(frozen=True)
class TileConfig:
    """How a slice larger than a patch is covered.

    Arguments:
        overlap: Pixels that neighbouring tiles share.
        batch: Codes decoded at once on a GPU; on a processor it is fixed, so that no result
            depends on it.
        precision: Of decoding: ``float32``, ``bfloat16`` (on CT 0.6 HU from the former), or
            ``auto``, bfloat16 where the processor or GPU has instructions for it.
    """

    overlap: int = 16
    batch: int = 50
    precision: Precision = "auto"


@dataclass(frozen=True)
class Preset:
    """Everything that decides a fit besides the denoiser, the layer, the data and the seed."""

    name: str
    vae: VAEConfig = field(default_factory=VAEConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    tile: TileConfig = field(default_factory=TileConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON."""
        return dataclasses.asdict(self)


def _paper(name: str, encoder: Literal["resnet50", "resnet101"], blocks: int, *, conditional: bool) -> Preset:
    """The published sizes: patches of 128 pixels, codes of 256 numbers. Meant for a GPU.

    Couplings of width 1024 and 96 decoder channels are published; rates and weights of the losses are ours.

    Sources: Eulig, Ommer, Kachelriess, Reconstructing invariances of CT image denoising networks using
    invertible neural networks, Proc. SPIE 12304, 2022; Eulig, Jaeger, Maier, Ommer, Kachelriess,
    Reconstructing and analyzing the invariances of low-dose CT image denoising networks, Medical Physics
    52, 2025, https://doi.org/10.1002/mp.17413
    """
    return Preset(
        name,
        VAEConfig(
            patch=128,
            code_channels=256,
            code_size=1,
            widths=(),
            encoder=encoder,
            decoder="biggan",
            channels=96,
            mapping=(2000, 2000, 2000, 1000),
            conditional=conditional,
            critic=64,
            adversarial=5e-4,
        ),
        FlowConfig(blocks=blocks, width=1024, context=256, embed_width=64),
        FitConfig(
            steps=40_000,
            batch=128,
            patches=50_000,
            rate=2e-4,
            warmup=500,
            check=1000,
            checkpoint=1000,
            vae_steps=200_000,
            vae_batch=64,
            vae_rate=1e-4,
        ),
        tile=TileConfig(overlap=16, batch=25),
    )


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        "tiny",
        VAEConfig(patch=32, code_channels=4, code_size=8, widths=(24, 16), sigma=40.0),
        FlowConfig(blocks=2, width=24, context=16, embed_width=12),
        FitConfig(steps=60, batch=32, patches=512, check=20, vae_steps=300, calibrated=0),
        ReadingConfig(slices=4, places=400, window=3, width=6, steps=30, crops=6, side=24, batch=4),
        TileConfig(overlap=8, batch=64, precision="float32"),
    ),
    "small": Preset("small"),
    "paper": _paper("paper", "resnet101", 4, conditional=False),
    "paper2024": _paper("paper2024", "resnet50", 12, conditional=True),
}


_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _convert(given: Any, kind: Any, path: str) -> Any:
    if isinstance(given, float) and not math.isfinite(given):
        raise CtinvError(f"preset field {path} takes a finite number, not {given}")
    if typing.get_origin(kind) is Literal:
        allowed = typing.get_args(kind)
        if given not in allowed:
            raise CtinvError(f"preset field {path} takes one of {', '.join(allowed)}, not {given!r}")
        return given
    if not isinstance(given, str):
        return given
    try:
        if kind is bool:
            return _SWITCHES[given.strip().lower()]
        if kind is float:
            return _convert(float(given), kind, path)
        if typing.get_origin(kind) is tuple:
            return tuple(int(part) for part in given.strip("()").split(",") if part.strip())
        return kind(given)
    except (ValueError, KeyError) as error:
        raise CtinvError(
            f"preset field {path} takes {getattr(kind, '__name__', kind)}, not {given!r}"
        ) from error


def preset(name: str, overrides: Mapping[str, Any] | None = None) -> Preset:
    """Look a preset up and change some of its fields.

    Arguments:
        name: One of :data:`PRESETS`.
        overrides: Values by dotted path, for example ``{"flow.blocks": 6}``; text is converted.

    Raises:
        CtinvError: No such preset or field, or a value of the wrong kind.

    Example:
        >>> preset("small", {"flow.blocks": "6"}).flow.blocks
        6
    """
    if name not in PRESETS:
        raise CtinvError(f"no preset is called {name!r}; there are: {', '.join(PRESETS)}")
    chosen = PRESETS[name]
    for path, value in (overrides or {}).items():
        section, _, key = path.partition(".")
        part = getattr(chosen, section, None)
        hints = typing.get_type_hints(type(part)) if dataclasses.is_dataclass(part) else {}
        if key not in hints:
            known = [
                f"{s.name}.{f.name}"
                for s in dataclasses.fields(Preset)
                if s.name != "name"
                for f in dataclasses.fields(getattr(chosen, s.name))
            ]
            raise CtinvError(f"preset {name} has no field {path!r}; there are: {', '.join(known)}")
        changed: Any = dataclasses.replace(part, **{key: _convert(value, hints[key], path)})  # type: ignore[type-var]
        fields: dict[str, Any] = {section: changed}
        chosen = dataclasses.replace(chosen, **fields)
    return chosen
