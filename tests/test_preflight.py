"""What is wrong with a recording is known before any work is done: all of it, with the way out."""

import shutil

import numpy as np
import pytest

from pipelines.preprocess.dataset import open_dataset, raise_first
from pipelines.preprocess.preflight import preflight
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.preprocess.things_eeg2 import find_image_lists, find_subjects, open_recording, presentations
from pipelines.simulate.raw_file import raw_file
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.errors import BadRecording

TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.jpg" for c in range(1, 5) for i in range(1, 3)]
TEST = [f"test_images/{c:05d}_t{c:02d}/t{c:02d}_01s.jpg" for c in range(1, 4)]
ROWS = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(TRAINING + TEST)}
CHANNELS = ("Cz", "Pz", "Oz")
FILE = "sub-01/ses-01/raw_eeg_training.npy"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    simulate_things_eeg2(
        folder, TRAINING, TEST, ROWS, subjects=[1], sessions=2, test_repetitions=4, ch_names=CHANNELS, n_sources=2
    )
    return folder


@pytest.fixture
def raw(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)


def rewrite(raw, change, file=FILE):
    """Write a file again after ``change(dictionary)``."""
    whole = np.load(raw / file, allow_pickle=True).item()
    whole = change(whole) or whole
    np.save(raw / file, whole, allow_pickle=True)


def look(raw, channels=()):
    return preflight(raw, 1, find_image_lists(raw)[0], channels)


def put(key, value):
    def change(whole):
        whole[key] = value

    return change


def scale_samples(factor):
    def change(whole):
        whole["raw_eeg_data"][:-1] *= factor

    return change


def edit_stim(edit):
    def change(whole):
        whole["raw_eeg_data"][-1] = edit(whole["raw_eeg_data"][-1])

    return change


def test_a_good_subject_has_no_problem_and_every_count(raw):
    found = look(raw)
    assert not found.problems and not found.notes
    assert found.counts["all train"] == {"images in the metadata": 8, "images shown": 8}
    counts = found.counts["ses-01 train"]
    assert counts["events"] == counts["targets dropped"] + 9 and counts["images"] == 4
    assert (counts["fewest repetitions"], counts["most repetitions"]) == (2, 3)


def test_events_are_those_that_mne_finds(raw):
    import mne

    recording = open_recording(raw / FILE)
    stim = np.array(recording.samples[recording.stim])[None]
    found = mne.find_events(
        mne.io.RawArray(stim, mne.create_info(["stim"], 1000.0, "stim"), verbose="error"), "stim", verbose="error"
    )
    ours = presentations(recording)
    assert np.array_equal(found[:, 0], ours.onsets) and np.array_equal(found[:, 2], ours.codes)


def first(stim):
    return stim[stim > 0].min()


