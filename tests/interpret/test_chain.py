"""The way from the sensors: the same input as in training, and contributions that belong to sensors."""

import numpy as np
import pytest
import torch

from pipelines.interpret.chain import chain_of
from pipelines.interpret.interpret import _recorded
from pipelines.interpret.occlusion import occlude
from pipelines.train.data import load_subject
from pipelines.train.recipes import read_recipe
from stores.epochs import EpochStore
from stores.errors import StoreMismatch
from tests.interpret.conftest import CH_NAMES, write_whitened
from tests.train.conftest import DIM, TEST_IDS, TRAIN_IDS

NORMS = ["none", "norm-then-mean", "mean-then-norm"]


def recipe_of(planted, **changes):
    return read_recipe(planted.recipe, "eeg").with_(**changes)


def chain(planted, **changes):
    recipe, epochs = recipe_of(planted, **changes), EpochStore.open(planted.epochs)["things-eeg2", 1]
    loaded = load_subject(epochs, recipe)
    return chain_of(epochs, recipe, loaded.scale), loaded


@pytest.mark.parametrize("norm", NORMS)
def test_it_ends_in_what_the_run_was_tested_on(planted, norm):
    found, loaded = chain(planted, trial_norm=norm, window=(0.05, 0.5))
    assert np.allclose(found.input(), loaded.test.epochs.numpy(), atol=1e-4)


