"""The representations that a fit learns from, kept in temporary files of bounded size."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.base import Denoiser
from torch import Tensor

from .embed import as_map, coordinates
from .processes import World
from .representation import Geometry, Reader, probe_geometry
from .tiles import STEP

__all__ = ["Place", "RepresentationStore", "keep_patches", "open_stores", "passes"]

_LAYER_BYTES = 5e8
"""What one layer may take on disk; never a function of other layers, so that a fit never is."""
_PASS_BYTES = 1.5e9
"""What the layers that are read in one pass may take together."""
_CHUNK = 128
_RANGE = 64.0  # the largest value of the first slice becomes this, far inside half precision

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
Place = tuple[int, int, int]


def passes(denoiser: Denoiser, layers: Sequence[str], images: Sequence[Image]) -> list[list[str]]:
    """Divide layers into groups, in their order, that are read and kept at the same time.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names.
        images: Slices (H, W) in HU.
    """
    probe = math.prod(denoiser.probe_size)
    pixels = sum(image.size for image in images)
    groups: list[list[str]] = []
    room = 0.0
    for name in layers:
        wanted = min(_LAYER_BYTES, 2 * math.prod(denoiser.resolve(name).shape or (1,)) / probe * pixels)
        if wanted > room:
            groups.append([])
            room = _PASS_BYTES
        groups[-1].append(name)
        room -= wanted
    return groups


class RepresentationStore:
    """Representations of many slices at one layer, as half-precision numbers on disk.

    The layer sees every slice once, whole; patches are then cut from the maps. Where the maps of
    all slices are too large, only a band of rows is kept of each, at a random height (it goes on
    at the top where it meets the bottom); where even that is too much, there are fewer slices, but
    two at least. A layer whose output is not a map is run on each patch instead: once for those
    of :func:`keep_patches`, else whenever it is asked for.

    Arguments:
        reader: Reads the layer.
        layer: Its name.
        first: What it gives for the first slice.
        images: Slices (H, W) in HU.
        patch: Side of the patches.
        folder: Where to put the files.
        seed: Draws the bands.
    """

    def __init__(
        self,
        reader: Reader,
        layer: str,
        first: Tensor,
        images: Sequence[Image],
        patch: int,
        folder: Path,
        seed: int,
    ) -> None:
        self._reader, self.layer = reader, layer
        self._images, self._patch, self._folder = images, patch, folder
        shape = images[0].shape
        self.geometry = probe_geometry(first, (shape[0], shape[1]), patch)
        self._scale = float(first.abs().max().clamp_min(1e-30)) / _RANGE
        self._rows: dict[Place, int] = {}
        self._opened: dict[int | str, Tensor] = {}
        self._count, self._share = len(images), 1.0
        if self.geometry.local:
            whole = 2 * first.numel() / images[0].size * sum(image.size for image in images)
            low = min(1.0, 2 * patch / min(image.shape[0] for image in images))
            self._share = min(1.0, max(low, _LAYER_BYTES / whole))
            self._count = min(len(images), max(2, int(len(images) * _LAYER_BYTES / (whole * self._share))))
        else:
            one = as_map(self.read([(0, 0, 0)], [layer])[layer])
            self.geometry = Geometry(False, 1.0, (0, 0), one.shape[1], (one.shape[2], one.shape[3]))
        rng = np.random.default_rng([seed, 6])
        self._bands = [self._band(image, rng) for image in images[: self._count]]

    @property
    def count(self) -> int:
        """How many of the slices are kept."""
        return self._count

    @property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """For each slice kept, the rows at which a patch may start."""
        found = []
        for image, (top, height) in zip(self._images, self._bands, strict=False):
            rows = range(0, image.shape[0] - self._patch + 1, STEP)
            found.append(tuple(r for r in rows if (r - top) % image.shape[0] + self._patch <= height))
        return tuple(found)

    def _band(self, image: Image, rng: np.random.Generator) -> tuple[int, int]:
        """First row and number of rows."""
        rows = image.shape[0]
        start = int(rng.integers(rows // STEP)) * STEP
        height = -(-int(self._share * rows) // STEP) * STEP
        return (0, rows) if height >= rows else (start, height)

    # -- what is kept ---------------------------------------------------------------------------

    def put(self, k: int, z: Tensor) -> None:
        """Keep what the layer gives for slice ``k``."""
        if not self.geometry.local or k >= self._count:
            return
        z = as_map(z)[0]
        # Rows that are never written take no room: the file has holes.
        stored = np.lib.format.open_memmap(self._file(k), "w+", np.float16, tuple(z.shape))
        for low, high in self._pieces(k, z.shape[1]):
            stored[:, low:high] = self._halved(z[:, low:high])
        stored.flush()

    def _pieces(self, k: int, mapped: int) -> Iterator[tuple[int, int]]:
        """Rows of the map that belong to the band of a slice: one range or two."""
        scale, offset = self.geometry.scale, self.geometry.offset[0]
        (top, height), rows = self._bands[k], self._images[k].shape[0]
        for low, high in ((top, min(top + height, rows)), (0, top + height - rows)):
            if high > low:
                bounds = math.floor(low * scale) + offset, math.ceil(high * scale) + offset
                # What lies beyond the map is its edge, repeated: the edge itself must be there.
                yield min(max(bounds[0], 0), mapped - 1), max(1, min(bounds[1], mapped))

    def prepare(self, places: Sequence[Place], write: bool) -> bool:
        """Make room for the answers to patches; False where there is no need for it, or no room."""
        shape = (len(places), self.geometry.channels, *self.geometry.size)
        if self.geometry.local or 2 * math.prod(shape) > _LAYER_BYTES:
            return False
        self._rows = {place: row for row, place in enumerate(places)}
        if write:
            np.lib.format.open_memmap(self._file("patches"), "w+", np.float16, shape).flush()
        return True

    def put_patches(self, start: int, z: Tensor) -> None:
        """Keep the answers to some of the patches that :meth:`prepare` was told."""
        self._open("patches")[start : start + len(z)] = torch.from_numpy(self._halved(as_map(z)))

    def _halved(self, z: Tensor) -> npt.NDArray[np.float16]:
        halved: npt.NDArray[np.float16] = (z / self._scale).clamp(-60000, 60000).half().numpy()
        return halved

    def _file(self, name: int | str) -> Path:
        return self._folder / f"{self._reader.layers.index(self.layer)}-{name}.npy"

    # -- what is given back ---------------------------------------------------------------------

    def where(self, places: Sequence[Place], code_size: int) -> Tensor:
        """Coordinates of the patches at (slice, row, column), see :func:`embed.coordinates`.

        A layer that is shown each patch alone cannot know the place; then all are as if alone.
        """
        p = self._patch
        if not self.geometry.local:
            return coordinates([(0, 0)] * len(places), [(p, p)] * len(places), p, code_size)
        shapes = [(self._images[k].shape[0], self._images[k].shape[1]) for k, _, _ in places]
        return coordinates([(i, j) for _, i, j in places], shapes, p, code_size)

    def cut(self, places: Sequence[Place]) -> Tensor:
        """Representations of the patches at (slice, row, column): (N, C, h, w)."""
        if self.geometry.local:
            cuts = [self.geometry.cut(self._open(k), i, j) for k, i, j in places]
            return torch.stack(cuts).float() * self._scale
        if all(place in self._rows for place in places):
            return self._open("patches")[[self._rows[place] for place in places]].float() * self._scale
        return as_map(self.read(places, [self.layer])[self.layer])

    def _open(self, name: int | str) -> Tensor:
        if name not in self._opened:
            self._opened[name] = torch.from_numpy(np.lib.format.open_memmap(self._file(name), "r+"))
        return self._opened[name]

    def read(self, places: Sequence[Place], layers: Sequence[str]) -> dict[str, Tensor]:
        """What layers of the same denoiser give for each patch on its own."""
        p = self._patch
        tiles = np.stack([self._images[k][i : i + p, j : j + p] for k, i, j in places])[:, None]
        return self._reader(tiles, layers)

    def close(self) -> None:
        """Let go of the files."""
        self._opened.clear()


@contextmanager
def open_stores(
    denoiser: Denoiser,
    layers: Sequence[str],
    images: Sequence[Image],
    patch: int,
    *,
    seed: int = 0,
    world: World = World(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> Iterator[dict[str, RepresentationStore]]:
    """Read several layers on every slice once, and remove what was kept at the end.

    The processes of one machine share the work and the files.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names of its layers.
        images: Slices (H, W) in HU.
        patch: Side of the patches.
        seed: Draws which part of large maps is kept.
        world: The processes.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: A layer gives values that are not finite.
    """
    reader = Reader(denoiser, layers)
    with ExitStack() as stack:
        own = ""
        if world.local_rank == 0:
            own = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ctinv-", ignore_cleanup_errors=True)
            )
        folder = Path(world.machine_text(own))
        z = reader(images[0][None, None])
        stores = {
            name: RepresentationStore(reader, name, z[name], images, patch, folder, seed) for name in layers
        }
        for store in stores.values():
            stack.callback(store.close)
        maps = [name for name, store in stores.items() if store.geometry.local]
        count = max((stores[name].count for name in maps), default=0)
        for k in range(world.local_rank, count, world.local_size):
            wanted = [name for name in maps if k < stores[name].count]
            if k:
                z = reader(images[k][None, None], wanted)
            for name in wanted:
                stores[name].put(k, z[name])
            if progress:
                progress("representations", k + 1, count)
        del z
        world.wait()
        yield stores
        world.wait()


def keep_patches(
    stores: Sequence[RepresentationStore],
    places: Sequence[Place],
    world: World = World(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> None:
    """Run layers that are not maps on these patches once, where their answers find room.

    Arguments:
        stores: From one call of :func:`open_stores`.
        places: Patches at (slice, row, column).
        world: The processes.
        progress: Called with (stage, done, total).
    """
    places = list(dict.fromkeys(places))
    waiting = [store for store in stores if store.prepare(places, world.local_rank == 0)]
    if not waiting:
        return
    world.wait()
    starts = range(0, len(places), _CHUNK)
    for start in starts[world.local_rank :: world.local_size]:
        z = waiting[0].read(places[start : start + _CHUNK], [store.layer for store in waiting])
        for store in waiting:
            store.put_patches(start, z[store.layer])
        if progress:
            progress("representations", min(start + _CHUNK, len(places)), len(places))
    world.wait()
