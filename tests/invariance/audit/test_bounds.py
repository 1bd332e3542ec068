"""The bracket: figures from refined changes and from the reading, and what two images prove."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ctinv.invariance.audit.bounds import bounds, two_images
from ctinv.invariance.audit.controls import bound_control
from ctinv.invariance.networks.fit_record import FitScores
from ctinv.invariance.reading.reading import ReadingScores
from ctinv.invariance.refinement.refine import Refined

SIZE = 48
BODY = np.ones((SIZE, SIZE), dtype=bool)


def refined(changes, growth=0.0):
    changes = np.asarray(changes, np.float32)
    return Refined((0.03,), changes[None], np.full((1, len(changes)), 0.03), 20, growth)


def evidence(**more):
    x = np.zeros((SIZE, SIZE), np.float32)
    told = ReadingScores(6.0, 7.0, (5.0, 7.0), 1e-5, 3.0)
    given = {
        "x": x,
        "rho": 0.03,
        "refined": refined([x + 1, x - 1]),
        "std": x + 2,
        "std_flow": x + 3,
        "reconstruction": x,
        "reading": x + 4,
        "reading_code": x + 2.5,
        "reread": (),
        "noise_refined": refined([x + 0.5]),
        "std_noise": x + 0.5,
        "scores": FitScores(0.0, 1.0, reading=told),
        "observer": SimpleNamespace(layer="conv7"),
    }
    return SimpleNamespace(**{**given, **more})


def test_every_bound_is_what_it_says():
    found = bounds(evidence(), BODY)
    assert found.lower.value == found.lower.low == found.lower.high == 2
    assert (found.lower.n, found.lower.steps) == (2, 20)
    assert found.noise.value == 0.5
    assert (found.upper.value, found.upper.low, found.upper.high, found.upper.n) == (6, 5, 7, 2)
    assert found.upper_here.value == 4
    assert found.decoded.value == 2.5
    assert found.decoded_held_out.value == 3
    assert found.converged is True


def test_the_upper_bound_is_read_at_the_noise_ratio():
    """A layer that tells everything bounds refined changes by themselves, not by nothing."""
    x = np.zeros((SIZE, SIZE), np.float32)
    perfect = FitScores(0.0, 1.0, reading=ReadingScores(0.0, 0.0, (0.0, 0.0), 1e-5, 0.0))
    found = bounds(
        evidence(reading=x, scores=perfect, reread=(np.stack([x + 1, x - 1]), x[None] + 0.5)), BODY
    )
    assert (found.reread.value, found.reread.n) == (1, 3)
    assert found.upper.value == found.upper_here.value == 1
    mixed = bounds(evidence(reread=(x[None] + 8,)), BODY)
    assert mixed.upper.value == 10  # 6 and 8
    assert (mixed.upper.low, mixed.upper.high) == (np.hypot(5, 8), np.hypot(7, 8))
    assert mixed.upper_here.value == np.hypot(4, 8)
    assert mixed.decoded.value == 2.5


@pytest.mark.parametrize("which", ["refined", "noise_refined"])
def test_a_search_that_has_not_ended_leaves_an_interval(which):
    changes = np.ones((2, SIZE, SIZE))
    found = bounds(evidence(**{which: refined(changes, growth=0.2)}), BODY)
    figure = found.lower if which == "refined" else found.noise
    assert found.converged is False
    assert figure.growth == 0.2
    assert figure.high == pytest.approx(figure.value * 1.25)  # 1 + 0.2 + 0.04 + ...


def test_what_is_not_known_is_left_out():
    nothing = dict.fromkeys(
        ("refined", "reading", "reading_code", "noise_refined", "std_noise", "scores"), None
    )
    found = bounds(evidence(**nothing), BODY)
    assert found == type(found)()
    assert two_images(evidence(**nothing), BODY) == []
    assert bound_control(evidence(**nothing)) == []


@pytest.mark.parametrize(("spread", "passed"), [(3.8, True), (4.0, False)])
def test_a_flow_wider_than_the_reading_allows_fails(spread, passed):
    """1.3 times the larger of 2.5 HU here and 3 HU on held-out patches."""
    (control,) = bound_control(evidence(std_flow=np.full((SIZE, SIZE), spread, np.float32)))
    assert control.passed is passed
    assert control.figures == {"spread": pytest.approx(spread), "limit": 3.0}


def test_a_flow_within_1_hu_is_never_refuted():
    exact = evidence(
        reading_code=np.zeros((SIZE, SIZE), np.float32),
        scores=None,
        std_flow=np.full((SIZE, SIZE), 0.9, np.float32),
    )
    assert bound_control(exact)[0].passed


def test_two_images_are_named_by_where_they_differ_most():
    changes = np.zeros((2, SIZE, SIZE), np.float32)
    changes[0, 18:23, 28:33] = 6
    changes[1, 18:23, 28:33] = -4
    changes[1, 0:4, 0:4] = 500  # at the border, where padding hides things
    (said,) = two_images(evidence(refined=refined(changes), noise_refined=None), BODY)
    assert said.startswith(
        "Around row 20, column 30 two images that conv7 does not tell apart differ by 10.0 HU"
    )
    assert "less than 6 % of what noise does, errs by 5.0 HU or more" in said


def test_the_difference_told_is_the_mean_square_over_five_by_five_pixels():
    changes = np.zeros((1, SIZE, SIZE), np.float32)
    changes[0, 17:24, 27:34] = 3
    changes[0, 20, 30] = 30
    (said,) = two_images(evidence(refined=refined(changes), noise_refined=None), BODY)
    told = np.sqrt((24 * 3**2 + 30**2) / 25)
    assert f"row 20, column 30 two images that conv7 does not tell apart differ by {told:.1f} HU" in said


def test_images_that_hardly_differ_are_no_sentence():
    small = np.full((2, SIZE, SIZE), 0.3, np.float32)
    assert two_images(evidence(refined=refined(small), noise_refined=None), BODY) == []


def test_no_decoder_beats_the_half_distance():
    """Two images that a layer maps to the same: a decoder trained on both errs by half on one of them."""
    torch.manual_seed(0)
    first = torch.randn(1, 1, 16, 16) * 20
    second = first.clone()
    second[..., :8] += 12.0  # the layer is blind to the left half

    def layer(x):
        seen = torch.zeros(16)
        seen[8:] = 1
        return x * seen

    assert torch.equal(layer(first), layer(second))
    decoder = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Tanh(), torch.nn.Flatten())
    head = torch.nn.Linear(8 * 256, 256)
    optimiser = torch.optim.Adam([*decoder.parameters(), *head.parameters()], 0.01)
    half = (first - second).abs().mean() / 2
    best = np.inf
    for _ in range(300):
        errors = [(head(decoder(layer(x))) - x.flatten(1)).abs().mean() for x in (first, second)]
        best = min(best, max(error.item() for error in errors))
        optimiser.zero_grad()
        torch.stack(errors).max().backward()
        optimiser.step()
    assert best >= half.item() * (1 - 1e-6)
    assert best < 2 * half.item()  # it did learn
