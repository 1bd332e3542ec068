"""Fitting a reading: ridge regression on windows, then a small network on what it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from ctinv.invariance.presets import ReadingConfig
from ctinv.invariance.representation.geometry import Geometry
from torch import Tensor, nn
from torch.nn import functional as F

from .reading import RIM, Reading, ReadingScores, aligned, blocks_of

__all__ = ["ReadingFit"]

Image = npt.NDArray[np.float32]

_FEATURES = 2000
"""Numbers in a linear window at most: the normal equations take their square in memory."""
_RIDGES = tuple(10.0**k for k in range(-9, 1))
"""Shares of the mean variance of a feature that are tried as ridge."""
_BODY = -900.0  # HU


@dataclass
class _Kept:
    """Of one slice: windows with their blocks of pixels, inside and at the border, and crops of the map."""

    windows: Tensor
    pixels: Tensor
    edge_windows: Tensor
    edge_pixels: Tensor
    maps: Tensor = field(default_factory=lambda: torch.zeros(0))
    targets: Tensor = field(default_factory=lambda: torch.zeros(0))


class ReadingFit:
    """Collects what a reading learns from, slice by slice, and fits it.

    Arguments:
        geometry: How the layer's output lies over the image; it must be a map.
        config: Sizes and steps.
        generator: Draws places, crops and weights.
        held: Slices that come first and are kept for the error.
    """

    def __init__(
        self, geometry: Geometry, config: ReadingConfig, generator: torch.Generator, held: int = 2
    ) -> None:
        self._geometry, self._config, self._generator, self._held = geometry, config, generator, held
        self._block = max(1, round(1 / geometry.scale))
        self._channels = geometry.channels * max(1, round(geometry.scale)) ** 2
        sizes = [w for w in (1, 3, 5, 7, 9) if w <= config.window]
        fitting = [w for w in sizes if self._channels * w * w <= _FEATURES]
        self._window = max(fitting, default=1)
        self._learned: list[_Kept] = []
        self._tests: list[tuple[Tensor, Tensor]] = []
        self._moments: list[tuple[Tensor, Tensor]] = []

    def add(self, z: Tensor, image: Image) -> None:
        """Take one slice (H, W) in HU and ``Phi`` of it."""
        block = self._block
        height, width = (side // block * block for side in image.shape)
        x = torch.from_numpy(np.ascontiguousarray(image[:height, :width]))[None, None]
        z = aligned(z, self._geometry, (height, width))
        targets = blocks_of(x, block)
        if len(self._tests) < self._held:
            self._tests.append((z, targets))
            return
        std, mean = torch.std_mean(z[0], (1, 2))
        self._moments.append((mean, std.square() + mean.square()))
        body = (targets[0] > _BODY).any(0)
        inner = torch.zeros_like(body)
        inner[RIM:-RIM, RIM:-RIM] = True
        chosen = self._places(body & inner, inner, self._config.places)
        border = self._places(body & ~inner, ~inner, self._config.places // 3)
        kept = _Kept(*self._windows(z, targets, chosen), *self._windows(z, targets, border))
        if self._config.width and min(body.shape) > self._config.side:
            kept.maps, kept.targets = self._crops(z[0], targets[0], chosen)
        self._learned.append(kept)

    def _windows(self, z: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Windows of the map around places, (N, features), and the pixels there, (N, block * block)."""
        reach, width = self._window // 2, targets.shape[-1]
        padded = F.pad(z, (reach,) * 4, mode="replicate")[0]
        rows, columns, steps = places // width, places % width, torch.arange(self._window)
        windows = padded[:, rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]
        return windows.transpose(0, 1).flatten(1).contiguous(), targets[0].flatten(1)[
            :, places
        ].T.contiguous()

    def _places(self, body: Tensor, anywhere: Tensor, count: int) -> Tensor:
        """Numbers of places: three in four from the first mask, where it has any."""
        few, drawn = count // 4, []
        for mask, share in ((body, count - few), (anywhere, few)):
            numbers = (mask if mask.any() else anywhere).flatten().nonzero()[:, 0]
            drawn.append(numbers[torch.randint(len(numbers), (share,), generator=self._generator)])
        return torch.cat(drawn)

    def _crops(self, z: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        side, (height, width) = self._config.side, z.shape[1:]
        maps, pixels = [], []
        for place in places[: self._config.crops].tolist():
            row = min(max(0, place // width - side // 2), height - side)
            column = min(max(0, place % width - side // 2), width - side)
            part = (slice(None), slice(row, row + side), slice(column, column + side))
            maps.append(z[part].half())
            pixels.append(targets[part])
        return torch.stack(maps), torch.stack(pixels)

    def fit(self, progress: Callable[[int, int], None] | None = None) -> tuple[Reading, ReadingScores]:
        """The reading of what has been collected, and its error on the slices that came first.

        Raises:
            ValueError: No slice has been added to learn from.
        """
        if not self._learned:
            raise ValueError("a reading needs slices to learn from")
        config = self._config
        cropped = len(self._learned[0].maps) > 0
        reading = Reading(self._channels, self._block, self._window, config.width if cropped else 0)
        self._standardise(reading)
        ridge = self._solve(reading, reading.linear, [(one.windows, one.pixels) for one in self._learned])
        self._solve(reading, reading.edge, [(one.edge_windows, one.edge_pixels) for one in self._learned])
        linear = self._errors(reading, linear=True)
        if reading.network is not None:
            self._train(reading, reading.network, progress)
        each = self._errors(reading)
        if _rms(each) > _rms(linear):
            # The network has learned nothing that holds elsewhere.
            plain = Reading(self._channels, self._block, self._window, 0)
            state = reading.state_dict()
            plain.load_state_dict({name: state[name] for name in plain.state_dict()})
            reading, each = plain, linear
        scores = ReadingScores(_rms(each), _rms(linear), tuple(each), ridge)
        return reading.eval().requires_grad_(False), scores

    def _standardise(self, reading: Reading) -> None:
        means, squares = (torch.stack(part).mean(0) for part in zip(*self._moments, strict=True))
        std = (squares - means.square()).clamp_min(0).sqrt()
        std = torch.where(std > 1e-6 * means.abs() + 1e-12, std, torch.inf)
        reading.mean.copy_(means[:, None, None])
        reading.std.copy_(std[:, None, None])

    def _features(self, reading: Reading, windows: Tensor) -> Tensor:
        scaled = reading.standardised(windows.unflatten(1, (self._channels, self._window, self._window)))
        return scaled.flatten(1).double()

    def _solve(self, reading: Reading, linear: nn.Conv2d, learned: list[tuple[Tensor, Tensor]]) -> float:
        """Ridge regression in closed form; of the ridges tried, the one best for a third of the slices."""
        aside = max(1, len(learned) // 3) if len(learned) > 1 else 0
        parts = [(self._features(reading, windows), pixels.double()) for windows, pixels in learned]
        solved = _ridge(parts[aside:])
        best = _RIDGES[len(_RIDGES) // 2]
        if aside:
            features, pixels = (torch.cat(part) for part in zip(*parts[:aside], strict=True))

            def error(ridge: float) -> float:
                weight, bias = solved(ridge)
                return float((features @ weight + bias - pixels).square().mean())

            best = min(_RIDGES, key=error)
        weight, bias = _ridge(parts)(best)
        with torch.no_grad():
            kernel = (self._channels, self._window, self._window)
            linear.weight.copy_(weight.T.unflatten(1, kernel))
            linear.bias.copy_(bias)  # type: ignore[union-attr]
        return best

    @torch.no_grad()
    def _errors(self, reading: Reading, linear: bool = False) -> list[float]:
        """Root mean square error inside the body of every slice kept apart, HU."""
        network, errors = reading.network, []
        if linear:
            reading.network = None
        for z, targets in self._tests:
            away = reading.blocks(z.float()) - targets
            away, targets = (part[..., RIM:-RIM, RIM:-RIM] for part in (away, targets))
            inside = targets > _BODY
            errors.append(_root(away[inside] if inside.any() else away))
        reading.network = network
        return errors

    def _train(
        self, reading: Reading, network: nn.Sequential, progress: Callable[[int, int], None] | None
    ) -> None:
        config = self._config
        maps = torch.cat([one.maps for one in self._learned])
        targets = torch.cat([one.targets for one in self._learned])
        for layer in network:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_uniform_(layer.weight, math.sqrt(5), generator=self._generator)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(network[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(network[-1].bias)  # type: ignore[arg-type]
        rim = max(3, self._window // 2)
        inner = (..., slice(rim, config.side - rim), slice(rim, config.side - rim))
        with torch.no_grad():
            left = torch.cat(
                [
                    targets[k : k + 32] - reading.linear(reading.standardised(maps[k : k + 32].float()))
                    for k in range(0, len(maps), 32)
                ]
            )
            reading.spread.fill_(max(_root(left[inner]), 1e-6))
            left = left / reading.spread
        adam = torch.optim.Adam(network.parameters(), lr=config.rate)
        for step in range(config.steps):
            done = step / config.steps
            for group in adam.param_groups:
                group["lr"] = config.rate * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * done))
            some = torch.randint(len(maps), (config.batch,), generator=self._generator)
            z = reading.standardised(maps[some].float()).clamp(-8, 8)
            loss = (network(z) - left[some])[inner].square().mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            if progress:
                progress(step + 1, config.steps)


def _ridge(parts: Sequence[tuple[Tensor, Tensor]]) -> Callable[[float], tuple[Tensor, Tensor]]:
    """Ridge regression of pixels (N, P) on features (N, F): from a ridge to weights (F, P) and bias (P,)."""
    count = sum(len(features) for features, _ in parts)
    centre, level = (torch.stack([p[k].sum(0) for p in parts]).sum(0) / count for k in (0, 1))
    gram = torch.stack([features.T @ features for features, _ in parts]).sum(0) / count
    cross = torch.stack([features.T @ pixels for features, pixels in parts]).sum(0) / count
    gram, cross = gram - torch.outer(centre, centre), cross - torch.outer(centre, level)
    values, vectors = torch.linalg.eigh(gram)
    values, turned = values.clamp_min(0), vectors.T @ cross
    unit = float(gram.diagonal().mean().clamp_min(1e-30))

    def solved(ridge: float) -> tuple[Tensor, Tensor]:
        weight = vectors @ (turned / (values + ridge * unit)[:, None])
        return weight, level - centre @ weight

    return solved


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / max(1, len(values)))


def _root(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0
