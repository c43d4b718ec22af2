"""A run counts when its receipt is there; the table can always be made again."""

import shutil
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stores import receipts, results, screens
from stores.errors import CannotWrite, DamagedStore, EmbedctlError
from stores.locks import lock
from stores.receipts import is_announced
from stores.results import (
    COLUMNS,
    assemble,
    finished,
    read_array,
    read_config,
    read_metrics,
    read_results,
    read_summary,
    remove_runs,
    results_schema,
    runs_listed,
    write_run,
)
from stores.screens import SCREENS_RECEIPT, Seen, seen
from stores.verify import judged, plan
from tests.summaries import summary_of

DESIGN = """\
run_id, dataset, modality, subject, protocol, train_subjects, embedding, encoder, aligned_by, base,
matched_base, match, weights, brain_encoder, image_head, recipe, seed, split, checkpoint, channels, window, trial_norm,
train_on, test_repetitions, gallery, n_way, top1, top3, top5, median_rank, mrr, val_top1, concept_top1, last_top1,
csls_top1, sinkhorn_top1, noise_ceiling, chance, n_queries, steps, seconds, embedding_key, epochs_key, images_key,
config_key, version, started, preprocessing, simulated"""


def put(runs, run_id="run-a", arrays=None, **summary):
    return write_run(
        runs,
        run_id,
        config={"seed": 1},
        summary=summary_of(run_id, **{"top1": 0.25, "more": [1], **summary}),
        arrays={"scores": np.arange(6.0).reshape(2, 3)} if arrays is None else arrays,
        checkpoint=b"weights",
        metrics=[{"step": 1, "loss": 2.5}, {"step": 2, "loss": np.float32(1.5)}],
    )


def test_the_table_has_the_columns_of_the_design():
    assert list(COLUMNS) == DESIGN.replace("\n", " ").split(", ")
    assert results_schema().field("top1").type == pa.float64()


def test_a_run_is_read_as_it_was_written(tmp_path):
    folder = put(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "scores.npy",
        "checkpoint.safetensors",
        "summary.json",
        "receipt.json",
    }
    assert finished(tmp_path, "run-a") and read_summary(tmp_path, "run-a")["top1"] == 0.25
    assert read_config(tmp_path, "run-a") == {"seed": 1}
    assert read_metrics(tmp_path, "run-a") == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]
    assert np.array_equal(read_array(tmp_path, "run-a", "scores"), np.arange(6.0).reshape(2, 3))


def test_the_table_is_assembled_from_finished_runs_in_order_of_their_names(tmp_path):
    put(tmp_path, "run-b", top1=0.5)
    put(tmp_path, "run-a")
    (put(tmp_path, "run-c") / "receipt.json").unlink()
    (tmp_path / "notes").mkdir()
    table = assemble(tmp_path)
    assert table.column("run_id").to_pylist() == ["run-a", "run-b"]
    assert table.column("top1").to_pylist() == [0.25, 0.5] and table.column("base").to_pylist() == ["", ""]
    assert read_results(tmp_path).equals(table) and read_results(str(tmp_path)).schema == results_schema()
    assert pq.read_table(tmp_path / "results.parquet").equals(table)


def test_of_two_sweeps_that_end_together_the_later_table_has_the_runs_of_both(tmp_path, monkeypatch):
    put(tmp_path, "run-a")

    def late(*arguments, **options):
        if not finished(tmp_path, "run-b"):  # the other sweep had the lock before us
            put(tmp_path, "run-b")
        return lock(*arguments, **options)

    monkeypatch.setattr("stores.results.lock", late)
    assert assemble(tmp_path).column("run_id").to_pylist() == ["run-a", "run-b"]


@pytest.mark.parametrize("left", ["an older table", "no table", "a broken table"])
def test_what_a_killed_sweep_finished_is_read(tmp_path, left):
    put(tmp_path)
    assemble(tmp_path)
    put(tmp_path, top1=0.75)
    put(tmp_path, "run-b", top1=0.5)
    if left != "an older table":
        (tmp_path / "results.parquet").unlink()
    if left == "a broken table":
        (tmp_path / "results.parquet").write_bytes(b"PAR1")
    assert read_results(tmp_path).column("top1").to_pylist() == [0.75, 0.5]


