"""The recipe `paper` does, step by step, what a transcription of the facts about the paper's code does.

    EMBEDCTL_FULL_SIZE=1 python -m pytest tests/train/test_paper_recipe.py -m slow -n 0

does so on a subject of the real size, in ten minutes or more and 10 GB. Network, loss, optimiser, clipping, learning
rate and validation are transcribed, and so is what recordings are loaded as and how many images are held out and shown.
Which images these are, and in which order, no transcription can tell: the facts name no random numbers. There it takes
what `Course` draws, and the share, the sizes and that every pass has an order of its own are asked for by themselves.
"""

import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pipelines.train import data as data_module
from pipelines.train.course import Course
from pipelines.train.data import Recordings, load_subject
from pipelines.train.losses import unit
from pipelines.train.recipes import read_recipe
from pipelines.train.splits import split_images
from pipelines.train.train import RunConfig, train_run
from stores.epochs import EpochStore
from tests.train.published_nice import PublishedNICE

FULL_SIZE = bool(os.environ.get("EMBEDCTL_FULL_SIZE"))
N_IMAGES, N_CHANS, N_TIMES, DIM = (16_540, 63, 250, 768) if FULL_SIZE else (300, 5, 80, 24)
BATCH, PASSES = (128, 1) if FULL_SIZE else (64, 25)
SEED = 42


class PaperNICE(nn.Module):
    """The published network layer by layer, then AlignVis's linear map."""

    def __init__(self):
        super().__init__()
        self.backbone = PublishedNICE(N_CHANS, N_TIMES, DIM).train()
        self.represent = nn.Linear(DIM, DIM)

    def forward(self, x):
        return self.represent(self.backbone(x))

    @torch.no_grad()
    def start_from(self, ours):
        conv, mix, linear = self.backbone.tsconv, self.backbone.projection, self.backbone.linear
        conv[0].weight.copy_(ours.temporal.weight.reshape(40, 1, 1, 25))
        conv[0].bias.copy_(ours.temporal.bias)
        conv[4].weight.copy_(ours.spatial.weight.reshape(40, N_CHANS, 40).transpose(1, 2)[..., None])
        conv[4].bias.copy_(ours.spatial.bias)
        mix.weight.copy_(ours.mix.weight[..., None, None])
        mix.bias.copy_(ours.mix.bias)
        for mine, theirs in (
            (linear, ours.head.project),
            (self.backbone.residual, ours.head.residual),
            (self.backbone.norm, ours.head.norm),
            (self.represent, ours.represent),
        ):
            mine.load_state_dict(theirs.state_dict())


def simulated():
    """Recordings that carry the embedding weakly, normalised per trial and averaged as the facts say for EEG."""
    rng = np.random.default_rng(3)
    target = rng.standard_normal((N_IMAGES, DIM))
    mixing = rng.standard_normal((DIM, N_CHANS * N_TIMES)) / DIM**0.5
    means = []
    for part in np.split(target, range(500, N_IMAGES, 500)):  # all trials at once would be 25 GB
        trials = (part @ mixing).reshape(len(part), 1, N_CHANS, N_TIMES)
        trials = trials + 2 * rng.standard_normal((len(part), 4, N_CHANS, N_TIMES))
        trials = (trials - trials.mean(axis=-1, keepdims=True)) / np.linalg.norm(trials, axis=-1, keepdims=True)
        means.append(trials.mean(axis=1))
    epochs = torch.from_numpy(np.concatenate(means))
    ids = [f"c{i // 10:02d}/{i}.jpg" for i in range(N_IMAGES)]
    concepts = [i.split("/")[0] for i in ids]
    test = data_module.Test(epochs[:8], np.arange(8), ids[:8], concepts[:8], None)
    data = Recordings(
        image_ids=ids,
        concepts=concepts,
        mean=epochs,
        rows=epochs,
        shown=torch.arange(N_IMAGES),
        n_times=N_TIMES,
        ch_names=[f"E{c}" for c in range(N_CHANS)],
        test=test,
    )
    return data, target


def transcription(data, target, start, n_passes, batch, lr, temperature):
    """Return the loss of every step and the learning rate it was made with: the facts, line by line."""
    split = split_images(data.image_ids, data.concepts, "image", share=0.1, at_most=10**6, seed=SEED, round_of=64)
    held = torch.from_numpy(np.concatenate(split.rounds))
    model = PaperNICE()
    model.start_from(start)
    no_dropout(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=10, eta_min=1e-7)
    images, train, order_of = torch.from_numpy(target), torch.from_numpy(split.train), torch.Generator()
    order_of.manual_seed(SEED)

    def loss_of(rows):
        z, v = model(data.mean[rows]), images[rows]
        z, v = (functional.normalize(x - x.mean(dim=1, keepdim=True), dim=1) for x in (z, v))
        logits, labels = z @ v.T / temperature, torch.arange(len(rows))
        return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2

    losses, rates = [], []
    for _ in range(n_passes):
        model.train()
        order = train[torch.randperm(len(train), generator=order_of)]
        for rows in order.split(batch):
            if len(rows) < batch:
                break  # the loader drops the last batch
            loss = loss_of(rows)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            val_loss = np.mean([loss_of(rows).item() for rows in held.split(64)])
        scheduler.step(val_loss)
    return losses, rates


def no_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two forms of the network draw different masks


