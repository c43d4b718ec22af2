"""The faults that recordings of this field come with, each with the test of what is said about it; and four of them.

Every listed test names the message, its remedy or the count. Those of files go through the command, as
``test_bad_recordings.py`` does, and check its two lines and its exit code; those of whole runs (a missing session, a
killed run, a full disk, another writer) check the error, which carries its code.
"""

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.preprocess.bids import not_brain
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.preprocess.things_eeg2 import open_recording
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.epochs import EpochStore

BAD = "test_bad_recordings.py::test_recordings_that_cannot_be_used_are_two_lines_and_code_2"
FIELD = "test_preflight.py::test_a_wrong_field_is_named_with_its_file_and_its_remedy"
EEG1 = "datasets/test_things_eeg1.py::test_every_fault_is_named_with_its_file_its_field_and_its_remedy"
MEG = "datasets/test_things_meg.py::test_every_fault_is_named_with_its_file_its_field_and_its_remedy"
MNE = "datasets/test_mne.py::test_every_fault_is_named_with_its_file_its_field_and_its_remedy"
ARRAYS = "datasets/test_arrays.py::test_every_fault_is_named_with_its_file_its_field_and_its_remedy"
HERE = "test_faults.py"
TESTS = {
    "truncated file": (BAD, "test_raw_npy.py::test_a_truncated_recording_tells_how_much_of_it_there_is"),
    "Git LFS pointer or web page": (BAD, "test_raw_npy.py::test_files_that_are_something_else_are_named"),
    "bare pickle or NumPy file": ("datasets/test_things_eeg2_merged.py::test_every_repetition_arrives_in_its_place",),
    "pickle that calls something": (
        BAD,
        "test_raw_npy.py::test_a_pickle_that_wants_to_call_something_is_refused_with_its_names",
    ),
    "missing session": ("test_preprocess_faults.py::test_a_missing_session_means_fewer_repetitions",
                        "test_preflight.py::test_missing_sessions_and_images_are_notes"),
    "missing split": (EEG1, "test_preflight.py::test_no_training_recording_at_all_is_a_problem"),
    "other names of files and fields": ("test_preflight.py::test_other_spellings_of_names_are_understood",),
    "samples that are no numbers": (
        "test_preprocess_faults.py::test_nice_names_the_sample_that_is_not_finite",
        "test_preprocess_faults.py::test_repetitions_with_an_unusable_channel_are_lost_and_counted_and_the_rest_is_whitened",
    ),
    "flat channel": ("test_flat_channels.py::test_a_flat_channel_in_one_epoch_of_400_changes_others_by_a_thousandth",
                     "test_preprocess_faults.py::test_a_channel_dead_for_a_whole_session_is_zero_there_and_said"),
    "artefacts beyond a millivolt": (f"{HERE}::test_epochs_that_span_more_than_a_millivolt_are_told_and_kept",),
    "wrong unit": (FIELD, MNE, MEG),
    "wrong sampling frequency": (FIELD, EEG1),
    "channels missing, renamed or in another order": (
        "test_preflight.py::test_channels_are_matched_by_name",
        f"{HERE}::test_channel_names_are_read_as_the_10_20_system_spells_them",
        f"{HERE}::test_subjects_with_other_channels_do_not_share_a_store",
    ),
    "duplicate channel names": (FIELD, MNE, ARRAYS),
    "event channel empty, inverted or wrapped to 16 bits": (FIELD,),
    "other number of events than planned": (
        "test_preprocess_faults.py::test_a_recipe_that_draws_more_repetitions_than_there_are_says_so",
        "test_preflight.py::test_a_good_subject_has_no_problem_and_every_count",
        MEG,
    ),
    "targets and catch trials": (
        FIELD,
        "datasets/test_things_meg.py::test_alignvis_takes_the_epochs_as_they_are_from_0_to_1_s",
    ),
    "another list of images": ("test_preflight.py::test_missing_or_incomplete_image_lists_are_named",
                               "train/test_join.py::test_the_first_five_unresolved_are_listed"),
    "onsets in samples or in seconds": (EEG1, MNE),
    "epoch past the end, or across a seam": (
        "test_preprocess_faults.py::test_epochs_past_the_end_of_the_file_are_counted",
        "datasets/test_mne.py::test_runs_and_sessions_are_kept_apart_and_no_epoch_crosses_a_seam",
    ),
    "two events at one sample": (EEG1, MNE, ARRAYS),
    "a subject or session twice": ("test_preprocess.py::test_a_subject_stored_under_the_name_of_another_is_found",
                                   "test_preflight.py::test_a_session_copied_over_another_is_found"),
    "disk full or read-only": ("test_preprocess_faults.py::test_too_little_space_is_known_before_anything_is_written",
                               "stores/test_commits.py::test_a_disk_that_takes_nothing_is_one_of_our_errors_and_the_old_file_stays"),
    "killed": (
        "test_preprocess_faults.py::test_an_interrupted_subject_is_invisible_goes_on_and_ends_with_the_same_bytes",
    ),
    "another recipe, another writer, other recordings, a newer store": (
        "test_preprocess_faults.py::test_another_recipe_is_refused_before_any_recording_is_looked_at",
        "test_preprocess_faults.py::test_a_subject_that_another_process_is_writing_is_known_before_the_first_pass",
        "test_preprocess_faults.py::test_a_subject_of_other_recordings_is_not_taken_for_the_same",
        "stores/test_layout.py::test_a_store_of_a_newer_embedctl_is_not_guessed_at",
    ),
}  # fmt: skip
TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_01s.jpg" for c in range(1, 5)]
TEST = ["test_images/00001_t/t_01s.jpg", "test_images/00002_u/u_01s.jpg"]
ROWS = {name: np.random.default_rng(n).normal(size=12) for n, name in enumerate(TRAINING + TEST)}


