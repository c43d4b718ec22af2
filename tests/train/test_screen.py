"""A screen is ridge regression, reads no test recording unless asked to, and is counted where it does."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge as Reference
from typer.testing import CliRunner

from embedctl.cli import app
from embedctl.commands.screen import tell
from pipelines import memory
from pipelines.screen import screen as screen_module
from pipelines.screen.request import ScreenReport, ScreenRequest
from pipelines.screen.ridge import Ridge
from pipelines.screen.screen import PENALTIES, Screened, held_out, screen
from pipelines.train.recipes import read_recipe
from pipelines.train.request import TrainRequest
from pipelines.train.splits import Split
from pipelines.train.sweep import train
from stores.epochs import EpochStore
from stores.errors import DamagedStore, EmbedctlError
from stores.screens import SCREENS, Seen, seen
from stores.verify import judged, plan
from tests.train.conftest import write_subject


@pytest.mark.parametrize("shape", [(60, 12), (20, 45), (30, 30)])
def test_one_factorisation_gives_the_predictions_of_scikit_learn_for_any_target_and_penalty(shape):
    rng = np.random.default_rng(0)
    x, queries = rng.standard_normal(shape) + 3, rng.standard_normal((9, shape[1])) + 3
    ridge = Ridge(x)
    penalties = (1e-2, 10.0, 1e4)
    for penalty, smoother in zip(penalties, ridge.smoothers(queries, penalties), strict=True):
        for _ in range(2):
            y = rng.standard_normal((len(x), 7)) - 2
            predicted = y.mean(axis=0) + smoother @ (y - y.mean(axis=0))
            expected = Reference(alpha=penalty).fit(x, y).predict(queries)
            assert np.abs(predicted - expected).max() < 1e-6


def test_the_score_is_that_of_the_predictions_at_the_penalty_that_retrieves_best():
    rng = np.random.default_rng(1)
    images = rng.standard_normal((90, 6))
    epochs = images @ rng.standard_normal((6, 20)) + 3 * rng.standard_normal((90, 20))
    split = Split(np.arange(60), (np.arange(60, 75), np.arange(75, 90)))
    found = Screened(epochs, split).score(images)
    scale, mrr_of, top1_of = epochs[:60].var(axis=0).mean() * 60, {}, {}
    for penalty in PENALTIES:
        model = Reference(alpha=penalty * scale).fit(epochs[:60], images[:60])
        ranks = []
        for rows in split.rounds:
            z, v = model.predict(epochs[rows]) - images[:60].mean(axis=0), images[rows] - images[:60].mean(axis=0)
            scores = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in v] for a in z])
            ranks += (1 + (scores > np.diag(scores)[:, None]).sum(axis=1)).tolist()
        mrr_of[penalty], top1_of[penalty] = np.mean(1 / np.array(ranks)), np.mean(np.array(ranks) == 1)
    assert found.penalty == max(mrr_of, key=mrr_of.get)
    assert found.mrr == pytest.approx(mrr_of[found.penalty]) and found.top1 == pytest.approx(top1_of[found.penalty])
    assert len(set(mrr_of.values())) > 3


def test_of_many_concepts_three_images_each_are_asked_for():
    rounds = tuple(np.arange(200) + 250 + 200 * n for n in range(5))
    assert len(Screened(np.random.default_rng(0).standard_normal((1250, 3)), Split(np.arange(250), rounds)).rounds) == 3


def test_an_embedding_that_says_the_same_of_every_image_scores_exactly_chance():
    epochs = np.random.default_rng(0).standard_normal((40, 8))
    split = Split(np.arange(20), (np.arange(20, 30), np.arange(30, 40)))
    assert Screened(epochs, split).score(np.ones((40, 5))).top1 == pytest.approx(1 / 10)


def request(workspace, runs, **changes):
    asked = {"brain": "eeg", "embeddings": workspace.embeddings, "epochs": workspace.epochs, "recipe": workspace.recipe}
    return ScreenRequest(runs=runs, **asked | changes)


@pytest.fixture(scope="module")
def found(workspace, tmp_path_factory):
    return screen(request(workspace, tmp_path_factory.mktemp("untouched")))


def test_the_planted_embedding_comes_first(found):
    assert [row.embedding for row in found.rows] == ["planted", "unrelated"]
    planted, unrelated = found.rows
    assert min(planted.per_subject.values()) > 2 / found.n_way and unrelated.top1 < planted.top1 / 2
    assert planted.test_top1 is None and found.seen is None


def test_how_many_concepts_are_held_out_is_said(found):
    assert found.n_way == 3 and found.n_queries == 12
    assert any(note.startswith("3 of 24 training concepts") and "fewer than 200" in note for note in found.notes)


def test_chance_is_the_mean_of_rounds_of_different_sizes(workspace, tmp_path, monkeypatch):
    uneven = Split(np.arange(12, 96), (np.arange(8), np.arange(8, 12)))
    even = Split(np.arange(12, 96), (np.arange(6), np.arange(6, 12)))
    of_subjects = iter((even, uneven))
    monkeypatch.setattr(screen_module, "held_out", lambda *asked: (next(of_subjects), "made up"))
    report = screen(request(workspace, tmp_path / "runs"))
    assert report.chance == pytest.approx(((1 / 8 + 1 / 4) / 2 + 1 / 6) / 2) and report.n_way == 8
    monkeypatch.setattr(screen_module, "held_out", lambda *asked: (uneven, "made up"))
    same = np.ones((96, 5))
    epochs = np.random.default_rng(0).standard_normal((96, 8))
    assert Screened(epochs, uneven).score(same).top1 == pytest.approx((1 / 8 + 1 / 4) / 2)
    places = [f"--embeddings={workspace.embeddings}", f"--epochs={workspace.epochs}", f"--runs={tmp_path / 'runs'}"]
    told = CliRunner().invoke(app, ["screen", "--brain=eeg", f"--recipe={workspace.recipe}", *places])
    assert "18.8 %" in told.stdout and "up to 8-way" in told.stdout, told.stderr


def test_recordings_too_large_for_this_computer_are_refused_before_they_are_read(workspace, tmp_path, monkeypatch):
    """All 271 sensors of MEG would be 27 GB."""
    features = 6 * 80
    needed = 12 * 96 * features + 32 * 96**2
    monkeypatch.setattr(memory, "bytes_there", lambda: memory.BYTES_EACH + needed - 1)
    monkeypatch.setattr(screen_module, "load_training", None)
    (tmp_path / "all.toml").write_text('base = "modern"\nchannels = []\nwindow = []\n')
    with pytest.raises(
        EmbedctlError, match="the recordings of a subject need 0.0 GB of memory, this computer has 0.6 GB"
    ):
        screen(request(workspace, tmp_path / "runs", recipe=str(tmp_path / "all.toml")))


def test_voxels_more_than_images_are_screened_too(workspace, tmp_path):
    store = EpochStore.open(tmp_path / "voxels.zarr", create=True)
    write_subject(store, 1, workspace.planted, dataset="nsd", modality="fmri")
    asked = {"brain": "fmri", "epochs": tmp_path / "voxels.zarr", "recipe": "modern"}
    report = screen(request(workspace, tmp_path / "runs", **asked))
    assert [row.embedding for row in report.rows] == ["planted", "unrelated"] and report.rows[0].top1 > 0.5


def test_images_without_concepts_are_held_out_one_by_one():
    split, note = held_out([f"nsd-{i:05d}" for i in range(80)], [""] * 80, read_recipe("modern", "fmri"))
    assert len(split.rounds) == 1 and len(split.rounds[0]) == 10
    assert note.startswith("10 of 80 training images (these have no concepts) are held out")


def test_without_test_no_recording_of_a_test_image_is_read(workspace, found, tmp_path):
    """They are not there, so scrambling them cannot change anything either."""
    epochs = tmp_path / "epochs.zarr"
    shutil.copytree(workspace.epochs, epochs)
    for name in ("epochs", "mean", "valid", "session"):
        for folder in epochs.glob(f"things-eeg2/sub-*/test/{name}/c"):
            shutil.rmtree(folder)
    blind = screen(request(workspace, tmp_path / "runs", epochs=epochs))
    assert blind.rows == found.rows
    assert not (tmp_path / "runs").exists()
    with pytest.raises(DamagedStore):
        screen(request(workspace, tmp_path / "runs", epochs=epochs, test=True))
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def tested(workspace, tmp_path_factory):
    runs = tmp_path_factory.mktemp("tested") / "runs"
    return runs, screen(request(workspace, runs, test=True))


def test_the_test_scores_stand_beside_the_others_and_move_nothing(found, tested):
    _, report = tested
    assert [dataclasses.replace(row, test_top1=None, test_top5=None) for row in report.rows] == found.rows
    assert report.test_chance == 1 / 16 and report.rows[0].test_top1 > 3 / 16


def test_what_has_seen_the_test_images_is_counted_once_per_configuration(workspace, tested, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(tested[0], runs)
    assert tested[1].seen == Seen(trained=0, screened=2)
    assert screen(request(workspace, runs, models=("planted",), test=True)).seen == Seen(0, 2)
    assert screen(request(workspace, runs, recipe="paper", models=("planted",), test=True)).seen == Seen(0, 3)
    row = {"dataset": "things-eeg2", "embedding": "planted", "embedding_key": "00", "config_key": "aa"}
    trained = pa.Table.from_pylist([row | {"seed": 0}, row | {"seed": 1}, row | {"config_key": "bb"}])
    assert seen(runs, trained) == {"things-eeg2": Seen(trained=2, screened=3)}


def test_results_and_compare_say_how_many_have_seen_the_test_images(workspace, tested, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(tested[0], runs)
    stores = {"embeddings": workspace.embeddings, "epochs": workspace.epochs, "recipe": workspace.recipe}
    train(TrainRequest(brain="eeg", models=("planted",), subjects=(1,), runs=runs, **stores))
    for command in ("results", "compare"):
        said = CliRunner().invoke(app, [command, "--runs", str(runs)]).stderr
        assert "3 configurations have been scored on the test images of things-eeg2 (1 trained, 2 screened)" in said
        counted = json.loads(CliRunner().invoke(app, [command, "--runs", str(runs), "--json"]).stdout)["tested"]
        assert counted == {"things-eeg2": {"trained": 1, "screened": 2}}


@pytest.mark.parametrize("damage", ["flip", "remove", "unvouch"])
def test_a_damaged_count_is_found_and_dropped_and_begins_again(workspace, tested, tmp_path, damage):
    runs = tmp_path / "runs"
    shutil.copytree(tested[0], runs)
    file = runs / SCREENS
    if damage == "flip":
        file.write_bytes(file.read_bytes().replace(b"planted", b"plantee"))
    else:
        (file if damage == "remove" else runs / ".embedctl" / SCREENS).unlink()
    with pytest.raises(DamagedStore):
        seen(runs, None)
    assert {one.part for one in judged(plan(runs, "runs"))} == {SCREENS}
    told = CliRunner().invoke(app, ["repair", str(runs)]).stdout
    assert "lost      screens.json" in told and "next" not in told
    assert not judged(plan(runs, "runs")) and seen(runs, None) == {}


def test_the_command_shows_a_line_per_embedding_and_marks_the_test(workspace, tmp_path):
    words = ["screen", "--brain", "eeg", "--recipe", workspace.recipe, "--runs", str(tmp_path / "runs")]
    words += ["--embeddings", str(workspace.embeddings), "--epochs", str(workspace.epochs)]
    plain, marked = CliRunner().invoke(app, words), CliRunner().invoke(app, [*words, "--test"])
    assert plain.exit_code == marked.exit_code == 0, plain.stderr + marked.stderr
    heading, columns, first, second = plain.stdout.splitlines()
    assert heading.endswith("3-way retrieval: 12 training images per subject, held out by concept")
    assert "TEST" not in plain.stdout and first.split()[:2] == ["1", "planted"] and second.split()[1] == "unrelated"
    assert "TEST top-1" in marked.stdout
    assert "split-half reliability" in marked.stderr and "split-half reliability" not in plain.stderr
    assert "2 configurations have been scored on the test images" in marked.stderr
    assert "the recordings of things-eeg2, subjects 1, 2, are simulated" in plain.stderr


@pytest.mark.parametrize(("n_way", "is_said"), [(5, False), (6, True)])
def test_top_5_is_said_where_a_guess_can_miss_it(n_way, is_said, capsys):
    tell(ScreenReport(dataset="d", recipe="modern", n_way=n_way, n_queries=10, chance=1 / n_way))
    assert ("top-5" in capsys.readouterr().out) == is_said
