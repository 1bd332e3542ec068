"""The representations that a fit learns from, kept in temporary files of bounded size."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import Denoiser
from ctinv.invariance.data.tiling import STEP
from ctinv.invariance.infra.distributed import World
from ctinv.invariance.reading.reading import Reading
from ctinv.invariance.representation.geometry import Geometry, probe_geometry
from ctinv.invariance.representation.maps import as_map, coordinates
from ctinv.invariance.representation.reader import Reader
from torch import Tensor

from .patches import Place

__all__ = ["Blocks", "RepresentationStore", "open_stores", "passes"]

_BYTES = 1.5e9
"""What the layers that are kept at the same time may take on disk, and a single one of them."""
_CHUNK = 128
_RANGE = 64.0  # the largest value of the first slice becomes this, far inside half precision


class Blocks:
    """Which squares of 8 x 8 pixels the patches of a fit cover, numbered as they first come up.

    Patches overlap and leave much air out: what they cover together is far less than the patches
    one by one, and less than the slices.

    Arguments:
        images: Slices (H, W) in HU.
        places: Patches at (slice, row, column), rows and columns multiples of 8.
        patch: Side of the patches.

    Example:
        >>> blocks = Blocks([np.zeros((64, 64), np.float32)], [(0, 0, 0), (0, 0, 8)], 16)
        >>> blocks.upto
        [4, 6]
    """

    def __init__(self, images: Sequence[Image], places: Sequence[Place], patch: int) -> None:
        self.images, self.places, self.patch = images, list(places), patch
        self._side = -(-patch // STEP)
        self._numbers = [
            np.full([-(-side // STEP) for side in image.shape], -1, dtype=np.int64) for image in images
        ]
        self.upto: list[int] = []
        count = 0
        for place in self.places:
            numbers = self._window(place)
            fresh = numbers < 0
            numbers[fresh] = np.arange(count, count + int(fresh.sum()))
            count += int(fresh.sum())
            self.upto.append(count)

    def _window(self, place: Place) -> npt.NDArray[np.int64]:
        k, row, column = place[0], place[1] // STEP, place[2] // STEP
        return self._numbers[k][row : row + self._side, column : column + self._side]

    def of(self, places: Sequence[Place]) -> Tensor:
        """Numbers of the blocks of patches, (N, side, side)."""
        return torch.from_numpy(np.stack([self._window(place) for place in places]))

    def within(self, k: int, count: int) -> tuple[Tensor, Tensor]:
        """The blocks of a slice with a number below ``count``: a mask over its grid, and their numbers."""
        numbers = torch.from_numpy(self._numbers[k])
        wanted = (numbers >= 0) & (numbers < count)
        return wanted, numbers[wanted]

    def affordable(self, each: float) -> int:
        """How many of the places, from the first on, find room when a block takes ``each`` bytes."""
        return int(np.searchsorted(self.upto, _BYTES / each, side="right"))


def passes(denoiser: Denoiser, layers: Sequence[str], blocks: Blocks) -> list[list[str]]:
    """Divide layers into groups, in their order, that are read and kept at the same time.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names.
        blocks: What is kept of a map.
    """
    probe = math.prod(denoiser.probe_size)
    pixels = blocks.upto[-1] * STEP**2
    groups: list[list[str]] = []
    room = 0.0
    for name in layers:
        wanted = min(_BYTES, 2 * math.prod(denoiser.resolve(name).shape or (1,)) / probe * pixels)
        if wanted > room:
            groups.append([])
            room = _BYTES
        groups[-1].append(name)
        room -= wanted
    return groups


class RepresentationStore:
    """Representations of the patches of a fit at one layer, as half-precision numbers on disk.

    The layer sees every slice once, whole; of its map the blocks that patches need are kept. A
    layer whose output is not a map is run on each patch instead. Of wide layers only so many of
    the patches are kept as find room, the first ones. ``count`` says how many.

    Arguments:
        reader: Reads the layer.
        layer: Its name.
        first: What it gives for the first slice.
        blocks: Slices and patches.
        file: Where to keep the numbers.
        create: Whether this process makes the file.
    """

    def __init__(
        self, reader: Reader, layer: str, first: Tensor, blocks: Blocks, file: Path, create: bool
    ) -> None:
        self.layer, self._reader, self._blocks, self._file = layer, reader, blocks, file
        height, width = blocks.images[0].shape
        self.geometry = probe_geometry(first, (height, width), blocks.patch)
        self._scale = float(first.abs().max().clamp_min(1e-30)) / _RANGE
        self._rows: dict[Place, int] = {}
        self._kept: Tensor | None = None
        self._read: Tensor | None = None
        self._read_rows: dict[Place, int] = {}
        self.reading: Reading | None = None
        self._created = create
        if self.geometry.local:
            self._side = max(1, round(STEP * self.geometry.scale))
            one = (self._side, self._side, self.geometry.channels)
            self.count = blocks.affordable(2 * math.prod(one))
            self._shape = (blocks.upto[self.count - 1] if self.count else 0, *one)
        else:
            alone = as_map(self.read(blocks.places[:1]))
            one = (alone.shape[1], alone.shape[2], alone.shape[3])
            self.geometry = Geometry(False, 1.0, (0, 0), one[0], one[1:])
            self.count = min(len(blocks.places), int(_BYTES / (2 * math.prod(one))))
            places = list(dict.fromkeys(blocks.places[: self.count]))
            self._rows = {place: row for row, place in enumerate(places)}
            self._shape = (len(places), *one)
        if create and self._shape[0]:
            np.memmap(file, np.float16, "w+", shape=self._shape).flush()

    @property
    def alone(self) -> list[Place]:
        """The patches that the layer must see on their own; none for a map."""
        return list(self._rows)

    def put(self, k: int, z: Tensor) -> None:
        """Keep what a layer that is a map gives for slice ``k``."""
        if self.reading is not None:
            shape = self._blocks.images[k].shape
            np.save(self._read_file(k), self.reading(z, self.geometry, (shape[0], shape[1]))[0, 0].numpy())
        wanted, numbers = self._blocks.within(k, self._shape[0])
        if not len(numbers):
            return
        # Channels last: whole pixels are then read and written at once.
        z, side = as_map(z)[0].permute(1, 2, 0), self._side
        # Beyond the map its edge is repeated, as where a cut reaches there.
        for axis, (cells, offset) in enumerate(zip(wanted.shape, self.geometry.offset, strict=True)):
            if offset or cells * side != z.shape[axis]:
                places = (torch.arange(cells * side) + offset).clamp(0, z.shape[axis] - 1)
                z = z.index_select(axis, places)
        grid = z.unflatten(1, (-1, side)).unflatten(0, (-1, side)).transpose(1, 2)
        self._opened()[numbers] = self._halved(grid[wanted])

    def put_alone(self, start: int, z: Tensor) -> None:
        """Keep the answers to some of :attr:`alone`, from this one on."""
        self._opened()[start : start + len(z)] = self._halved(as_map(z))

    def cut(self, places: Sequence[Place]) -> Tensor:
        """Representations of patches at (slice, row, column), of those that are kept: (N, C, h, w)."""
        kept = self._opened()
        if not self.geometry.local:
            return kept[[self._rows[place] for place in places]].float().mul_(self._scale)
        numbers = self._blocks.of(places)
        if int(numbers.min()) < 0:
            raise ValueError("a patch is not among those that are kept")
        height, width = self.geometry.size
        parts = kept[numbers].transpose(2, 3).flatten(3, 4).flatten(1, 2)
        # In place: a second copy would cost more than the product.
        return parts[:, :height, :width].float().mul_(self._scale).permute(0, 3, 1, 2)

    def where(self, places: Sequence[Place], code_size: int) -> Tensor:
        """Coordinates of the patches at (slice, row, column), see :func:`embed.coordinates`.

        A layer that is shown each patch alone cannot know the place; then all are as if alone.
        """
        p, images = self._blocks.patch, self._blocks.images
        if not self.geometry.local:
            return coordinates([(0, 0)] * len(places), [(p, p)] * len(places), p, code_size)
        shapes = [(images[k].shape[0], images[k].shape[1]) for k, _, _ in places]
        return coordinates([(i, j) for _, i, j in places], shapes, p, code_size)

    def read_slices(self) -> list[Image]:
        """``x_R`` of every slice, (H, W), HU."""
        return [np.load(self._read_file(k), allow_pickle=False) for k in range(len(self._blocks.images))]

    def _read_file(self, k: int) -> Path:
        return self._file.with_name(f"{self._file.name}-{k}.npy")

    def tell(self, places: Sequence[Place], codes: Tensor) -> None:
        """Keep the codes (N, code_dim) of what was read back at places."""
        self._read = codes
        self._read_rows = {place: row for row, place in enumerate(places)}

    def inputs(self, places: Sequence[Place], code_size: int) -> tuple[Tensor, ...]:
        """What an embedder takes of patches: representations, places, and the codes of the reading."""
        parts = self.cut(places), self.where(places, code_size)
        return parts if self._read is None else (*parts, self.read_codes(places))

    def read_codes(self, places: Sequence[Place]) -> Tensor:
        """``E(x_R)`` of patches, (N, code_dim)."""
        assert self._read is not None
        return self._read[[self._read_rows[place] for place in places]]

    def read(self, places: Sequence[Place]) -> Tensor:
        """What the layer gives for each patch on its own."""
        return self._reader(tiles(self._blocks, places), [self.layer])[self.layer]

    def close(self) -> None:
        """Let go of the file, and free its room."""
        self._kept = None
        if self._created:
            with suppress(OSError):  # where a mapped file cannot go yet, its folder goes later
                self._file.unlink()
                for k in range(len(self._blocks.images) if self.reading is not None else 0):
                    self._read_file(k).unlink()

    def _opened(self) -> Tensor:
        if self._kept is None:
            self._kept = torch.from_numpy(np.memmap(self._file, np.float16, "r+", shape=self._shape))
        return self._kept

    def _halved(self, z: Tensor) -> Tensor:
        return (z / self._scale).clamp(-60000, 60000).half()


def tiles(blocks: Blocks, places: Sequence[Place]) -> Image:
    """The patches of the slices, (N, 1, p, p), HU."""
    p = blocks.patch
    return np.stack([blocks.images[k][i : i + p, j : j + p] for k, i, j in places])[:, None]


@contextmanager
def open_stores(
    denoiser: Denoiser,
    layers: Sequence[str],
    blocks: Blocks,
    *,
    readings: Mapping[str, Reading] | None = None,
    world: World = World(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> Iterator[dict[str, RepresentationStore]]:
    """Read several layers on every slice once, and remove what was kept at the end.

    The processes of one machine share the work and the files.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names of its layers.
        blocks: Slices and patches.
        readings: What the image is read back with from layers whose output is a map.
        world: The processes.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: A layer gives values that are not finite.
    """
    reader = Reader(denoiser, layers)
    with ExitStack() as stack:
        own, creates = "", world.local_rank == 0
        if creates:
            own = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ctinv-", ignore_cleanup_errors=True)
            )
        folder = Path(world.machine_text(own))
        z = reader(blocks.images[0][None, None])
        stores = {
            name: RepresentationStore(reader, name, z[name], blocks, folder / str(number), creates)
            for number, name in enumerate(layers)
        }
        for name, store in stores.items():
            store.reading = (readings or {}).get(name)
            stack.callback(store.close)
        world.wait()
        maps = {name: store for name, store in stores.items() if store.geometry.local}
        count = len(blocks.images) if maps else 0
        for k in range(world.local_rank, count, world.local_size):
            if k:
                z = reader(blocks.images[k][None, None], list(maps))
            for name, store in maps.items():
                store.put(k, z[name])
            if progress:
                progress("representations", k + 1, count)
        del z
        _read_alone(reader, [s for s in stores.values() if s.alone], blocks, world, progress)
        world.wait()
        yield stores
        world.wait()


def _read_alone(
    reader: Reader,
    stores: Sequence[RepresentationStore],
    blocks: Blocks,
    world: World,
    progress: Progress | None,
) -> None:
    """Run layers that are not maps on single patches, each patch once for all of them."""
    longest = max((store.alone for store in stores), key=len, default=[])
    starts = range(0, len(longest), _CHUNK)
    for start in starts[world.local_rank :: world.local_size]:
        some = longest[start : start + _CHUNK]
        wanted = {store.layer: store for store in stores if start < len(store.alone)}
        z = reader(tiles(blocks, some), list(wanted))
        for name, store in wanted.items():
            store.put_alone(start, z[name][: len(store.alone) - start])
        if progress:
            progress("representations", start + len(some), len(longest))
