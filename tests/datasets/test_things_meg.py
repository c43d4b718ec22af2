"""THINGS-MEG from epochs in several parts and their table: who is trained on, who tested, and what is left out."""

import shutil

import mne
import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.preprocess.dataset import open_dataset
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from stores.epochs import EpochStore
from stores.errors import BadRecording, UnknownName

CHANNELS = ["MLC11", "MLO21", "MRO31", *(f"MZP{k:02d}" for k in range(97))]  # enough for MNE to cut the file in parts
TIMES = np.arange(-20, 261) / 200  # 281 samples, -0.1 to 1.3 s, as published
# Three training concepts and a test concept of which other images are shown in training, twelve test repetitions.
EXP = [f"images_meg/{c}/{c}_{i:02d}b.jpg" for c in ("ant", "bee", "cat", "wig") for i in (1, 2)]
TEST = ["images_test_meg/wig_13s.jpg", "images_test_meg/dog_09s.jpg"]
NUMBER = {image: 100 + k for k, image in enumerate(EXP + TEST)}  # things_image_nr
HEADER = "trial_type,image_nr,things_image_nr,image_path,session_nr,run_nr"


def trials():
    """Return (type, image, session) of every trial, in order."""
    rng = np.random.default_rng(0)
    rows = [("exp", EXP[k], 1 + i % 2) for i, k in enumerate(rng.permutation(len(EXP)))]
    rows += [("test", image, 1 + i % 2) for i in range(12) for image in TEST]
    rows += [("catch", "images_catch_meg/c.jpg", 1 + i % 2) for i in range(5)]
    return sorted((rows[k] for k in rng.permutation(len(rows))), key=lambda row: row[2])


def data(subject=1):
    noise = np.random.default_rng(subject).normal(size=(len(trials()), len(CHANNELS), len(TIMES)))
    return noise.astype(np.float32).astype(np.float64)


def write(raw, subject=1, values=None, rows=None, split_size="2GB"):
    rows = trials() if rows is None else rows
    values = data(subject) if values is None else values
    codes = np.array([NUMBER.get(image, 999999) for _, image, _ in trials()])[: len(values)]
    info = mne.create_info(CHANNELS, 200.0, "mag")
    events = np.column_stack([np.arange(len(values)), 0 * codes, codes])
    epochs = mne.EpochsArray(values, info, events, TIMES[0], baseline=None, verbose="error")
    raw.mkdir(exist_ok=True)
    epochs.save(raw / f"preprocessed_P{subject}-epo.fif", split_size=split_size, overwrite=True, verbose="error")
    write_table(raw / f"sample_attributes_P{subject}.csv", rows)


