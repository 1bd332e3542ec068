"""What one layer hides and another shows, where the answer is known by construction."""

import numpy as np
import pytest
import torch
from ctinv import invariance
from ctinv.invariance.comparing.mutual import one_sided, one_sided_pairs, read_in_all
from ctinv.invariance.refinement.refine import RHO, refine

from ..refinement.toys import SIZE, draw, half, sight
from .toys import SIDE, denoiser, fitted, phantoms


def other_half(x):
    return half(x.flip(-1)).flip(-1)


def area_under_curve(positive, negative):
    """Chance that a value of the first kind exceeds one of the second; ties count half."""
    from scipy.stats import rankdata

    a, b = np.ravel(positive), np.ravel(negative)
    ranks = rankdata(np.concatenate([a, b]))
    return float((ranks[: a.size].sum() - a.size * (a.size + 1) / 2) / (a.size * b.size))


def hidden_from(look, seed=1):
    return refine(look.observer, look.x, draw(seed), look.moves).at(RHO)


def test_complementary_blindness_is_shown_from_both_sides():
    left, right = sight(half), sight(other_half)
    blind = np.zeros((SIZE, SIZE), dtype=bool)
    blind[:, : SIZE // 2] = True
    for hides, sees, where in ((left, right, blind), (right, left, ~blind)):
        found = one_sided(hides, sees, hidden_from(hides), labels=("A", "B"))
        assert area_under_curve(found.map[where], found.map[~where]) > 0.99
        assert found.found
        assert (found.hides, found.sees) == ("A", "B")
        assert found.in_hides < 2 * RHO
        assert found.in_sees > 0.5
        np.testing.assert_allclose(found.changes[:, where], draw(1)[:, where], atol=3)
        assert "Hidden from A, visible to B" in found.sentence


def test_identical_layers_show_nothing():
    look = sight(half)
    found = one_sided(look, sight(half), hidden_from(look))
    assert not found.map.any()
    assert found.size == 0
    assert not found.found
    assert "Nothing of note" in found.sentence


def test_what_is_hidden_from_both_is_left_out():
    """A sees the lower half alone, B the right half: what A alone hides lies up on the right."""
    upper = sight(lambda x: half(x.transpose(-1, -2)).transpose(-1, -2))
    left = sight(half)
    found = one_sided(upper, left, hidden_from(upper))
    quarters = {
        (i, j): float(np.sqrt(np.mean(found.changes[:, i : i + SIZE // 2, j : j + SIZE // 2] ** 2)))
        for i in (0, SIZE // 2)
        for j in (0, SIZE // 2)
    }
    largest = quarters.pop((0, SIZE // 2))
    assert largest > 20
    assert max(quarters.values()) < 0.1 * largest


def test_against_a_layer_that_sees_everything_all_is_visible():
    look, all_seeing = sight(half), sight(lambda x: x)
    changes = hidden_from(look)
    found = one_sided(look, all_seeing, changes)
    np.testing.assert_allclose(found.changes[:, :, : SIZE // 2], changes[:, :, : SIZE // 2], rtol=0.2, atol=3)
    back = one_sided(all_seeing, look, hidden_from(all_seeing))
    assert not back.found


def test_against_a_layer_that_sees_nothing_nothing_is_visible():
    look, blind = sight(half), sight(lambda x: torch.ones_like(x))
    assert one_sided(look, blind, hidden_from(look)).size < 0.2
    found = one_sided(blind, look, draw(1))
    assert area_under_curve(found.map[:, SIZE // 2 :], found.map[:, : SIZE // 2]) > 0.99


def test_layers_of_one_network_are_pairs_only_where_there_is_no_other():
    left, right = sight(half), sight(other_half)
    of_left, of_right = hidden_from(left), hidden_from(right)

    def pairs(sights):
        changes = {name: of_right if look is right else of_left for name, look in sights.items()}
        return {(pair.hides, pair.sees) for pair in one_sided_pairs(sights, changes)}

    assert pairs({"A early": left, "A late": left}) == {("A early", "A late"), ("A late", "A early")}
    three = pairs({"A early": left, "A late": left, "B": right})
    assert three == {("A early", "B"), ("A late", "B"), ("B", "A early"), ("B", "A late")}


def test_samples_are_read_in_every_layer():
    left, right = sight(half), sight(other_half)
    changes = [hidden_from(left), hidden_from(right)]
    ratios = read_in_all([left, right], changes)
    assert ratios.shape == (2, 2)
    assert ratios.diagonal() == pytest.approx([RHO, RHO], rel=0.02)
    wanted = np.median([right.ratio(c) for c in changes[0]])
    assert ratios[0, 1] == pytest.approx(wanted)
    assert ratios[0, 1] > 1


@pytest.fixture(scope="module")
def both(session_cache):
    slices = phantoms(6)
    models = [denoiser("left"), denoiser("right")]
    found = [
        fitted(m, slices[1:]).explain(slices[0], samples=12, refine=8, keep=8, cache=False) for m in models
    ]
    return models, found


def test_fitted_networks_of_complementary_blindness(both):
    """End to end: analyses of two networks, one blind on the left, one on the right."""
    models, analyses = both
    found = invariance.compare(analyses, denoisers=models, samples=8)
    (place,) = found.places
    assert set(place.labels) == {"left layer", "right layer"}
    half_image = np.zeros((SIDE, SIDE), dtype=bool)
    half_image[:, : SIDE // 2] = True
    for hides, sees, where in (("left", "right", half_image), ("right", "left", ~half_image)):
        pair = place.pair(f"{hides} layer", f"{sees} layer")
        assert area_under_curve(pair.map[where], pair.map[~where]) >= 0.99
        assert pair.found
        i, j = (place.labels.index(f"{side} layer") for side in (hides, sees))
        assert place.ratios[i, i] < 0.05
        assert place.ratios[i, j] > 0.1
        assert place.sizes[i, j] == pair.size
        assert place.sizes[i, i] > pair.worth
    assert sum("visible to" in line for line in found.verdict) == 2
    assert found.notices == ()


def test_fitted_networks_that_are_the_same_show_nothing(both):
    models, (left, _) = both
    import dataclasses

    twin = dataclasses.replace(left, meta=dataclasses.replace(left.meta, model="twin"))
    found = invariance.compare([left, twin], denoisers=models)
    assert [pair.size for pair in found.places[0].pairs] == [0, 0]
    assert not any(pair.map.any() for pair in found.places[0].pairs)
    assert [line.startswith("Nothing of note") for line in found.verdict[-2:]] == [True, True]


def test_a_pair_that_was_not_compared_is_named(both):
    models, analyses = both
    found = invariance.compare(analyses, denoisers=models[:1])
    assert found.places[0].pairs == ()
    with pytest.raises(KeyError, match="was not compared"):
        found.places[0].pair("left layer", "right layer")
    assert "not at hand: right" in found.notices[0]
