"""The test rejects as often as it says, the interval covers as often as it says."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train import statistics
from pipelines.train.statistics import holm, image_interval, interval, sign_flip

differences = st.lists(st.integers(-20, 20).map(lambda x: x / 8), min_size=1, max_size=7)


@given(differences)
def test_the_sign_flip_test_counts_every_pattern_of_signs(d):
    sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=len(d))]
    assert sign_flip(d).p == sum(s >= abs(sum(d)) for s in sums) / len(sums)


@given(differences)
def test_the_sign_flip_test_never_goes_below_its_floor(d):
    found = sign_flip(d)
    assert found.floor <= found.p <= 1


@pytest.mark.parametrize("n, floor", [(10, 0.00195), (8, 0.0078), (4, 0.125), (1, 1.0)])
def test_the_floor_is_that_of_the_literature(n, floor):
    found = sign_flip(np.linspace(1, 2, n))
    assert found.p == found.floor == pytest.approx(floor, rel=0.01)


def test_beyond_twenty_subjects_drawn_patterns_agree_with_all_of_them(monkeypatch):
    d = np.random.default_rng(0).standard_normal(14) + 0.4
    exact = sign_flip(d).p
    monkeypatch.setattr(statistics, "EXACT_UP_TO", 0)
    assert sign_flip(d).p == pytest.approx(exact, abs=4 * (exact / 200_000) ** 0.5)


@pytest.mark.parametrize("d", [[], [1.0, np.nan], [[1.0]]])
def test_differences_that_cannot_be_tested_are_an_error(d):
    with pytest.raises(ValueError):
        sign_flip(d)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_agrees_with_its_definition(p):
    order = np.argsort(p, kind="stable")
    expected = np.empty(len(p))
    for position, i in enumerate(order):
        expected[i] = max(min(1.0, (len(p) - j) * p[order[j]]) for j in range(position + 1))
    assert holm(p) == pytest.approx(expected.tolist())


def test_one_subject_gives_an_interval_over_images_alone():
    hits = np.random.default_rng(0).random((1, 200)) < 0.4
    found = interval(hits)
    assert found.over == "images"
    assert found.high - found.low == pytest.approx(2 * 1.972 * hits.std() / 199**0.5, rel=0.05)


def test_without_images_the_interval_is_students():
    from scipy.stats import t

    d = np.random.default_rng(0).standard_normal(9)
    found = interval(d, images=False)
    assert found.over == "subjects"
    low, high = t.interval(0.95, 8, d.mean(), d.std(ddof=1) / 3)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)


def test_one_number_has_no_interval():
    assert interval([0.5]) == statistics.Interval(None, None, "nothing")


def logistic(z):
    return 1 / (1 + np.exp(-z))


def correctness(rng, n_subjects, n_images, slope, subject_slopes, image_slopes):
    """Aligned minus base, three seeds averaged: subjects and images differ in level and in what alignment brings."""
    level = 0.5 * rng.standard_normal((n_subjects, 1)) + 1.2 * rng.standard_normal((1, n_images))
    gain = slope + subject_slopes * rng.standard_normal((n_subjects, 1))
    gain = gain + image_slopes * rng.standard_normal((1, n_images))
    return (rng.binomial(3, logistic(level + gain / 2)) - rng.binomial(3, logistic(level - gain / 2))) / 3


def true_difference(slope, subject_slopes, image_slopes):
    rng = np.random.default_rng(1)
    draw = rng.standard_normal((4, 400_000))
    level, gain = 0.5 * draw[0] + 1.2 * draw[1], slope + subject_slopes * draw[2] + image_slopes * draw[3]
    return float((logistic(level + gain / 2) - logistic(level - gain / 2)).mean())


def rejects(n_tables, rng):
    return np.mean(
        [sign_flip(correctness(rng, 10, 200, 0.0, 0.5, 0.0).mean(axis=1)).p <= 0.05 for _ in range(n_tables)]
    )


def covers(n_tables, n_subjects, slopes, rng):
    truth = true_difference(0.5, *slopes)
    found = [interval(correctness(rng, n_subjects, 200, 0.5, *slopes)) for _ in range(n_tables)]
    return np.mean([i.low <= truth <= i.high for i in found])


def test_the_sign_flip_test_rejects_a_true_null_about_as_often_as_it_says():
    assert rejects(400, np.random.default_rng(0)) == pytest.approx(0.05, abs=0.033)  # three standard errors


@pytest.mark.parametrize("n_subjects", [4, 10])
def test_the_interval_covers_the_truth(n_subjects):
    assert covers(100, n_subjects, (0.5, 0.5), np.random.default_rng(1)) >= 0.9


@pytest.mark.slow
def test_the_sign_flip_test_is_calibrated():
    assert rejects(4000, np.random.default_rng(2)) == pytest.approx(0.05, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("n_subjects", [4, 10])
@pytest.mark.parametrize("slopes", [(0.5, 0.5), (1.0, 0.1), (0.05, 1.0), (0.0, 0.0)])
def test_the_interval_is_calibrated(n_subjects, slopes):
    assert covers(1000, n_subjects, slopes, np.random.default_rng(3)) >= 0.93


def image_coverage(shares, n_images, n_tables, rng):
    """How often the interval covers the subjects' true accuracy, images drawn from ``shares``: (n_subjects, many)."""
    covered = []
    for _ in range(n_tables):
        images = rng.integers(0, shares.shape[1], n_images)
        found = image_interval(
            (rng.random((len(shares), n_images)) < shares[:, images]).mean(axis=0), differences=False
        )
        covered.append(found.low <= shares.mean() <= found.high)
    return np.mean(covered)


@pytest.mark.parametrize("level", [0.005, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("n_subjects, n_images", [(1, 40), (2, 40), (3, 200)])
def test_the_interval_over_images_covers_what_these_subjects_would_reach(level, n_subjects, n_images):
    rng = np.random.default_rng(5)
    shares = rng.beta(8 * level, 8 * (1 - level), (n_subjects, 5000))
    assert image_coverage(shares, n_images, 1000, rng) >= 0.93


@pytest.mark.parametrize("slopes", [(0.5, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("n_subjects", [1, 2, 3])
def test_the_interval_over_images_covers_the_difference_of_these_subjects(n_subjects, slopes):
    covered = []
    rng = np.random.default_rng(6)
    for _ in range(20):  # other subjects; of each, other images
        everything = correctness(rng, n_subjects, 20_000, 0.5, *slopes).mean(axis=0)
        tables = rng.choice(everything, (50, 200))
        found = [image_interval(values, differences=True) for values in tables]
        covered += [i.low <= everything.mean() <= i.high for i in found]
    assert np.mean(covered) >= 0.93


def test_nothing_but_misses_does_not_prove_that_a_hit_cannot_be():
    found = image_interval(np.zeros(200), differences=False)
    assert found.low <= 0 < 0.01 < found.high < 0.05
    found = image_interval(np.zeros(200), differences=True)
    assert -0.05 < found.low < -0.005 < 0.005 < found.high < 0.05


def test_an_interval_over_images_of_fewer_than_two_is_none():
    assert image_interval([1.0], differences=False) == statistics.Interval(None, None, "nothing")
