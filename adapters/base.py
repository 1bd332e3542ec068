"""What every adapter offers: a denoiser whose layers can be observed, in Hounsfield units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .intensity import Intensity

__all__ = ["INPUT", "OUTPUT", "Denoiser", "Layer", "Output"]

INPUT = "@input"
OUTPUT = "@output"
Output = Literal["image", "residual"]


@dataclass(frozen=True)
class Layer:
    """One place of a denoiser where its representation ``z`` can be read.

    Arguments:
        name: The name that :meth:`Denoiser.features` takes.
        op: Operator: a PyTorch class name or an ONNX operator type.
        shape: Shape of ``z``, channels first, seen for one probe image of
            :attr:`Denoiser.probe_size` pixels; empty where it is not known.
        aliases: Other names that lead here.
        tappable: Whether the layer can be read.
        note: Why it cannot, or what a reader must know about it.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    tappable: bool = True
    note: str = ""


class Denoiser(ABC):
    """A CT denoiser ``f(x) = Psi(Phi(x))`` with named layers.

    Subclasses say how to list layers and how to run; shapes, units, batches and array kinds are
    handled here, once. Images are float32 arrays of shape (N, 1, H, W) in HU, torch or numpy;
    results are of the same kind as the image.

    Arguments:
        name: What to call the model in reports.
        intensity: The model's units; None while they are unknown (see :meth:`calibrate`).
        output: Whether the network returns the image or the noise to subtract from it.
    """

    kind: str = "abstract"
    differentiable: bool = False

    def __init__(self, name: str, intensity: Intensity | None, output: Output = "image") -> None:
        self.name = name
        self.intensity = intensity
        self.output: Output = output
        self.notices: list[str] = []

    # -- what a subclass provides ---------------------------------------------------------------

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, in execution order."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what decides the numbers: weights and structure, not file names."""

    @property
    @abstractmethod
    def device(self) -> str:
        """Where the model really runs, for example ``cpu`` or ``cuda:0``."""

    @abstractmethod
    def resolve(self, layer: str) -> Layer:
        """Find a layer by any of its names.

        Raises:
            LayerError: No layer, or several, answer to this name.
        """

    @abstractmethod
    def _native(self, x: Any) -> Any:
        """An image of any array kind as this adapter's own kind and device, float32."""

    @abstractmethod
    def _run(self, x: Any, names: Sequence[str], grad: bool) -> Mapping[str, Any]:
        """Run one native batch in model units; ``names`` are canonical layer names or OUTPUT.

        Returned arrays are native float32 snapshots that nothing changes later.
        """
