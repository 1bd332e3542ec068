"""Run a graph on batches of images and read tensors from the shortest graph that has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ctinv.adapters.errors import CtinvError, ModelError, UnsupportedModelError
from ctinv.adapters.onnx.graph.inputs import Inputs
from ctinv.adapters.onnx.graph.layout import NHWC, kept_last, layouts, to_nchw
from ctinv.adapters.onnx.graph.prune import Wanted, prefix
from ctinv.adapters.onnx.graph.sizes import PIXELWISE, relax
from ctinv.adapters.onnx.graph.trace import Trace
from ctinv.adapters.tiles import Tiler, stride_within

from .sessions import Sessions

__all__ = ["Runner"]

_SMALL = (64, 64)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    span = float(np.abs(a).max(initial=0.0)) or 1.0
    return a.shape == b.shape and float(np.abs(a - b).max(initial=0.0)) <= 1e-4 * span


class Runner:
    """Runs one graph on images of any number and, where possible, of any size.

    Arguments:
        trace: The graph.
        inputs: Its inputs.
        layout: The layout of the image input.
        sessions: Makes its sessions.
        notify: Called with a sentence about what was done to fit the images.
        label: Tells the sessions of this graph from those of its relaxed copy.
    """

    def __init__(
        self,
        trace: Trace,
        inputs: Inputs,
        layout: str,
        sessions: Sessions,
        notify: Callable[[str], None],
        label: str = "",
    ) -> None:
        self.trace = trace
        self.inputs = inputs
        self.layouts = layouts(trace, layout)
        self.kept_last = kept_last(trace, self.layouts)
        self._sessions = sessions
        self._notify = notify
        self._label = label
        self._nhwc = layout == NHWC
        self.batch, second, third, fourth = inputs.shape
        self.channels, height, width = (fourth, second, third) if self._nhwc else (second, third, fourth)
        self.size = (height, width)
        self._relaxed: Runner | None = None
        self._tried = label == "relaxed"
        self._obstacle = ""
        self._mixing: dict[tuple[Wanted, ...], bool] = {}
        self._tilers: dict[tuple[Wanted, ...], Tiler] = {}

    @property
    def free(self) -> bool:
        """Whether images of any size are taken as they are."""
        return self.size == (None, None)

    @property
    def last(self) -> bool:
        """Whether the graph takes images with their channels last."""
        return self._nhwc

    @property
    def outside(self) -> Mapping[str, np.ndarray]:
        """Weights that are too large to be in the graph."""
        return self._sessions.weights

    def knows_layout(self, want: Wanted | None) -> bool:
        """Whether it is known where the channels of a tensor are."""
        plain = not self._nhwc and all(node.op_type != "Transpose" for node in self.trace.nodes)
        return plain or (want is not None and want.tensor in self.layouts)

    def turns(self, want: Wanted) -> bool:
        """Whether a tensor has its channels last in the graph, and is given with its channels second."""
        return self.layouts.get(want.tensor) == NHWC and want.tensor not in self.kept_last

    def read(self, x: Any, wanted: Sequence[Wanted], *, exact: bool = False) -> dict[Wanted, np.ndarray]:
        """Read tensors for a batch of images.

        Arguments:
            x: Images (N, C, H, W), float32, in the model's units; an array or a PyTorch tensor.
            wanted: What to read.
            exact: Switch every graph optimisation off.

        Returns:
            Float32 arrays, channels second but where the network itself has them last, first axis the
            images'.

        Raises:
            ModelError: The runtime fails, or does not take images of this size.
            UnsupportedModelError: A tensor is missing, of an integer type, or mixes the images.
        """
        wants = tuple(dict.fromkeys(wanted))
        if not isinstance(x, np.ndarray) and (self._nhwc or not self.free or self.batch is not None):
            x = x.cpu().numpy()  # only a graph that takes any images can read them where they are
        fits = self.free or all(
            size in (None, own) for size, own in zip(self.size, x.shape[-2:], strict=True)
        )
        if fits and self.batch in (None, len(x)):
            alone = self.batch is None and len(x) > 1 and self._mixes(x, wants)
            values = self._by_batch(x, wants, exact, 1) if alone else self._whole(x, wants, exact)
        elif relaxed := self.lifted():
            return relaxed.read(x, wants, exact=exact)
        elif fits:
            values = self._by_batch(x, wants, exact)
        else:
            values = self._tiled(x, wants, exact)
        return dict(zip(wants, values, strict=True))

    def open(self, want: Wanted) -> None:
        """Load what one tensor needs, so that a model that cannot be loaded is refused at once."""
        self._sessions.get((self._label, want.fetch), lambda: prefix(self.trace, [want]))

    def _whole(self, x: Any, wants: Sequence[Wanted], exact: bool) -> list[np.ndarray]:
        names = [want.fetch for want in wants]
        key = (self._label, *sorted(names))
        session = self._sessions.get(key, lambda: prefix(self.trace, wants), exact=exact)
        image: Any = x.transpose(0, 2, 3, 1) if self._nhwc else x
        if isinstance(image, np.ndarray):
            image = np.ascontiguousarray(image, dtype=self.inputs.dtype)
        values = self._sessions.run(session, names, self.inputs.feeds(image))
        return [self._clean(want, value) for want, value in zip(wants, values, strict=True)]

    def _mixes(self, x: Any, wants: tuple[Wanted, ...]) -> bool:
        """Whether an image is read otherwise beside another than alone; asked once for each set of tensors.

        Some exporters take the number of images for a constant: the file then runs on any number of
        images, and is wrong on all but its own.
        """
        if wants not in self._mixing:
            used = self.trace.upstream(want.tensor for want in wants)
            if all(self.trace.nodes[index].op_type in PIXELWISE for index in used):
                self._mixing[wants] = False
                return False
            one = x[:1] if isinstance(x, np.ndarray) else x[:1].cpu().numpy()
            pair = np.concatenate([one, one[..., ::-1, ::-1] * 0.7 + one * 0.2])
            both, alone = self._whole(pair, wants, False), self._whole(pair[1:], wants, False)
            self._mixing[wants] = any(
                a.ndim > 0 and len(b) == 2 * len(a) and not _equal(b[len(a) :], a)
                for a, b in zip(alone, both, strict=True)
            )
            if self._mixing[wants]:
                self._notify(
                    "the file mixes the images of a batch, as when an exporter took their number for a "
                    "constant; images are run one by one"
                )
        return self._mixing[wants]

    def _by_batch(
        self, x: np.ndarray, wants: Sequence[Wanted], exact: bool, size: int | None = None
    ) -> list[np.ndarray]:
        """Runs of the fixed batch, the last one filled up with copies of its last image."""
        size = size or self.batch or len(x)
        rows: list[list[np.ndarray]] = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            count = len(part)
            if count < size:
                part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
            values = self._whole(part, wants, exact)
            for want, value in zip(wants, values, strict=True):
                if value.ndim == 0 or (value.shape[0] != size and size > 1):
                    raise UnsupportedModelError(
                        f"{self._sessions.where}: {want.tensor!r} has shape {value.shape} for {size} images, "
                        "so they cannot be told apart; choose another layer"
                    )
            rows.append([value[:count] if size > 1 else value for value in values])
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _tiled(self, x: np.ndarray, wants: tuple[Wanted, ...], exact: bool) -> list[np.ndarray]:
        height, width = self.size
        if height is None or width is None:
            raise ModelError(
                f"the model takes images of {height or 'any'}x{width or 'any'} pixels only, not "
                f"{x.shape[-2]}x{x.shape[-1]}: {self._obstacle}; crop them"
            )
        if x.shape[-2] < height or x.shape[-1] < width:
            raise ModelError(
                f"the model takes images of {height}x{width} pixels, not {x.shape[-2]}x{x.shape[-1]}: "
                f"{self._obstacle}; give images at least as large"
            )
        if wants not in self._tilers:
            self._tilers[wants] = Tiler(
                lambda tile: self._by_batch(tile, wants, exact),
                [want.tensor for want in wants],
                (height, width),
                self.channels or 1,
                self._stride(height),
            )
            self._notify(
                f"the file fixes images at {height}x{width} pixels because {self._obstacle}; larger ones are "
                "run in overlapping tiles"
            )
        return self._tilers[wants](x)

    def _stride(self, height: int) -> int:
        """The largest factor by which the network shrinks images inside."""
        rows = []
        for name in self.trace.from_image:
            shape = self.trace.shapes.get(name)
            if shape is not None and len(shape) == 4:
                rows.append(shape[1 if self.layouts.get(name) == NHWC else 2] or 0)
        return stride_within(height, rows)

    def lifted(self) -> Runner | None:
        """This graph without fixed sizes, once its outputs have proved equal; else None."""
        if not self._tried:
            self._tried = True
            self._relaxed = self._lift()
        return self._relaxed

    def _lift(self) -> Runner | None:
        model, self._obstacle = relax(self.trace, self.layouts)
        if model is None:
            self._obstacle = f"operator {self._obstacle} may depend on the size"
            return None
        free = dataclasses.replace(
            self.inputs,
            shape=(None, None, None, self.channels) if self._nhwc else (None, self.channels, None, None),
            symbols=("ctinv_N", "ctinv_H", "ctinv_W", "")
            if self._nhwc
            else ("ctinv_N", "", "ctinv_H", "ctinv_W"),
        )
        layout = self.layouts[self.inputs.image]
        runner = Runner(
            Trace(model, self.inputs.image), free, layout, self._sessions, self._notify, label="relaxed"
        )
        wants = [Wanted(value.name) for value in model.graph.output if value.name in self.trace.from_image]
        shape = (self.batch or 1, self.channels or 1, self.size[0] or 64, self.size[1] or 64)
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        two = np.random.default_rng(1).random((2, shape[1], *_SMALL), dtype=np.float32)
        try:
            ours, theirs = self.read(x, wants), runner.read(x, wants)
            both, second = runner.read(two, wants), runner.read(two[1:], wants)
        except CtinvError as error:
            self._obstacle = str(error)
            return None
        if not all(
            _equal(ours[want], theirs[want]) and _equal(both[want][1:], second[want]) for want in wants
        ):
            self._obstacle = "its outputs differ once that is lifted"
            return None
        fixed = "x".join("N" if size is None else str(size) for size in (self.batch, *self.size))
        self._notify(
            f"the file fixes its input at {fixed} (images, height, width); its operators do not need that, "
            "so other sizes are run too (outputs at the fixed size proved equal)"
        )
        return runner

    def _clean(self, want: Wanted, value: np.ndarray) -> np.ndarray:
        where = self._sessions.where
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise UnsupportedModelError(
                f"{where}: {want.tensor!r} holds {value.dtype} values, not a representation; "
                "choose another layer"
            )
        declared = self.trace.shapes.get(want.tensor)
        if declared is not None and len(declared) != value.ndim:
            raise ModelError(
                f"{where}: {want.tensor!r} came back with {value.ndim} axes where the graph says "
                f"{len(declared)}; choose another layer"
            )
        tensor = to_nchw(value, NHWC) if self.turns(want) else value
        # The runtime made this array for us alone: it is copied only where its type or order is another.
        return np.ascontiguousarray(tensor, dtype=np.float32)

    def shapes(self, wanted: Mapping[str, Wanted], x: np.ndarray) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors without their image axis; absent for those that cannot be read.

        Arguments:
            wanted: What to look at.
            x: One probe image (1, C, H, W).
        """
        shapes: dict[str, tuple[int, ...]] = {}
        unknown: dict[str, Wanted] = {}
        for name, want in wanted.items():
            shape = self.trace.shapes.get(want.tensor) if x.shape[-1] == self.size[1] else None
            if shape is None or None in shape[1:]:
                unknown[name] = want
            else:
                shape = tuple(size or 0 for size in shape)
                order = (0, 3, 1, 2) if self.turns(want) else range(len(shape))
                shapes[name] = tuple(shape[axis] for axis in order)[1:]
        if unknown:
            x = np.repeat(x, self.batch or 1, axis=0)
            try:
                values = self.read(x, list(unknown.values()))
                shapes.update({name: values[want].shape[1:] for name, want in unknown.items()})
            except CtinvError:
                for name, want in unknown.items():
                    try:
                        shapes[name] = self.read(x, [want])[want].shape[1:]
                    except CtinvError:
                        continue
        return shapes
