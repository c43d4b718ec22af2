"""Recipe `nice` equals the public pipeline, transcribed here step by step with mne and scikit-learn.

The transcription follows NICE-EEG's ``preprocessing_utils.py`` (MIT), one session after the other, in
float64 and in volts; nothing of embedctl is used in it.
"""

import mne
import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.discriminant_analysis import _cov
from sklearn.utils import shuffle

from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.epochs import EpochStore

TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.jpg" for c in range(1, 7) for i in range(1, 3)]
TEST = [f"test_images/{c:05d}_t{c:02d}/t{c:02d}_01s.jpg" for c in range(1, 4)]
ROWS = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(TRAINING + TEST)}
CHAN_ORDER = list(read_recipe("nice").channels)
SEED = 20200220
REPETITIONS = {"training": 2, "test": 3}


def epoch(path, max_rep, channels=CHAN_ORDER, tmax=1.0, sfreq=250, skip=50):
    """Return ``(condition, repetition, channel, time)`` and the conditions of one recording."""
    loaded = np.load(path, allow_pickle=True).item()
    info = mne.create_info(loaded["ch_names"], loaded["sfreq"], loaded["ch_types"])
    raw = mne.io.RawArray(loaded["raw_eeg_data"], info, verbose="error")
    events = mne.find_events(raw, stim_channel="stim", verbose="error")
    raw.pick(list(channels))
    events = events[events[:, 2] != 99999]
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=tmax, baseline=(None, 0), preload=True, verbose="error")
    epochs.resample(sfreq, verbose="error")
    data, codes = epochs.get_data(), epochs.events[:, 2]
    conditions = np.unique(codes)
    chosen = [shuffle(np.where(codes == code)[0], random_state=SEED, n_samples=max_rep) for code in conditions]
    return np.stack([data[where] for where in chosen])[..., skip:], conditions


def reference(subject_folder, n_sessions):
    whitened = {"training": [], "test": []}
    conditions = []
    for session in range(1, n_sessions + 1):
        folder = subject_folder / f"ses-{session:02d}"
        train, codes = epoch(folder / "raw_eeg_training.npy", REPETITIONS["training"])
        test, _ = epoch(folder / "raw_eeg_test.npy", REPETITIONS["test"])
        sigma = np.mean([np.mean([_cov(e.T, shrinkage="auto") for e in condition], axis=0) for condition in train], 0)
        whitener = fractional_matrix_power(sigma, -0.5)
        whitened["training"].append((train.swapaxes(2, 3) @ whitener).swapaxes(2, 3))
        whitened["test"].append((test.swapaxes(2, 3) @ whitener).swapaxes(2, 3))
        conditions.append(codes)
    test = np.concatenate(whitened["test"], axis=1)
    test = test[:, shuffle(np.arange(test.shape[1]), random_state=SEED)]
    data, codes = np.concatenate(whitened["training"]), np.concatenate(conditions)
    train = np.stack([np.concatenate(data[codes == code]) for code in np.unique(codes)])
    return train[:, shuffle(np.arange(train.shape[1]), random_state=SEED)], test


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nice")
    raw = folder / "raw"
    # The amplifier's order is not the order of the pipeline.
    simulate_things_eeg2(
        raw, TRAINING, TEST, ROWS, subjects=[1], sessions=4, test_repetitions=12, ch_names=CHAN_ORDER[::-1]
    )
    recipe = folder / "nice-small.toml"
    recipe.write_text('base = "nice"\nrepetitions = { train = 2, test = 3 }\n')
    request = PreprocessRequest(dataset="things-eeg2", raw=raw, store=folder / "epochs.zarr", recipe=str(recipe))
    report = preprocess(request)
    assert report.time_offset_ms == pytest.approx(1.0, abs=0.01)
    return EpochStore.open(folder / "epochs.zarr")["things-eeg2", 1], reference(raw / "sub-01", 4)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_repetition_equals_the_reference_in_its_order(both, split):
    ours, theirs = both[0], dict(zip(("train", "test"), both[1], strict=True))[split]
    held = getattr(ours, split)
    assert held.valid.all() and held.n_repetitions == theirs.shape[1]
    found = held.take(np.arange(len(held)))
    assert found.shape == theirs.shape
    assert np.abs(found - theirs).max() < 1e-5 * theirs.std()


def test_the_store_says_that_nice_is_late_by_a_millisecond(both):
    assert both[0].info["time_offset_ms"] == pytest.approx(1.0, abs=0.01)
    assert both[0].ch_names == CHAN_ORDER


def test_the_mean_is_that_of_the_reference(both):
    assert np.allclose(both[0].test.mean, both[1][1].mean(axis=1), atol=1e-5)
