"""Across subjects nothing of the tested subject is trained on, and no test trial of anybody else is read."""

import gc
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines import memory
from pipelines.interpret.interpret import interpret
from pipelines.interpret.request import InterpretRequest
from pipelines.train import company as company_module
from pipelines.train import cross as cross_module
from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.cross import load_cross
from pipelines.train.data import load_training
from pipelines.train.recipes import read_recipe
from pipelines.train.repetitions import BLOCK_BYTES
from pipelines.train.request import TrainRequest
from pipelines.train.splits import split_images
from pipelines.train.sweep import train
from pipelines.train.train import RunConfig, train_run
from stores.epochs import EpochStore
from stores.errors import DamagedStore, EmbedctlError
from stores.results import read_checkpoint, read_config, read_results
from tests.train.conftest import TRAIN_IDS, write_subject

QUICK = read_recipe("modern", "eeg").with_(batch=64, passes=3, lr=1e-3, window=(), channels=())
TESTED, VALIDATION, TRAINING = 4, 1, (2, 3)


@pytest.fixture(scope="module")
def four(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("four") / "epochs.zarr"
    epochs = EpochStore.open(folder, create=True)
    for subject in (1, 2, 3, 4):
        write_subject(epochs, subject, workspace.planted)
    return folder


def ask(workspace, epochs, runs, **changes):
    asked = {"brain": "eeg", "models": ("planted",), "subjects": (TESTED,), "protocol": "cross", "device": "cpu"}
    return TrainRequest(
        **asked | {"embeddings": workspace.embeddings, "epochs": epochs, "recipe": workspace.recipe} | changes,
        runs=runs,
    )


@pytest.fixture(scope="module")
def swept(workspace, four, tmp_path_factory):
    return train(ask(workspace, four, tmp_path_factory.mktemp("cross") / "runs"))


def test_a_subject_nobody_trained_on_is_decoded(swept):
    (row,) = read_results(swept.runs).to_pylist()
    assert row["top1"] > 4 / 16
    assert (row["subject"], row["protocol"], row["train_subjects"], row["split"]) == (4, "cross", "2,3", "concept")
    assert read_config(swept.runs, row["run_id"])["validation_subject"] == VALIDATION
    assert any(note.startswith("recordings of 2 subjects at once") for note in swept.notes)
    said = CliRunner().invoke(app, ["results", "--runs", str(swept.runs)]).stdout.splitlines()
    assert "protocol" in said[0].split() and "cross" in said[1].split()


def remove(epochs, subject, split):
    for name in ("epochs", "mean", "valid", "session"):
        shutil.rmtree(epochs / "things-eeg2" / f"sub-{subject:02d}" / split / name / "c")


def test_neither_test_trials_of_the_others_nor_training_trials_of_the_tested_subject_are_read(
    workspace, four, swept, tmp_path
):
    """They are not there, and the run is the same to the last bit."""
    epochs = tmp_path / "epochs.zarr"
    shutil.copytree(four, epochs)
    for subject in (VALIDATION, *TRAINING):
        remove(epochs, subject, "test")
    remove(epochs, TESTED, "train")
    blind = train(ask(workspace, epochs, tmp_path / "runs"))
    run = swept.jobs[0].run_id
    assert blind.jobs[0].run_id == run
    assert read_checkpoint(blind.runs, run) == read_checkpoint(swept.runs, run)
    remove(epochs, TRAINING[0], "train")  # what is read would be missed
    with pytest.raises(DamagedStore):
        train(ask(workspace, epochs, tmp_path / "others"))


def loaded(four, recipe=QUICK, kind="eegproject"):
    store = EpochStore.open(four)
    subjects = [store["things-eeg2", s] for s in (TESTED, *TRAINING, VALIDATION)]
    return load_cross(subjects[0], subjects[1:3], subjects[3], recipe, brain_encoder(kind))


def outcome(workspace, data, recipe=QUICK):
    values = workspace.planted.astype(np.float32)
    n = len(TRAIN_IDS)
    return train_run(
        RunConfig(recipe.with_(brain_encoder="eegproject"), 0),
        data.ready(brain_encoder("eegproject"), "cpu"),
        values[:n],
        values[n:],
    )


def test_concepts_held_out_are_trained_on_through_nobody(workspace, four):
    data = loaded(four)
    split = split_images(data.image_ids, data.concepts, "concept", share=0.125, at_most=200, seed=0)
    held = torch.from_numpy(np.setdiff1d(np.arange(len(data.image_ids)), split.train))
    of_held = torch.isin(data.shown, held)
    assert of_held.sum() == 2 * len(held) > 0
    before = outcome(workspace, data)
    data.rows[of_held] = torch.randn_like(data.rows[of_held])
    after = outcome(workspace, data)
    assert after.metrics == before.metrics
    data.rows[~of_held] = torch.randn_like(data.rows[~of_held])
    assert outcome(workspace, data).metrics != before.metrics


def test_rows_are_the_training_subjects_on_one_scale_and_validation_is_another_subjects(four):
    data, store = loaded(four), EpochStore.open(four)
    raw = torch.cat([torch.from_numpy(store["things-eeg2", s].train.mean) for s in TRAINING])
    assert data.scale == pytest.approx(raw.std(correction=0).item(), rel=1e-5)
    assert torch.allclose(data.rows, raw / data.scale, atol=1e-5)
    assert torch.allclose(data.mean, torch.from_numpy(store["things-eeg2", 1].train.mean) / data.scale, atol=1e-5)
    assert torch.allclose(data.test.epochs, torch.from_numpy(store["things-eeg2", 4].test.mean) / data.scale, atol=1e-5)
    assert data.whose.tolist() == [0] * len(TRAIN_IDS) + [1] * len(TRAIN_IDS)


def test_what_would_take_too_much_memory_is_held_in_half_of_it(workspace, four, monkeypatch):
    whole = outcome(workspace, loaded(four)).metrics
    monkeypatch.setattr(cross_module, "FLOAT16_ABOVE", 1000)
    data = loaded(four)
    assert data.rows.dtype == torch.float16
    halved = outcome(workspace, data).metrics
    assert [row["loss"] for row in halved] == pytest.approx([row["loss"] for row in whole], rel=0.02)


def test_what_there_is_no_memory_for_is_told_by_a_dry_run_and_refused_before_anything_runs(
    workspace, four, tmp_path, monkeypatch
):
    store = EpochStore.open(four)
    told, dtype = cross_module.memory_of([store["things-eeg2", s] for s in TRAINING], QUICK)
    rows = loaded(four).rows
    assert (told - 4 * BLOCK_BYTES, dtype) == (2 * rows.nbytes, rows.dtype)  # one subject as read, one to validate on
    monkeypatch.setattr(company_module, "bytes_there", lambda: 8e9)
    monkeypatch.setattr(memory, "bytes_there", lambda: 2.5 * (told + memory.BYTES_EACH))
    planned = train(ask(workspace, four, tmp_path / "runs", subjects=(3, 4), seeds=(0, 1), workers=3, dry_run=True))
    assert planned.notes[0].endswith("0.1 GB of memory, as float32; this computer has 8.0 GB")
    with pytest.raises(EmbedctlError, match="0.1 GB of memory in each of 3 processes, this computer has 1.8 GB"):
        train(ask(workspace, four, tmp_path / "runs", subjects=(3, 4), seeds=(0, 1), workers=3))
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(memory, "bytes_there", lambda: told)
    with pytest.raises(EmbedctlError, match="0.1 GB of memory, this computer has 0.1 GB"):
        loaded(four)


def test_nothing_of_a_subject_stays_in_memory_but_its_rows(workspace, four, monkeypatch):
    """Neither its means as stored, all channels of them, nor, once the next one is loaded, anything."""
    rows, opened, load = [], [], company_module.Company.load

    def watched(self, *asked):
        gc.collect()
        assert [of() for of in rows] == [None] * len(rows)
        found = load(self, *asked)
        rows.append(weakref.ref(found.rows))
        opened.extend([self.tested, self._validation, *self._training])
        return found

    monkeypatch.setattr(company_module.Company, "load", watched)
    done = train(ask(workspace, four, workspace.folder / "stays", subjects=(3, 4), recipe=workspace.recipe))
    assert len(rows) == done.n_to_do == 2
    assert not [one for one in opened if "mean" in {**vars(one.train), **vars(one.test)}]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["norm-then-mean", "none", "trials"])
