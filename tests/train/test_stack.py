"""Brain encoders trained in one pass: each comes out as if it had been alone."""

import re

import numpy as np
import pytest
import torch

from pipelines.train import stack, stacking
from pipelines.train.brain_encoders import BRAIN_ENCODERS, READS, brain_encoder
from pipelines.train.data import load_subject
from pipelines.train.recipes import read_recipe
from pipelines.train.train import Against, RunConfig, train_run, train_together
from stores.epochs import EpochStore

pytestmark = pytest.mark.slow
N_TRAIN = 96
QUICK = read_recipe("modern", "eeg").with_(batch=32, passes=3, lr=1e-3, window=(), channels=())


@pytest.fixture(scope="module")
def against(workspace):
    values = [workspace.planted, workspace.unrelated, workspace.planted[::-1].copy()]
    return [Against(v[:N_TRAIN], v[N_TRAIN:]) for v in (v.astype(np.float32) for v in values)]


@pytest.fixture(scope="module")
def loaded(workspace):
    return load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], QUICK)


def require_equal(together, alone):
    assert together.metrics == alone.metrics
    assert together.state.keys() == alone.state.keys()
    for name, value in alone.state.items():
        assert torch.equal(together.state[name], value), name
    for name, value in alone.arrays.items():
        assert np.array_equal(together.arrays[name], value), name
    timeless = ({k: v for k, v in run.figures.items() if k != "seconds"} for run in (together, alone))
    assert next(timeless) == next(timeless)


@pytest.mark.parametrize("kind", [name for name in BRAIN_ENCODERS if "eeg" in READS[name] and "+" not in name])
def test_a_brain_encoder_trained_with_others_has_the_bits_it_has_alone(loaded, against, kind):
    data, config = loaded.ready(brain_encoder(kind), "cpu"), RunConfig(QUICK.with_(passes=2, brain_encoder=kind), 3)
    for together, one in zip(train_together(config, data, against), against, strict=True):
        require_equal(together, train_run(config, data, one.target, one.gallery))


@pytest.mark.parametrize(
    "changes",
    [
        {"patience": 1, "passes": 6, "choose_by": "val_loss", "lr_rule": "val-loss-cosine", "clip": 0.5, "lr": 3e-3},
        {"loss": "soft-clip", "learn_temperature": False, "image_head": "mlp", "dim": 8, "train_on": "random-2"},
    ],
)
def test_learners_that_stop_early_narrow_or_clip_have_the_bits_they_have_alone(workspace, against, changes):
    recipe = QUICK.with_(**changes)
    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], recipe)
    config = RunConfig(recipe.with_(brain_encoder="eegproject"), 3)
    alone = [train_run(config, data, one.target, one.gallery) for one in against]
    for together, one in zip(train_together(config, data, against), alone, strict=True):
        require_equal(together, one)
    if "patience" in changes:
        assert len({run.figures["steps"] for run in alone}) > 1  # they do not stop together


def test_whether_one_pass_pays_is_measured_and_said(loaded, against, monkeypatch):
    config = RunConfig(QUICK.with_(brain_encoder="eegproject"), 0)
    monkeypatch.setattr(stacking, "AT_LEAST", 0.0)
    chosen, why = stacking.pays(config, loaded, against)
    assert chosen and re.fullmatch(
        r"up to 16 runs in one pass on cpu: 3 take \d+\.\d\d of the time, with the same bits", why
    )
    monkeypatch.setattr(stacking, "AT_LEAST", 1e9)
    chosen, why = stacking.pays(config, loaded, against)
    assert not chosen and re.fullmatch(r"runs one by one on cpu: 3 in one pass take \d+\.\d\d of the time", why)


def test_one_pass_is_not_taken_where_it_changes_a_bit_or_cannot_be(loaded, against, monkeypatch):
    config = RunConfig(QUICK.with_(brain_encoder="eegproject"), 0)
    monkeypatch.setattr(stacking, "AT_LEAST", 0.0)
    monkeypatch.setattr(stack._Exactly, "ALONE", ())  # products for all networks at once
    chosen, why = stacking.pays(config, loaded, against)
    assert not chosen and why.endswith("with other bits")
    monkeypatch.setattr(stack.Stack, "gradients", lambda self, x, shown: torch.zeros(2).item())
    chosen, why = stacking.pays(config, loaded, against)
    assert not chosen and "3 in one pass do not work (" in why


def test_stacks_of_layers_are_routed_as_they_are_alone(workspace, loaded, against):
    config = RunConfig(QUICK.with_(several="route", brain_encoder="linear"), 3)
    pairs = [(against[0], against[1]), (against[2], against[0])]
    routed = [
        Against(*(np.hstack(both) for both in zip((a.target, a.gallery), (b.target, b.gallery), strict=True)), (24, 24))
        for a, b in pairs
    ]
    for together, one in zip(train_together(config, loaded, routed), routed, strict=True):
        require_equal(together, train_run(config, loaded, one.target, one.gallery, one.widths))
