"""A channel that is flat for a while, through the whole of `preprocess`: what it changes of all other numbers.

Noise as brains make it, of power one over frequency squared and common to channels. What the covariance loses with lost
samples of one channel in one epoch of 400 is what they alone knew, a deviation from the mean over 400: nobody can
restore it.
"""

import mne
import numpy as np
import pytest

from pipelines.preprocess.cutting import good_channels
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from stores.epochs import EpochStore

SFREQ, N_CHANS, N, AT = 250, 8, 404, 201
ONSETS = 250 + 250 * np.arange(N)  # a second apart: epochs of 0.7 s do not share samples
RECIPE = 'base = "clean"\ndtype = "float32"\nepoch = [-0.2, 0.5]\nwindow = [0.0, 0.5]\n'
IMAGES = [f"training_images/c{k % 50}.jpg" if k < 400 else f"test_images/t{k % 2}.jpg" for k in range(N)]


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    n = int(ONSETS[-1]) + 500
    spectrum = rng.normal(size=(2, N_CHANS + 4, n // 2 + 1))
    shape = 1 / np.maximum(np.fft.rfftfreq(n, 1 / SFREQ), 0.1)
    noise = np.fft.irfft(shape * (spectrum[0] + 1j * spectrum[1]), n)
    noise /= noise.std(axis=1, keepdims=True)
    return 1e-5 * (rng.normal(size=(N_CHANS, 4)) @ noise[:4] + 0.5 * noise[4:])


def store(folder, samples):
    """Return the subject that comes out of a recording."""
    folder.mkdir()
    raw = mne.io.RawArray(samples, mne.create_info(N_CHANS, SFREQ, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations(ONSETS / SFREQ, 0, IMAGES))
    raw.save(folder / "sub-01_eeg.fif", fmt="double", verbose="error")
    (folder / "short.toml").write_text(RECIPE)
    request = PreprocessRequest(
        dataset="mne", raw=folder, store=folder / "e.zarr", recipe=str(folder / "short.toml"), subjects=(1,)
    )
    (line,) = preprocess(request).subjects
    return line, EpochStore.open(folder / "e.zarr")["mne", 1]


@pytest.mark.slow
def test_a_flat_channel_in_one_epoch_of_400_changes_others_by_a_thousandth(samples, tmp_path):
    before = store(tmp_path / "before", samples)[1]
    spoilt = samples.copy()
    start = ONSETS[AT] + 25
    spoilt[3, start : start + 50] = spoilt[3, start]  # for 0.2 of 0.5 s
    line, after = store(tmp_path / "raw", spoilt)
    assert line.counts["unusable channel-epochs"] == line.counts["repetitions lost to them"] == 1
    kept = after.train.valid
    assert kept.sum() == before.train.valid.sum() - 1 == 399
    one, other = (subject.train.take(range(50))[kept] for subject in (before, after))
    rms, sd = np.sqrt(((one - other) ** 2).mean()), one.std()
    assert 0 < rms < 5e-4 * sd  # 3.3e-4; 8e-4 if the channel's good samples in that epoch are not used
    assert np.abs(one - other).max() < 1e-3 * np.abs(one).max()  # 6e-4; 1.3e-3


def test_a_channel_is_flat_only_where_others_move():
    epochs = np.random.default_rng(0).normal(size=(4, 3, 250))
    epochs[0, 1, 100:160] = 7.0  # for a quarter
    epochs[1, :, 100:160] = 0.0  # all: nothing was recorded, and no channel is worse than the others
    epochs[2, 1, ::7] = 0.0
    assert good_channels(epochs).tolist() == [[True, False, True], *[[True] * 3] * 3]
