"""A sweep plans, skips what is finished, loads each subject once, and says plainly what is wrong."""

import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from embedctl.cli import app
from embedctl.commands.train import tell
from pipelines.encoders.registry import find
from pipelines.train import data as data_module
from pipelines.train import engine as engine_module
from pipelines.train import runner as runner_module
from pipelines.train import sweep as sweep_module
from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.compare import left_out, pairs, ranking
from pipelines.train.learner import Diverged
from pipelines.train.origin import weights_column
from pipelines.train.plan import choose_embeddings
from pipelines.train.request import STARTING, Job, TrainReport, TrainRequest
from pipelines.train.sweep import train
from pipelines.train.train import reproducible
from pipelines.train.trial import OwnCodeError, watched
from stores.again import commands_for
from stores.embedding import IMPORTED, Embedding
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore, SplitEpochs
from stores.errors import CannotWrite, DamagedStore, EmbedctlError, Terminated, UnknownName
from stores.images import ImageRecord
from stores.results import COLUMNS, read_array, read_config, read_results, read_summary
from tests.train.conftest import TEST_IDS, TRAIN_IDS, build_workspace, concept, write_embedding, write_subject

ROOT = Path(__file__).parents[2]


def request(workspace, runs, **changes):
    asked = {"brain": "eeg", "embeddings": workspace.embeddings, "epochs": workspace.epochs, "recipe": workspace.recipe}
    return TrainRequest(runs=runs, **asked | changes)


def problem(workspace, runs, kind=EmbedctlError, **changes):
    with pytest.raises(kind) as caught:
        train(request(workspace, runs, **changes))
    assert caught.value.hint
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    return str(caught.value)


@pytest.fixture(scope="module")
def swept(workspace, tmp_path_factory):
    runs = tmp_path_factory.mktemp("swept") / "runs"
    return train(request(workspace, runs, seeds=(0, 1), device="cpu"))


def test_every_embedding_subject_and_seed_becomes_a_row(swept):
    table = read_results(swept.runs)
    assert table.column_names == list(COLUMNS)
    assert len(table) == len(swept.jobs) == swept.n_to_do == 8
    cells = set(zip(*(table[name].to_pylist() for name in ("embedding", "subject", "seed")), strict=True))
    assert cells == {(e, s, n) for e in ("planted", "unrelated") for s in (1, 2) for n in (0, 1)}
    planted = table.filter([name == "planted" for name in table["embedding"].to_pylist()])
    assert min(planted["top1"].to_pylist()) > 0.4
    assert set(planted["matched_base"].to_pylist()) == {"unrelated"}


def test_no_column_is_left_empty(swept):
    for name in COLUMNS:  # there is one image of each test concept, and none to make a centre of
        assert read_results(swept.runs)[name].null_count == (8 if name == "concept_top1" else 0), name


