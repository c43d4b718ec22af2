"""The vectorised noise normalisation equals the published one, epoch by epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power
from sklearn.covariance import ledoit_wolf
from sklearn.preprocessing import StandardScaler

from pipelines.preprocess.whitening import (
    CovarianceSum,
    inverse_square_root,
    shrunk_covariances,
    shrunk_over_repetitions,
)


def reference(epoch):
    """What ``sklearn.discriminant_analysis._cov(epoch.T, 'auto')`` does, from public parts."""
    scaler = StandardScaler()
    standard = scaler.fit_transform(epoch.T)
    return scaler.scale_[:, None] * ledoit_wolf(standard)[0] * scaler.scale_[None, :]


def eeg_like(n_epochs, n_chans, n_times, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_chans, n_chans)) * rng.uniform(0.2, 5, size=n_chans)
    drift = np.cumsum(rng.normal(size=(n_epochs, n_chans, n_times)), axis=2)
    return scale * (mixing @ (0.3 * drift + rng.normal(size=drift.shape)) + rng.normal(size=(n_epochs, n_chans, 1)))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(2, 12), st.integers(3, 60), st.integers(0, 2**31), st.sampled_from([1e-6, 1.0, 1e4])
)
def test_each_epoch_equals_scikit_learn(n_epochs, n_chans, n_times, seed, scale):
    epochs = eeg_like(n_epochs, n_chans, n_times, seed, scale)
    for epoch, ours in zip(epochs, shrunk_covariances(epochs), strict=True):
        theirs = reference(epoch)
        assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize(("n_repetitions", "dtype", "exact"), [(2, float, 1e-10), (3, float, 1e-8), (20, "f4", 3e-6)])
def test_over_repetitions_it_is_the_mean_over_time_of_what_scikit_learn_does(n_repetitions, dtype, exact):
    epochs = eeg_like(2 * n_repetitions, 7, 9).reshape(2, n_repetitions, 7, 9)
    epochs[1, :, 3, 4] = 0.5  # the same in all repetitions
    for image, ours in zip(epochs, shrunk_over_repetitions(epochs.astype(dtype)), strict=True):
        theirs = np.mean([reference(image[:, :, t].T) for t in range(9)], axis=0)
        assert np.abs(ours - theirs).max() < exact * np.abs(theirs).max()


def test_the_private_function_of_scikit_learn_agrees_while_it_exists():
    discriminant_analysis = pytest.importorskip("sklearn.discriminant_analysis")
    epochs = eeg_like(3, 20, 250)
    for epoch, ours in zip(epochs, shrunk_covariances(epochs), strict=True):
        assert np.allclose(ours, discriminant_analysis._cov(epoch.T, shrinkage="auto"), rtol=1e-10)


def test_float32_is_good_to_six_digits():
    epochs = eeg_like(5, 30, 250)
    exact = shrunk_covariances(epochs)
    assert np.abs(shrunk_covariances(epochs.astype(np.float32)) - exact).max() < 2e-6 * np.abs(exact).max()


def test_a_constant_channel_is_treated_as_scikit_learn_treats_it():
    epochs = eeg_like(1, 6, 100)
    epochs[0, 2] = 3.0
    ours, theirs = shrunk_covariances(epochs)[0], reference(epochs[0])
    assert np.allclose(ours, theirs, rtol=1e-8)
    assert ours[2, 2] > 0, "the shrinkage, in squared data units"


def test_an_excluded_channel_leaves_the_covariance_of_the_others_as_if_it_were_not_there():
    epochs = eeg_like(4, 6, 100)
    epochs[1, 2] = np.nan
    good = np.ones((4, 6), bool)
    good[1, 2] = False
    found = shrunk_covariances(epochs, good)
    others = [0, 1, 3, 4, 5]
    assert np.allclose(found[1][np.ix_(others, others)], reference(epochs[1][others]), rtol=1e-8)
    assert not found[1][2].any() and not found[1][:, 2].any()
    assert np.allclose(found[0], reference(epochs[0]), rtol=1e-8)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_sums_do_not_depend_on_how_epochs_are_batched(seed, cuts):
    epochs = eeg_like(20, 4, 50, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 1, 20)
    whole, parts = CovarianceSum(4), CovarianceSum(4)
    whole.add(epochs, weights)
    for part in np.split(np.arange(20), sorted(cuts)):
        if len(part):
            parts.add(epochs[part], weights[part])
    assert np.allclose(whole.mean(), parts.mean(), rtol=1e-12)
    assert np.allclose(whole.mean(), np.average([reference(e) for e in epochs], axis=0, weights=weights), rtol=1e-8)


def test_a_pair_of_channels_is_averaged_over_the_epochs_that_have_both():
    epochs = eeg_like(3, 3, 80)
    good = np.array([[True, True, True], [True, False, True], [True, True, True]])
    total = CovarianceSum(3)
    total.add(epochs, np.ones(3), good)
    single = shrunk_covariances(epochs, good)
    assert np.allclose(total.mean()[0, 2], single[:, 0, 2].mean())
    assert np.allclose(total.mean()[0, 1], single[[0, 2], 0, 1].mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**31))
def test_the_inverse_square_root_is_scipys_and_whitens(n_chans, seed):
    covariance = shrunk_covariances(eeg_like(1, n_chans, 5 * n_chans + 5, seed))[0]
    whitener, rank = inverse_square_root(covariance)
    assert rank == n_chans
    assert np.allclose(whitener, fractional_matrix_power(covariance, -0.5), rtol=1e-6)
    assert np.allclose(whitener @ covariance @ whitener, np.eye(n_chans), atol=1e-8)
    assert np.array_equal(whitener, whitener.T)


def test_missing_directions_are_left_out_not_blown_up():
    factor = np.random.default_rng(0).normal(size=(6, 4))
    whitener, rank = inverse_square_root(factor @ factor.T)
    assert rank == 4 and np.abs(whitener).max() < 10
    assert np.allclose(whitener @ factor @ factor.T @ whitener, np.linalg.pinv(factor.T) @ factor.T, atol=1e-8)
    assert inverse_square_root(np.zeros((3, 3)))[1] == 0


def test_a_sum_knows_whether_anything_was_added():
    total = CovarianceSum(2)
    assert not total.is_estimated
    total.add_repetitions(np.random.default_rng(0).normal(size=(1, 2, 2, 5)))
    assert total.is_estimated
