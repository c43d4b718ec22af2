"""One run: it learns what is there, chooses on validation alone, and gives the same bits again."""

import numpy as np
import pytest
import torch

from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.data import load_subject
from pipelines.train.recipes import read_recipe
from pipelines.train.train import Against, RunConfig, train_run, train_together
from stores.epochs import EpochStore
from stores.errors import EmbedctlError

QUICK = read_recipe("modern", "eeg").with_(batch=32, passes=6, lr=1e-3, window=(), channels=())
N_TRAIN = 96


def run(workspace, recipe=QUICK, kind="eegproject", seed=0, target="planted", change=lambda data: data):
    data = change(load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], recipe))
    values = getattr(workspace, target).astype(np.float32)
    config = RunConfig(recipe.with_(brain_encoder=kind), seed)
    return train_run(config, data.ready(brain_encoder(kind), "cpu"), values[:N_TRAIN], values[N_TRAIN:])


@pytest.mark.parametrize("kind", ["eegproject", "nice"])
def test_a_planted_embedding_is_found_and_an_unrelated_one_is_not(workspace, kind):
    recipe = QUICK.with_(passes=6 if kind == "eegproject" else 30)
    assert run(workspace, recipe, kind).figures["top1"] > 0.5
    assert run(workspace, recipe, kind, target="unrelated").figures["top1"] < 0.3


@pytest.mark.parametrize("kind", ["eegproject", "nice"])
def test_the_same_seed_gives_the_same_bits(workspace, kind):
    torch.manual_seed(1)
    first = run(workspace, kind=kind)
    torch.manual_seed(2)  # what was drawn before is no matter
    second = run(workspace, kind=kind)
    assert first.metrics == second.metrics
    assert all(torch.equal(first.state[key], second.state[key]) for key in first.state)
    assert all(np.array_equal(first.arrays[key], second.arrays[key]) for key in first.arrays)
    assert run(workspace, kind=kind, seed=1).metrics != first.metrics


def test_a_temperature_at_its_limit_is_learned_and_never_beyond_it(workspace):
    recipe = QUICK.with_(temperature=0.01, learn_temperature=True)
    assert run(workspace, recipe, target="unrelated").state["log_scale"].exp().item() < 99.9
    pushed = run(workspace, recipe.with_(weight_decay=0.0, lr=1.0, passes=2), kind="linear")
    assert pushed.state["log_scale"].exp().item() <= 100.001


def test_the_number_of_threads_does_not_change_the_bits(workspace):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(workspace, QUICK.with_(dim=8))
        torch.set_num_threads(2)
        two = run(workspace, QUICK.with_(dim=8))
    finally:
        torch.set_num_threads(threads)
    assert one.metrics == two.metrics
    assert all(np.array_equal(one.arrays[key], two.arrays[key]) for key in one.arrays)


def test_a_run_leaves_the_random_numbers_and_threads_of_the_program_alone(workspace):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    run(workspace)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_scrambling_the_test_recordings_changes_no_checkpoint_and_no_validation_number(workspace):
    def scramble(data):
        data.test.epochs.copy_(torch.randn(data.test.epochs.shape) * 1e3)
        return data

    honest, scrambled = run(workspace), run(workspace, change=scramble)
    assert honest.metrics == scrambled.metrics
    assert honest.figures["checkpoint"] == scrambled.figures["checkpoint"]
    assert all(torch.equal(honest.state[key], scrambled.state[key]) for key in honest.state)
    assert honest.figures["top1"] > scrambled.figures["top1"]


def test_the_test_set_is_read_only_after_the_last_step(workspace, monkeypatch):
    from pipelines.train import train as module

    reads = []

    class Watched:
        """The test set, telling when its recordings are read."""

        def __init__(self, test):
            self._test = test

        def __getattr__(self, name):
            if name == "epochs":
                reads.append(len(steps))
            return getattr(self._test, name)

    steps = []
    plain = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: (steps.append(1), plain(self, *args))[1])
    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], QUICK)
    object.__setattr__(data, "test", Watched(data.test))
    values = workspace.planted.astype(np.float32)
    module.train_run(RunConfig(QUICK.with_(brain_encoder="eegproject"), 0), data, values[:N_TRAIN], values[N_TRAIN:])
    assert reads == [len(steps)]


def test_figures_are_those_of_the_kept_scores(workspace):
    from pipelines.train.metrics import retrieve

    outcome = run(workspace)
    found = retrieve(outcome.arrays["scores"], outcome.arrays["target"])
    assert outcome.figures["top1"] == found.top(1) == outcome.arrays["hits"].mean()
    assert outcome.last["top1"] == retrieve(outcome.arrays["scores_last"], outcome.arrays["target"]).top(1)
    assert outcome.figures["chance"] == 1 / 16
    assert (outcome.figures["n_way"], outcome.figures["n_queries"]) == (16, 16)
    assert outcome.figures["concept_top1"] is None  # one image per concept: a centre of it would be the image itself
    # 24 concepts: 3 held out, 84 images left, 2 whole batches of 32 in each of 6 passes
    assert outcome.figures["steps"] == 12


