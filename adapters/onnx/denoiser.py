"""Denoisers kept as ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.adapters._types import CHANNELS_LAST, Layers, Output
from ctinv.adapters.base import OUTPUT, Denoiser, Layer
from ctinv.adapters.errors import AmbiguousLayerError, LayerError, ModelError, UnsupportedModelError
from ctinv.adapters.intensity import Intensity, parse_intensity
from ctinv.adapters.names import resolve
from ctinv.adapters.output_kind import LEVELS

if TYPE_CHECKING:
    from .graph.inputs import Inputs
    from .graph.prune import Wanted
    from .naming.table import Entry

__all__ = ["OnnxDenoiser"]

_MOST_CHANNELS = 16  # of neighbouring slices that networks take at once
_LAST = "{}: its channels come last; layers are given with their channels first"


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
        name: What to call the model; None for what the metadata ``ctinv.name`` says, else the file's name.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        feed: Values for further inputs, for example ``{"sigma": 0.05}``, in model units.
        layout: ``NCHW`` or ``NHWC``; None to find out.
        input_name: The image input, where several could be.
        output_tensor: Which output is the image, where several could be: its name, or its place as ``[1]``.
        verify: Compare every reading with one without graph optimisation.
        threads: Threads within one operator; 0 leaves it to the runtime.

    Raises:
        ModelError: The file cannot be read or run.
        UnsupportedModelError: The graph takes no grey float images.
        DeviceError: The device is not there.
    """

    kind = "onnx"
    differentiable = False

    _layers: tuple[Layer, ...] | None = None

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
        output_tensor: str | None = None,
        verify: bool = False,
        threads: int = 0,
    ) -> None:
        from ctinv.adapters.geometry import LeastSize

        from .graph.digest import fingerprint
        from .graph.file import read_model
        from .graph.inputs import read_inputs, split_feed
        from .graph.layout import image_layout
        from .graph.repeatable import check_repeatable
        from .graph.trace import Trace
        from .naming.changes import Changes
        from .naming.outputs import image_outputs
        from .naming.table import layer_table
        from .running.runner import Runner
        from .running.sessions import Sessions

        _check_layout(layout)
        self.path = Path(path)
        where = str(path)
        model, weights = read_model(self.path)
        feed, self._maps = split_feed(model, input_name, feed)
        inputs = read_inputs(model, where, input_name, feed)
        self._trace = Trace(model, inputs.image)
        check_repeatable(self._trace, where)
        self._sessions = Sessions(where, device, threads, weights)
        axes = image_layout(self._trace, inputs.shape, layout)
        self._runner = Runner(self._trace, inputs, axes, self._sessions, self._notify)
        _check_channels(where, inputs, axes, self._runner.channels)
        self._changes = Changes(self._trace)
        self._entries = layer_table(self._trace, self._changes)
        self._places = {entry.name: entry.want for entry in self._entries if entry.want}
        self._places[OUTPUT], *others = image_outputs(self._trace, where, output_tensor)
        self._fingerprint, self._verify = fingerprint(model, weights, self._settings(inputs, axes)), verify
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        super().__init__(
            name or metadata.get("ctinv.name") or self.path.stem,
            intensity or _stated_intensity(metadata),
            output or _stated_output(metadata, where),
            channels=1 if self._maps else self._runner.channels or 1,
        )
        self._open()
        if self._choose([self._places[OUTPUT], *others]):
            self._fingerprint = fingerprint(model, weights, self._settings(inputs, axes))
        self._tell(where, self._told_of_channels(), _LAST.format(where) if axes == "NHWC" else "")
        if not self._runner.free and not self._runner.lifted():
            self._geometry = LeastSize(self._output_shape, self._probe_image, self._runner.size, self._notify)

    def _open(self) -> None:
        """Load the graph, in another process first."""
        from .running.trial import try_first

        output, places = self._places[OUTPUT], self._places.values()
        try_first(self.path, self._runner, output, places, self._fingerprint, self._notify)
        self._runner.open(output)

    def _choose(self, outputs: Sequence[Wanted]) -> bool:
        """Find out which of several outputs is the image; whether there was a choice.

        Raises:
            UnsupportedModelError: None stands out.
        """
        if len(outputs) == 1:
            return False
        from .naming.outputs import choose_output

        levels: list[list[float]] = []
        if self.output != "residual":
            if self.intensity is not None:
                levels = [[float(v) for v in self.intensity.to_model(np.asarray(LEVELS))]]
            else:
                levels = [[0.2, 0.3, 0.4], list(LEVELS), [-0.2, 0.0, 0.2]]
        size = self._runner.size

        def read(x: np.ndarray, wants: Sequence[Wanted]) -> Mapping[Wanted, np.ndarray]:
            return self._runner.read(self._with_maps(x), wants)

        self._places[OUTPUT], notice = choose_output(
            outputs, read, size, self.channels, levels, str(self.path)
        )
        self._notify(notice)
        return True

    def _tell(self, where: str, *notices: str) -> None:
        """Announce how the file is read, as far as there is something to tell."""
        known = (_changed(where, self._changes.by), self._sessions.notice)
        for notice in filter(None, (*known, *notices)):
            self._notify(notice)

    def _told_of_channels(self) -> str:
        """What to tell of an input of several channels; empty for others."""
        if self._maps:
            return f"{', '.join(self._maps)} is given as a further channel of the image"
        if self.channels == 2:
            return (
                "its input has 2 channels: where the second is a noise level, bind it with feed sigma=VALUE"
            )
        return ""

    @property
    def _since(self) -> str:
        by = self._changes.by
        return f"; {by} changed the file after its export" if by else ""

    def _settings(self, inputs: Inputs, layout: str) -> dict[str, Any]:
        """What decides the outputs besides the file."""
        bound = {name: value for name, (value, _) in inputs.fed.items()}
        means = {entry.name: (entry.want, tuple(entry.aliases)) for entry in self._entries}
        means[OUTPUT] = (self._places[OUTPUT], ())
        bound |= {name: np.asarray(value) for name, value in self._maps.items()}
        if self._runner.kept_last:
            bound["@last"] = np.asarray(sorted(self._runner.kept_last))
        return {**bound, "@layout": layout, "@image": inputs.image, "@layers": means}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, in execution order; the shapes are those of one probe image."""
        if self._layers is None:
            probe = self._with_maps(self._probe_image(*self.probe_size))
            shapes = self._runner.shapes(self._places, probe)
            self._layers = Layers(self._layer(entry, shapes) for entry in self._entries)
        return self._layers

    def _layer(self, entry: Entry, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
        note, shape = entry.note, shapes.get(entry.name)
        if shape is None:
            note = note or "the runtime cannot return it"
            if entry.counted and entry.instead:  # so that the next convolution is not taken for this one
                like = shapes.get(entry.instead.name, ())
                return Layer(entry.name, entry.op, like, tuple(entry.aliases), False, note)
        elif len(shape) == 3 and not self._runner.knows_layout(entry.want):
            note = "; ".join(filter(None, (note, "its axes are in the graph's own order")))
        last = entry.want is not None and entry.want.tensor in self._runner.kept_last
        note = "; ".join(filter(None, (note, CHANNELS_LAST if last else "")))
        return Layer(entry.name, entry.op, shape or (), tuple(entry.aliases), shape is not None, note, last)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of operators, weights, bound inputs and what each name means, wherever weights are kept."""
        return self._fingerprint

    @property
    def device(self) -> str:
        """Where the sessions run: ``cpu`` or ``cuda:N``."""
        return self._sessions.device

    def resolve(self, layer: str) -> Layer:
        """Find a layer by the name of its module, node or tensor.

        Raises:
            LayerError: No layer, or several, answer to this name, or it cannot be read; the message
                says why where the graph tells.
        """
        from .naming.missing import no_layer, why_not

        exact = [entry for entry in self.layers if layer == entry.name] or [
            entry for entry in self.layers if layer in entry.aliases
        ]
        if len(exact) == 1:
            entry = self._entries[self.layers.index(exact[0])]
            if exact[0].tappable:
                return exact[0]
            if entry.instead:
                raise LayerError(
                    f"layer {layer!r} ({entry.op}) cannot be read: {entry.note}", layer, [entry.instead.name]
                )
        if not exact and (reason := why_not(layer, self._trace)):
            raise no_layer(layer, reason, self.layers)
        if not exact and self._is_of_weights(layer):
            reason = f"weights of {layer!r} are in the file, but not what it returns{self._since}"
            raise no_layer(layer, reason, self.layers)
        try:
            resolved = super().resolve(layer)
        except AmbiguousLayerError:
            raise
        except LayerError as error:
            if exact:
                raise
            raise no_layer(layer, f"{error}{self._since}", self.layers, error.matches) from error
        if not exact and self._by_ending(layer, resolved):
            reason = f"no layer is called {layer!r}, though one is called {resolved.name!r}{self._since}"
            raise no_layer(layer, reason, self.layers, [resolved.name])
        return resolved

    def _is_of_weights(self, layer: str) -> bool:
        """Whether a name would be taken for a count, though weights say that a module is called so."""
        if not any(name.startswith(f"{layer}.") for name in self._trace.stored):
            return False
        try:
            return resolve(layer, self.layers)[1] == "ordinal"
        except LayerError:
            return False

    def _by_ending(self, layer: str, resolved: Layer) -> bool:
        """Whether the end of a name led to a layer where it need not be the one that was meant.

        A full name whose own layer is gone must not lead to another that ends alike; in a file that
        was changed after its export, any may be gone.
        """
        if resolve(layer, self.layers)[1] != "suffix":
            return False
        parent = layer.rpartition(".")[0]
        known = any(
            other.name.startswith((f"{layer}.", f"{parent}." if parent else f"{layer}."))
            for other in self.layers
        )
        if not known and not self._since:
            self._notify(f"layer {layer!r} is taken as {resolved.name!r}, the only one whose name ends so")
        return known or bool(self._since)

    def twin(self, layer: str) -> tuple[Denoiser, str] | None:
        """The layer rebuilt in PyTorch, where every operator that it needs can be.

        The twin is proven on drawn CT of two sizes: where it is more than 1e-4 of the largest value
        away from what ONNX Runtime gives, there is none. Nor is there for quantised layers, for
        models of other types than float32, or for those that take one image size only.

        Raises:
            LayerError: No layer, or several, answer to this name.
        """
        name = self.resolve(layer).name
        if name not in self._places or self.intensity is None:
            return None
        from .twin.denoiser import make_twin

        return make_twin(self, self._runner, self._geometry, self._places[name], name, self._maps)

    def _native(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return np.ascontiguousarray(x, dtype=np.float32)
        if self.device != "cpu":
            return x.detach().to(self.device).float()
        return np.ascontiguousarray(x.detach().float().cpu().numpy())

    def _run(self, x: Any, names: Sequence[str], grad: bool) -> Mapping[str, Any]:
        wanted = {name: self._places[name] for name in names}
        x = self._with_maps(x)
        values = self._runner.read(x, list(wanted.values()))
        if self._verify:
            self._compare(x, wanted, values)
        tensors = {name: values[want] for name, want in wanted.items()}
        if isinstance(x, np.ndarray):
            return tensors
        return {name: x.new_tensor(value) for name, value in tensors.items()}

    def _with_maps(self, x: Any) -> Any:
        """Images with what is bound as further channels behind them."""
        if not self._maps:
            return x
        maps = [x[:, :1] * 0.0 + np.float32(value).item() for value in self._maps.values()]
        if isinstance(x, np.ndarray):
            return np.concatenate([x, *maps], axis=1)
        import torch

        return torch.cat([x, *maps], dim=1)

    def _compare(self, x: Any, wanted: Mapping[str, Wanted], values: Mapping[Wanted, np.ndarray]) -> None:
        plain = self._runner.read(x, list(wanted.values()), exact=True)
        tolerance = 1e-4 if self._runner.inputs.dtype.itemsize > 2 else 2e-2
        for name, want in wanted.items():
            span = float(np.abs(plain[want]).max()) or 1.0
            apart = float(np.abs(plain[want] - values[want]).max())
            if not apart <= tolerance * span:
                raise UnsupportedModelError(
                    f"{self.path}: at {name!r} the optimised graph is {apart:.3g} away from the plain one; "
                    "choose another layer or another onnxruntime"
                )


def _changed(where: str, by: str) -> str:
    """What to tell of a file that was changed after its export; empty for others."""
    if not by:
        return ""
    return (
        f"{where}: {by} changed the file after its export; layers that were merged, and modules of several "
        "operations, cannot be read by name"
    )


def _stated_intensity(metadata: Mapping[str, str]) -> Intensity | None:
    text = metadata.get("ctinv.intensity")
    return parse_intensity(text) if text else None


def _stated_output(metadata: Mapping[str, str], where: str) -> Output | None:
    text = metadata.get("ctinv.output")
    if text == "image":
        return "image"
    if text == "residual":
        return "residual"
    if text:
        raise ModelError(f"{where}: its metadata ctinv.output is {text!r}; it must be image or residual")
    return None


def _check_layout(layout: str | None) -> None:
    """Refuse a layout that there is not.

    Raises:
        ModelError: So it is.
    """
    if layout not in (None, "NCHW", "NHWC"):
        raise ModelError(f"layout is NCHW, NHWC or None (find out), not {layout!r}")


def _check_channels(where: str, inputs: Inputs, layout: str, channels: int | None) -> None:
    """Refuse an input that holds no grey image.

    Raises:
        UnsupportedModelError: It has more channels than colours or neighbouring slices may be.
    """
    if channels is not None and channels > _MOST_CHANNELS:
        raise UnsupportedModelError(
            f"{where}: its input {inputs.image} {list(inputs.shape)} read as {layout} has "
            f"{channels} channels, not a grey image; give layout= if the axes are otherwise"
        )
