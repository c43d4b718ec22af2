"""The quality of epochs: what was planted is measured, and the page shows it."""

import numpy as np
import pytest

from pipelines.preprocess.quality import compare_halves

N_IMAGES, N_SESSIONS, PER_SESSION = 300, 4, 5


class FakeSplit:
    """As much of `SplitEpochs` as is measured."""

    keep = "all"

    def __init__(self, epochs, session, valid=None):
        self.valid = np.ones(epochs.shape[:2], bool) if valid is None else valid
        self.epochs = np.where(self.valid.reshape(*self.valid.shape, *[1] * (epochs.ndim - 2)), epochs, np.nan)
        self.session, self.n_repetitions = session, epochs.shape[1]
        self.mean = np.nanmean(self.epochs, axis=1)

    def take(self, images):
        return self.epochs[images].astype(np.float32)

    def __len__(self):
        return len(self.epochs)


def planted(signal, noise, of_session=0.0, seed=0):
    """Return epochs whose features have the standard deviations ``signal``, ``noise`` and one shared by a session."""
    rng = np.random.default_rng(seed)
    shape = np.shape(signal)
    n = N_SESSIONS * PER_SESSION
    session = np.tile(np.repeat(np.arange(1, N_SESSIONS + 1), PER_SESSION), (N_IMAGES, 1))
    shared = rng.standard_normal((N_IMAGES, N_SESSIONS, *shape)).repeat(PER_SESSION, axis=1)
    drift = 3 * rng.standard_normal((1, N_SESSIONS, *shape)).repeat(PER_SESSION, axis=1)  # the same for all images
    epochs = signal * rng.standard_normal((N_IMAGES, 1, *shape)) + noise * rng.standard_normal((N_IMAGES, n, *shape))
    return epochs + of_session * shared + drift, session


def test_planted_reliability_and_ncsnr_are_recovered():
    signal = np.array([[0.0, 0.1, 0.3], [0.5, 1.0, 2.0]])
    epochs, session = planted(signal, 2.0)
    found = compare_halves(FakeSplit(epochs, session))
    assert found.between == "sessions" and found.n_images == N_IMAGES
    assert np.allclose(found.reliability, signal**2 / (signal**2 + 4.0 / 20), atol=0.12)
    assert np.allclose(found.reliability[signal >= 0.5], (signal**2 / (signal**2 + 0.2))[signal >= 0.5], atol=0.06)


def test_ncsnr_is_that_of_single_trials():
    signal = np.array([0.0, 0.5, 1.0, 2.0])  # voxels
    rng = np.random.default_rng(0)
    epochs = signal * rng.standard_normal((900, 1, 4)) + rng.standard_normal((900, 3, 4))
    found = compare_halves(FakeSplit(epochs, np.tile([1, 4, 9], (900, 1))))
    assert np.allclose(found.ncsnr, signal, atol=0.13)
    assert np.allclose(found.reliability, signal**2 / (signal**2 + 1 / 3), atol=0.08)


def test_what_a_session_adds_of_its_own_counts_as_noise():
    epochs, session = planted(np.array([1.0]), 1.0, of_session=1.0)
    across = compare_halves(FakeSplit(epochs, session)).reliability
    unknown = compare_halves(FakeSplit(epochs, np.zeros_like(session)))
    assert np.allclose(across, 1 / (1 + 1 / 4 + 1 / 20), atol=0.05)
    assert unknown.between == "repetitions" and unknown.reliability > across + 0.05


def test_halves_find_each_other_with_signal_and_by_chance_without():
    def found(signal):
        return compare_halves(FakeSplit(*planted(np.full((4, 25), signal), 1.0)))

    assert found(1.0).top1 == 1
    assert found(0.0).top1 == pytest.approx(1 / N_IMAGES, abs=0.02) and found(0.0).top5 < 0.05


def test_invalid_repetitions_have_no_say_and_one_repetition_nothing_to_compare():
    epochs, session = planted(np.array([1.0, 2.0]), 1.0)
    valid = np.random.default_rng(1).random(session.shape) < 0.7
    spoilt = np.where(valid[:, :, None], epochs, 1e6)
    assert np.array_equal(
        compare_halves(FakeSplit(spoilt, session, valid)).reliability,
        compare_halves(FakeSplit(epochs, session, valid)).reliability,
    )
    assert compare_halves(FakeSplit(epochs[:, :1], session[:, :1])) is None