def test_concepts_are_found_by_the_centres_of_images_that_no_query_shows(workspace):
    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], QUICK).ready(
        brain_encoder("linear"), "cpu"
    )
    values, rng = workspace.planted.astype(np.float32), np.random.default_rng(0)
    near = np.concatenate([values[N_TRAIN:] + 0.3 * rng.standard_normal((16, values.shape[1])) for _ in range(3)])
    config = RunConfig(QUICK.with_(image_head="none", brain_encoder="linear"), 0)
    against = Against(values[:N_TRAIN], values[N_TRAIN:], (), near.astype(np.float32), data.test.concepts * 3)
    (outcome,) = train_together(config, data, [against])
    centres = np.stack([np.mean([_unit(v) for v in near[k::16]], axis=0) for k in range(16)])
    scores = [[brain @ _unit(centre, centred=True) for centre in centres] for brain in outcome.arrays["brain"]]
    assert outcome.figures["concept_top1"] == np.mean(np.argmax(scores, axis=1) == np.arange(16))
    assert 0.3 < outcome.figures["concept_top1"] != outcome.figures["top1"]


def _unit(x, centred=False):
    x = x if centred else x - x.mean()
    return x / np.linalg.norm(x)


def test_the_checkpoint_gives_the_kept_brain_embeddings(workspace):
    from pipelines.train.losses import unit

    outcome = run(workspace)
    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], QUICK)
    model = brain_encoder("eegproject")(6, 80, 24)
    prefix = "brain."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in outcome.state.items() if k.startswith(prefix)})
    with torch.inference_mode():
        assert torch.allclose(
            unit(model.eval()(data.test.epochs)), torch.from_numpy(outcome.arrays["brain"]), atol=1e-6
        )


@pytest.mark.parametrize("image_head", ["none", "linear", "mlp"])
def test_every_image_head_trains(workspace, image_head):
    outcome = run(workspace, QUICK.with_(image_head=image_head))
    assert outcome.metrics[-1]["loss"] < outcome.metrics[0]["loss"]
    assert outcome.figures["top1"] > 0.4


def test_an_embedding_wider_than_the_recipe_allows_is_narrowed_on_training_images_alone(workspace):
    outcome = run(workspace, QUICK.with_(dim=8))
    assert outcome.arrays["brain"].shape == (16, 8)
    assert outcome.state["axes"].shape == (24, 8)
    assert outcome.figures["top1"] > 0.3

    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], QUICK)
    values = workspace.planted.astype(np.float32)
    config = RunConfig(QUICK.with_(dim=8, brain_encoder="eegproject"), 0)
    other = train_run(config, data, values[:N_TRAIN], np.roll(values[N_TRAIN:], 1, axis=0) * 5)
    assert torch.equal(other.state["axes"], outcome.state["axes"])
    assert other.metrics == outcome.metrics


def test_the_temperature_is_learned_only_when_the_recipe_says_so(workspace):
    fixed = run(workspace, QUICK.with_(learn_temperature=False)).state["log_scale"]
    assert fixed.exp().item() == pytest.approx(1 / QUICK.temperature)
    assert run(workspace).state["log_scale"] != fixed


def test_single_trials_train(workspace):
    outcome = run(workspace, QUICK.with_(train_on="trials", clip=1.0))
    assert outcome.figures["steps"] == 30  # 168 trials of 84 images
    assert outcome.figures["top1"] > 0.5


def test_a_batch_is_at_most_what_there_is(workspace):
    assert run(workspace, QUICK.with_(batch=4096, passes=2)).figures["steps"] == 2


@pytest.mark.parametrize("choose_by", ["val_mrr", "val_loss"])
def test_the_checkpoint_is_that_of_the_best_pass_and_says_so(workspace, monkeypatch, choose_by):
    import pipelines.train.learner as module

    # Two passes are equally good; the last one is worse by less than any standard error.
    tops = {3: 0.41, 4: 0.4, 5: 0.41, 6: 0.4}
    calls = []

    def scripted(*args):
        calls.append(args)
        figure = tops.get(len(calls), 0.2)
        return {"val_loss": 1 - figure, "val_mrr": figure, "val_top1": figure}

    monkeypatch.setattr(module, "validate", scripted)
    outcome = run(workspace, QUICK.with_(choose_by=choose_by))
    calls.clear()
    assert outcome.figures["checkpoint"] == f"{choose_by}:5"
    assert outcome.figures["val_top1"] == 0.41
    shorter = run(workspace, QUICK.with_(choose_by=choose_by, passes=5))
    assert all(torch.equal(outcome.state[key], shorter.state[key]) for key in outcome.state)


def test_training_that_diverges_is_an_error(workspace):
    def explode(data):
        data.rows[0] = float("nan")
        return data

    with pytest.raises(EmbedctlError, match="left the finite numbers in pass 1"):
        run(workspace, QUICK.with_(batch=4096), change=explode)


def test_a_constant_gallery_scores_exactly_chance(workspace):
    data = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], QUICK)
    values = workspace.planted.astype(np.float32)
    recipe = QUICK.with_(image_head="none")
    outcome = train_run(
        RunConfig(recipe.with_(brain_encoder="eegproject"), 0), data, values[:N_TRAIN], np.ones((16, 24), np.float32)
    )
    assert (outcome.figures["top1"], outcome.figures["top5"]) == (1 / 16, 5 / 16)
    assert outcome.figures["median_rank"] == 8.5
