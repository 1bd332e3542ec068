"""Rows, intervals, ranks and the common noise ratio of a comparison."""

import math

import numpy as np
import pytest
from ctinv import invariance
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.comparing.compare import find_analyses
from ctinv.invariance.comparing.doses import dose_series, parse_doses
from ctinv.invariance.data import default_slice, phantom
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.noise_level import soft_noise

from .toys import analysis, unrefined


def image(number):
    return np.full((16, 16), number, np.float32)


def rows(*analyses, **options):
    return {row.label: row for row in invariance.compare(analyses, **options).rows}


def test_the_mean_over_slices_has_students_interval():
    found = rows(*(analysis(lower=value, x=image(k)) for k, value in enumerate((14.0, 15.0, 19.0))))
    lower = found["toy conv1"].lower
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)  # t of 2 degrees of freedom; variance 7
    assert lower.value == pytest.approx(16)
    assert (lower.low, lower.high) == pytest.approx((16 - half, 16 + half))
    assert lower.interval == "95 %, over 3 slices"
    assert lower.n == 3
    assert found["toy conv1"].slices == 3


def test_seeds_of_one_slice_are_averaged_first():
    cases = [
        analysis(lower=v, seed=s, x=image(k)) for k, s, v in ((0, 0, 2), (0, 1, 4), (1, 0, 9), (1, 1, 9))
    ]
    lower = rows(*cases)["toy conv1"].lower
    assert lower.value == 6
    assert lower.n == 2
    assert rows(*cases)["toy conv1"].runs == 4


def test_no_interval_reaches_below_nothing_hidden():
    lower = rows(*(analysis(lower=v, x=image(k)) for k, v in enumerate((1.0, 5.0))))["toy conv1"].lower
    assert lower.low == 0
    assert lower.high == pytest.approx(3 + 12.706205 * 2)  # t of 1 degree of freedom; standard error 2


def test_of_one_slice_the_interval_is_over_seeds():
    lower = rows(*(analysis(lower=v, seed=s) for s, v in enumerate((4.0, 6.0))))["toy conv1"].lower
    assert lower.interval == "95 %, over 2 seeds"
    assert lower.value == 5
    assert rows(analysis())["toy conv1"].lower.low is None


def test_rows_fall_and_ranks_range_over_slices_and_seeds():
    cases = [analysis("a", lower=v, seed=s) for s, v in enumerate((5, 5, 1))]
    cases += [analysis("b", lower=v, seed=s) for s, v in enumerate((4, 4, 2))]
    found = invariance.compare(cases)
    assert [row.label for row in found.rows] == ["a conv1", "b conv1"]
    a, b = (row.rank for row in found.rows)
    assert (a.value, a.low, a.high, a.n) == (1, 1, 2, 3)
    assert (b.value, b.low, b.high) == (2, 1, 2)


def test_intervals_that_overlap_make_no_winner():
    near = [
        analysis(m, lower=v, seed=s) for m, vs in (("a", (5, 6)), ("b", (5, 5.5))) for s, v in enumerate(vs)
    ]
    assert "No layer of these stands out" in invariance.compare(near).verdict[0]
    far = [
        analysis(m, lower=v, seed=s) for m, vs in (("a", (9, 9.1)), ("b", (5, 5.1))) for s, v in enumerate(vs)
    ]
    assert invariance.compare(far).verdict[0] == "a conv1 hides most, 9.1 HU at least; b conv1 least, 5.0 HU."


def test_other_ratios_are_read_off_the_curves():
    """One analysis at 0.03, another at 0.1: what both know decides."""
    one = analysis("a", lower=5, rho=0.03, curve={0.03: 4.9, 0.1: 7, 1.0: 20})
    two = analysis("b", lower=8, rho=0.1, curve={0.1: 7.9, 1.0: 21})
    found = invariance.compare([one, two])
    assert found.rho == 0.1
    assert [c.lower for c in found.cases] == [7, 8]
    at_one = invariance.compare([one, two], rho=1.0)
    assert [c.lower for c in at_one.cases] == [20, 21]
    with pytest.raises(CtinvError, match=r"noise ratio 0.03; common to all: 0.1, 1"):
        invariance.compare([one, two], rho=0.03)
    with pytest.raises(CtinvError, match="no noise ratio in common"):
        invariance.compare([analysis(rho=0.03), analysis(rho=0.1)])


