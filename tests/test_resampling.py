"""An epoch is a window times a matrix: the matrix is the right one."""

from dataclasses import replace

import mne
import numpy as np
import pytest
from scipy.signal import resample_poly

from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.resampling import Fourier, epoch_matrix, one_thread

CLEAN, NICE = read_recipe("clean"), read_recipe("nice")


def apply(matrix, signal, onset, compute=np.float64):
    """Return the epoch of a one-channel signal."""
    out = np.empty((1, matrix.n_times), compute)
    start = onset + matrix.first
    matrix.apply(signal[None, start : start + matrix.n_samples].astype(compute), out)
    return out[0]


@pytest.mark.parametrize("onset", [1000, 1001, 1002, 1003])
@pytest.mark.parametrize("frequency", [1.0, 10.0, 40.0, 90.0])
def test_clean_puts_a_wave_where_it_is_whatever_the_onset(onset, frequency):
    t = (np.arange(4000) - onset) / 1000
    wave = np.sin(2 * np.pi * frequency * t + 0.3)
    found = apply(epoch_matrix(CLEAN, 1000.0), wave, onset)
    wanted = np.sin(2 * np.pi * frequency * np.array(CLEAN.times) + 0.3)
    baseline = wave[onset - 200 : onset + 1].mean()
    assert np.abs(found - (wanted - baseline)).max() < 2e-3  # the ripple of the low-pass


@pytest.mark.parametrize("onset", [1000, 1002])
def test_clean_puts_an_impulse_on_its_sample(onset):
    impulse = np.zeros(4000)
    impulse[onset + 400] = 1
    found = apply(epoch_matrix(CLEAN, 1000.0), impulse, onset)
    assert found.argmax() == 100
    around = found[80:121]
    assert np.allclose(around, around[::-1], atol=1e-6), "symmetric: no delay"


def test_clean_equals_scipys_polyphase_resampling_of_the_continuous_recording():
    signal = np.cumsum(np.random.default_rng(0).normal(size=8000))
    onset = 4000
    everything = resample_poly(signal, 1, 4)
    wanted = everything[onset // 4 : onset // 4 + 250] - signal[onset - 200 : onset + 1].mean()
    assert np.allclose(apply(epoch_matrix(CLEAN, 1000.0), signal, onset), wanted, atol=1e-8 * np.abs(signal).max())


@pytest.mark.parametrize("knows_how", [True, False], ids=["", "an mne that does it otherwise"])
def test_nice_is_mne_epochs_resample_to_rounding(monkeypatch, knows_how):
    if not knows_how:
        monkeypatch.setattr(Fourier, "resample", lambda self, signal: signal[:, : self.length])
    signal = np.cumsum(np.random.default_rng(0).normal(size=4000)) * 1e-5
    raw = mne.io.RawArray(signal[None], mne.create_info(["Oz"], 1000.0, "eeg"), verbose="error")
    epochs = mne.Epochs(
        raw, np.array([[1500, 0, 1]]), tmin=-0.2, tmax=1.0, baseline=(None, 0), preload=True, verbose="error"
    )
    wanted = epochs.resample(250, verbose="error").get_data()[0, 0, 50:]
    assert wanted.shape == (250,)
    matrix = epoch_matrix(NICE, 1000.0)
    assert bool(matrix.fourier) == knows_how and matrix.time_offset_ms == pytest.approx(1.0, abs=0.01)
    found = apply(matrix, signal, 1500)
    assert np.abs(found - wanted).max() < 1e-10 * np.abs(wanted).max()


def test_the_time_offset_is_measured_not_assumed():
    assert epoch_matrix(CLEAN, 1000.0).time_offset_ms == 0.0
    assert epoch_matrix(NICE, 1000.0).time_offset_ms == pytest.approx(1.0, abs=0.01)


def test_nice_shows_its_millisecond_on_a_wave():
    t = (np.arange(4000) - 1500) / 1000
    found = apply(epoch_matrix(NICE, 1000.0), np.sin(2 * np.pi * 10 * t), 1500)
    times = np.array(NICE.times)
    inside = slice(25, 225)
    error = {ms: np.ptp((found - np.sin(2 * np.pi * 10 * (times + ms / 1000)))[inside]) for ms in (0, 1, 2)}
    assert error[1] < 2e-3 < 0.05 < min(error[0], error[2])


@pytest.mark.parametrize("sfreq", [512.0, 1200.0, 200.0])
def test_clean_is_exact_at_sampling_frequencies_that_do_not_divide(sfreq):
    onset = round(sfreq)
    t = (np.arange(4 * onset) - onset) / sfreq
    matrix = epoch_matrix(CLEAN, sfreq)
    found = apply(matrix, np.sin(2 * np.pi * 10 * t), onset)
    wanted = np.sin(2 * np.pi * 10 * np.array(CLEAN.times))
    # 5e-3: the ripple of the low-pass in its pass band.
    assert np.ptp(found - wanted) < 5e-3 and matrix.time_offset_ms == 0


def test_linear_algebra_runs_on_one_thread_while_epochs_are_cut_and_on_all_again_afterwards():
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with one_thread():
        assert set(threads()) <= {1}
    assert threads() == before


@pytest.mark.parametrize("sfreq", [10.0, 15.0, 22.0])
def test_the_time_offset_is_right_at_low_rates_too(sfreq):
    assert abs(epoch_matrix(replace(CLEAN, sfreq=sfreq), 1000.0).time_offset_ms) < 0.05
