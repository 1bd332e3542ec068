"""Observers against closed forms: channels, AUC, d', internal noise, intervals."""

import functools

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.probing.lesions import Lesion, lesion_signal
from ctinv.invariance.probing.observers.channels import (
    CHANNELS,
    channel_bank,
    difference_of_gaussians,
    eye_filter,
    eye_template,
    gabor,
    laguerre_gauss,
    responses,
)
from ctinv.invariance.probing.observers.scores import (
    area_under_curve,
    separation,
    to_area,
    to_separation,
)
from ctinv.invariance.probing.observers.study import Learned, halves, hotelling_template, judge, read_study

SIDE = 32
SIGNAL = lesion_signal((SIDE, SIDE), Lesion(6, 0.9), (16, 16), (1, 1)).astype(np.float64)
FREQUENCY = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
POWERS = {"white": np.ones((SIDE, SIDE)), "coloured": 0.2 + 20 * FREQUENCY**2}


@functools.cache
def noise(kind, n, seed=0):
    """Stationary normal noise (n, SIDE, SIDE) with this power per frequency."""
    drawn = np.random.default_rng(seed).standard_normal((n, SIDE, SIDE))
    return np.fft.ifft2(np.fft.fft2(drawn) * np.sqrt(POWERS[kind])).real


def covariance(power, bank):
    """Of the channels' responses, exactly: the noise is circular."""
    spectra = np.fft.fft2(bank).reshape(len(bank), -1)
    return (spectra * power.ravel() @ spectra.conj().T).real / SIDE**2


def ideal(power, bank):
    change = responses(SIGNAL[None], bank)[0]
    return float(np.sqrt(change @ np.linalg.pinv(covariance(power, bank), rcond=1e-10) @ change))


@pytest.mark.parametrize("kind", POWERS)
@pytest.mark.parametrize("name", CHANNELS)
def test_channelised_hotelling_agrees_with_its_closed_form(name, kind):
    bank = channel_bank(name, (SIDE, SIDE), 8.0, centre=(16, 16))
    drawn = noise(kind, 12000)
    study = judge(responses(drawn, bank), responses(drawn + SIGNAL, bank), readers=4, resamples=50)
    truth = ideal(POWERS[kind], bank)
    assert truth > 1
    assert study.detectability.value == pytest.approx(truth, rel=0.02)
    assert study.auc.value == pytest.approx(to_area(truth), abs=0.01)
    assert study.detectability.low < truth < study.detectability.high


@pytest.mark.parametrize("kind", POWERS)
def test_many_channels_come_close_to_all_that_can_be_known(kind):
    full = float(np.sqrt((np.abs(np.fft.fft2(SIGNAL)) ** 2 / POWERS[kind]).sum())) / SIDE
    few, many = (ideal(POWERS[kind], laguerre_gauss((SIDE, SIDE), 8.0, count, (16, 16))) for count in (2, 12))
    assert few < many < full * 1.001
    assert many > 0.98 * full


@pytest.mark.parametrize("kind", POWERS)
@pytest.mark.parametrize("pixel", [None, (0.5, 0.5)])
def test_non_prewhitening_agrees_with_its_closed_form(kind, pixel):
    template = eye_template(SIGNAL, pixel)
    drawn = noise(kind, 12000)
    flat, more = (d.reshape(len(d), -1) for d in (drawn, drawn + SIGNAL))

    def learned(i, j):
        change = (more[j].mean(0) - flat[i].mean(0)).reshape(SIDE, SIDE)
        return Learned(eye_template(change, pixel).ravel())

    study = read_study(flat, more, learned, readers=2, resamples=50)
    power = (np.abs(np.fft.fft2(template)) ** 2 * POWERS[kind]).sum() / SIDE**2
    truth = float((template * SIGNAL).sum() / np.sqrt(power))
    assert study.detectability.value == pytest.approx(truth, rel=0.02)


def test_an_eye_blurs_what_it_sees_twice():
    plane = np.cos(2 * np.pi * 4 * np.arange(SIDE) / SIDE) + np.zeros((SIDE, 1))
    seen = eye_filter(np.array(4 / SIDE / 0.5)) ** 2
    assert eye_template(plane, (0.5, 0.5)) == pytest.approx(seen * plane, abs=1e-9)
    assert eye_template(plane + 7, None) == pytest.approx(plane, abs=1e-9)


def test_channels_are_what_they_are_called():
    for number, band in enumerate(difference_of_gaussians((65, 65))):
        power = np.abs(np.fft.fft2(band)).ravel()
        rings = np.hypot(np.fft.fftfreq(65)[:, None], np.fft.fftfreq(65)).ravel()
        inner = 0.005 * 1.4**number
        peak = inner * np.sqrt(2 * np.log(1.67**2) / (1 - 1 / 1.67**2))
        if peak < 0.5:
            assert rings[power.argmax()] == pytest.approx(peak, abs=0.02)
    turned = gabor((65, 65))
    assert turned.shape == (16, 65, 65)
    assert turned[2] == pytest.approx(turned[0].T, abs=1e-9)
    for name in CHANNELS:
        assert channel_bank(name, (33, 33), 8.0).sum((1, 2)) == pytest.approx(0, abs=1e-9)
        moved = channel_bank(name, (33, 33), 8.0, centre=(16.0, 18.0))
        assert moved[0, 5:-5, 7:-3] == pytest.approx(
            channel_bank(name, (33, 33), 8.0)[0, 5:-5, 5:-5], abs=0.02
        )


