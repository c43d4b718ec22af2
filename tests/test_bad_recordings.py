"""`embedctl preprocess` on recordings that are not what they should be: two lines, the code, no store, nothing run."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.simulate.recordings import simulate_things_eeg2

TRAINING = ["training_images/00001_a/x.jpg", "training_images/00002_b/y.jpg"]
TEST = ["test_images/00001_c/z.jpg"]
FILE = "sub-01/ses-01/raw_eeg_training.npy"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "raw"
    rows = {name: np.random.default_rng(n).normal(size=12) for n, name in enumerate(TRAINING + TEST)}
    simulate_things_eeg2(
        folder, TRAINING, TEST, rows, subjects=[1], sessions=2, test_repetitions=2, ch_names=("Cz", "Oz"), n_sources=2
    )
    return folder


@pytest.fixture
def raw(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "raw" / "things-eeg2")
    return tmp_path / "raw" / "things-eeg2"


class Payload:
    """Unpickles into a file called ``ran``."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def hostile(array):
    """Return a raw file that carries a call beside what belongs there."""
    whole = np.empty((), object)
    whole[()] = {"raw_eeg_data": array, "ch_names": ["Cz", "Oz", "stim"], "sfreq": 1000.0, "more": Payload()}
    return whole


def _nothing(raw):
    shutil.rmtree(raw)


def _empty_folder(raw):
    shutil.rmtree(raw)
    raw.mkdir()


def _a_file(raw):
    shutil.rmtree(raw)
    raw.write_text("x")


def _other_things(raw):
    shutil.rmtree(raw)
    (raw / "holiday").mkdir(parents=True)
    (raw / "holiday" / "beach.jpg").write_bytes(b"x")


def _no_metadata(raw):
    (raw / "image_metadata.npy").unlink()


def _no_sessions(raw):
    shutil.rmtree(raw / "sub-01")
    (raw / "sub-01").mkdir()


def _truncated(raw):
    (raw / FILE).write_bytes((raw / FILE).read_bytes()[:-1000])


def _stump(raw):
    (raw / FILE).write_bytes((raw / FILE).read_bytes()[:40])


def _no_bytes(raw):
    (raw / FILE).write_bytes(b"")


def _a_folder(raw):
    (raw / FILE).unlink()
    (raw / FILE).mkdir()


def _no_training(raw):
    (raw / FILE).unlink()


def _garbage(raw):
    (raw / FILE).write_bytes(b"\xff\x00" * 500)


def _a_pointer(raw):
    (raw / FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def _a_page(raw):
    (raw / FILE).write_text("<!DOCTYPE html><html>Sign in</html>")


def _a_bare_payload(raw):
    (raw / FILE).write_bytes(pickle.dumps(Payload()))


def _a_payload_among_the_fields(raw):
    np.save(raw / FILE, hostile(np.zeros((3, 5000))), allow_pickle=True)


def _a_payload_in_the_metadata(raw):
    np.save(raw / "image_metadata.npy", hostile(np.zeros((3, 5))), allow_pickle=True)


def _a_bare_payload_for_metadata(raw):
    (raw / "image_metadata.npy").write_bytes(pickle.dumps(Payload(), protocol=0))


DAMAGES = {
    _nothing: "no folder",
    _empty_folder: "holds no subjects",
    _a_file: "no folder",
    _other_things: "holds no subjects",
    _no_metadata: "no image_metadata.npy",
    _no_sessions: "no ses-XX/raw_eeg_training.npy",
    _truncated: "truncated",
    _stump: FILE,
    _no_bytes: FILE,
    _a_folder: "is a folder",
    _no_training: "has no training recording",
    _garbage: FILE,
    _a_pointer: "git lfs",
    _a_page: FILE,
    _a_bare_payload: FILE,
    _a_payload_among_the_fields: FILE,
    _a_payload_in_the_metadata: "image_metadata.npy",
    _a_bare_payload_for_metadata: "image_metadata.npy",
}


def run(*words):
    return CliRunner().invoke(app, ["preprocess", "--dataset", "things-eeg2", *words])


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_").replace("_", " "))
@pytest.mark.parametrize("check", [(), ("--check",)], ids=["", "check"])
def test_recordings_that_cannot_be_used_are_two_lines_and_code_2(raw, damage, check):
    damage(raw)
    result = run(*check)
    assert result.exit_code == 2, result.stderr
    assert "bug:" not in result.stderr and "Traceback" not in result.stderr
    assert DAMAGES[damage].lower() in result.stderr.lower()
    if not check:
        error, hint = result.stderr.splitlines()
        assert error.startswith("error: ") and DAMAGES[damage].lower() in error.lower()
        assert hint.startswith("hint:  ") and len(hint) > 12
    assert not Path("epochs.zarr").exists() and not Path("ran").exists(), "nothing is written, nothing is run"


@pytest.mark.parametrize("subject", ["7", "1,7", "0..3"])
def test_a_subject_that_is_not_there_is_named_with_those_that_are(raw, subject):
    result = run("--subject", subject)
    assert result.exit_code == 2 and not Path("epochs.zarr").exists()
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: no subject ") and "1" in hint


def test_unharmed_they_are_preprocessed(raw):
    assert run().exit_code == 0 and Path("epochs.zarr").is_dir()


def test_images_of_a_file_that_cannot_be_read_are_not_called_never_shown(raw):
    _truncated(raw)
    result = run("--check")
    assert "truncated" in result.stderr and "never shown" not in result.stderr


def test_several_problems_are_two_lines_that_count_them_and_a_check_lists_them(raw):
    _truncated(raw)
    (raw / "sub-01/ses-02/raw_eeg_test.npy").write_bytes(b"")
    shutil.copytree(raw / "sub-01", raw / "sub-02")
    error, hint = run().stderr.splitlines()
    assert FILE in error and error.endswith("(and 3 more: see --check)") and hint.startswith("hint:  ")
    listed = run("--check").stderr.splitlines()
    assert len(listed) == 4 and sum("sub-02" in line for line in listed) == 2


def test_what_is_worth_knowing_is_told_only_once_nothing_is_wrong(raw):
    _no_training(raw)  # a note; that there is nothing to fit the whitening on is the problem
    error, hint = run().stderr.splitlines()
    assert error.startswith("error: sub-01/ses-01 has no training recording") and hint.startswith("hint:  ")