@pytest.mark.parametrize(
    ("change", "field", "said", "fix"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "sfreq"}, "file", "lacks 'sfreq'", "it holds raw_eeg_data"),
        (put("sfreq", 0), "file", "sfreq is 0", "1000"),
        (put("sfreq", 10**400), "file", "sfreq is 1000", "1000"),
        (put("ch_names", None), "file", "ch_names is None, not a list", "download it again"),
        (put("ch_types", 5), "file", "ch_types is 5, not a list", "download it again"),
        (put("raw_eeg_data", np.zeros((4, 0))), "file", "not a float array", "preprocessed"),
        (edit_stim(lambda x: np.where(x == first(x), 7.5, x)), "stim", "it holds 7.5 at sample", "download"),
        (
            edit_stim(lambda x: np.where(np.roll(x, 1) == first(x), first(x) + 1, x)),
            "stim",
            "begin at the sample after",
            "one sample",
        ),
        (edit_stim(lambda x: np.where(x == first(x), np.nan, x)), "stim", "it holds nan at sample", "download"),
        (put("sfreq", 500), "sfreq", "every 400 ms at 500 Hz", "should be 1000"),
        (put("ch_names", ["Cz", "stim"]), "file", "4 rows but 2 ch_names", "download it again"),
        (put("ch_names", ["Cz", "Cz", "Oz", "stim"]), "file", "ch_names holds Cz twice", "rename"),
        (put("ch_types", ["eeg"] * 4), "file", "0 channels of type 'stim'", "exactly one"),
        (put("raw_eeg_data", np.zeros((2, 3, 4))), "file", "not a float array", "preprocessed"),
        (scale_samples(1e6), "raw_eeg_data", "varies by", "divide by 1e+06"),
        (scale_samples(0), "raw_eeg_data", "varies by 0 V", "empty"),
        (edit_stim(lambda x: x * 0), "stim", "no event", "download"),
        (edit_stim(lambda x: -x), "stim", "negative", "-1"),
        (
            edit_stim(lambda x: np.where(x == 99999, 34463, x)),
            "stim",
            "codes outside 1..8: 34463",
            "wrapped to 16 bits",
        ),
        (edit_stim(lambda x: np.where((x > 0) & (x < 9), x + 100, x)), "stim", "codes outside", "different image sets"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_its_remedy(raw, change, field, said, fix):
    rewrite(raw, change)
    found = look(raw)
    problem = next(p for p in found.problems if p.file == FILE)
    assert problem.field == field and said in problem.what and fix in problem.fix
    assert str(raw) not in str(problem), "the file is named once, from the subject on"
    with pytest.raises(BadRecording) as caught:
        raise_first([found])
    assert caught.value.exit_code == 2 and caught.value.hint == found.problems[0].fix
    assert "\n" not in str(caught.value)


def test_all_problems_come_at_once(raw):
    rewrite(raw, scale_samples(1e6))
    rewrite(raw, edit_stim(lambda x: x * 0), "sub-01/ses-02/raw_eeg_test.npy")
    (raw / "sub-01/ses-01/raw_eeg_test.npy").write_bytes(b"<html>log in</html>")
    found = look(raw)
    assert sorted(p.file.removeprefix("sub-01/") for p in found.problems) == [
        "ses-01/raw_eeg_test.npy",
        "ses-01/raw_eeg_training.npy",
        "ses-02/raw_eeg_test.npy",
    ]
    with pytest.raises(BadRecording, match=r"and 2 more: see --check"):
        raise_first([found])


def test_an_image_named_twice_in_the_metadata_is_refused(raw):
    path = raw / "image_metadata.npy"
    whole = np.load(path, allow_pickle=True).item()
    for key in ("train_img_files", "train_img_concepts"):
        whole[key] = [whole[key][0], *whole[key][:-1]]
    np.save(path, whole, allow_pickle=True)
    lists, (problem,) = find_image_lists(raw)
    assert list(lists) == ["test"] and problem.field == "train_img_files"
    assert problem.what.startswith("train_img_files names training_images/") and problem.what.endswith(" twice")


def test_the_official_name_wins_where_both_are_there(raw):
    (raw / FILE).with_name("raw_eeg_train.npy").write_bytes(b"")
    assert not look(raw).problems


def test_a_session_copied_over_another_is_found(raw):
    (raw / "sub-01/ses-02/raw_eeg_test.npy").write_bytes((raw / "sub-01/ses-01/raw_eeg_test.npy").read_bytes())
    (problem,) = look(raw).problems
    assert problem.file == "sub-01/ses-02/raw_eeg_test.npy" and "ses-01/raw_eeg_test.npy" in problem.what


def test_channels_are_matched_by_name(raw):
    rewrite(raw, put("ch_names", ["Cz", "Pz", "O1", "stim"]))
    (problem,) = look(raw).problems
    assert problem.field == "ch_names" and "other channels than most of its files: O1, Oz" in problem.what
    assert problem.file == FILE, "what most files have is right, not what the first one has"
    absent = look(raw, channels=("Pz", "Oz")).problems
    assert [(p.file, p.what) for p in absent] == [(FILE, "1 of the recipe's 2 channels is absent: Oz")]
    many = look(raw, channels=("Cz", *(f"C{n}" for n in range(11, 18)))).problems
    assert many[0].what == "7 of the recipe's 8 channels are absent: C11, C12, C13, C14, C15, ..."
    assert not look(raw, channels=("Pz", "Cz")).problems


def test_missing_sessions_and_images_are_notes(raw):
    (raw / FILE).unlink()
    found = look(raw)
    assert not found.problems
    assert found.notes[0] == "sub-01: ses-01 has no train recording: fewer repetitions"
    assert "4 of 8 train images never shown, such as training_images/" in found.notes[1]


@pytest.mark.parametrize("file", [FILE, "image_metadata.npy"])
def test_a_link_that_leads_nowhere_is_not_taken_for_a_missing_file(raw, file):
    (raw / file).unlink()
    (raw / file).symlink_to("../.git/annex/objects/never-fetched")
    problem = open_dataset("things-eeg2", raw, "clean").preflight(1).problems[0]
    assert (problem.file, problem.what) == (file, "is a link that leads nowhere") and "git annex get" in problem.fix


def test_no_training_recording_at_all_is_a_problem(raw):
    for path in raw.glob("sub-01/*/raw_eeg_training.npy"):
        path.unlink()
    (problem,) = look(raw).problems
    assert problem.file == "sub-01" and "raw_eeg_training.npy" in problem.what


def test_other_spellings_of_names_are_understood(raw):
    for path in raw.glob("sub-01/*/raw_eeg_training.npy"):
        rewrite(raw, lambda w: {**{k: v for k, v in w.items() if k != "ch_types"}, "ch_type": w["ch_types"]}, path)
        path.rename(path.with_name("raw_eeg_train.npy"))
    (raw / "image_set").mkdir()
    (raw / "image_metadata.npy").rename(raw / "image_set/image_metadata.npy")
    (raw / "sub-01").rename(raw / "sub-1")
    (raw / ".DS_Store").write_text("")
    assert list(find_subjects(raw)) == [1]
    assert not look(raw).problems


def test_missing_or_incomplete_image_lists_are_named(raw):
    np.save(raw / "image_metadata.npy", {"train_img_files": ["a"]}, allow_pickle=True)
    assert [problem.field for problem in find_image_lists(raw)[1]] == [
        "train_img_concepts",
        "test_img_concepts",
        "test_img_files",
    ]
    lists = {"train_img_files": ["a"], "train_img_concepts": ["x", "y"], "test_img_files": [], "test_img_concepts": []}
    np.save(raw / "image_metadata.npy", lists, allow_pickle=True)
    (problem,) = find_image_lists(raw)[1]
    assert problem.what == "2 train_img_concepts, 1 train_img_files"


def test_bad_image_lists_do_not_end_the_check(raw):
    lists = {"train_img_files": ["a"], "train_img_concepts": 7, "test_img_concepts": ["x"]}
    np.save(raw / "image_metadata.npy", lists, allow_pickle=True)
    rewrite(raw, edit_stim(lambda x: x * 0), "sub-01/ses-02/raw_eeg_test.npy")
    problems = open_dataset("things-eeg2", raw, "clean").preflight(1).problems
    assert [(p.file, p.field) for p in problems] == [
        ("image_metadata.npy", "train_img_concepts"),
        ("image_metadata.npy", "test_img_files"),
        ("sub-01/ses-02/raw_eeg_test.npy", "stim"),
    ]
    (raw / "image_metadata.npy").unlink()
    first, second = open_dataset("things-eeg2", raw, "clean").preflight(1).problems
    assert first.file == "image_metadata.npy" and "osf.io" in first.fix and second.field == "stim"


def test_a_check_says_that_a_recipe_draws_more_repetitions_than_there_are(raw, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\nrepetitions = {train = 3, test = 50}\n')
    store = tmp_path / "epochs.zarr"
    asked = PreprocessRequest(dataset="things-eeg2", raw=raw, store=store, recipe=str(own), check=True)
    (line,) = preprocess(asked).subjects
    assert not line.problems and any("draws 50 test repetitions of an image, some have" in note for note in line.notes)


def test_recordings_of_the_raw_writer_pass_whatever_their_length(raw):
    recording = open_recording(raw / FILE)
    with raw_file(
        raw / FILE, (4, recording.n_samples + 50_000), {"ch_names": [*CHANNELS, "stim"], "sfreq": 1000.0}
    ) as new:
        new[:, : recording.n_samples] = recording.samples
        new[:3, recording.n_samples :] = np.random.default_rng(0).normal(size=(3, 50_000)) * 1e-5
    assert not look(raw).problems
