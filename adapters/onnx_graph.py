"""Denoisers kept as ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import OUTPUT, Denoiser, Layer, Output
from .errors import ModelError
from .intensity import Intensity, parse_intensity

if TYPE_CHECKING:
    from ._onnx_prune import Wanted

__all__ = ["OnnxDenoiser"]


class OnnxDenoiser(Denoiser):
    """A denoiser read from an ONNX file; any float tensor of its graph can be observed.

    Layers bear the names of the PyTorch modules that made them where the exporter recorded these,
    else the names of their nodes or tensors. What a layer needs is cut out of the graph in memory,
    so an early layer costs no more than the operators before it; the file is never changed.

    Arguments:
        path: The file. External weights are looked for beside it.
        intensity: The model's units; None for what the file's metadata ``ctinv.intensity`` says.
        output: Whether the network returns the image or the noise; None for what the file's
            metadata ``ctinv.output`` says, or to find out.
        name: What to call the model; the file's name without its ending if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        feed: Values for further inputs, for example ``{"sigma": 0.05}``, in model units.
        layout: ``NCHW`` or ``NHWC``; None to find out.
        input_name: The image input, where several could be.
        verify: Compare every reading with one without graph optimisation.
        threads: Threads within one operator; 0 leaves it to the runtime.

    Raises:
        ModelError: The file cannot be read or run.
        UnsupportedModelError: The graph takes no grey float images.
        DeviceError: The device is not there.
    """

    kind = "onnx"
    differentiable = False

    def __init__(
        self,
        path: Path | str,
        *,
        intensity: Intensity | None = None,
        output: Output | None = None,
        name: str | None = None,
        device: str = "auto",
        feed: Mapping[str, Any] | None = None,
        layout: str | None = None,
        input_name: str | None = None,
        verify: bool = False,
        threads: int = 0,
    ) -> None:
        from ._onnx_digest import fingerprint
        from ._onnx_file import read_model
        from ._onnx_inputs import read_inputs
        from ._onnx_layout import image_layout, layouts
        from ._onnx_names import layer_table
        from ._onnx_prune import Wanted
        from ._onnx_runner import Runner
        from ._onnx_sessions import Sessions
        from ._onnx_trace import Trace

        if layout not in (None, "NCHW", "NHWC"):
            raise ModelError(f"layout is NCHW, NHWC or None (find out), not {layout!r}")
        self.path = Path(path)
        where = str(path)
        model = read_model(self.path)
        inputs = read_inputs(model, where, input_name, feed)
        trace = Trace(model, inputs.image)
        found = image_layout(trace, inputs.shape, layout)
        self._sessions = Sessions(where, device, threads)
        self._runner = Runner(trace, inputs, layouts(trace, found), self._sessions)
        self._entries = layer_table(trace)
        self._output = Wanted(_image_output(trace.model.graph.output, where))
        self._verify = verify
        self._layers: tuple[Layer, ...] | None = None
        self._fingerprint = fingerprint(
            model, {**{k: v for k, (v, _) in inputs.fed.items()}, "layout": found}
        )
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        super().__init__(
            name or self.path.stem,
            intensity or _stated_intensity(metadata),
            output or _stated_output(metadata, where),
            channels=self._runner.channels or 1,
            fixed_size=self._runner.size if None not in self._runner.size else None,
        )
        if self._sessions.notice:
            self._notify(self._sessions.notice)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, in execution order; the shapes are those of one probe image."""
        if self._layers is None:
            self._layers = self._listed()
        return self._layers

    @property
    def fingerprint(self) -> str:
        """SHA-256 of operators, weights and bound inputs, wherever the weights are kept."""
        return self._fingerprint

    @property
    def device(self) -> str:
        """Where the sessions run: ``cpu`` or ``cuda:N``."""
        return self._sessions.device

    def _listed(self) -> tuple[Layer, ...]:
        wanted = [entry.want for entry in self._entries if entry.want]
        x = np.repeat(self._probe_image(*self.probe_size), self._runner.batch or 1, axis=0)
        values = self._runner.read(x, wanted) if wanted else {}
        return tuple(
            Layer(
                entry.name,
                entry.op,
                tuple(values[entry.want].shape[1:]) if entry.want else (),
                tuple(entry.aliases),
                entry.want is not None,
                entry.note,
            )
            for entry in self._entries
        )

    def _native(self, x: Any) -> np.ndarray:
        if not isinstance(x, np.ndarray):
            x = x.detach().cpu().numpy()
        return np.ascontiguousarray(x, dtype=np.float32)

    def _run(self, x: np.ndarray, names: Sequence[str], grad: bool) -> Mapping[str, np.ndarray]:
        places: dict[str, Wanted] = {entry.name: entry.want for entry in self._entries if entry.want}
        places[OUTPUT] = self._output
        wanted = {name: places[name] for name in names}
        values = self._runner.read(x, list(wanted.values()))
        return {name: values[want] for name, want in wanted.items()}


def _image_output(outputs: Any, where: str) -> str:
    names = [value.name for value in outputs]
    return str(names[0])


def _stated_intensity(metadata: Mapping[str, str]) -> Intensity | None:
    text = metadata.get("ctinv.intensity")
    return parse_intensity(text) if text else None


def _stated_output(metadata: Mapping[str, str], where: str) -> Output | None:
    text = metadata.get("ctinv.output")
    if text == "image" or text == "residual" or not text:
        return text or None  # type: ignore[return-value]
    raise ModelError(f"{where}: its metadata ctinv.output is {text!r}; it must be image or residual")
