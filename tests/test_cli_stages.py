"""The commands one after the other on a workspace of the smallest size, and how each ends on bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from pipelines.simulate.images import render_images
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.results import write_run

HERE = {**os.environ, "PYTHONPATH": str(Path(embedctl.__file__).parents[1])}  # for processes in another folder
CHANNELS = ("Fz", "P7", "P8", "Pz", "O1", "Oz", "O2")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Make a workspace with the commands alone, and keep what they said."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        images = render_images(folder / "images", n_train_concepts=12, images_per_concept=2, n_test_concepts=6)
        said = {"extract": run("extract", "--model", "pixels,colour-histogram")}
        pixels = embedctl.open_embeddings("embeddings.zarr")["pixels"]
        rows = dict(zip(pixels.image_ids, pixels.values, strict=True))
        simulate_things_eeg2(
            folder / "raw" / "things-eeg2", images.training, images.test, rows,
            subjects=[1, 2], sessions=2, test_repetitions=4, ch_names=CHANNELS, n_sources=3,
        )  # fmt: skip
        (folder / "quick.toml").write_text('base = "demo"\npasses = 2\n')
        said["check"] = run("preprocess", "--dataset", "things-eeg2", "--check")
        said["preprocess"] = run("preprocess", "--dataset", "things-eeg2")
        said["dry"] = run(
            "train",
            "--brain",
            "eeg",
            "--recipe",
            "quick.toml",
            "--model",
            "all",
            "--subject",
            "all",
            "--seed",
            "0..1",
            "--dry-run",
        )
        said["train"] = run("train", "--brain", "eeg", "--recipe", "quick.toml", "--seed", "0..1")
    return folder, said


@pytest.fixture
def workspace(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    return finished[0]


def test_every_stage_ends_well(finished):
    for stage, result in finished[1].items():
        assert result.exit_code == 0, f"{stage}: {result.stderr}"


def test_checking_writes_no_store_and_finds_no_problem(finished):
    assert finished[1]["check"].stdout.splitlines()[-1] == "no problems"


def test_preprocess_tells_the_shape_of_what_it_wrote(finished):
    header, first, *_ = finished[1]["preprocess"].stdout.splitlines()
    assert header.split()[:4] == ["subject", "state", "train", "test"]
    assert first.split()[:8] == ["1", "written", "24", "x", "3", "6", "x", "5"]


def test_preprocess_draws_every_subject_once_and_again_where_the_picture_is_lost(workspace, finished):
    pictures = [Path(f"epochs-quality/things-eeg2/sub-0{n}.png") for n in (1, 2)]
    assert "epochs-quality" in finished[1]["preprocess"].stdout.splitlines()[-1]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    pictures[0].unlink()
    before = pictures[1].stat().st_mtime_ns
    again = run("preprocess", "--dataset", "things-eeg2", "--json")
    assert json.loads(again.stdout)["pictures"] == [str(pictures[0])] and pictures[0].exists()
    assert pictures[1].stat().st_mtime_ns == before


def test_a_dry_run_lists_the_runs_and_does_none(finished):
    lines = finished[1]["dry"].stdout.splitlines()
    assert lines[-1] == "8 runs: 0 there already, 8 to do"
    assert sum("to do" in line for line in lines[:-1]) == 8
    assert " needed, " in lines[-2] and " free; time: under a minute on this computer's cores" in lines[-2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("preprocess", "--dataset", "things-eeg2", "--subject", "2..1"), "preprocess.subject cannot be ['2..1']"),
        (("preprocess", "--dataset", "things-eeg2", "--subject", ""), "--subject names nothing"),
        (("train", "--brain", "eeg", "--subject", ""), "--subject names nothing"),
        (("train", "--brain", "eeg", "--model", ""), "--model names nothing"),
        (("interpret", "--seed", ""), "--seed names nothing"),
    ],
)
def test_nothing_is_never_taken_for_everything(workspace, words, said):
    result = run(*words)
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error.startswith(f"error: {said}") and hint.startswith("hint:  it takes")


def test_train_says_what_was_there_the_second_time(workspace):
    again = run("train", "--brain", "eeg", "--recipe", "quick.toml", "--seed", "0,1")
    assert again.exit_code == 0
    assert "8 runs: 8 there already, 0 trained" in again.stdout


def test_results_list_every_run(workspace):
    found = json.loads(run("results", "--json").stdout)["results"]
    assert len(found) == 8
    assert {row["embedding"] for row in found} == {"pixels", "colour-histogram"}
    assert all(row["chance"] == pytest.approx(1 / 6) for row in found)
    lines = run("results").stdout.splitlines()
    assert len(lines) == 9 and all("16.7 %" in line for line in lines[1:])
    assert {line.split()[-1] for line in lines[1:]} == {row["run_id"] for row in found}  # what predict is given


def test_show_knows_the_epoch_store_and_the_runs(workspace):
    epochs = json.loads(run("show", "epochs.zarr", "--json").stdout)
    assert [(s["subject"], s["train_images"], s["test_images"]) for s in epochs["subjects"]] == [(1, 24, 6), (2, 24, 6)]
    assert run("show", "runs").stdout.startswith("8 runs\n")
    assert "things-eeg2" in run("show", "epochs.zarr").stdout


def test_a_sweep_that_left_runs_to_another_process_lists_them_and_ends_with_3(workspace, tmp_path):
    words = ("train", "--brain", "eeg", "--recipe", "quick.toml", "--model", "pixels", "--subject", "1")
    plan = json.loads(run(*words, "--runs", tmp_path, "--dry-run", "--json").stdout)["jobs"]
    code = "import sys; from pathlib import Path; from stores.locks import lock\n"
    code += "with lock(Path(sys.argv[1]), sys.argv[2]): print('held', flush=True); sys.stdin.read()"
    held = [sys.executable, "-c", code, str(tmp_path / ".embedctl" / "locks"), plan[0]["run_id"]]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=HERE) as holder:
        holder.stdout.readline()
        result = run(*words, "--runs", tmp_path, "--seed", "0,1")
        holder.stdin.close()
    assert result.exit_code == 3
    assert "2 runs: 0 there already, 1 trained" in result.stdout
    assert "skipped 1 of 2 runs:" in result.stderr and f"process {holder.pid} on" in result.stderr
    assert run(*words, "--runs", tmp_path, "--seed", "0,1").exit_code == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_the_runs_that_a_killed_sweep_finished_are_there_for_results_and_compare(workspace, tmp_path):
    words = ("train", "--brain", "eeg", "--recipe", "quick.toml", "--seed", "0..20", "--runs", tmp_path)
    command = [sys.executable, "-m", "embedctl", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=HERE) as sweep:
        deadline = time.monotonic() + 120
        while len(finished_runs(tmp_path)) < 3 and sweep.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        sweep.kill()
    there = finished_runs(tmp_path)
    assert sweep.returncode == -signal.SIGKILL and 3 <= len(there) < 84
    assert not (tmp_path / "results.parquet").exists()
    found = json.loads(run("results", "--runs", tmp_path, "--json").stdout)["results"]
    assert {row["run_id"] for row in found} == there
    ranked = json.loads(run("compare", "--runs", tmp_path, "--json").stdout)["ranking"]
    assert {row["embedding"] for row in ranked} == {row["embedding"] for row in found}
    assert len(run("results", "--runs", tmp_path).stdout.splitlines()) == 1 + len(there)


def finished_runs(runs):
    return {receipt.parent.name for receipt in runs.glob("*/receipt.json")}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["preprocess"], "preprocess needs to know which dataset"),
        (["preprocess", "--dataset", "things-eeg3"], "things-eeg3"),
        (["preprocess", "--dataset", "things-eeg2", "--raw", "nothing"], "nothing"),
        (["preprocess", "--dataset", "things-eeg2", "--raw", "images"], "images"),
        (["preprocess", "--dataset", "things-eeg2", "--subject", "7"], "7"),
        (["preprocess", "--dataset", "things-eeg2", "--recipe", "claen"], "claen"),
        (["preprocess", "--dataset", "things-eeg2", "--subject", "one"], "preprocess.subject cannot be ['one']"),
        (["train"], "train needs to know the kind of recording"),
        (["train", "--brain", "ecog"], "ecog"),
        (["train", "--brain", "eeg", "--model", "pixles"], "pixles"),
        (["train", "--brain", "eeg", "--subject", "9"], "9"),
        (["train", "--brain", "eeg", "--epochs", "nothing"], "nothing"),
        (["train", "--brain", "eeg", "--embeddings", "images"], "images"),
        (["train", "--brain", "eeg", "--recipe", "moden"], "moden"),
        (["train", "--brain", "eeg", "--brain-encoder", "nise"], "nise"),
        (["train", "--brain", "eeg", "--join", "sufix"], "train.join cannot be 'sufix'"),
        (["results", "--runs", "nothing"], "nothing"),
    ],
)
def test_bad_input_is_two_lines_and_code_2(workspace, words, what):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint:  "), result.stderr
    assert what in lines[0]


def test_a_truncated_recording_is_found_before_anything_is_written(workspace, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(workspace / "raw" / "things-eeg2", raw)
    torn = raw / "sub-02" / "ses-02" / "raw_eeg_test.npy"
    torn.write_bytes(torn.read_bytes()[:-1000])
    result = run("preprocess", "--dataset", "things-eeg2", "--raw", raw, "--store", tmp_path / "epochs.zarr")
    assert (result.exit_code, result.stdout) == (2, "")
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ") and "raw_eeg_test.npy" in error and hint.startswith("hint: ")
    assert not (tmp_path / "epochs.zarr").exists()
    checked = run("preprocess", "--dataset", "things-eeg2", "--raw", raw, "--check")
    assert checked.exit_code == 2 and "1 problem" in checked.stdout


def test_compare_ranks_the_encoders_beside_chance(workspace):
    found = json.loads(run("compare", "--json").stdout)
    assert [row["rank"] for row in found["ranking"]] == [1, 2] and found["pairs"] == []
    lines = run("compare").stdout.splitlines()
    assert lines[0].startswith("things-eeg2 on clean epochs, 6-way retrieval with eegproject, recipe quick ")
    assert (
        "each subject" in lines[1] and "95 % over images" in lines[1] and all("16.7 %" in line for line in lines[2:4])
    )
    assert lines[-1] == "no aligned encoder and its base have both been run: there is no pair to test"
    said = run("compare").stderr
    assert "intervals are over test images (" in said and "for these very subjects: fewer than 4" in said
    assert "split-half reliability" in said and "(column noise_ceiling)" in said
    assert run("compare", "--pairing", "papers").exit_code == 2


def test_weights_that_are_not_the_published_ones_are_marked_in_every_table(workspace, tmp_path):
    shutil.copytree(workspace / "runs", tmp_path / "runs")
    for summary in (tmp_path / "runs").glob("*pixels*/summary.json"):
        row = json.loads(summary.read_text()) | {"weights": "random:7", "aligned_by": "x", "matched_base": "hog"}
        put_run(tmp_path / "runs", row)
    for summary in (tmp_path / "runs").glob("*histogram*/summary.json"):
        put_run(tmp_path / "runs", json.loads(summary.read_text()) | {"weights": "random:7", "embedding": "hog"})
    listed = run("results", "--runs", tmp_path / "runs").stdout.splitlines()[1:]
    assert len(listed) == 8 and all(" random:7 " in line for line in listed)
    lines = run("compare", "--runs", tmp_path / "runs").stdout.splitlines()
    assert sum("(random:7)" in line for line in lines) == 3
    assert "pixels (random:7)  hog (random:7)" in lines[-1]
    assert lines[-1].endswith("no verdict")


def put_run(runs, row):
    write_run(runs, row["run_id"], config={}, summary=row, arrays={}, checkpoint=b"", metrics=[])