@pytest.fixture
def float64():
    """Double precision: AdamW blows rounding in gradients that are zero up to it, before a norm, up to whole steps."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_a_hundred_steps_of_the_paper_follow_a_transcription_of_it(monkeypatch, float64):
    from pipelines.train import learner as module

    paper = read_recipe("paper", "eeg").with_(batch=BATCH, passes=PASSES)
    start, losses, rates = [], [], []
    kind = module.brain_encoder("nice+linear")

    class Watched(kind):
        def __init__(self, *shape):
            super().__init__(*shape)
            no_dropout(self)
            start.append({name: value.clone() for name, value in self.state_dict().items()})

    loss_of, step = module.loss_function("info-nce"), torch.optim.AdamW.step

    def watched_loss(brain, image, scale, shown):
        loss = loss_of(brain, image, scale, shown)
        if loss.requires_grad:
            losses.append(loss.item())
        return loss

    def watched_step(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    data, target = simulated()
    monkeypatch.setattr(module, "brain_encoder", lambda name: Watched)
    monkeypatch.setattr(module, "loss_function", lambda name: watched_loss)
    monkeypatch.setattr(
        "pipelines.train.image_side.image_vectors", lambda values, device: unit(torch.from_numpy(values)) * DIM**0.5
    )
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", watched_step)
        outcome = train_run(RunConfig(paper, SEED), data.ready(kind, "cpu"), target, target[:8])

    same_start = kind(N_CHANS, N_TIMES, DIM)
    same_start.load_state_dict(start[0])
    expected = transcription(data, target, same_start, PASSES, BATCH, paper.lr, paper.temperature)
    assert len(losses) == len(expected[0]) == outcome.figures["steps"] == (116 if FULL_SIZE else 100)
    assert np.abs(np.array(losses) - expected[0]).max() < 1e-4
    assert np.abs(np.array(rates) / expected[1] - 1).max() < 1e-4
    assert rates[0] == paper.lr and (FULL_SIZE or min(rates) < 0.95 * paper.lr)  # from the first validation on
    assert FULL_SIZE or losses[-1] < losses[0] - 0.1


def test_training_ends_when_patience_does_and_keeps_the_best_pass(monkeypatch, float64):
    from pipelines.train import learner as module

    figures = iter([5.0, 4.0, 4.5, 4.6, 4.7, 4.8, 1.0])
    monkeypatch.setattr(module, "validate", lambda *args: {"val_loss": next(figures), "val_mrr": 0.1, "val_top1": 0.1})
    monkeypatch.setattr(
        "pipelines.train.image_side.image_vectors", lambda values, device: unit(torch.from_numpy(values)) * DIM**0.5
    )
    data, target = simulated()
    paper = read_recipe("paper", "eeg", "linear").with_(batch=64, passes=50, patience=3)
    outcome = train_run(RunConfig(paper.with_(brain_encoder="linear"), SEED), data, target, target[:8])
    assert outcome.figures["checkpoint"] == "val_loss:2"
    assert [row["pass"] for row in outcome.metrics] == [1, 2, 3, 4, 5]
    assert outcome.figures["steps"] == 20


def test_a_tenth_of_the_images_is_held_out_in_batches_of_64_and_every_pass_shows_the_rest_in_another_order():
    ids = [f"c{i // 10:04d}/{i}.jpg" for i in range(16_540)]
    paper, concepts = read_recipe("paper", "eeg"), [i.split("/")[0] for i in ids]
    rows = torch.zeros(len(ids), 1, 1)
    test = data_module.Test(rows[:2], np.arange(2), ids[:2], concepts[:2], None)
    about = {"image_ids": ids, "concepts": concepts, "mean": rows, "rows": rows, "test": test}
    data = Recordings(shown=torch.arange(len(ids)), n_times=1, ch_names=["E"], **about)
    held_of = []
    for seed in paper.seeds[:2]:
        course = Course(paper, seed, data)
        held, passes = course.held.images.tolist(), [[s.tolist() for _, s in course.batches()] for _ in range(2)]
        assert course.held.sizes == 25 * [64] + [54] and len(set(held)) == 1654
        assert {concepts[row] for row in held} & {concepts[row] for row in course.train}  # images, not concepts
        for batches in passes:
            shown = sum(batches, [])
            assert [len(batch) for batch in batches] == 116 * [128]  # of 14,886, the last 38 are dropped
            assert len(set(shown)) == len(shown) and not set(shown) & set(held)
        assert passes[0] != passes[1]
        held_of.append(set(held))
    assert held_of[0] != held_of[1]


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_recordings_are_loaded_as_the_facts_say(workspace, modality):
    """EEG: centred, divided by the norm before, then averaged. MEG: trials so, and test means, averaged before."""
    epochs = EpochStore.open(workspace.epochs)["things-eeg2", 1]
    data = load_subject(epochs, read_recipe("paper", modality).with_(window=()))

    def normalised(x):
        return (x - x.mean(axis=-1, keepdims=True)) / np.linalg.norm(x, axis=-1, keepdims=True)

    train, test = (split.take(np.arange(len(split.image_ids))).astype(float) for split in (epochs.train, epochs.test))
    if modality == "eeg":
        rows, test = normalised(train).mean(axis=1), normalised(test).mean(axis=1)
    else:
        rows, test = normalised(train).reshape(-1, *train.shape[2:]), normalised(test.mean(axis=1))
        assert data.shown.tolist() == np.repeat(np.arange(len(train)), train.shape[1]).tolist()
    assert np.abs(data.rows.numpy() - rows).max() < 1e-6
    assert np.abs(data.test.epochs.numpy() - test).max() < 1e-6


@pytest.mark.parametrize("val_loss", [0.0, 1.5, 4.16, 9.99, 10.0, 12.5, 27.0])
def test_the_learning_rate_is_that_of_a_scheduler_told_the_validation_loss_for_the_pass(val_loss):
    from pipelines.train.learner import val_loss_cosine

    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=10, eta_min=1e-7)
    optimiser.step()
    scheduler.step(val_loss)
    assert val_loss_cosine(2e-4, val_loss) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
