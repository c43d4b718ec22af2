"""Recipe `gifford` equals its steps done with mne and scikit-learn, one after the other, in float64 and in volts."""

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.utils import shuffle

from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import DEMO_CHANNELS, simulate_things_eeg2
from stores.epochs import EpochStore
from tests.test_nice_parity import SEED, epoch
from tests.test_whitening import reference as shrunk

TRAINING = [f"training_images/{c:05d}_c{c}/c{c}_01s.jpg" for c in (1, 2, 3, 4)]
TEST = ["test_images/00001_t/t_01s.jpg", "test_images/00002_u/u_01s.jpg"]
ROWS = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(TRAINING + TEST)}


def covariance(conditions):
    """Return the mean over conditions and times of the shrunk covariance over repetitions."""
    return np.mean([[shrunk(reps[:, :, t].T) for t in range(reps.shape[2])] for reps in conditions], axis=(0, 1))


def expected(folder):
    train, test, codes = [], [], []
    for session in ("ses-01", "ses-02"):
        cut = {
            part: epoch(folder / session / f"raw_eeg_{part}.npy", n, DEMO_CHANNELS, 0.8, 100, 0)
            for part, n in (("training", 2), ("test", 3))
        }
        sigma = np.mean([covariance(cut[part][0]) for part in cut], axis=0)
        whitener = fractional_matrix_power(sigma, -0.5)
        train.append(whitener @ cut["training"][0])
        test.append(whitener @ cut["test"][0])
        codes.append(cut["training"][1])
    test = np.concatenate(test, axis=1)
    train = np.concatenate(train)[np.argsort(np.concatenate(codes))]
    return [split[:, shuffle(np.arange(split.shape[1]), random_state=SEED)] for split in (train, test)]


@pytest.mark.slow
def test_every_repetition_equals_the_steps_and_the_offset_is_told(tmp_path):
    raw = tmp_path / "raw"
    simulate_things_eeg2(
        raw, TRAINING, TEST, ROWS, subjects=[1], sessions=2, test_repetitions=6, ch_names=DEMO_CHANNELS, n_sources=2
    )
    (tmp_path / "small.toml").write_text('base = "gifford"\nrepetitions = { train = 2, test = 3 }\n')
    request = PreprocessRequest(
        dataset="things-eeg2", raw=raw, store=tmp_path / "e.zarr", recipe=str(tmp_path / "small.toml")
    )
    assert preprocess(request).time_offset_ms == pytest.approx(-4, abs=0.4)
    found = EpochStore.open(tmp_path / "e.zarr")["things-eeg2", 1]
    assert found.times[0] == -0.2 and len(found.times) == 100
    assert tuple(found.ch_names) == read_recipe("gifford").channels == DEMO_CHANNELS
    for ours, theirs in zip((found.train, found.test), expected(raw / "sub-01"), strict=True):
        assert ours.valid.all()
        assert np.abs(ours.take(range(len(ours))) - theirs).max() < 1e-5 * theirs.std()