def test_assembling_twice_gives_the_same_bytes(tmp_path):
    put(tmp_path)
    assemble(tmp_path)
    first = (tmp_path / "results.parquet").read_bytes()
    assemble(tmp_path)
    assert first == (tmp_path / "results.parquet").read_bytes()


def beside(monkeypatch, act):
    """Have another process ``act`` once, right after the summaries were read or while they are."""
    true, done = results._read_rows, []

    def read(runs, run_ids):
        if not done:
            done.append(1)
            act()
        return true(runs, run_ids)

    monkeypatch.setattr(results, "_read_rows", read)


def test_a_run_that_is_removed_while_the_table_is_read_or_made_is_not_in_it(tmp_path, monkeypatch):
    for name in "abcd":
        put(tmp_path, f"run-{name}")
    beside(monkeypatch, lambda: shutil.rmtree(tmp_path / "run-a"))
    assert read_results(tmp_path)["run_id"].to_pylist() == ["run-b", "run-c", "run-d"]
    beside(monkeypatch, lambda: shutil.rmtree(tmp_path / "run-b"))
    assert assemble(tmp_path)["run_id"].to_pylist() == ["run-c", "run-d"] and not judged(plan(tmp_path, "runs"))


def test_nobody_lists_a_run_again_between_its_leaving_the_table_and_its_going(tmp_path, monkeypatch):
    put(tmp_path, "run-a")
    put(tmp_path, "run-b")
    true, others = results.discard, []

    def discard(folder, drafts):
        others.append(threading.Thread(target=assemble, args=(tmp_path,)))
        others[0].start()
        others[0].join(0.3)
        true(folder, drafts)

    monkeypatch.setattr(results, "discard", discard)
    remove_runs(tmp_path, ["run-a"])
    others[0].join()
    assert runs_listed(tmp_path) == {"run-b"}


def test_no_runs_is_an_empty_table_and_no_table_an_error(tmp_path):
    with pytest.raises(EmbedctlError, match="no results") as problem:
        read_results(tmp_path)
    assert "embedctl train" in problem.value.hint
    assert assemble(tmp_path).num_rows == 0


def test_a_run_written_anew_keeps_nothing_of_the_old_one(tmp_path):
    put(tmp_path, arrays={"scores": np.eye(2), "brain": np.eye(3)})
    folder = put(tmp_path, top1=0.75)
    assert not (folder / "brain.npy").exists() and read_summary(tmp_path, "run-a")["top1"] == 0.75
    assert {path.name for path in tmp_path.iterdir()} == {"run-a", ".embedctl"}
    assert not any((tmp_path / ".embedctl/drafts").iterdir())


def test_a_run_that_is_not_finished_is_not_read(tmp_path):
    (put(tmp_path) / "receipt.json").unlink()
    for run_id in ("run-a", "run-z"):
        with pytest.raises(EmbedctlError, match=f"no finished run '{run_id}'"):
            read_summary(tmp_path, run_id)


@pytest.mark.parametrize("name", ["summary.json", "config.json", "metrics.jsonl", "scores.npy"])
def test_a_changed_file_is_damage(tmp_path, name):
    path = put(tmp_path) / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2") + b" ")
    with pytest.raises(DamagedStore):
        read_summary(tmp_path, "run-a")
        read_config(tmp_path, "run-a")
        read_metrics(tmp_path, "run-a")
        read_array(tmp_path, "run-a", "scores")


def test_an_array_that_was_not_kept_is_answered_with_what_was(tmp_path):
    put(tmp_path)
    with pytest.raises(EmbedctlError) as problem:
        read_array(tmp_path, "run-a", "brain")
    assert "scores.npy" in problem.value.hint


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".hidden", "con", "x" * 129])
def test_a_name_that_is_no_folder_is_refused(tmp_path, run_id):
    for use in (lambda: put(tmp_path, run_id), lambda: finished(tmp_path, run_id)):
        with pytest.raises(EmbedctlError):
            use()


