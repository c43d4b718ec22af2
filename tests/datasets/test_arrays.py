"""One's own arrays: what the table says is what the store holds, and every fault is named with the way out."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import pipelines.cores
import stores.split_writer
from embedctl.cli import app
from pipelines.preprocess import identity
from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import open_dataset, raise_first
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from stores.epochs import EpochStore
from stores.errors import BadRecording, EmbedctlError, StoreMismatch, UnknownName

CHANNELS = ["Pz", "O1", "Oz"]
ABOUT = 'modality = "eeg"\nunits = "uV"\nsfreq = 100\ntmin = -0.1\nch_names = ["Pz", "O1", "Oz"]\n'
# Two subjects, three training images twice and two test images three times, in an order of its own.
SHOWN = [f"train/a{i}_01b.jpg" for i in (2, 1, 3, 1, 2, 3)] + [f"test/t{i}_02s.jpg" for i in (2, 1, 1, 2, 1, 2)]


def values(subject, n=12):
    return np.random.default_rng(subject).normal(size=(n, 3, 20)).astype(np.float32) * 5


def lines(subject):
    return [
        {"image": i, "subject": f"sub-{subject:02d}", "split": i.split("/")[0], "session": 1 + k % 2, "mood": "calm"}
        for k, i in enumerate(SHOWN)
    ]  # fmt: skip


def write_csv(path, rows):
    names = list(rows[0])
    text = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(text) + "\n")


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for subject in (1, 2):
        np.save(folder / f"sub-{subject:02d}.npy", values(subject))
    write_csv(folder / "trials.csv", lines(1) + lines(2))
    (folder / "recording.toml").write_text(ABOUT)
    return folder


def run(raw, tmp_path, **options):
    return preprocess(PreprocessRequest(dataset="arrays", raw=raw, store=tmp_path / "epochs.zarr", **options))


def look(raw, recipe="clean", subject=1):
    return open_dataset("arrays", raw, recipe).preflight(subject)


def test_every_trial_arrives_as_it_is_at_its_image(raw, tmp_path):
    report = run(raw, tmp_path)
    assert [line.state for line in report.subjects] == ["written", "written"]
    for number in (1, 2):
        found = EpochStore.open(tmp_path / "epochs.zarr")["arrays", number]
        assert (found.modality, found.units, found.ch_names) == ("eeg", "uV", CHANNELS)
        assert np.allclose(found.times, -0.1 + np.arange(20) / 100)
        for split in (found.train, found.test):
            stored = split.take(range(len(split)))
            for row, image in enumerate(split.image_ids):
                places = [k for k, shown in enumerate(SHOWN) if shown == image]
                # Sessions one after the other, and in each the order in which they were seen.
                places.sort(key=lambda k: (k % 2, k))
                assert np.array_equal(stored[row], values(number)[places]), image
                assert split.session[row].tolist() == [1 + k % 2 for k in places]
        assert found.train.concepts == ["a1", "a2", "a3"] and found.test.concepts == ["t1", "t2"]
        assert set(found.test.trials["mood"].to_pylist()) == {"calm"}
    assert [line.state for line in run(raw, tmp_path).subjects] == ["already there"] * 2


def test_a_parquet_table_with_files_and_rows_says_the_same(raw, tmp_path):
    run(raw, tmp_path)
    np.save(raw / "both.npy", np.concatenate([values(1), values(2)]))
    rows = [{**row, "file": "both.npy", "row": k} for k, row in enumerate(lines(1) + lines(2))]
    (raw / "trials.csv").unlink()
    pq.write_table(pa.Table.from_pylist(rows[::-1]), raw / "trials.parquet")
    preprocess(PreprocessRequest(dataset="arrays", raw=raw, store=tmp_path / "other.zarr"))
    one, other = (EpochStore.open(tmp_path / name)["arrays", 2] for name in ("epochs.zarr", "other.zarr"))
    assert one.test.image_ids == other.test.image_ids
    assert np.array_equal(one.test.mean, other.test.mean)


def test_betas_are_voxels_without_time(raw, tmp_path):
    for subject in (1, 2):
        np.save(raw / f"sub-{subject:02d}.npy", values(subject)[:, :, :5].reshape(12, 15))
    about = 'modality = "fmri"\nunits = "percent signal change"\n[rois]\nV1 = [14, 0]\nFFA = [3]\n'
    (raw / "recording.toml").write_text(about)
    run(raw, tmp_path)
    found = EpochStore.open(tmp_path / "epochs.zarr")["arrays", 1]
    assert found.modality == "fmri" and found.train.mean.shape == (3, 15) and found.test.take([0]).shape == (1, 3, 15)
    assert found.info["rois"] == {"V1": [0, 14], "FFA": [3]}
    for wrong in ("V1 = [15]", "V1 = [-1]", "V1 = 3", 'V1 = ["a"]'):
        (raw / "recording.toml").write_text(about.replace("V1 = [14, 0]", wrong))
        assert [problem.field for problem in look(raw).problems] == ["rois"]


def test_a_recipe_of_ones_own_chooses_channels_window_and_scale(raw, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\nchannels = ["Oz", "Pz"]\nwindow = [0.0, 0.05]\nscale = "zscore"\nclip = 2\n')
    line = run(raw, tmp_path, subjects=(1,), recipe=str(own)).subjects[0]
    found = EpochStore.open(tmp_path / "epochs.zarr")["arrays", 1]
    assert found.ch_names == ["Oz", "Pz"] and np.allclose(found.times, np.arange(6) / 100) and found.units == "sd"
    data, session = values(1)[:, [2, 0], 10:16], np.arange(12) % 2
    expected = np.empty_like(data)
    for number in (0, 1):
        fit = data[:6][session[:6] == number]
        mean, sd = fit.mean(axis=(0, 2))[:, None], fit.std(axis=(0, 2))[:, None]
        expected[session == number] = (data[session == number] - mean) / sd
    assert line.counts["clipped"] == (np.abs(expected) > 2).sum() > 0
    place = [k for k, shown in enumerate(SHOWN) if shown == "test/t1_02s.jpg" and k % 2 == 0]
    assert np.allclose(found.test.take([0])[0, 0], np.clip(expected[place[0]], -2, 2), atol=1e-5)


def test_mvnn_whitens_what_it_was_fitted_on(raw, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\nscale = "mvnn"\ndtype = "float16"\n')
    run(raw, tmp_path, subjects=(1,), recipe=str(own))
    found = EpochStore.open(tmp_path / "epochs.zarr")["arrays", 1]
    assert found.arrays["whitener"].shape == (2, 3, 3) and found.units == "sd of noise"
    first = [k for k in range(12) if SHOWN[k] == "train/a1_01b.jpg" and k % 2 == 1][0]
    assert np.allclose(
        found.train.take([0])[0, 0], found.arrays["whitener"][1] @ values(1)[first], rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("how", ["not a number", "flat"])
def test_trials_with_an_unusable_channel_are_left_out_and_counted(raw, tmp_path, how):
    changed = values(1)
    changed[3, 1] = np.nan if how == "not a number" else 1.0
    np.save(raw / "sub-01.npy", changed)
    line = run(raw, tmp_path, subjects=(1,)).subjects[0]
    assert line.counts["repetitions lost to them"] == 1
    train = EpochStore.open(tmp_path / "epochs.zarr")["arrays", 1].train
    assert train.valid.sum() == 5 and not train.valid[train.image_ids.index(SHOWN[3])].all()
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\nbad_channels = "keep"\n')
    if how != "flat":
        with pytest.raises(BadRecording, match="trial 3, O1 is not a finite number"):
            preprocess(PreprocessRequest(dataset="arrays", raw=raw, store=tmp_path / "b.zarr", recipe=str(own)))


def rewrite(key, value, line=0):
    def change(raw):
        rows = lines(1) + lines(2)
        rows[line] = {**rows[line], key: value}
        write_csv(raw / "trials.csv", rows)

    return change


def truncate(raw):
    whole = (raw / "sub-01.npy").read_bytes()
    (raw / "sub-01.npy").write_bytes(whole[: len(whole) // 2])


def put(data, name="sub-01.npy"):
    return lambda raw: (raw / name).write_bytes(data)


def about(old, new):
    return lambda raw: (raw / "recording.toml").write_text(ABOUT.replace(old, new))


def with_column(name, value):
    return lambda raw: write_csv(raw / "trials.csv", [{**row, name: value} for row in lines(1)])


def longer_table(raw):
    rows = [{**row, "row": k} for k, row in enumerate(lines(1))]
    write_csv(raw / "trials.csv", [*rows, {**rows[0], "row": ""}])


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def hostile(raw):
    np.save(raw / "sub-01.npy", np.array([Hostile()], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "field", "said", "fix"),
    [
        (truncate, "file", "truncated", "again"),
        (put(b""), "file", "is empty", "download"),
        (put(b"version https://git-lfs.github.com/spec/v1\n"), "file", "Git LFS pointer", "git lfs pull"),
        (put(b"<!DOCTYPE html><html>"), "file", "web page", "refused"),
        (put(b"hello"), "file", "not a .npy file", "numpy.save"),
        (hostile, "file", "Python objects", "numbers alone"),
        (lambda raw: (raw / "sub-01.npy").unlink(), "file", "no file", "names of the files"),
        (lambda raw: np.save(raw / "sub-01.npy", values(1, 11)), "row", "11 rows, but 12 lines", "column 'row'"),
        (lambda raw: np.save(raw / "sub-01.npy", values(1)[0]), "shape", "2 axes, eeg has (trial, ch", "modality"),
        (with_column("file", "../sub-01.npy"), "file", "outside the folder", "move it"),
        (with_column("row", "first"), "row", "'first' in line 2", "from 0"),
        (with_column("row", 0), "row", "a second time", "one line"),
        (with_column("row", 99), "row", "row 99", "versions"),
        (longer_table, "row", "line 14 is row 12 of sub-01.npy, which has 12", "versions"),
        (rewrite("split", "dev"), "split", "'dev' in line 2", "train or test"),
        (rewrite("image", ""), "image", "empty in line 2", "name the image"),
        (rewrite("session", "one"), "session", "'one' in line 2", "whole number"),
        (rewrite("image", "test/t1_02s.jpg"), "split", "1 image is in both train and test", "never be trained on"),
        (lambda raw: write_csv(raw / "trials.csv", lines(1)[:6]), "split", "no test trial", "both splits"),
        (about("eeg", "ecog"), "modality", "'ecog'", "eeg, meg, fmri"),
        (about('"Pz", ', ""), "ch_names", "2 names, the arrays have 3", "every channel"),
        (about('"Pz"', '"Oz"'), "ch_names", "Oz twice", "rename"),
        (about("sfreq = 100", "sfreq = -1"), "sfreq", "it is -1", "samples per second"),
        (about("tmin = -0.1\n", ""), "tmin", "it is None", "first sample"),
        (about("units", "unit"), "unit", "an unknown key", "units"),
        (lambda raw: (raw / "recording.toml").unlink(), "file", "no ", "it says modality"),
        (lambda raw: (raw / "recording.toml").write_text("="), "file", "is not TOML", "correct the line"),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_its_file_its_field_and_its_remedy(raw, spoil, field, said, fix):
    spoil(raw)
    found = look(raw)
    problem = next(p for p in found.problems if p.field == field)
    assert said in problem.what and fix in problem.fix and problem.file
    with pytest.raises(BadRecording) as caught:
        raise_first([found])
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: (raw / "trials.csv").unlink(), "trials.csv: table: no file"),
        (lambda raw: (raw / "trials.csv").write_text("image,split\n"), "no line but its header"),
        (lambda raw: (raw / "trials.csv").write_text("picture,set\na,train\n"), "lacks the columns image, split"),
        (lambda raw: (raw / "trials.csv").write_text("image,split\na,train\nb\n"), "is not a table"),
        (lambda raw: (raw / "trials.parquet").write_bytes(b"PAR1 no"), "is not a table"),
        (rewrite("subject", "anna"), "trials.csv: subject: 'anna' in line 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_with_all_else_that_is_wrong(raw, spoil, said):
    about("sfreq = 100", "sfreq = 0")(raw)
    truncate(raw)
    spoil(raw)
    dataset = open_dataset("arrays", raw, "clean")
    assert dataset.subjects() == [1, 2]
    with pytest.raises(BadRecording, match=said) as caught:
        raise_first([dataset.preflight(2)])
    assert caught.value.hint and caught.value.exit_code == 2 and "and 2 more" in str(caught.value)
    fields = {(problem.file, problem.field) for problem in dataset.preflight(1).problems[1:]}
    assert fields == {("recording.toml", "sfreq"), ("sub-01.npy", "file")}


def test_all_problems_come_at_once_and_end_the_command_with_code_2(raw, tmp_path):
    about("sfreq = 100", "sfreq = 0")(raw)
    truncate(raw)
    (raw / "sub-02.npy").unlink()
    result = CliRunner().invoke(app, ["preprocess", "-d", "arrays", "--raw", str(raw), "--check"])
    assert result.exit_code == 2 and "4 problems" in result.stdout
    for said in ("sub-01.npy: file: is truncated", "sub-02.npy: file: no file", "recording.toml: sfreq: it is 0"):
        assert said in result.stderr


def test_every_field_of_a_bad_description_is_named_beside_a_bad_array(raw):
    (raw / "recording.toml").write_text('modality = "eog"\nsfreq = "fast"\nch_names = 3\nlowpass = 40\n')
    truncate(raw)
    fields = sorted((p.file, p.field) for p in look(raw).problems)
    assert fields == [("recording.toml", f) for f in ("ch_names", "lowpass", "modality", "sfreq", "tmin")] + [
        ("sub-01.npy", "file")
    ]


def test_recipes_and_subjects_nobody_knows_are_named(raw, tmp_path):
    with pytest.raises(UnknownName, match="no preprocessing recipe 'nice'"):
        look(raw, "nice")
    with pytest.raises(UnknownName, match="no subject 7"):
        look(raw, subject=7)
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\ndtype = "float16"\n')
    with pytest.raises(EmbedctlError, match="without scaling"):
        look(raw, str(own))
    own.write_text('base = "clean"\nchannels = ["Fz"]\nwindow = [2, 3]\n')
    assert [p.field for p in look(raw, str(own)).problems] == ["ch_names", "times"]


def test_a_subject_twice_is_found(raw, tmp_path):
    np.save(raw / "sub-02.npy", values(1))
    with pytest.raises(BadRecording, match="sub-02.npy of subject 2 holds the same as sub-01.npy of subject 1"):
        run(raw, tmp_path)


def test_another_table_is_not_taken_for_the_same_trials(raw, tmp_path):
    run(raw, tmp_path, subjects=(1,))
    rewrite("image", "train/a9_01b.jpg")(raw)
    with pytest.raises(StoreMismatch, match="from other recordings"):
        run(raw, tmp_path, subjects=(1,))


def test_a_session_without_training_is_known_before_anything_is_read(raw, tmp_path):
    rows = lines(1)
    for row in rows:
        row["session"] = 2 if row["image"].startswith("test") else 1
    write_csv(raw / "trials.csv", rows)
    (tmp_path / "own.toml").write_text('base = "clean"\nscale = "zscore"\n')
    (problem,) = look(raw, str(tmp_path / "own.toml")).problems
    assert (problem.field, problem.what) == ("session", "session 2 has no training trial to fit its scaling on")
    assert not look(raw).problems, "what does not scale needs none"


def test_a_session_of_which_nothing_can_be_used_is_refused(raw, tmp_path):
    np.save(raw / "sub-01.npy", np.full((12, 3, 20), np.nan, np.float32))
    with pytest.raises(BadRecording, match="sub-01/ses-01: every channel is flat or broken"):
        run(raw, tmp_path)


def test_two_columns_of_one_name_are_refused(raw):
    text = (raw / "trials.csv").read_text().replace("mood", "image")
    (raw / "trials.csv").write_text(text)
    (problem,) = look(raw).problems
    assert problem.what == "has two columns 'image'" and problem.fix == "rename or remove one of them"


@pytest.mark.parametrize(
    "change",
    [
        about("sfreq = 100", "sfreq = 200"),
        about("tmin = -0.1", "tmin = 0.0"),
        about('"uV"', '"V"'),
        about('"O1", "Oz"', '"O2", "Oz"'),
        with_column("concept", "thing"),
        rewrite("mood", "sad", line=5),
    ],
    ids=["sfreq", "tmin", "units", "ch_names", "concepts", "another column"],
)
def test_a_subject_understood_otherwise_is_not_taken_for_the_same(raw, tmp_path, change):
    run(raw, tmp_path, subjects=(1,))
    (line,) = run(raw, tmp_path, subjects=(1,)).subjects
    assert line.state == "already there"
    change(raw)
    with pytest.raises(StoreMismatch, match="other recordings .* what they mean changed"):
        run(raw, tmp_path, subjects=(1,))


@pytest.mark.parametrize("whole", [16_000_000, 100], ids=["small", "large"])
def test_any_changed_row_of_an_array_is_seen_also_when_going_on(raw, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(identity, "_WHOLE", whole)
    monkeypatch.setattr(identity, "_PART", 10)
    monkeypatch.setattr(stores.split_writer, "BLOCK_BYTES", 500)
    monkeypatch.setattr(pipelines.cores, "n_cores", lambda: 1)
    real, calls = CutTrials.block, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CutTrials, "block", stopping)
        run(raw, tmp_path, subjects=(1,))
    np.save(raw / "sub-01.npy", np.concatenate([values(1)[:1], 3 * values(1)[1:-1], values(1)[-1:]]))
    assert run(raw, tmp_path, subjects=(1,)).subjects[0].state == "written"
    train = EpochStore.open(tmp_path / "epochs.zarr")["arrays", 1].train
    assert np.array_equal(train.take([0])[0, 0], 3 * values(1)[1]), "nothing of the file that was there before"
    np.save(raw / "sub-01.npy", values(1))
    with pytest.raises(StoreMismatch, match="sub-01.npy changed"):
        run(raw, tmp_path, subjects=(1,))
