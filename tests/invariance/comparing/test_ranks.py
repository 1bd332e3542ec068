"""Whether the order of two real denoisers hangs on the seed."""

import pytest
from ctinv import invariance, zoo

from .toys import phantoms

LAYERS = {"yang": "conv7", "chen": "conv3"}


@pytest.mark.slow
def test_the_ranks_of_chen_and_yang_do_not_change_over_five_seeds(session_cache):
    """Fits, samples and noise of five seeds, preset tiny, one phantom."""
    slices, analyses = phantoms(6), []
    for name, layer in LAYERS.items():
        denoiser = zoo.load(name)
        for seed in range(5):
            fit = invariance.fit(denoiser, layer, data=slices[1:], preset="tiny", seed=seed, cache=False)
            analyses.append(fit.explain(slices[0], samples=8, refine=3, seed=seed, cache=False))
    found = invariance.compare(analyses)
    assert [row.label for row in found.rows] == ["yang conv7", "chen conv3"]
    assert [(row.rank.low, row.rank.high, row.rank.n) for row in found.rows] == [(1, 1, 5), (2, 2, 5)]
    most, least = (row.lower for row in found.rows)
    assert most.low > least.high, found.verdict