@pytest.mark.parametrize("wrong", [{"top1": "half"}, {"subject": "sub-01"}, {"encoder": 3}])
def test_a_summary_that_does_not_fit_the_table_is_a_mistake_of_the_caller(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        put(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_score_that_is_not_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        put(tmp_path, top1=float("nan"))
    assert not finished(tmp_path, "run-a")


def test_no_array_is_unpickled(tmp_path):
    with pytest.raises(ValueError):
        put(tmp_path, arrays={"scores": np.array([object()])})


def test_a_table_with_a_changed_byte_is_not_believed(tmp_path):
    put(tmp_path)
    assemble(tmp_path)
    path = tmp_path / "results.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(b"\x28\xb5\x2f\xfd") + 12] ^= 1  # inside the first compressed page
    path.write_bytes(data)
    assert read_results(tmp_path).column("top1").to_pylist() == [0.25]


def test_a_table_of_another_version_is_made_again_with_the_columns_of_today(tmp_path, monkeypatch):
    put(tmp_path, last_top1=0.5)
    with monkeypatch.context() as patch:
        patch.setattr("stores.columns.COLUMNS", {name: kind for name, kind in COLUMNS.items() if name != "last_top1"})
        assert "last_top1" not in assemble(tmp_path).column_names
    assert read_results(tmp_path)["last_top1"].to_pylist() == [0.5]
    assert assemble(tmp_path).column_names == pq.read_table(tmp_path / "results.parquet").column_names == list(COLUMNS)


def seen_in(runs):
    return seen(runs, read_results(runs)).get("things-eeg2")


def of(embedding, seed=0):
    return {"dataset": "things-eeg2", "embedding": embedding, "embedding_key": "0a", "config_key": "1b", "seed": seed}


@pytest.mark.parametrize("assembled", [True, False])
def test_a_configuration_that_has_seen_the_test_is_counted_after_its_runs_are_removed(tmp_path, assembled):
    put(tmp_path, "run-a", **of("pixels")), put(tmp_path, "run-b", **of("pixels", 1))
    put(tmp_path, "run-c", **of("hog"))
    if assembled:
        assemble(tmp_path)
    assert seen_in(tmp_path) == Seen(trained=2, screened=0)
    remove_runs(tmp_path, ["run-a", "run-b"])
    assert seen_in(tmp_path) == Seen(trained=2, screened=0)
    put(tmp_path, "run-a", **of("pixels"))  # trained again: no other configuration
    assemble(tmp_path)
    assert seen_in(tmp_path) == Seen(trained=2, screened=0) and not judged(plan(tmp_path, "runs"))


def test_runs_whose_folders_are_deleted_by_hand_or_damaged_are_counted_once_they_were_in_the_table(tmp_path):
    put(tmp_path, "run-a", **of("pixels")), put(tmp_path, "run-b", **of("hog"))
    assemble(tmp_path)
    shutil.rmtree(tmp_path / "run-a")
    (tmp_path / "run-b" / "summary.json").write_bytes(b"")
    remove_runs(tmp_path, ["run-b"])
    assert seen_in(tmp_path) == Seen(trained=2, screened=0)


def test_what_an_earlier_version_did_not_put_on_record_is_taken_from_its_table(tmp_path):
    put(tmp_path, "run-a", **of("pixels"))
    assemble(tmp_path)
    (tmp_path / "screens.json").unlink(), (tmp_path / ".embedctl" / "screens.json").unlink()
    shutil.rmtree(tmp_path / "run-a")
    assemble(tmp_path)
    assert seen_in(tmp_path) == Seen(trained=1, screened=0)


def test_a_record_that_was_cut_short_before_its_end_was_written_down_is_ended_by_the_next(tmp_path, monkeypatch):
    put(tmp_path, "run-a", **of("pixels"))
    receipt, last = tmp_path / SCREENS_RECEIPT, iter([receipts.write_receipt])
    monkeypatch.setattr(receipts, "write_receipt", lambda *a, **more: next(last)(*a, **more))  # the second ends it
    with pytest.raises(StopIteration):
        assemble(tmp_path)
    assert is_announced(receipt) and seen_in(tmp_path) == Seen(trained=1, screened=0)
    monkeypatch.undo()
    assemble(tmp_path)
    assert not is_announced(receipt) and seen_in(tmp_path) == Seen(trained=1, screened=0)


def test_a_run_whose_configuration_cannot_be_put_on_record_is_not_removed(tmp_path, monkeypatch):
    put(tmp_path, "run-a", **of("pixels"))

    def full(*arguments, **more):
        monkeypatch.undo()  # once
        raise CannotWrite("the disk is full", "free some space")

    monkeypatch.setattr(screens, "change", full)
    with pytest.raises(CannotWrite):
        remove_runs(tmp_path, ["run-a"])
    assert finished(tmp_path, "run-a")