def test_the_memory_that_is_told_is_what_reading_takes(tmp_path, recipe):
    """In a process of its own: five subjects of 1,500 images x 3 x 63 x 250, the rows of three in float16."""
    told, took = subprocess.run(
        [sys.executable, "-m", "tests.train.cross_memory", str(tmp_path), recipe],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    # Blocks in passing are an allowance, more than half of the smallest of these: how many meet is chance.
    assert 0.6 * float(told) < float(took) < 1.1 * float(told)


def test_what_a_recipe_says_of_runs_across_subjects_holds_for_these_alone(tmp_path):
    within, across = (read_recipe("paper", "eeg", "", protocol) for protocol in ("within", "cross"))
    assert (within.passes, within.batch, within.lr) == (50, 128, 2e-4)
    assert (across.passes, across.batch, across.lr, across.temperature) == (150, 512, 1e-4, 0.04)
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "paper"\nlr = 1e-3\n[cross]\nbatch = 64\n')
    recipe = read_recipe(str(mine), "eeg", "", "cross")
    assert (recipe.passes, recipe.batch, recipe.lr) == (150, 64, 1e-3)
    with pytest.raises(EmbedctlError, match=r"unknown setting 'pases' in \[cross\]"):
        mine.write_text('base = "paper"\n[cross]\npases = 3\n')
        read_recipe(str(mine), "eeg")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ch_names": list("ABCDEF")}, r"subject 1 .* than of subject 4: 6 \(O1, Oz, O2, ...\), not 6 \(A, B"),
        ({"ch_names": ["Oz", "O1", "O2", "PO7", "Fz", "Cz"]}, "other channels are read"),
        ({"times": [0.1 + t / 80 for t in range(80)]}, "other moments are read"),
    ],
)
def test_a_subject_of_other_channels_or_moments_is_refused_before_anything_runs(
    workspace, four, tmp_path, monkeypatch, changes, said
):
    opened = EpochStore.__getitem__

    def changed(store, key):
        found = opened(store, key)
        for name, value in changes.items() if key[1] == TESTED else ():
            setattr(found, name, value)
        return found

    monkeypatch.setattr(EpochStore, "__getitem__", changed)
    recipe = tmp_path / "all.toml"
    recipe.write_text('base = "modern"\nchannels = []\nwindow = []\n')
    with pytest.raises(EmbedctlError, match=said):
        train(ask(workspace, four, tmp_path / "runs", recipe=str(recipe), dry_run=True))