def test_every_fault_has_tests_that_exist():
    assert len(TESTS) == 25
    defined = {
        f"{path.relative_to(Path(__file__).parent).as_posix()}::{node.name}"
        for path in {Path(__file__).parent / name.partition("::")[0] for names in TESTS.values() for name in names}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert not {name for names in TESTS.values() for name in names} - defined


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "raw"
    simulate_things_eeg2(
        folder, TRAINING, TEST, ROWS, subjects=[1], sessions=2, test_repetitions=2, ch_names=("Cz", "Oz"), n_sources=2
    )
    return folder


@pytest.fixture
def raw(made, tmp_path):
    shutil.copytree(made, tmp_path / "raw")
    return tmp_path / "raw"


def rewrite(path, **fields):
    whole = np.load(path, allow_pickle=True).item()
    np.save(path, {**whole, **fields}, allow_pickle=True)


def test_epochs_that_span_more_than_a_millivolt_are_told_and_kept(raw, tmp_path):
    path = raw / "sub-01/ses-01/raw_eeg_training.npy"
    samples = np.load(path, allow_pickle=True).item()["raw_eeg_data"]
    onset = np.flatnonzero(samples[-1])[0]
    samples[0, onset + 100 : onset + 150] += 2e-3
    rewrite(path, raw_eeg_data=samples)
    line = preprocess(PreprocessRequest(dataset="things-eeg2", raw=raw, store=tmp_path / "e.zarr")).subjects[0]
    (note,) = line.notes
    assert note.startswith("sub-01/ses-01: 1 of ") and note.endswith(
        "train epochs span more than 1 mV: artefacts, kept"
    )
    assert EpochStore.open(tmp_path / "e.zarr")["things-eeg2", 1].train.valid.sum() == 10


def test_channel_names_are_read_as_the_10_20_system_spells_them(raw, tmp_path):
    path = raw / "sub-01/ses-01/raw_eeg_training.npy"
    rewrite(path, ch_names=["EEG CZ-Ref", " oz", "stim"])
    assert list(open_recording(path).rows) == ["Cz", "Oz"]
    (tmp_path / "sub-01_channels.tsv").write_text("name\tstatus\nEEG AFZ-REF\tbad\nOz\tgood\n")
    assert not_brain(tmp_path / "sub-01_eeg.edf") == ["AFz"]


def test_subjects_with_other_channels_do_not_share_a_store(raw, tmp_path):
    words = ["preprocess", "-d", "things-eeg2", "--raw", str(raw), "--store", str(tmp_path / "e.zarr")]
    assert CliRunner().invoke(app, words).exit_code == 0
    simulate_things_eeg2(
        raw,
        TRAINING,
        TEST,
        ROWS,
        subjects=[2],
        sessions=2,
        test_repetitions=2,
        ch_names=("Pz", "Oz"),
        n_sources=2,
        seed=1,
    )
    for more in ((), ("--subject", "2"), ("--check",)):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 2 and "sub-02 has other channels than sub-01: Cz, Pz" in result.stderr, more
        assert "--store" in result.stderr
    assert EpochStore.open(tmp_path / "e.zarr").subjects("things-eeg2") == [1]
