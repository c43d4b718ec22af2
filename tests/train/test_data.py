"""Recordings are loaded as the recipe says, and nothing of the test set reaches the training side."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.train.brain_encoders.nice import NICE
from pipelines.train.data import load_subject
from pipelines.train.recipes import read_recipe
from pipelines.train.repetitions import fewer, split_half, usual_number
from stores.epochs import EpochStore
from stores.errors import BadRecording, EmbedctlError

MODERN = read_recipe("modern", "eeg").with_(unit_scale=False, window=(), channels=())


class FakeSplit:
    """A split of the epoch store, in memory."""

    def __init__(self, epochs, valid=None, keep="all"):
        self.valid = np.ones(epochs.shape[:2], bool) if valid is None else valid
        self.epochs = np.where(self.valid.reshape(*self.valid.shape, *[1] * (epochs.ndim - 2)), epochs, np.nan)
        self.image_ids = [f"{i}.jpg" for i in range(len(epochs))]
        self.concepts = [str(i) for i in range(len(epochs))]
        self.n_repetitions = epochs.shape[1]
        self.keep = keep

    @property
    def mean(self):
        mean = [
            rows[valid].mean(axis=0) if valid.any() else rows[0]
            for rows, valid in zip(self.epochs, self.valid, strict=True)
        ]
        return np.array(mean, dtype=np.float32)

    @property
    def mean_shape(self):
        return self.mean.shape

    def read_mean(self, start, stop):
        return self.mean[start:stop]

    def take(self, images):
        return self.epochs[images].astype(np.float32)

    def __len__(self):
        return len(self.image_ids)


def subject(train=None, test=None, **kwargs):
    rng = np.random.default_rng(0)
    shape = (4, 50)
    train = FakeSplit(rng.standard_normal((10, 3, *shape))) if train is None else train
    test = FakeSplit(rng.standard_normal((5, 6, *shape))) if test is None else test
    times = np.arange(train.epochs.shape[-1]) / 100 - 0.1
    said = {"ch_names": ["O1", "Oz", "Fz", "Cz"], "times": times, "sfreq": 100.0}
    return SimpleNamespace(train=train, test=test, **said | kwargs)


def holes(n_images, n_repetitions, *missing):
    valid = np.ones((n_images, n_repetitions), bool)
    for where in missing:
        valid[where] = False
    return valid


def test_without_normalisation_the_mean_is_the_stored_one():
    s = subject()
    data = load_subject(s, MODERN)
    assert np.array_equal(data.mean.numpy(), s.train.mean)
    assert data.rows is data.mean
    assert data.shown.tolist() == list(range(10))
    assert np.array_equal(data.test.epochs.numpy(), s.test.mean)


def normalised(x):
    out = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        out[index] = (x[index] - x[index].mean()) / np.sqrt((x[index] ** 2).sum())
    return out


def test_norm_then_mean_normalises_every_repetition_first():
    s = subject()
    data = load_subject(s, MODERN.with_(trial_norm="norm-then-mean"))
    assert np.allclose(data.mean, normalised(s.train.epochs).mean(axis=1), atol=1e-6)
    assert np.allclose(data.test.epochs, normalised(s.test.epochs).mean(axis=1), atol=1e-6)


def test_mean_then_norm_normalises_the_average():
    s = subject()
    data = load_subject(s, MODERN.with_(trial_norm="mean-then-norm"))
    assert np.allclose(data.mean, normalised(s.train.epochs.mean(axis=1)), atol=1e-6)


def test_trials_are_the_valid_repetitions_and_know_their_image():
    s = subject(FakeSplit(np.random.default_rng(1).standard_normal((6, 3, 4, 50)), holes(6, 3, (2, 1), (4,))))
    data = load_subject(s, MODERN.with_(train_on="trials"))
    assert data.image_ids == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "5.jpg"]  # image 4 has no valid repetition
    assert data.shown.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4]
    assert np.array_equal(data.rows[6:8], s.train.epochs[2, [0, 2]].astype(np.float32))
    assert data.mean.shape[0] == 5
    assert any("left out: 1 training image without a valid recording" in note for note in data.notes)


def test_a_test_image_without_recordings_stays_in_the_gallery():
    s = subject(test=FakeSplit(np.random.default_rng(1).standard_normal((5, 2, 4, 50)), holes(5, 2, (3,))))
    test = load_subject(s, MODERN).test
    assert (len(test.image_ids), test.epochs.shape[0], test.target.tolist()) == (5, 4, [0, 1, 2, 4])


def test_channels_of_the_recipe_that_exist_are_taken_in_its_order():
    s = subject()
    data = load_subject(s, MODERN.with_(channels=("Oz", "P3", "O1")))
    assert data.ch_names == ["Oz", "O1"]
    assert np.array_equal(data.mean.numpy(), s.train.mean[:, [1, 0]])
    assert data.notes == ["2 of the recipe's 3 channels exist here and are used"]


def test_when_none_of_the_channels_exists_all_are_used_and_it_is_said():
    data = load_subject(subject(), MODERN.with_(channels=("MLO11",)))
    assert data.ch_names == ["O1", "Oz", "Fz", "Cz"]
    assert "none of the recipe's 1 channels" in data.notes[0]


def test_a_window_includes_both_ends():
    s = subject()
    data = load_subject(s, MODERN.with_(window=(0.0, 0.2)))
    assert data.n_times == 21
    assert np.array_equal(data.mean.numpy(), s.train.mean[..., 10:31])


def test_a_window_without_samples_is_an_error():
    with pytest.raises(EmbedctlError, match="no sample lies between 0.396 and 0.4 s: there is one every 0.01 s"):
        load_subject(subject(), MODERN.with_(window=(0.396, 0.4)))


@pytest.mark.parametrize("window", [(3.0, 4.0), (0.0, 0.45), (-0.3, 0.2)])
def test_a_window_that_leaves_the_epochs_is_an_error(window):
    with pytest.raises(EmbedctlError, match="leaves the epochs: they last -0.1 to 0.39 s") as problem:
        load_subject(subject(), MODERN.with_(window=window))
    assert "window = []" in problem.value.hint


def test_a_window_may_end_where_the_last_sample_does():
    assert load_subject(subject(), MODERN.with_(window=(0.0, 0.4))).n_times == 40


def test_voxels_are_not_normalised_over_a_time_they_do_not_have():
    s = subject(FakeSplit(np.ones((6, 3, 30))), FakeSplit(np.ones((4, 3, 30))))
    s.ch_names, s.times, s.sfreq = [], np.array([]), 0.0
    with pytest.raises(EmbedctlError, match="trial_norm = 'mean-then-norm' needs a time course"):
        load_subject(s, read_recipe("modern", "fmri").with_(trial_norm="mean-then-norm"))


def test_the_scale_comes_from_training_alone():
    s = subject()
    data = load_subject(s, MODERN.with_(unit_scale=True))
    assert data.mean.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert np.allclose(data.test.epochs, s.test.mean / s.train.mean.std(), atol=1e-5)
    other = subject(test=FakeSplit(1e9 * s.test.epochs))
    assert torch.equal(load_subject(other, MODERN.with_(unit_scale=True)).mean, data.mean)


@pytest.mark.parametrize("trial_norm", ["none", "norm-then-mean"])
@pytest.mark.parametrize("side", ["train", "test"])
def test_a_number_that_is_not_finite_where_valid_is_an_error(side, trial_norm):
    split = FakeSplit(np.random.default_rng(0).standard_normal((6, 3, 4, 50)))
    split.epochs[4, 1, 2, 7] = np.nan
    with pytest.raises(BadRecording, match="first of '4.jpg'"):
        load_subject(subject(**{side: split}), MODERN.with_(trial_norm=trial_norm))


def test_a_subject_without_any_valid_recording_is_an_error():
    with pytest.raises(BadRecording, match="no image has a valid recording"):
        load_subject(subject(FakeSplit(np.zeros((3, 2, 4, 50)), np.zeros((3, 2), bool))), MODERN)


def test_a_store_of_means_serves_recipes_that_need_no_more():
    rng = np.random.default_rng(0)
    s = subject(*(FakeSplit(rng.standard_normal((5, 2, 4, 50)), keep="mean") for _ in range(2)))
    assert load_subject(s, MODERN).test.noise_ceiling is None
    with pytest.raises(EmbedctlError, match="mean of the repetitions alone"):
        load_subject(s, MODERN.with_(train_on="trials"))


def test_voxels_are_channels_with_one_time():
    rng = np.random.default_rng(0)
    s = subject(FakeSplit(rng.standard_normal((6, 3, 30))), FakeSplit(rng.standard_normal((4, 3, 30))))
    s.ch_names, s.times, s.sfreq = [], np.array([]), 0.0
    data = load_subject(s, read_recipe("modern", "fmri"))
    assert data.mean.shape == (6, 30, 1)
    assert data.test.epochs.shape == (4, 30, 1)


def test_the_noise_ceiling_is_one_without_noise_and_chance_without_signal():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((40, 1, 4, 50))
    noise = rng.standard_normal((40, 6, 4, 50))
    assert split_half(FakeSplit(signal + 0.01 * noise)) == 1
    assert split_half(FakeSplit(noise)) < 0.15
    assert split_half(FakeSplit(noise[:, :1])) is None


def test_a_fixed_first_step_is_taken_once_for_all_epochs():
    rng = np.random.default_rng(0)
    data = load_subject(
        subject(FakeSplit(rng.standard_normal((6, 2, 4, 90))), FakeSplit(rng.standard_normal((3, 2, 4, 90)))),
        MODERN.with_(train_on="trials"),
    )
    ready = data.ready(NICE, "cpu")
    assert ready.n_times == 90
    assert torch.equal(ready.rows, NICE.prepare(data.rows))
    assert torch.equal(ready.test.epochs, NICE.prepare(data.test.epochs))


def test_the_usual_number_of_repetitions_is_that_of_most_images():
    lost = FakeSplit(np.zeros((5, 6, 1, 2)), holes(5, 6, (0, 1), (4, slice(None))))
    lost.valid[1, :4] = False
    assert usual_number(lost) == 5  # the median of 5, 2, 6 and 6
    lost.valid[:] = False
    assert usual_number(lost) == 0


def test_a_stored_subject_loads(workspace):
    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], read_recipe("modern", "eeg"))
    assert data.ch_names == ["PO7", "O1", "Oz", "O2"]
    assert usual_number(EpochStore.open(workspace.epochs)["things-eeg2", 1].test) == 6
    assert data.test.noise_ceiling == 1


PICK = (np.arange(4), np.arange(50))


def test_means_over_fewer_repetitions_are_of_valid_ones_the_larger_number_containing_the_smaller():
    test = FakeSplit(np.random.default_rng(1).standard_normal((5, 9, 4, 50)), holes(5, 9, (0, 3), (0, 7), 4))
    test.valid[4] = False  # lost altogether
    found = fewer(test, "none", PICK)
    assert list(found) == [1, 2, 4, 8] and all(mean.shape == (4, 4, 50) for mean in found.values())
    for image in range(4):
        own = test.epochs[image][test.valid[image]]
        first, pair = found[1][image], 2 * found[2][image] - found[1][image]
        assert np.abs(own - first).max(axis=(1, 2)).min() < 1e-6 and np.abs(own - pair).max(axis=(1, 2)).min() < 1e-6
    assert np.allclose(found[8][0], test.mean[0], atol=1e-6)  # it has seven
    assert len({np.abs(test.epochs[i] - found[1][i]).max(axis=(1, 2)).argmin() for i in range(1, 4)}) > 1


def test_they_are_normalised_as_the_recipe_says_and_missing_where_means_alone_are_kept():
    test = FakeSplit(np.random.default_rng(1).standard_normal((5, 3, 4, 50)) + 2)
    normed, after = (fewer(test, how, PICK)[2] for how in ("norm-then-mean", "mean-then-norm"))
    assert np.allclose(normed.mean(axis=-1), 0, atol=1e-6) and not np.allclose(normed, after)
    single = load_subject(subject(test=test), MODERN.with_(trial_norm="norm-then-mean", unit_scale=True))
    assert np.allclose(single.test.fewer[2], normed / single.scale, atol=1e-5)
    assert fewer(FakeSplit(test.epochs, keep="mean"), "none", PICK) == {}
    assert fewer(FakeSplit(test.epochs[:, :1]), "none", PICK) == {}