def test_other_stored_images_of_the_test_concepts_make_their_centres(workspace, tmp_path):
    shutil.copytree(workspace.embeddings, tmp_path / "embeddings.zarr")
    store = EmbeddingStore.open(tmp_path / "embeddings.zarr")
    more = [f"more/{concept(name)}/7.png" for name in TEST_IDS]
    store.add_images([ImageRecord(name, f"more{n}", 1, 1, 8, 8, "RGB") for n, name in enumerate(more)])
    entry, rows = store.resolve("planted"), np.array([store.row_of[name] for name in more])
    others = workspace.planted[-len(more) :].astype(np.float32) + 0.1
    for block in set((rows // store.block_rows).tolist()):
        here = rows // store.block_rows == block
        store.write_block(block, {entry.group: (rows[here], others[here])}, {})
    asked = {"epochs": workspace.epochs, "recipe": workspace.recipe, "models": ("planted",), "subjects": (1,)}
    report = train(TrainRequest(brain="eeg", runs=tmp_path / "runs", embeddings=tmp_path / "embeddings.zarr", **asked))
    summary = read_summary(report.runs, report.jobs[0].run_id)
    assert summary["concept_top1"] == pytest.approx(summary["top1"]) and summary["top1"] > 0.4


def test_a_run_keeps_what_led_to_its_scores(swept):
    run = swept.jobs[0].run_id
    summary, config = read_summary(swept.runs, run), read_config(swept.runs, run)
    scores = read_array(swept.runs, run, "scores")
    assert scores.shape == (len(config["gallery_ids"]), 16)
    assert read_array(swept.runs, run, "hits").mean() == summary["top1"]
    assert config["settings"]["passes"] == 6
    assert config["join"] == "suffix"
    assert summary["simulated"] is True and summary["preprocessing"] == "clean", "as the epochs say of themselves"
    assert config["embeddings"].endswith("embeddings.zarr") and config["epochs"].endswith("epochs.zarr")
    assert config["gallery_ids"] == TEST_IDS
    assert read_array(swept.runs, run, "scores_last").shape == scores.shape
    assert summary["last_top1"] == summary["last"]["top1"]
    by_number = summary["top1_by_repetitions"]
    assert list(by_number) == ["1", "2", "4"] and by_number["1"] < summary["top1"]  # of six


def test_the_image_can_be_told_apart_from_the_training_images_too(workspace, swept, tmp_path):
    asked = {"models": ("planted",), "subjects": (1,), "device": "cpu"}
    (job,) = train(request(workspace, tmp_path / "runs", gallery="train+test", **asked)).jobs
    run, small = read_summary(tmp_path / "runs", job.run_id), read_summary(swept.runs, swept.jobs[0].run_id)
    assert (run["gallery"], run["n_way"], run["chance"]) == ("train+test", 112, 1 / 112)
    assert run["val_top1"] == small["val_top1"] and run["median_rank"] >= small["median_rank"]
    assert run["sinkhorn_top1"] is None  # nobody was shown the others
    config, scores = (
        read(tmp_path / "runs", job.run_id) for read in (read_config, lambda *of: read_array(*of, "scores"))
    )
    assert config["gallery_ids"] == TEST_IDS + TRAIN_IDS and scores.shape == (16, 112)
    assert np.array_equal(scores[:, :16], read_array(swept.runs, swept.jobs[0].run_id, "scores"))
    assert len(set(config["gallery_concepts"])) == 40
    assert config["config_key"] != small["config_key"]
    assert "no gallery called 'all'" in problem(workspace, tmp_path / "runs", gallery="all")


def test_finished_runs_are_skipped_and_untouched(workspace, swept):
    before = {path: path.stat().st_mtime_ns for path in swept.runs.glob("[!.]*/*")}
    again = train(request(workspace, swept.runs, seeds=(0, 1), device="cpu"))
    assert (again.n_already, again.n_to_do) == (8, 0)
    assert {path: path.stat().st_mtime_ns for path in swept.runs.glob("[!.]*/*")} == before


def test_a_sweep_that_was_interrupted_ends_with_the_same_rows(workspace, swept, tmp_path, monkeypatch):
    done, write = [], runner_module.write_run

    def die_in_the_third(*args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(write(*args, **kwargs))

    monkeypatch.setattr(runner_module, "write_run", die_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(request(workspace, tmp_path / "runs", seeds=(0, 1)))
    assert len(read_results(tmp_path / "runs")) == 2
    monkeypatch.setattr(runner_module, "write_run", write)
    assert train(request(workspace, tmp_path / "runs", seeds=(0, 1))).n_already == 2
    whole, resumed = read_results(swept.runs), read_results(tmp_path / "runs")
    varying = ["seconds", "started"]
    assert resumed.drop_columns(varying).equals(whole.drop_columns(varying))


@pytest.fixture
def other_process(tmp_path):
    """A living process that holds the locks it is given, until told to let go."""
    holders = []

    def hold(*folders_and_names):
        code = (
            "import sys, contextlib; from pathlib import Path; from stores.locks import lock\n"
            "with contextlib.ExitStack() as held:\n"
            "    [held.enter_context(lock(Path(sys.argv[1]), name)) for name in sys.argv[2:]]\n"
            "    print('held', flush=True); sys.stdin.read()\n"
        )
        words = [sys.executable, "-c", code, *map(str, folders_and_names)]
        holders.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert holders[-1].stdout.readline() == "held\n"
        return holders[-1]

    yield hold
    for holder in holders:
        holder.communicate()


def test_a_run_that_another_process_is_at_is_left_to_it_and_the_sweep_goes_on(workspace, tmp_path, other_process):
    runs = tmp_path / "runs"
    plan = train(request(workspace, runs, dry_run=True))
    theirs = plan.jobs[1].run_id
    holder = other_process(runs / ".embedctl" / "locks", theirs)
    report = train(request(workspace, runs))
    assert list(report.skipped) == [theirs]
    assert f"process {holder.pid} on " in report.skipped[theirs]
    assert (len(report.jobs), report.n_already, report.n_to_do, report.n_trained) == (4, 0, 4, 3)
    assert set(read_results(runs)["run_id"].to_pylist()) == {job.run_id for job in plan.jobs} - {theirs}
    holder.communicate()
    assert train(request(workspace, runs)).n_trained == 1


def test_a_run_that_another_process_finishes_meanwhile_counts_as_done(workspace, swept, tmp_path, monkeypatch):
    runs, write = tmp_path / "runs", runner_module.write_run
    second = train(request(workspace, runs, dry_run=True)).jobs[1].run_id

    def and_the_other_process_too(runs, run_id, **what):
        write(runs, run_id, **what)
        if not (runs / second).exists():
            shutil.copytree(swept.runs / second, runs / second)

    monkeypatch.setattr(runner_module, "write_run", and_the_other_process_too)
    report = train(request(workspace, runs, device="cpu"))
    assert (report.n_already, report.n_trained, report.skipped) == (1, 3, {})
    assert len(read_results(runs)) == 4


def test_a_run_that_its_process_finishes_while_the_sweep_goes_on_is_not_skipped(
    workspace, swept, tmp_path, monkeypatch, other_process
):
    runs, write = tmp_path / "runs", runner_module.write_run
    theirs = train(request(workspace, runs, dry_run=True)).jobs[0].run_id
    holder = other_process(runs / ".embedctl" / "locks", theirs)

    def and_the_other_process_too(runs, run_id, **what):
        write(runs, run_id, **what)
        if not (runs / theirs).exists():
            shutil.copytree(swept.runs / theirs, runs / theirs)
            holder.communicate()

    monkeypatch.setattr(runner_module, "write_run", and_the_other_process_too)
    report = train(request(workspace, runs, device="cpu"))
    assert (report.n_already, report.n_trained, report.skipped) == (1, 3, {})


def test_each_subject_is_loaded_once(workspace, tmp_path, monkeypatch):
    loaded, load = [], data_module.load_subject
    monkeypatch.setattr(data_module, "load_subject", lambda epochs, how: loaded.append(epochs) or load(epochs, how))
    train(request(workspace, tmp_path, seeds=(0, 1)))
    assert [epochs.subject for epochs in loaded] == [1, 2]


def test_a_dry_run_writes_nothing(workspace, tmp_path):
    report = train(request(workspace, tmp_path / "runs", seeds=(0, 1, 2), subjects=(2,), dry_run=True))
    assert (report.n_to_do, report.dry_run, report.dataset) == (6, True, "things-eeg2")
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_knows_what_the_runs_will_take(workspace, swept):
    for job in swept.jobs:
        taken = sum(file.stat().st_size for file in (swept.runs / job.run_id).iterdir())
        assert taken - 20_000 < job.bytes <= taken


def test_a_dry_run_prices_the_time_of_what_is_not_there_by_the_rows_it_takes(workspace, tmp_path, monkeypatch):
    from pipelines.train import cost

    monkeypatch.setattr(cost, "seconds_per_row", lambda kind, n_chans, n_times, dim: n_chans * n_times / 1000)
    monkeypatch.setattr(cost, "seconds_per_step", lambda *network: 10.0)
    asked = request(workspace, tmp_path / "runs", models=("planted",), subjects=(1,), dry_run=True)
    report = train(asked)
    assert (len(report.jobs), report.n_to_do) == (len(asked.seeds or (0,)),) * 2
    n_chans, n_times, passes = 4, 80, 6  # four of the recipe's channels exist
    expected = passes * (len(TRAIN_IDS) * n_chans * n_times / 1000 + 3 * 10)  # batches of 32
    assert report.jobs[0].seconds == pytest.approx(expected + cost.FIXED)
    assert report.core_seconds == pytest.approx(report.n_to_do * (expected + cost.FIXED) + STARTING)
    trials = train(replace(asked, train_on="trials"))
    assert trials.jobs[0].seconds == pytest.approx(2 * expected + cost.FIXED)


def test_a_disk_without_room_is_an_error_before_anything_runs(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_module, "bytes_free", lambda folder: 1000)
    assert "1.0 kB are free" in problem(workspace, tmp_path / "runs", CannotWrite)
    assert train(request(workspace, tmp_path / "runs", dry_run=True)).bytes_free == 1000
    assert not (tmp_path / "runs").exists()


READ_ONLY = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.errors import CannotWrite
os.statvfs = lambda path: SimpleNamespace(f_flag=os.ST_RDONLY, f_frsize=1, f_bavail=1, f_blocks=1, f_bfree=1)
embeddings, epochs, runs = map(Path, sys.argv[1:4])
try:
    train(TrainRequest(brain="eeg", embeddings=embeddings, epochs=epochs, runs=runs, recipe=sys.argv[4]))
except CannotWrite as problem:
    print("torch" in sys.modules, problem.what)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say whether a disk is read-only")
def test_a_read_only_disk_is_an_error_before_torch_is_loaded(workspace, tmp_path):
    words = [sys.executable, "-c", READ_ONLY, workspace.embeddings, workspace.epochs, tmp_path / "r", workspace.recipe]
    ended = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == f"False cannot write '{tmp_path / 'r'}': the disk is read-only\n", ended.stderr


def test_a_changed_setting_makes_new_runs(workspace, swept):
    changes = [{"brain_encoder": "nice"}, {"split": "image"}, {"train_on": "trials"}, {"recipe": "modern"}]
    for change in changes:
        assert train(request(workspace, swept.runs, dry_run=True, **change)).n_already == 0, change


def test_other_preprocessing_is_another_configuration(workspace, swept, tmp_path):
    """And is neither ranked with the first nor paired with it, though both lie in one folder of runs."""
    shutil.copytree(swept.runs, tmp_path / "runs")
    store = EpochStore.open(tmp_path / "nice.zarr", create=True)
    for subject in (1, 2):
        write_subject(store, subject, workspace.planted, recipe={"name": "nice", "sfreq": 80.0})
    train(request(workspace, tmp_path / "runs", epochs=tmp_path / "nice.zarr", models=("planted",)))
    results = read_results(tmp_path / "runs")
    assert len(set(results["config_key"].to_pylist())) == 2
    ranked = [(r.condition["preprocessing"], r.rank, r.embedding) for r in ranking(results, tmp_path / "runs")]
    assert sorted(ranked) == [("clean", 1, "planted"), ("clean", 2, "unrelated"), ("nice", 1, "planted")]
    assert [p.condition["preprocessing"] for p in pairs(results, runs=tmp_path / "runs")] == ["clean"]
    assert left_out(results) == []


@pytest.mark.parametrize(
    "said, column",
    [
        ({"weights": "none"}, "none"),
        ({"weights": "random:7", "weights_source": "seed 7"}, "random:7"),
        ({"weights": "sha256:00ff", "weights_source": "https://a.net/b"}, "sha256:00ff"),
        ({"weights": "sha256:00ff", "weights_source": "file:/tmp/mine.pt"}, "file:sha256:00ff"),
        ({"weights": IMPORTED, "imported": True, "weights_source": "file:a.npy"}, IMPORTED),
    ],
)
def test_a_row_says_whose_weights_they_are(tmp_path, said, column):
    store = EmbeddingStore.open(tmp_path / "embeddings.zarr", create=True)
    store.add_images([ImageRecord("a.jpg", "", 1, 1, 8, 8, "RGB")])
    write_embedding(store, "resnet50-tv", np.zeros((1, 4)), **said)
    assert weights_column(store.entries()[0]) == column


def test_the_published_file_given_by_hand_is_the_published_file(tmp_path):
    store = EmbeddingStore.open(tmp_path / "embeddings.zarr", create=True)
    store.add_images([ImageRecord("a.jpg", "", 1, 1, 8, 8, "RGB")])
    (published,) = find("resnet50-tv").weights
    said = {"weights": f"sha256:{published.sha256}", "weights_source": "file:/tmp/resnet50.pth"}
    write_embedding(store, "resnet50-tv", np.zeros((1, 4)), **said)
    assert weights_column(store.entries()[0]) == said["weights"]


def test_voxels_are_trained_on_with_the_residual_mlp_and_nothing_else(tmp_path):
    small = build_workspace(tmp_path)
    store = EpochStore.open(small.epochs)
    write_subject(store, 1, small.planted, dataset="nsd", modality="fmri")
    (tmp_path / "voxels.toml").write_text('base = "modern"\nbatch = 32\npasses = 12\nlr = 1e-3\n')
    asked = {"brain": "fmri", "recipe": str(tmp_path / "voxels.toml")}
    report = train(request(small, tmp_path / "runs", **asked))
    assert report.brain_encoder == "residual-mlp"
    top1 = {row["embedding"]: row["top1"] for row in read_results(report.runs).to_pylist()}
    assert top1["planted"] > 0.4 > top1["unrelated"]
    assert read_summary(report.runs, report.jobs[0].run_id)["window"] == "all"
    assert read_summary(report.runs, report.jobs[0].run_id)["simulated"] is False
    for name in ("eegproject", "nice"):
        with pytest.raises(EmbedctlError, match=f"'{name}' reads eeg and meg, not fmri") as caught:
            train(request(small, tmp_path / "runs", brain_encoder=name, **asked))
        assert (caught.value.hint, caught.value.exit_code) == (
            "use --brain-encoder brain-mlp or linear or residual-mlp",
            2,
        )
    said = problem(small, tmp_path / "runs", brain_encoder="residual-mlp")
    assert said == "the brain encoder 'residual-mlp' reads fmri, not eeg"


def test_doubles_among_the_images_are_noted_once(tmp_path):
    small = build_workspace(tmp_path)
    store = EmbeddingStore.open(small.embeddings)
    copy, twin = "small/" + TEST_IDS[0].rpartition("/")[2], TRAIN_IDS[3]
    store.add_images([ImageRecord(copy, "e" * 64, 1, 1, 4, 4, "RGB")])
    record = store.images()[TEST_IDS[2]]
    store.update_images([replace(record, sha256=store.images()[twin].sha256)])
    for name, values in (("planted", small.planted), ("unrelated", small.unrelated)):
        write_embedding(store, name, np.vstack([values, values[:1]]))
    report = train(request(small, tmp_path / "runs", dry_run=True))
    assert report.notes == [
        "1 image shares its file name with others of different pixels; the longer path decided: "
        f"'{TEST_IDS[0]}', not '{copy}'",
        f"1 test image is a training image as well, the first '{TEST_IDS[2]}'",
    ]


def test_changed_pixels_make_new_runs(tmp_path):
    small = build_workspace(tmp_path)
    before = train(request(small, tmp_path / "runs", dry_run=True))
    store = EmbeddingStore.open(small.embeddings)
    record = store.images()[TRAIN_IDS[5]]
    store.update_images([type(record)(record.id, "f" * 64, 1, 1, 8, 8, "RGB")])
    write_embedding(store, "planted", small.planted)
    write_embedding(store, "unrelated", small.unrelated)
    after = train(request(small, tmp_path / "runs", dry_run=True))
    assert not {job.run_id for job in before.jobs} & {job.run_id for job in after.jobs}


def test_scrambling_the_stored_test_recordings_changes_no_checkpoint(workspace, swept, tmp_path):
    scrambled = build_workspace(tmp_path, scramble_test=True)
    report = train(request(scrambled, tmp_path / "runs"))
    by_cell = {(job.subject, job.embedding, job.seed): job.run_id for job in swept.jobs}
    for job in report.jobs:
        other = by_cell[job.subject, job.embedding, job.seed]
        for file in ("metrics.jsonl", "checkpoint.safetensors"):
            assert (report.runs / job.run_id / file).read_bytes() == (swept.runs / other / file).read_bytes()
        here, there = read_summary(report.runs, job.run_id), read_summary(swept.runs, other)
        assert (here["val_top1"], here["checkpoint"]) == (there["val_top1"], there["checkpoint"])


def test_an_embedding_that_lacks_images_is_an_error_before_anything_runs(tmp_path):
    small = build_workspace(tmp_path)
    store = EmbeddingStore.open(small.embeddings)
    write_embedding(store, "holes", small.planted, rows=np.arange(3, len(small.planted)))
    said = problem(small, tmp_path / "runs")
    assert said.startswith(f"'holes' has no embedding of 3 images: {TRAIN_IDS[0]}, {TRAIN_IDS[1]}")
    assert not (tmp_path / "runs").exists()
    assert train(request(small, tmp_path / "runs", models=("planted",), subjects=(1,))).n_to_do == 1


def test_rows_that_are_not_finite_are_never_trained_on(workspace, tmp_path, monkeypatch):
    take = Embedding.take
    monkeypatch.setattr(Embedding, "take", lambda self, rows: take(self, rows) * np.nan)
    assert "rows that are not finite" in problem(workspace, tmp_path / "runs", DamagedStore)


def test_images_that_are_not_in_the_store_are_an_error(tmp_path):
    small = build_workspace(tmp_path)
    few = EmbeddingStore.open(tmp_path / "few.zarr", create=True)
    records = list(EmbeddingStore.open(small.embeddings).images().values())[5:]
    few.add_images(records)
    write_embedding(few, "planted", small.planted[5:])
    assert "5 of 112 images are not in the embedding store" in problem(
        small, tmp_path / "runs", embeddings=tmp_path / "few.zarr"
    )


def test_embeddings_too_wide_are_left_out_of_all_and_refused_by_name(tmp_path):
    small = build_workspace(tmp_path)
    write_embedding(EmbeddingStore.open(small.embeddings), "wide", np.zeros((112, 9000)))
    report = train(request(small, tmp_path / "runs", dry_run=True))
    assert {job.embedding for job in report.jobs} == {"planted", "unrelated"}
    assert "wide is left out" in report.notes[0]
    assert "9000 features" in problem(small, tmp_path / "runs", models=("wide",))


def test_the_dataset_is_asked_for_only_when_ambiguous(tmp_path):
    small = build_workspace(tmp_path)
    store = EpochStore.open(small.epochs)
    write_subject(store, 1, small.planted, dataset="mine")
    write_subject(store, 1, small.planted, dataset="things-meg", modality="meg")
    assert "several eeg datasets" in problem(small, tmp_path / "runs")
    assert train(request(small, tmp_path / "runs", dataset="mine", dry_run=True)).dataset == "mine"
    assert train(request(small, tmp_path / "runs", brain="meg", dry_run=True)).dataset == "things-meg"
    assert "is meg, not eeg" in problem(small, tmp_path / "runs", dataset="things-meg")


@pytest.mark.parametrize(
    "changes, kind, said",
    [
        ({"brain": "ecog"}, UnknownName, "'ecog'"),
        ({"brain": "meg"}, EmbedctlError, "no meg dataset"),
        ({"dataset": "things-eeg3"}, UnknownName, "things-eeg3"),
        ({"models": ("plonted",)}, UnknownName, "plonted"),
        ({"subjects": (9,)}, UnknownName, "no subject 9"),
        ({"loss": "l2"}, EmbedctlError, "l2"),
        ({"loss": "nowhere.py:near"}, EmbedctlError, "no file 'nowhere.py'"),
        ({"brain_encoder": "nowhere.py:Net"}, EmbedctlError, "no file 'nowhere.py'"),
        ({"image_head": "cnn"}, EmbedctlError, "cnn"),
        ({"train_on": "random-0"}, EmbedctlError, "random-0"),
        ({"brain_encoder": "niece"}, UnknownName, "niece"),
        ({"recipe": "modem"}, UnknownName, "modem"),
        ({"join": "hash"}, EmbedctlError, "hash"),
        ({"split": "time"}, EmbedctlError, "time"),
        ({"device": "tpu"}, EmbedctlError, "tpu"),
        ({"device": "mps"}, EmbedctlError, "mps"),
        ({"brain_encoder": "mine.py"}, UnknownName, "'mine.py' is a file"),
        ({"models": ("planted+",)}, EmbedctlError, "'planted+' names nothing on one side of a '+'"),
    ],
)
def test_a_request_that_cannot_be_carried_out_says_why(workspace, tmp_path, changes, kind, said):
    trust("nowhere.py")
    assert said in problem(workspace, tmp_path / "runs", kind, **changes)
    assert not (tmp_path / "runs").exists()


def test_epochs_too_short_for_the_brain_encoder_are_an_error(workspace, tmp_path):
    (tmp_path / "short.toml").write_text('base = "modern"\nbrain_encoder = "nice"\nwindow = [0.0, 0.5]\npasses = 1\n')
    assert "75 samples" in problem(workspace, tmp_path / "runs", recipe=str(tmp_path / "short.toml"))
    assert not (tmp_path / "runs").exists()


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n_chans, n_times, dim):
        super().__init__()
        self.linear = nn.Linear(n_chans * n_times, dim)

    def forward(self, x):
        return self.linear(x.flatten(1))

def near(brain, image, scale, shown):
    return (nn.functional.normalize(brain) - nn.functional.normalize(image)).square().sum(dim=1).mean()
"""


def test_a_brain_encoder_and_a_loss_of_ones_own_train_and_their_text_is_part_of_the_configuration(workspace, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    trust(f"{tmp_path}/own.py")
    asked = {
        "brain_encoder": f"{tmp_path}/own.py:Net",
        "loss": f"{tmp_path}/own.py:near",
        "models": ("planted",),
        "subjects": (1,),
    }
    report = train(request(workspace, tmp_path / "runs", **asked))
    row = read_results(tmp_path / "runs").to_pylist()[0]
    assert row["top1"] > 0.3
    assert row["brain_encoder"] == f"{tmp_path}/own.py:Net"
    config = read_config(tmp_path / "runs", report.jobs[0].run_id)
    assert set(config["own"]) == {asked["brain_encoder"], asked["loss"]}
    assert train(request(workspace, tmp_path / "runs", **asked, dry_run=True)).n_to_do == 0
    (tmp_path / "own.py").write_text(OWN + "# changed")
    assert train(request(workspace, tmp_path / "runs", **asked, dry_run=True)).n_to_do == 1


@pytest.mark.parametrize(
    ("what", "was", "becomes", "said"),
    [
        (
            "Net",
            "super().__init__()",
            'raise ValueError("too few")',
            "raised ValueError: too few in line 7, built for (4, 80, 24)",
        ),
        ("Net", "times, dim)\n\n", "times, 7)\n\n", " (line 10) makes (4, 7) of epochs (4, 4, 80), not (4, 24)"),
        ("Net", "n_chans, n_times, dim", "n_chans", " (line 6), built for (4, 80, 24)"),
        ("Net", "self.linear(", "self.linaer(", "linaer' in line 11, given epochs (4, 4, 80)"),
        *(
            ("Net", "flatten(1))", f"flatten(1)){ending}", f"(line 10) makes {makes} of epochs (4, 4, 80)")
            for ending, makes in {
                ".double()": "torch.float64",
                ".half()": "torch.float16",
                ".to(torch.complex64)": "torch.complex64",
                ".int()": "torch.int32",
                ".to_sparse()": "torch.float32 torch.sparse_coo",
                ".detach()": "embeddings without a gradient",
                " / 0": "what is not finite",
                ", 1": "tuple",
                "[0]": "(24,)",
            }.items()
        ),
        ("Net", "return self", "return __import__('sys').exit(0) or self", "raised SystemExit: 0 in line 11"),
        ("Net", "nn.Linear(n_chans * n_times,", "nn.LazyLinear(", "has parameters of no shape yet (a Lazy layer)"),
        (
            "Net",
            "flatten(1))",
            "flatten(1)).view(2, self.training * 2, 24).flatten(0, 1)",
            "in evaluation given epochs",
        ),
        ("near", ".mean()", ".mean().double()", "returns torch.float64, not a finite float32, given brain"),
        ("near", ".mean()", ".mean() / 0", "returns what is not finite, not a finite float32"),
        ("near", ".mean()", "", " (line 13) returns (4,), not one number, given brain and image (4, 24), scale () and"),
        ("near", ".mean()", ".mean().item()", "(line 13) returns float, not one number"),
        ("near", ".mean()", ".mean().detach()", "(line 13) returns a number without a gradient"),
        (
            "near",
            "image, scale, shown",
            "image",
            "takes 2 positional arguments but 4 were given (line 13), given brain",
        ),
        ("near", "return (", "return brain @ image - (", "in line 14, given brain and image (4, 24)"),
    ],
)
def test_what_is_wrong_with_code_of_ones_own_is_said_before_anything_runs(
    workspace, tmp_path, what, was, becomes, said
):
    assert was in OWN
    (tmp_path / "own.py").write_text(OWN.replace(was, becomes))
    trust(f"{tmp_path}/own.py")
    option = {"Net": "brain_encoder", "near": "loss"}[what]
    told = problem(workspace, tmp_path / "runs", OwnCodeError, **{option: f"{tmp_path}/own.py:{what}"})
    assert f"own.py:{what}'" in told and said in told
    assert not (tmp_path / "runs").exists()


def test_all_means_every_embedding_unless_one_is_called_so(tmp_path):
    store = EmbeddingStore.open(tmp_path / "e.zarr", create=True)
    store.add_images([ImageRecord("a.jpg", "0", 1, 1, 8, 8, "RGB")])
    for called, names in (("one", ["one"]), ("two", ["one", "two"]), ("all", ["all"])):
        write_embedding(store, called, np.ones((1, 4)))
        chosen, _ = choose_embeddings(store.entries(), ("all",), store.resolve)
        assert sorted(target.name for target in chosen) == names


@pytest.mark.parametrize(("last", "said"), [("import sys; sys.exit(3)", "SystemExit: 3"), ("0 / 0", "ZeroDivision")])
def test_a_file_of_ones_own_that_ends_the_program_is_told_with_its_line(workspace, tmp_path, last, said):
    (tmp_path / "own.py").write_text(f"{OWN}{last}\n")
    trust(f"{tmp_path}/own.py")
    told = problem(workspace, tmp_path / "runs", brain_encoder=f"{tmp_path}/own.py:Net")
    assert told.startswith(f"'{tmp_path}/own.py' cannot be run: {said}") and told.endswith(" in line 15")


def test_what_comes_from_outside_is_not_laid_at_the_door_of_a_file():
    for kind in (KeyboardInterrupt, Terminated):
        with pytest.raises(kind), watched("own.py:Net"):
            raise kind


def test_a_run_seeds_what_code_of_ones_own_may_draw_from_and_gives_it_back():
    def drawn():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    np.random.seed(1)
    random.seed(1)
    before = drawn()[:2]
    np.random.seed(1)
    random.seed(1)
    with reproducible(7, torch.device("cpu")):
        first = drawn()
    assert drawn()[:2] == before
    with reproducible(7, torch.device("cpu")):
        assert drawn() == first


def test_a_sweep_of_which_nothing_is_there_says_nothing_of_results(tmp_path, capsys):
    job = Job(run_id="a", subject=1, embedding="hog", embedding_key="", seed=0, finished=False)
    tell(TrainReport(jobs=[job], runs=tmp_path, failed={"a": "it raised"}))
    assert "embedctl results" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda runs: (runs.parent.mkdir(), runs.write_text("x")), "is no folder"),
        (lambda runs: EmbeddingStore.open(runs, create=True), "is a store"),
        (lambda runs: EmbeddingStore.open(runs.parent, create=True), "is a store"),
        (lambda runs: (runs / "training_images").mkdir(parents=True), "holds other things, such as 'training_images'"),
    ],
)
def test_runs_go_nowhere_but_into_a_folder_of_runs(workspace, tmp_path, make, said):
    runs = tmp_path / "here" / "runs"
    make(runs)
    before = sorted(tmp_path.rglob("*"))
    for dry_run in (False, True):
        assert said in problem(workspace, runs, dry_run=dry_run)
    assert sorted(tmp_path.rglob("*")) == before


def test_code_of_ones_own_that_raises_in_the_middle_costs_its_run_alone(workspace, tmp_path):
    middle = "    if not self.training and x.max() > 0 and len(x) > 4 and dim_of(self) == 24:"
    text = OWN.replace(
        "        return self.linear",
        f"    {middle}\n            if torch.initial_seed() == 1: raise SystemExit('gone')\n"
        "            if torch.initial_seed() == 2: return self.linear(x.flatten(1)).double()\n"
        "        return self.linear",
    )
    (tmp_path / "own.py").write_text(text + "\ndef dim_of(net):\n    return net.linear.out_features\n")
    words = ["train", "--brain=eeg", f"--recipe={workspace.recipe}", f"--runs={tmp_path / 'runs'}", "--device=cpu"]
    words += [f"--embeddings={workspace.embeddings}", f"--epochs={workspace.epochs}", "--model=planted", "--subject=1"]
    found = CliRunner().invoke(app, [*words, "--seed=0,1,2", f"--brain-encoder={tmp_path}/own.py:Net"])
    assert found.exit_code == 3 and "failed 2 of 3 runs:" in found.stderr, found.stderr
    assert "own.py:Net' raised SystemExit: gone in line 12" in found.stderr
    assert "own.py:Net' took part where RuntimeError: " in found.stderr
    assert read_results(tmp_path / "runs")["seed"].to_pylist() == [0]


def test_a_run_that_leaves_the_finite_numbers_stops_no_other(workspace, tmp_path, monkeypatch):
    """Neither one after it, nor one in the same pass."""
    together = runner_module.train_together

    def some_diverge(config, data, against):
        if any(np.allclose(one.target, workspace.unrelated[: len(TRAIN_IDS)]) for one in against):
            raise Diverged("the loss left the finite numbers in pass 3", "lower lr")
        return together(config, data, against)

    monkeypatch.setattr(runner_module, "train_together", some_diverge)
    monkeypatch.setattr(runner_module.Runner, "_together", lambda self, jobs: (True, "in one pass"))
    monkeypatch.setattr(engine_module, "_at_most", lambda device: 2)
    report = train(request(workspace, tmp_path / "runs", device="cpu"))
    failed = {job.run_id for job in report.jobs if job.embedding == "unrelated"}
    assert report.failed == dict.fromkeys(failed, "the loss left the finite numbers in pass 3") and len(failed) == 2
    assert report.n_trained == 2
    assert set(read_results(tmp_path / "runs")["embedding"].to_pylist()) == {"planted"}
    words = ["train", "--brain=eeg", f"--recipe={workspace.recipe}", f"--runs={tmp_path / 'runs'}", "--device=cpu"]
    words += [f"--embeddings={workspace.embeddings}", f"--epochs={workspace.epochs}"]
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 3 and "failed 2 of 4 runs:" in again.stderr, again.stderr


def test_runs_that_were_finished_before_a_kill_have_the_command_that_trains_them_again(
    workspace, tmp_path, monkeypatch
):
    together, done = runner_module.train_together, []

    def killed(config, data, against):
        if done:
            raise KeyboardInterrupt
        done.append(config)
        return together(config, data, against)

    monkeypatch.setattr(runner_module, "train_together", killed)
    runs = tmp_path / "runs"
    words = ["train", "--brain=eeg", f"--recipe={workspace.recipe}", f"--runs={runs}", "--device=cpu"]
    words += [f"--embeddings={workspace.embeddings}", f"--epochs={workspace.epochs}"]
    assert CliRunner().invoke(app, words).exit_code == 130
    [row] = read_results(runs).to_pylist()
    [line], unknown = commands_for(runs / ".embedctl", [row["run_id"]], runs)
    assert not unknown and f"--subject {row['subject']}" in line and f"--model {row['embedding']} " in line
    monkeypatch.setattr(runner_module, "train_together", together)
    one = f"{row['embedding']}#{row['embedding_key']}"
    assert CliRunner().invoke(app, [*words, f"--model={one}", "--seed=1", "--subject=1"]).exit_code == 0
    new = next(one for one in read_results(runs).to_pylist() if one["seed"] == 1)
    assert f"--model '{one}' " in commands_for(runs / ".embedctl", [new["run_id"]], runs)[0][0]


def test_without_seeds_those_of_the_recipe_are_run(workspace, tmp_path):
    (tmp_path / "two.toml").write_text('base = "modern"\nseeds = [3, 5]\nwindow = []\n')
    asked = {"recipe": str(tmp_path / "two.toml"), "models": ("planted",), "subjects": (1,), "dry_run": True}
    found = [train(request(workspace, tmp_path / "runs", **asked, **changes)) for changes in ({}, {"seeds": (3,)})]
    assert [[job.seed for job in report.jobs] for report in found] == [[3, 5], [3]]
    assert found[0].jobs[0].run_id == found[1].jobs[0].run_id  # which other seeds there are changes no run


def test_more_random_repetitions_than_there_are_is_an_error_and_images_with_fewer_are_told(tmp_path):
    small = build_workspace(tmp_path)
    found = problem(small, tmp_path / "runs", train_on="random-3", subjects=(2,))
    assert found == "random-3 takes 3 repetitions of an image, and there are 2 of subject 2 at most"
    assert not train(request(small, tmp_path / "runs", train_on="random-2", dry_run=True)).notes
    valid = np.ones((len(TRAIN_IDS), 2), bool)
    valid[:5, 1] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplitEpochs, "valid", valid)
        assert train(request(small, tmp_path / "runs", train_on="random-2", dry_run=True)).notes == [
            f"subject {s}: 5 of 96 training images have fewer than 2 repetitions; of these all are averaged"
            for s in (1, 2)
        ]


def test_random_repetitions_train_and_are_a_column_of_the_results(workspace, tmp_path):
    asked = {"train_on": "random-2", "models": ("planted",), "subjects": (1,)}
    train(request(workspace, tmp_path / "runs", **asked))
    row = read_results(tmp_path / "runs").to_pylist()[0]
    assert row["train_on"] == "random-2"
    assert row["top1"] > 0.4