def test_sensors_are_what_was_whitened(planted):
    found, _ = chain(planted)
    stored = EpochStore.open(planted.epochs)["things-eeg2", 1].test
    mine = (found.image == 3) & (found.session == 1)
    whitened = stored.take([3])[0][stored.session[3] == 2].mean(axis=0)
    assert np.allclose(planted.whiteners[1][2] @ found.sensors[mine][0], whitened, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_contributions_of_sensors_add_up_to_those_of_the_input(planted, norm):
    found, _ = chain(planted, trial_norm=norm)
    gradient = np.random.default_rng(0).standard_normal(found.input().shape)
    at_input = (gradient * found.input_change()).sum(axis=(1, 2))
    assert np.allclose(found.contributions(gradient).sum(axis=(1, 2)), at_input, atol=1e-4)
    if norm == "none":  # whitening mixes sensors, never times
        over_time = (gradient * found.input_change()).sum(axis=1)
        assert np.allclose(found.contributions(gradient).sum(axis=1), over_time, atol=1e-4)


def test_contributions_are_what_torch_finds_by_differentiating_through_each_sessions_whitening(planted):
    found, _ = chain(planted)
    sensors = torch.tensor(found.sensors, dtype=torch.float64, requires_grad=True)
    matrices = torch.tensor(np.stack(found.whiteners)[:, found.chans])[torch.tensor(found.session)]
    weighted = (matrices @ sensors) * torch.tensor(found.weight)[:, None, None]
    mean = torch.zeros(found.n_images, *weighted.shape[1:], dtype=torch.float64)
    mean = mean.index_add(0, torch.tensor(found.image), weighted) / found.scale
    gradient = np.random.default_rng(0).standard_normal(mean.shape)
    mean.backward(torch.tensor(gradient))
    per_unit = sensors.grad.numpy() * found.change()
    expected = np.zeros((found.n_images, *per_unit.shape[1:]))
    np.add.at(expected, found.image, per_unit)
    assert np.allclose(found.contributions(gradient), expected, atol=1e-5)


def test_a_store_of_means_alone_is_read_with_the_average_whitener_and_says_so(planted, tmp_path):
    store = EpochStore.open(tmp_path / "epochs.zarr", create=True)
    embedding = np.random.default_rng(0).standard_normal((len(TRAIN_IDS + TEST_IDS), DIM))
    write_whitened(store, 1, [(embedding, (0.1, 0.2))], keep="mean")
    recipe, epochs = recipe_of(planted), store["things-eeg2", 1]
    loaded = load_subject(epochs, recipe)
    found = chain_of(epochs, recipe, loaded.scale)
    assert np.allclose(found.input(), loaded.test.epochs.numpy(), atol=1e-4)
    assert "average whitener" in found.notes[0] and "by up to 20 %" in found.notes[0]  # of gains 1 and 1/1.5


def test_a_session_without_a_whitener_is_not_unmixed_with_that_of_another(planted, monkeypatch):
    recipe, epochs = recipe_of(planted), EpochStore.open(planted.epochs)["things-eeg2", 1]
    monkeypatch.setitem(epochs.info, "sessions", [1])
    with pytest.raises(StoreMismatch, match="session 2, and no whitener"):
        chain_of(epochs, recipe, 1.0)


def test_recordings_that_are_not_what_the_run_was_tested_on_are_not_explained(planted):
    epochs = EpochStore.open(planted.epochs)["things-eeg2", 1]
    assert _recorded(epochs, recipe_of(planted)).sensors == CH_NAMES
    epochs.arrays["whitener"][1, 7] = 0.0
    with pytest.raises(StoreMismatch, match="others than the run was tested on"):
        _recorded(epochs, recipe_of(planted))


def test_parts_are_taken_away_at_the_sensors_before_whitening(planted):
    found, _ = chain(planted)
    seen = []

    def score(x):
        seen.append(x)
        return x.sum(axis=(1, 2)), 0.5

    times = np.arange(found.sensors.shape[2]) / 250
    groups = {"occipital": np.array([6, 7, 8])}
    parts = occlude(found, times, 250.0, groups, score, 2.0)
    labels = [(part.kind, part.part) for part in parts]
    assert labels[2] == ("time", "100 to 150 ms") and ("band", "alpha") in labels
    of = dict(zip(labels, seen[1:], strict=True))
    average = {s: found.sensors[found.session == s].mean(axis=0) for s in (0, 1)}

    def by_hand(change):
        total = np.zeros_like(found.input())
        for unit in range(len(found.sensors)):
            image, session = found.image[unit], found.session[unit]
            y = change(found.sensors[unit].copy(), average[session])
            total[image] += found.weight[unit] * (found.whiteners[session][found.chans] @ y) / found.scale
        return total

    def without_sensors(y, mean):
        y[[6, 7, 8]] = mean[[6, 7, 8]]
        return y

    def without_time(y, mean):
        inside = (times >= 0.1 - 1e-9) & (times < 0.15 - 1e-9)
        y[:, inside] = mean[:, inside]
        return y

    def without_alpha(y, mean):
        mirrored = np.concatenate([y - mean, (y - mean)[:, ::-1]], axis=1)
        frequency, spectrum = np.fft.rfftfreq(2 * len(times), 1 / 250), np.fft.rfft(mirrored)
        spectrum[:, (frequency < 8) | (frequency >= 12)] = 0
        return y - np.fft.irfft(spectrum, 2 * len(times))[:, : len(times)]

    for label, change in (
        (("sensors", "occipital"), without_sensors),
        (("time", "100 to 150 ms"), without_time),
        (("band", "alpha"), without_alpha),
    ):
        assert np.allclose(of[label], by_hand(change), atol=1e-4), label
    assert parts[0].share == parts[0].lost / 2.0
    # Not the same as taking away whitened channels: those are mixtures of sensors.
    whitened = found.input()
    whitened[:, [2, 3, 4]] = whitened[:, [2, 3, 4]].mean(axis=0)
    assert not np.allclose(of["sensors", "occipital"], whitened, atol=0.1)
    assert len(CH_NAMES) == found.sensors.shape[1] > len(found.chans)


@pytest.mark.parametrize("norm", NORMS)
def test_blocks_change_nothing_and_the_whitened_are_there_once(planted, norm, monkeypatch):
    whole, _ = chain(planted, trial_norm=norm)
    monkeypatch.setattr("pipelines.interpret.chain.BLOCK", 7 * len(CH_NAMES) * 150)  # ends within images and sessions
    blocks, _ = chain(planted, trial_norm=norm)
    gradient = np.random.default_rng(0).standard_normal(whole.input().shape)
    sizes, whiten = [], blocks._whiten
    monkeypatch.setattr(blocks, "_whiten", lambda sensors, units: sizes.append(len(sensors)) or whiten(sensors, units))
    assert np.allclose(blocks.input(), whole.input(), atol=1e-5)
    assert np.allclose(blocks.input(lambda x: 0.5 * x), whole.input(lambda x: 0.5 * x), atol=1e-5)
    assert np.allclose(blocks.input_change(), whole.input_change(), atol=1e-5)
    n = len(sizes)
    assert np.allclose(blocks.contributions(gradient), whole.contributions(gradient), atol=1e-4)
    assert max(sizes) == 7 and len(sizes) == n, "norms are measured once"


@pytest.mark.parametrize("norm", ["norm-then-mean", "mean-then-norm"])
def test_what_is_left_is_normalised_anew(planted, norm):
    found, _ = chain(planted, trial_norm=norm)
    seen = []
    occlude(found, np.arange(150) / 250, 250.0, {}, lambda x: seen.append(x) or (x.sum(axis=(1, 2)), 0.5), 1.0)
    assert np.allclose(seen[1], found.input(lambda change: np.where(np.arange(150) < 13, change, 0)))  # 0 to 48 ms
    assert not np.allclose(seen[1][..., 13:], seen[0][..., 13:])