def test_without_refined_samples_only_the_upper_bounds_are_compared():
    found = invariance.compare([unrefined(analysis("a")), unrefined(analysis("b", upper=12))])
    assert found.rho is None
    assert [row.upper.value for row in found.rows] == [9, 12]
    assert found.rows[0].lower is None
    assert "no lower bounds" in found.notices[0]


def test_two_models_of_one_name_are_told_apart():
    found = rows(analysis(model_hash="abcdef99"), analysis(model_hash="123456ff", lower=1.0))
    assert set(found) == {"toy (abcdef) conv1", "toy (123456) conv1"}


def test_doses_have_rows_of_their_own():
    found = rows(
        *(analysis(lower=10 * d, dose=d, source=f"s at dose {d:g}", x=image(d)) for d in (1.0, 0.25))
    )
    assert set(found) == {"toy conv1, dose 1", "toy conv1, dose 0.25"}
    assert found["toy conv1, dose 1"].rank.value == 1  # of the same slice, though pixels differ
    assert found["toy conv1, dose 0.25"].rank.value == 2


def test_what_has_not_converged_is_told():
    loose = analysis("a")
    import dataclasses

    bounds = dataclasses.replace(loose.audit.bounds, converged=False)
    loose = dataclasses.replace(loose, audit=dataclasses.replace(loose.audit, bounds=bounds))
    assert "had not ended in: a conv1" in invariance.compare([loose, analysis("b")]).notices[-1]


def test_analyses_are_found_at_any_depth_and_the_rest_is_refused(tmp_path):
    for place in ("deep/er/one", "two"):
        analysis().save_answer(tmp_path / place)
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "result.json").write_text("{}")
    assert find_analyses([tmp_path]) == [tmp_path / "deep/er/one", tmp_path / "two"]
    assert find_analyses([tmp_path / "two", tmp_path]) == [tmp_path / "two", tmp_path / "deep/er/one"]
    with pytest.raises(CtinvError, match="holds no finished analysis"):
        find_analyses([tmp_path / "probe"])
    with pytest.raises(CtinvError, match="does not exist"):
        find_analyses([tmp_path / "nowhere"])
    found = invariance.compare(find_analyses([tmp_path]))
    assert [c.folder for c in found.cases] == [tmp_path / "deep/er/one", tmp_path / "two"]
    with pytest.raises(CtinvError, match="nothing to compare"):
        invariance.compare([])


def test_doses_are_read_and_wrong_ones_refused():
    assert parse_doses("0.1,1,.5") == (1.0, 0.5, 0.1)
    for text in ("", "2", "0", "a,1", "0.5,nan"):
        with pytest.raises(CtinvError, match="no list of doses"):
            parse_doses(text)


def test_a_lower_dose_holds_more_noise_and_the_same_anatomy():
    truth = phantom(np.random.default_rng(1), 256)
    noisy = truth.hu + np.random.default_rng(2).normal(0, 8, truth.hu.shape).astype(np.float32)
    one = CTSlice(noisy, np.ones(noisy.shape, bool), truth.spacing)
    series = dose_series(one, (1.0, 0.5, 0.25))
    assert series[0].hu is one.hu
    levels = [soft_noise(s.hu) for s in series]
    assert levels[0] < levels[1] < levels[2]
    assert [s.meta["simulated_dose"] for s in series] == [1.0, 0.5, 0.25]
    assert [s.name for s in series] == [f"{one.name} at dose {d}" for d in ("1", "0.5", "0.25")]
    body = truth.hu > -200
    assert abs(float((series[2].hu - one.hu)[body].mean())) < 1
    again = dose_series(one, (0.25,))
    np.testing.assert_array_equal(again[0].hu, series[2].hu)
    assert not np.array_equal(dose_series(one, (0.25,), seed=1)[0].hu, again[0].hu)


def test_a_slice_of_unknown_spacing_has_no_doses():
    import dataclasses

    with pytest.raises(ImageError, match="pixel spacing"):
        dose_series(dataclasses.replace(default_slice(), spacing=None), (0.5,))


def test_notebooks_show_a_small_table_without_scripts():
    shown = invariance.compare([analysis("<a>", lower=6), analysis("b", lower=4)])._repr_html_()
    assert "&lt;a&gt; conv1" in shown
    assert "<a> conv1" not in shown
    assert "<script" not in shown
    assert shown.count("<tr>") == 3
    assert "hides most" in shown