def write_table(path, rows, header=HEADER):
    numbers = [f"{7 + i},{NUMBER[image]}.0" if image in NUMBER else "," for i, (_, image, _) in enumerate(rows)]
    lines = [f"{t},{number},{image},{s},1" for (t, image, s), number in zip(rows, numbers, strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    write(folder, 1, split_size="2MB")
    return folder


@pytest.fixture
def raw(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "raw")


def run(raw, tmp_path, **options):
    return preprocess(PreprocessRequest(dataset="things-meg", raw=raw, store=tmp_path / "e.zarr", **options))


def test_alignvis_takes_the_epochs_as_they_are_from_0_to_1_s(raw, tmp_path):
    assert len(list(raw.glob("preprocessed_P1-epo*.fif"))) > 2, "in several parts"
    line = run(raw, tmp_path, recipe="alignvis").subjects[0]
    subject = EpochStore.open(tmp_path / "e.zarr")["things-meg", 1]
    assert subject.modality == "meg" and subject.units == "sd of baseline" and subject.ch_names == CHANNELS
    assert len(subject.times) == 201 and subject.times[0] == 0 and subject.times[-1] == 1.0
    assert subject.train.image_ids == EXP[:6] and subject.train.concepts == ["ant", "ant", "bee", "bee", "cat", "cat"]
    assert subject.test.image_ids == sorted(TEST) and subject.test.n_repetitions == 12
    assert line.counts["catch trials"] == 5 and line.counts["training trials of test concepts"] == 2
    rows, values = trials(), data()[:, :, 20:221]
    for split in (subject.train, subject.test):
        stored = split.take(range(len(split)))
        for k, image in enumerate(split.image_ids):
            shown = [i for i, (_, name, _) in enumerate(rows) if name == image]
            # The stable sort: repetitions in the order in which they were seen.
            assert np.array_equal(stored[k, : len(shown)], values[shown].astype(np.float32))
            assert split.session[k, : len(shown)].tolist() == [rows[i][2] for i in shown]
    assert subject.test.trials["things_image_nr"].to_pylist() == [NUMBER[i] for i in sorted(TEST) for _ in range(12)]
    table = subject.trials.to_pylist()
    assert [(t["image_id"], t["session"], t["epoch"]) for t in table] == [(*r[1:], k) for k, r in enumerate(rows)]
    why = {"catch": "catch trial", "exp": "training image of a test concept", "test": None}
    for row, (kind, image, _) in zip(table, rows, strict=True):
        is_stored = image in subject.train.image_ids
        assert row["kind"] == ("catch" if kind == "catch" else "image")
        assert row["left_out"] == (None if is_stored else why[kind])


def test_clean_scales_robustly_per_session_and_counts_what_it_clips(raw, tmp_path):
    values = data()
    rows = trials()
    values[:, 1] = values[:, 1] * 40 + 7
    first = next(i for i, row in enumerate(rows) if row[1] == EXP[0])
    values[first, 0, 100] = 1e6
    write(raw, 1, values)
    line = run(raw, tmp_path).subjects[0]
    assert line.counts["clipped"] == 1
    subject = EpochStore.open(tmp_path / "e.zarr")["things-meg", 1]
    stored = subject.test.take(range(2))
    assert subject.recipe["dtype"] == "float16" and subject.units == "interquartile ranges"
    spread = np.percentile(stored, 75, axis=(0, 1, 3)) - np.percentile(stored, 25, axis=(0, 1, 3))
    assert np.allclose(spread, 1, atol=0.2) and np.allclose(np.median(stored, axis=(0, 1, 3)), 0, atol=0.2)
    assert np.abs(subject.train.take(range(6))[:, 0]).max() == 20
    fit = [i for i, row in enumerate(rows) if row[0] == "exp" and "wig" not in row[1] and row[2] == 1]
    low, middle, high = np.percentile(values[fit][:, 1, 20:221], [25, 50, 75])
    assert np.allclose(subject.arrays["shift"][0, 1], middle, rtol=1e-4)
    assert np.allclose(subject.arrays["scale"][0, 1], 1 / (high - low), rtol=1e-4)


def table(edit):
    def change(raw):
        path = raw / "sample_attributes_P1.csv"
        path.write_text(edit(path.read_text()))

    return change


def lose_a_part(raw):
    sorted(raw.glob("*-epo-*.fif"))[-1].unlink()


def reorder(raw):
    write_table(raw / "sample_attributes_P1.csv", trials()[::-1])


def in_tesla(raw):
    write(raw, 1, data() * 1e-13)


@pytest.mark.parametrize(
    ("spoil", "field", "said", "fix"),
    [
        (lambda raw: (raw / "sample_attributes_P1.csv").unlink(), "table", "no file", "names of the files"),
        (
            lambda raw: (raw / "preprocessed_P1-epo.fif").write_bytes(b"<html>"),
            "file",
            "is a web page",
            "fetch it again",
        ),
        (lose_a_part, "file", "MNE cannot read it", "further parts"),
        (table(lambda t: "\n".join(t.splitlines()[:-1])), "table", "36 lines, but 37 epochs", "part missing"),
        (
            table(lambda t: t.replace("image_path", "path")),
            "table",
            "lacks the column image_path",
            "image_nr, things_image_nr, path, ",
        ),
        (table(lambda t: t.replace("exp,", "train,")), "trial_type", "'train'", "exp, test and catch"),
        (table(lambda t: t.replace(EXP[0], "")), "image_path", "1 trial without one", "again"),
        (table(lambda t: t.replace(".jpg,1,", ".jpg,first,")), "session_nr", "'first'", "whole number"),
        (reorder, "things_image_nr", "trials have another things_image_nr than their epoch", "another order"),
        (table(lambda t: t.replace("test,", "catch,")), "split", "no test trial", "both splits"),
        (in_tesla, "data", "z-scores vary by about 1", "--dataset mne"),
    ],
)
def test_every_fault_is_named_with_its_file_its_field_and_its_remedy(raw, spoil, field, said, fix):
    spoil(raw)
    found = open_dataset("things-meg", raw, "alignvis").preflight(1)
    problem = next(p for p in found.problems if p.field == field)
    assert said in problem.what and fix in problem.fix and "P1" in problem.file
    result = CliRunner().invoke(app, ["preprocess", "-d", "things-meg", "--raw", str(raw), "--check"])
    assert result.exit_code == 2 and said in result.stderr


def test_a_few_numbers_that_differ_are_a_note(raw):
    rows = trials()
    k = next(i for i, row in enumerate(rows) if row[1] == EXP[0])
    path = raw / "sample_attributes_P1.csv"
    path.write_text(path.read_text().replace(f"{NUMBER[EXP[0]]}.0", "9999.0"))
    found = open_dataset("things-meg", raw, "clean").preflight(1)
    assert not found.problems
    assert (
        f"1 trial has another things_image_nr than its epoch: line {k + 2} says 9999, its epoch 100" in found.notes[0]
    )


def test_a_value_that_is_no_number_stops_alignvis_and_costs_clean_one_repetition(raw, tmp_path):
    values = data()
    place = next(i for i, row in enumerate(trials()) if row[1] == TEST[0])
    values[place, 2, 50] = np.nan
    write(raw, 1, values)
    with pytest.raises(BadRecording, match="MRO31 is not a finite number"):
        run(raw, tmp_path, recipe="alignvis")
    line = run(raw, tmp_path).subjects[0]
    assert line.counts["repetitions lost to them"] == 1


def test_folders_and_subjects_that_are_not_there_are_named(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, said in (("absent", "no folder"), ("empty", "no preprocessed_P1-epo.fif")):
        with pytest.raises(BadRecording, match=said):
            open_dataset("things-meg", tmp_path / folder, "clean")
    with pytest.raises(UnknownName, match="no subject 3"):
        open_dataset("things-meg", raw, "clean").preflight(3)