def test_area_counts_pairs_with_ties_as_halves():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 40), rng.integers(1, 8, 30)
    counted = np.mean([(b > a) + 0.5 * (b == a) for a in first for b in second])
    assert area_under_curve(first, second) == pytest.approx(counted)
    assert area_under_curve(second, first) == pytest.approx(1 - counted)


def test_normal_scores_have_the_area_of_their_separation():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 4000), rng.normal(1.3, 1, 4000)
    assert to_separation(area_under_curve(first, second)) == pytest.approx(1.3, abs=0.06)
    assert separation(first, second) == pytest.approx(1.3, abs=0.06)


def features(n, gain=1.2, seed=0, count=3):
    drawn = np.random.default_rng(seed).standard_normal((n, count))
    return drawn, drawn + np.eye(count)[0] * gain


@pytest.mark.parametrize("internal", [0.5, 3.0])
def test_internal_noise_lowers_d_as_it_must(internal):
    first, second = features(4000)
    free = judge(first, second, readers=2, resamples=20)
    noisy = judge(first, second, readers=2, resamples=20, internal=internal)
    wanted = free.detectability.value / np.sqrt(1 + internal)
    assert noisy.detectability.value == pytest.approx(wanted, rel=1e-6)
    assert noisy.auc.value == pytest.approx(to_area(wanted), abs=0.01)


def test_intervals_shrink_with_the_root_of_the_cases():
    widths = {}
    for n in (200, 400, 800):
        found = [judge(*features(n, seed=s), seed=s) for s in range(6)]
        for of in ("auc", "detectability"):
            spans = [getattr(f, of).high - getattr(f, of).low for f in found]
            widths.setdefault(of, []).append(np.mean(spans))
    for spans in widths.values():
        assert spans[0] / spans[1] == pytest.approx(np.sqrt(2), rel=0.15)
        assert spans[1] / spans[2] == pytest.approx(np.sqrt(2), rel=0.15)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    held, values, middles = {"auc": 0, "detectability": 0}, [], []
    for seed in range(120):
        study = judge(*features(80, seed=seed, count=1), readers=2, seed=seed, resamples=200)
        for of, truth in (("auc", to_area(1.2)), ("detectability", 1.2)):
            figure = getattr(study, of)
            held[of] += figure.low <= truth <= figure.high
        values.append(study.detectability.value)
        middles.append((study.detectability.low + study.detectability.high) / 2)
    for of, count in held.items():
        assert 0.88 <= count / 120 <= 0.99, of
    assert np.mean(middles) == pytest.approx(np.mean(values), rel=0.03)


def test_an_observer_of_nothing_is_at_chance():
    """Resubstitution would credit 40 features of 60 cases with far more."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        study = judge(rng.standard_normal((60, 40)), rng.standard_normal((60, 40)), paired=False, seed=seed)
        assert abs(study.auc.value - 0.5) < 0.15
        assert study.auc.low < 0.5 < study.auc.high


def test_no_case_is_judged_by_a_reader_that_has_seen_it():
    seen = {r: halves(3, r, (11, 8), paired=False) for r in range(4)}
    assert not (seen[0][0] & seen[1][0]).any()
    assert (seen[0][0] | seen[1][0]).all()
    assert (seen[0][0] != seen[2][0]).any()
    first, second = halves(3, 0, (11, 11))
    assert (first == second).all()


def test_no_noise_means_certainty_or_nothing():
    still = np.ones((20, 2))
    certain = judge(still, still + np.eye(2)[1], resamples=10)
    assert (certain.auc.value, certain.detectability.value) == (1.0, np.inf)
    nothing = judge(still, still, resamples=10)
    assert (nothing.auc.value, nothing.detectability.value) == (0.5, 0.0)


def test_a_floor_keeps_an_observer_from_living_on_rounding():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((400, 1))
    first = np.concatenate([shared, shared + 1e-4 * rng.standard_normal((400, 1))], 1)
    second = first + 1e-3 * np.eye(2)[0]
    assert np.abs(hotelling_template(first, second)).max() > 1e4
    assert np.abs(hotelling_template(first, second, floor=0.01)).max() < 1


def test_a_study_depends_on_nothing_but_its_seed():
    first, second = features(60)
    assert judge(first, second, seed=1) == judge(first, second, seed=1)
    assert judge(first, second, seed=1) != judge(first, second, seed=2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: judge(np.ones((3, 2)), np.ones((3, 2))), "4 or more"),
        (lambda: judge(np.ones((9, 2)), np.ones((8, 2))), "no pairs"),
        (lambda: judge(*features(9), readers=0), "readers"),
        (lambda: channel_bank("wavelet", (9, 9), 3.0), "lg, dog, gabor"),
        (lambda: difference_of_gaussians((9, 9), "loose"), "dense, sparse"),
    ],
)
def test_what_makes_no_study_is_refused(call, said):
    with pytest.raises(CtinvError, match=said):
        call()