def test_an_encoders_first_step_is_done_once(four):
    nice = brain_encoder("nice")
    store = EpochStore.open(four)
    data = loaded(four, kind="nice").ready(nice, "cpu")
    part = load_training(store["things-eeg2", 2], QUICK)
    expected = nice.prepare(part.rows * (part.scale / data.scale))
    assert torch.allclose(data.rows[: len(expected)], expected, atol=1e-5)
    assert data.mean.shape[1:] == data.test.epochs.shape[1:] == expected.shape[1:]


def test_random_repetitions_are_never_averaged_over_subjects(four):
    from pipelines.train.draws import Draws

    data = loaded(four, QUICK.with_(train_on="random-2"))
    draws = Draws(data.shown + len(data.image_ids) * data.whose, torch.arange(len(data.rows)), 2)
    picked, _ = draws.of_pass(torch.Generator().manual_seed(0))
    assert len(draws) == 2 * len(TRAIN_IDS)
    assert torch.equal(data.whose[picked[:, 0]], data.whose[picked[:, 1]])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "image"}, "hold out concepts"),
        ({"protocol": "among"}, "no protocol called 'among'"),
    ],
)
def test_what_cannot_be_asked_across_subjects_is_refused(workspace, four, tmp_path, changes, said):
    with pytest.raises(EmbedctlError, match=said):
        train(ask(workspace, four, tmp_path / "runs", **changes))


def test_two_subjects_are_too_few_and_voxels_differ(workspace, tmp_path):
    with pytest.raises(EmbedctlError, match="2 subjects are too few"):
        train(ask(workspace, workspace.epochs, tmp_path / "runs", subjects=(1,)))
    store = EpochStore.open(tmp_path / "voxels.zarr", create=True)
    write_subject(store, 1, workspace.planted, dataset="nsd", modality="fmri")
    with pytest.raises(EmbedctlError, match="their voxels differ"):
        train(ask(workspace, tmp_path / "voxels.zarr", tmp_path / "runs", brain="fmri", subjects=()))


def test_a_run_across_subjects_is_not_interpreted_and_says_so(workspace, four, swept):
    stores = {"embeddings": workspace.embeddings, "epochs": four, "runs": swept.runs}
    with pytest.raises(EmbedctlError, match="it was trained on other subjects"):
        interpret(InterpretRequest(**stores))
