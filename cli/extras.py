"""Further questions about each case of a run, whose answers its report shows as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .console import Screen
from .images import Images, read_slices

if TYPE_CHECKING:
    from ctinv.adapters._types import Progress
    from ctinv.invariance import Explainer
    from ctinv.invariance.changes.answer import Answer
    from ctinv.invariance.data import CTSlice
    from ctinv.invariance.data.io.stored import StoredSlice

__all__ = ["Extras", "extra_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def extra_options(function: _F) -> _F:
    """``--swap`` and ``--attack``."""
    attack = click.option(
        "--attack",
        type=float,
        metavar="HU",
        help="Also show the change of at most this many HU that moves f(x) most.",
    )
    swap = click.option(
        "--swap",
        type=click.Path(exists=True, path_type=Path),
        metavar="SLICE",
        help="Also show what the layer sees of the slice with what it does not see of this other one.",
    )
    return swap(attack(function))


@dataclass(frozen=True)
class Extras:
    """What is asked of each case besides its analysis.

    Arguments:
        other: The slice whose invariances are taken in a swap.
        attack: Largest pixel of the change that moves ``f(x)`` most, HU.
    """

    other: CTSlice | None = None
    attack: float | None = None

    @classmethod
    def read(
        cls,
        swap: Path | None,
        attack: float | None,
        images: Images,
        slices: Sequence[StoredSlice],
        screen: Screen,
    ) -> Extras:
        """Read the other slice as the input is read; all that can be refused is refused here.

        Raises:
            CtinvError: It cannot be read, is several, or is not of the slices' shape; or no size.
        """
        from ctinv.adapters.errors import CtinvError, ImageError

        if attack is not None and not (attack > 0 and math.isfinite(attack)):
            raise CtinvError(f"--attack {attack:g} shows nothing; give a positive size in HU, such as 20")
        if swap is None:
            return cls(None, attack)
        others = read_slices(replace(images, source=swap), screen)
        if len(others) > 1:
            raise ImageError(f"{swap} holds {len(others)} slices; --swap needs one: name its file")
        for one in slices:
            if one.header.shape != others[0].shape:
                raise ImageError(
                    f"{swap} is {others[0].shape} and {one.name} is {one.header.shape}; a swap needs "
                    "slices of one shape"
                )
        return cls(others[0], attack)

    def key(self) -> Mapping[str, Any]:
        """What of it decides the outcome of a case; nothing where nothing is asked."""
        from ctinv.invariance.infra.cache import image_digest

        asked: dict[str, Any] = {} if self.attack is None else {"attack": self.attack}
        if self.other is not None:
            asked["swap"] = image_digest([self.other.hu])
        return asked

    def answers(
        self,
        explainer: Explainer,
        one: CTSlice,
        drawing: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> list[Answer]:
        """The answers for one case.

        Arguments:
            explainer: The fitted layer.
            one: The slice.
            drawing: How its samples are drawn: seed and rho.
            progress: Called with (stage, done, total).
        """
        answers: list[Answer] = []
        if self.other is not None:
            asked = {"seed": drawing["seed"], "rho": drawing["rho"], "progress": progress}
            answers.append(explainer.swap(one, self.other, **asked))
        if self.attack is not None:
            answers.append(explainer.attack(one, size=self.attack, seed=drawing["seed"], progress=progress))
        return answers
