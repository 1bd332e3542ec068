"""``compare``: finished analyses of any models and layers set against each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.evidence import rms
from ctinv.invariance.networks.fitted import versions
from ctinv.invariance.refinement.sight import Sight
from ctinv.invariance.reporting.result import AnalysisResult

from .comparison import Comparison
from .mutual import one_sided_pairs, read_in_all
from .record import Case, CurveValue, OneSided, Place
from .table import Summary, common_ratio, rows_of, slice_of

__all__ = ["compare", "find_analyses"]

_PLACES = 4  # slices that are shown with maps
_LAYERS = 6  # layers that are held against each other pair by pair
_HELD = 2  # slices on which they are: each pair takes as long as an analysis
_PATCH = 64


def find_analyses(folders: Iterable[str | Path]) -> list[Path]:
    """Folders of finished analyses at any depth, in order of their names.

    Arguments:
        folders: Folders that ``ctinv analyze`` wrote, or that hold such.

    Raises:
        CtinvError: One of them holds none.
    """
    places: list[Path] = []
    for folder in map(Path, folders):
        below = sorted(p.parent for p in folder.rglob("result.json") if (p.parent / "arrays.npz").is_file())
        if not below:
            lack = "holds no finished analysis" if folder.exists() else "does not exist"
            raise CtinvError(f"{folder} {lack}; give folders that ctinv analyze wrote")
        places += below
    return list(dict.fromkeys(places))


def compare(
    analyses: Iterable[AnalysisResult | str | Path],
    *,
    denoisers: Iterable[Denoiser] = (),
    rho: float | None = None,
    samples: int = 3,
    progress: Progress | None = None,
) -> Comparison:
    """Set analyses against each other: what is hidden, where, and from whom.

    Hidden HU are stated at one noise ratio for all. Where the models are at hand, the refined samples
    of each layer are read in all others, and what one layer hides and another sees is taken apart, on
    the first few slices that all of them have in common.

    Arguments:
        analyses: Explanations, or folders that :meth:`Explanation.save` wrote; at least one.
        denoisers: The models that were analysed, where they are at hand, in any order.
        rho: The noise ratio; the smallest that all analyses know where None.
        samples: Refined samples of each layer that are held against the others.
        progress: Called with ("comparing", done, total).

    Raises:
        CtinvError: No analysis, one that cannot be read, or no noise ratio in common.
    """
    read = [Summary.of(item) for item in analyses]
    if not read:
        raise CtinvError("there is nothing to compare; give one analysis or more")
    ratio = common_ratio(read, rho)
    cases = _named([_case(one, ratio) for one in read])
    rows = rows_of(cases)
    order = {row.label: number for number, row in enumerate(rows)}
    groups: dict[str, dict[str, Summary]] = defaultdict(dict)
    for case, one in zip(cases, read, strict=True):
        groups[slice_of(case)].setdefault(case.row, one)  # the first seed stands for all in the pictures
    models = {d.fingerprint: d for d in denoisers}
    shown = sorted(groups.values(), key=len, reverse=True)[:_PLACES]
    places = []
    for number, group in enumerate(shown):
        labels = sorted(group, key=lambda label: order[label])
        loaded = {label: group[label].load() for label in labels}
        places.append(_place(loaded, models, ratio, samples, number < _HELD, progress))
    known = {one.meta.model_hash for group in shown for one in group.values()}
    return Comparison(
        ratio, cases, rows, tuple(places), tuple(_notices(cases, models, known, ratio)), versions()
    )


def _case(e: Summary, rho: float | None) -> Case:
    meta, bounds = e.meta, e.audit.bounds
    noise = bounds.noise if e.own_ratio == rho else None
    return Case(
        label=f"{meta.model or 'model'} {meta.layer or 'layer'}",
        model=meta.model or "model",
        model_hash=meta.model_hash or "",
        layer=meta.layer or "layer",
        slice=meta.source or "image",
        image=e.image,
        dose=meta.dose,
        seed=meta.seed,
        lower=e.lower(rho),
        upper=None if bounds.upper is None else bounds.upper.value,
        upper_here=None if bounds.upper_here is None else bounds.upper_here.value,
        noise=None if noise is None else noise.value,
        converged=bounds.converged,
        curve=tuple(CurveValue(p.rho, p.value) for p in e.audit.curve.values() if p.rho is not None),
        folder=e.source if isinstance(e.source, Path) else None,
    )


def _named(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Two models of one name are told apart by their hash."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        hashes[case.model].add(case.model_hash)
    return tuple(
        replace(case, label=f"{case.model} ({case.model_hash[:6]}) {case.layer}")
        if len(hashes[case.model]) > 1
        else case
        for case in cases
    )


def _place(
    group: dict[str, AnalysisResult],
    models: dict[str, Denoiser],
    rho: float | None,
    samples: int,
    paired: bool,
    progress: Progress | None,
) -> Place:
    """One slice: maps of all layers, and, if asked, those whose models are at hand against each other."""
    labels = tuple(group)
    first = group[labels[0]]
    count = len(labels)
    alike = all(np.array_equal(e.x, first.x) for e in group.values())  # doses of one slice are not
    ratios, sizes = (np.full((count, count), np.nan) for _ in range(2))
    sights: dict[str, Sight] = {}
    changes: dict[str, Image] = {}
    for label, e in group.items():
        denoiser = models.get(e.meta.model_hash or "")
        if denoiser is None or not alike or e.meta.refinement.rho is None or len(sights) == _LAYERS:
            continue
        sights[label] = _sight(denoiser, e)
        changes[label] = e.samples[:samples] - e.x
    pairs: tuple[OneSided, ...] = ()
    if paired and len(sights) > 1 and rho is not None:
        pairs = one_sided_pairs(sights, changes, rho=rho, progress=progress)
    if sights:
        where = [labels.index(label) for label in sights]
        ratios[np.ix_(where, where)] = read_in_all(
            list(sights.values()), [changes[label] for label in sights]
        )
    for pair in pairs:
        sizes[labels.index(pair.hides), labels.index(pair.sees)] = pair.size
    for label, sight in sights.items():
        changed = sight.whole(group[label].std)
        sizes[labels.index(label), labels.index(label)] = rms(changed, sight.body)
    maps = np.stack([e.std for e in group.values()])
    return Place(
        first.meta.source or "image", first.x, first.meta.spacing, labels, maps, ratios, sizes, pairs
    )


def _sight(denoiser: Denoiser, e: AnalysisResult) -> Sight:
    fields = e.meta.preset_fields or {}
    patch = int(fields.get("vae", {}).get("patch", _PATCH))
    layer = e.meta.layer or ""
    return Sight.of(denoiser.apart(), layer, e.x, seed=e.meta.seed or 0, spacing=e.meta.spacing, patch=patch)


def _notices(
    cases: Sequence[Case], models: dict[str, Denoiser], known: set[str | None], rho: float | None
) -> list[str]:
    """What the user should know of how far the comparison reaches."""
    notices = []
    if rho is None:
        notices.append(
            "no sample was refined, so that there are no lower bounds; run ctinv analyze with --refine"
        )
    missing = sorted({c.model for c in cases if c.model_hash in known and c.model_hash not in models})
    if len({case.row for case in cases}) > 1 and missing:
        names = ", ".join(missing)
        notices.append(f"what one hides and another sees needs the models; not at hand: {names}")
    loose = sorted({case.row for case in cases if case.converged is False})
    if loose:
        notices.append(f"the search for what is hidden had not ended in: {', '.join(loose)}")
    return notices
