"""Bands share the evidence out exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import get_window

from pipelines.interpret.bands import BANDS, band_bins, band_contributions, keep_band, stimulation_note


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 61))
def test_bands_and_offset_add_up_to_all_of_it(seed, n_times):
    gradient, change = np.random.default_rng(seed).standard_normal((2, 3, 2, n_times))
    found = band_contributions(gradient, change, 200.0)
    assert np.allclose(sum(found.values()), (gradient * change).sum(axis=(1, 2)))


@pytest.mark.parametrize(("hertz", "band"), [(2, "delta"), (6, "theta"), (8, "alpha"), (12, "beta"), (40, "gamma")])
def test_a_wave_is_in_its_band(hertz, band):
    wave = np.cos(2 * np.pi * hertz * np.arange(250) / 250)[None, None] * get_window("boxcar", 250)
    found = band_contributions(wave, wave, 250.0)
    assert found[band][0] == pytest.approx(125)
    assert sum(abs(value[0]) for name, value in found.items() if name != band) < 1e-9


def test_a_constant_is_offset_and_in_no_band():
    found = band_contributions(np.ones((1, 1, 50)), np.ones((1, 1, 50)), 100.0)
    assert found["offset"][0] == pytest.approx(50)
    assert all(abs(found[band][0]) < 1e-9 for band in found if band != "offset")


def test_bands_that_a_short_window_cannot_resolve_are_left_out():
    assert list(band_bins(10, 100.0)) == ["alpha", "beta", "gamma"]
    assert list(band_bins(250, 250.0)) == list(BANDS)


def test_keeping_every_band_and_the_offset_keeps_everything():
    x = np.random.default_rng(0).standard_normal((2, 3, 100))
    kept = sum(keep_band(x, band, 250.0) for band in BANDS) + x.mean(axis=-1, keepdims=True)
    assert np.allclose(kept, x)


def test_a_drift_that_is_taken_away_leaves_no_other_band():
    drift = np.linspace(-1, 1, 250)
    for band in ("alpha", "beta", "gamma"):
        assert (keep_band(drift, band, 250.0) ** 2).sum() < 1e-3 * (drift**2).sum()
    assert ((drift - keep_band(drift, "delta", 250.0)) ** 2).sum() < 0.01 * (drift**2).sum()


def test_the_rate_of_the_images_is_said_where_it_loads_a_band():
    assert "5 Hz" in stimulation_note("things-eeg2") and "alpha (10 Hz)" in stimulation_note("things-eeg2")
    assert stimulation_note("things-meg") == ""
