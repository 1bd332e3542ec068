"""Means over tasks and doses: their values, and intervals that say what chance does to them."""

import re

import numpy as np
import pytest
from ctinv.invariance.probing.observers.maps import judge_maps
from ctinv.invariance.probing.protocol.record import Protocol, Results, judged
from ctinv.invariance.probing.protocol.shares import ALL, Kept, compare, kept, losses, share
from ctinv.invariance.probing.tasks.task import Task

TASKS = (Task("detect", 8.0, 4.0), Task("detect", 6.0, 9.0), Task("gap", 8.0, 15.0))
NOISE = {"@input": 0.0, "good": 0.1, "poor": 1.0}  # variance added to that of x, 1
PLACES = ("x", "good", "poor")


def case(seed, n=64, dose=1.0, model="net", noise=None, tasks=TASKS):
    """Places that add white noise of a known strength: what they keep is 1 / (1 + its variance)."""
    draws = np.random.default_rng([seed, round(1000 * dose)])
    base, more = draws.standard_normal((2, n, 1, 5))
    studies = []
    for number, _ in enumerate(tasks):
        signal = np.zeros(5)
        signal[number] = 2.0 * np.sqrt(dose) + 0.5
        seen = {name: base + np.sqrt(v) * more for name, v in (noise or NOISE).items()}
        options = {"readers": 4, "resamples": 60}
        studies.append({name: judge_maps(z, z + signal, **options) for name, z in seen.items()})
    return judged(tasks, studies, model=model, dose=dose, observer="lg")


def means(seed, n=64, doses=(1.0, 0.5), **options):
    return [one for dose in doses for one in case(seed, n, dose, **options).kept]


def test_a_mean_is_that_of_the_outcomes():
    found = case(0)
    for group, kinds in zip(ALL, ({"detect"}, {"gap"}), strict=True):
        for place in PLACES:
            values = [o.efficiency for o in found.outcomes if o.where == place and o.task in kinds]
            (one,) = [k for k in found.kept if (k.where, k.group) == (place, group)]
            assert (one.value, one.tasks) == (pytest.approx(np.mean(values)), len(values))
            assert np.mean(one.drawn) == pytest.approx(one.value, abs=1e-5)


def test_x_keeps_everything_without_a_doubt():
    one = share(means(0), ("net", "x"), "lg", ALL[0], 0)
    assert (one.value, one.low, one.high, one.tasks) == (1.0, 1.0, 1.0, 4)


def detection(seed, n):
    """What the poorest place keeps of one task."""
    found = case(seed, n, noise={"@input": 0.0, "poor": NOISE["poor"]}, tasks=TASKS[:1])
    return share(found.kept, ("net", "poor"), "lg", ALL[0], 0)


def test_intervals_say_what_chance_does():
    """Over many draws the means spread as the intervals say, which hold the truth as often as they claim."""
    found = [detection(seed, 128) for seed in range(40)]
    spread = np.std([s.value for s in found], ddof=1)
    told = np.mean([(s.high - s.low) / 3.92 for s in found])
    assert told == pytest.approx(spread, rel=0.35)
    truth = 1 / (1 + NOISE["poor"])
    assert sum(s.low <= truth <= s.high for s in found) >= 33  # of 40; 38 are expected
    assert np.mean([s.value for s in found]) == pytest.approx(truth, rel=0.06)


def test_twice_the_cases_narrow_the_intervals_by_the_root_of_two():
    few, many = (np.mean([s.high - s.low for s in (detection(i, n) for i in range(8))]) for n in (128, 256))
    assert few / many == pytest.approx(np.sqrt(2), rel=0.15)


def test_places_that_share_their_noise_are_told_apart_better_than_their_intervals_say():
    close = {"@input": 0.0, "good": 0.5, "poor": 0.7}
    found = means(1, 200, noise=close)
    good, poor = (share(found, ("net", p), "lg", ALL[0], 0) for p in ("good", "poor"))
    assert good.low < poor.high
    gap = compare(found, ("net", "good"), ("net", "poor"), "lg", ALL[0], 0)
    assert gap.clear
    assert gap.value == pytest.approx(good.value - poor.value)
    back = compare(found, ("net", "poor"), ("net", "good"), "lg", ALL[0], 0)
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))


def test_doses_have_noise_of_their_own():
    """The mean of two doses is known better than either, though both are resampled alike."""
    one = Kept("net", "f(x)", 1.0, "lg", ALL[0], 1, 0.0, tuple(np.random.default_rng(0).normal(size=400)))
    other = Kept("net", "f(x)", 0.5, "lg", ALL[0], 1, 0.0, one.drawn)
    alone, both = (share(k, ("net", "f(x)"), "lg", ALL[0], 0) for k in ([one], [one, other]))
    assert (alone.high - alone.low) / (both.high - both.low) == pytest.approx(np.sqrt(2), rel=0.15)


def test_what_x_does_not_show_has_no_mean():
    still = np.random.default_rng(0).standard_normal((64, 1, 5))
    blind = judge_maps(still, np.random.default_rng(1).standard_normal((64, 1, 5)), paired=False)
    named = {"model": "net", "where": "x", "dose": 1.0, "observer": "lg"}
    assert list(kept([(TASKS[0], blind, blind)], **named)) == []
    assert share([], ("net", "x"), "lg", ALL[0], 0) is None
    assert compare(means(0), ("net", "x"), ("other", "x"), "lg", ALL[0], 0) is None


def results(*models):
    cases = [case(3, 200, dose, model=m, noise=noise) for m, noise in models for dose in (1.0, 0.5)]
    asked = Protocol(tasks=TASKS, doses=(1.0, 0.5), observers=("lg",))
    return Results(
        asked,
        "made up",
        dict.fromkeys((m for m, _ in models), PLACES),
        tuple(o for c in cases for o in c.outcomes),
        tuple(k for c in cases for k in c.kept),
    )


def test_sentences_tell_what_is_certain_and_no_more():
    same, worse = {**NOISE, "poor": 0.1}, {**NOISE, "good": 0.9}
    found = results(("one", NOISE), ("twin", NOISE), ("kept", same), ("early", worse))
    one, twin, keeps, early, *between = found.verdict
    assert "most is lost between good and poor" in one
    assert one.removeprefix("one") == twin.removeprefix("twin")
    assert re.search(r"most is lost between x and good: (\d|1\d) % \[", keeps)
    assert "most is lost between x and good" in early
    assert "detection: no difference between one and twin is certain (0 % [0, 0])." in between
    assert any(line.startswith("detection: kept keeps more than one: ") for line in between)
    assert len(between) == 2 * 6
    inside, ends = losses(found.kept, found.layers, "lg", ALL[0], 0)
    assert (len(inside), len(ends)) == (8, 6)
