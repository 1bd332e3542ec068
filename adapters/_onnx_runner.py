"""Run a graph on batches of images and read tensors from the shortest graph that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ._onnx_inputs import Inputs
from ._onnx_layout import NHWC, to_nchw
from ._onnx_prune import Wanted, prefix
from ._onnx_sessions import Sessions
from ._onnx_trace import Trace
from .errors import ModelError, UnsupportedModelError

__all__ = ["Runner"]


class Runner:
    """Runs one graph.

    Arguments:
        trace: The graph.
        inputs: Its inputs.
        layouts: The layout of its tensors.
        sessions: Makes its sessions.
    """

    def __init__(self, trace: Trace, inputs: Inputs, layouts: Mapping[str, str], sessions: Sessions) -> None:
        self.trace = trace
        self.inputs = inputs
        self.layouts = layouts
        self.sessions = sessions
        self.nhwc = layouts[inputs.image] == NHWC
        sizes = inputs.shape
        self.batch = sizes[0]
        self.size = (sizes[1], sizes[2]) if self.nhwc else (sizes[2], sizes[3])
        self.channels = sizes[3] if self.nhwc else sizes[1]

    def read(
        self, x: np.ndarray, wanted: Sequence[Wanted], *, exact: bool = False
    ) -> dict[Wanted, np.ndarray]:
        """Read tensors for a batch of images.

        Arguments:
            x: Images (N, C, H, W), float32, in the model's units.
            wanted: What to read.
            exact: Switch every graph optimisation off.

        Returns:
            Float32 arrays, channels second where the layout is known, first axis the images'.

        Raises:
            ModelError: The runtime fails.
            UnsupportedModelError: A tensor is missing, of an integer type, or mixes the images.
        """
        names = tuple(dict.fromkeys(want.fetch for want in wanted))
        session = self.sessions.get(names, lambda: prefix(self.trace, wanted), exact=exact)
        image = x.transpose(0, 2, 3, 1) if self.nhwc else x
        image = np.ascontiguousarray(image, dtype=self.inputs.dtype)
        if self.batch is None or self.batch == len(image):
            values = self.sessions.run(session, names, self.inputs.feeds(image))
        else:
            values = self._by_batch(session, names, image, self.batch)
        found = dict(zip(names, values, strict=True))
        return {want: self._clean(want, found[want.fetch]) for want in wanted}

    def _by_batch(
        self, session: object, names: Sequence[str], image: np.ndarray, size: int
    ) -> list[np.ndarray]:
        rows: list[list[np.ndarray]] = []
        for start in range(0, len(image), size):
            part = image[start : start + size]
            count = len(part)
            if count < size:
                part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
            values = self.sessions.run(session, names, self.inputs.feeds(part))
            for name, value in zip(names, values, strict=True):
                if value.ndim == 0 or value.shape[0] != size:
                    raise UnsupportedModelError(
                        f"{self.sessions.where}: tensor {name!r} has shape {value.shape} for {size} images at a time, "
                        "so its images cannot be told apart; choose another layer"
                    )
            rows.append([value[:count] for value in values])
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _clean(self, want: Wanted, value: np.ndarray) -> np.ndarray:
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise UnsupportedModelError(
                f"{self.sessions.where}: tensor {want.tensor!r} holds {value.dtype} values, not a representation; "
                "choose another layer"
            )
        declared = self.trace.shapes.get(want.tensor)
        if declared is not None and len(declared) != value.ndim:
            raise ModelError(
                f"{self.sessions.where}: tensor {want.tensor!r} came back with {value.ndim} axes where the graph "
                f"says {len(declared)}; choose another layer"
            )
        found = to_nchw(value, self.layouts.get(want.tensor, ""))
        return np.array(found, dtype=np.float32, order="C", copy=True)
