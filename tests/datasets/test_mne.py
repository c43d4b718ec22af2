"""Whatever MNE reads: the epochs that arrive in the store are MNE's own, image by image."""

import mne
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.preprocess.dataset import open_dataset
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from stores.epochs import EpochStore
from stores.errors import BadRecording, UnknownName

SFREQ = 200.0
NAMES = ["Pz", "O1", "Oz", "EOG"]
IMAGES = [f"training_images/0000{i}_a{i}/a{i}_01b.jpg" for i in range(1, 5)] + ["test_images/00001_t/t_02s.jpg"]
SHOWN = [0, 1, 4, 2, 3, 4, 0, 2, 1, 3, 4, 0]  # which image, in order
SAMPLES = 200 + 100 * np.arange(len(SHOWN))  # half seconds: no format rounds them
# As recorded: no whitening, no resampling, so that every number can be compared.
PLAIN = """base = "clean"
sfreq = 200.0
mvnn = "none"
dtype = "float32"
compute = "float64"
epoch = [-0.2, 0.5]
window = [0.0, 0.5]
"""


def recording(seed=1, kinds=("eeg", "eeg", "eeg", "eog"), scale=1e-5):
    """Return a continuous recording, coloured and with offsets."""
    noise = np.cumsum(np.random.default_rng(seed).normal(size=(4, 2000)), axis=1)
    data = (noise - noise.mean(axis=1, keepdims=True)) * scale / 5 + scale * np.arange(4)[:, None]
    raw = mne.io.RawArray(data, mne.create_info(NAMES, SFREQ, list(kinds)), verbose="error")
    raw.set_meas_date(1_600_000_000)
    return raw


def annotate(raw):
    onsets = SAMPLES / SFREQ
    raw.set_annotations(mne.Annotations(onsets, 0.1, [IMAGES[k] for k in SHOWN], orig_time=raw.info["meas_date"]))
    return raw


def write_events(path, extra=True, **columns):
    rows = [[f"{sample / SFREQ}", "0.1", f"{IMAGES[k]}"] for sample, k in zip(SAMPLES, SHOWN, strict=True)]
    rows += [["0.5", "0.1", "n/a"]] if extra else []
    text = ["onset\tduration\tstim_file", *("\t".join(row) for row in rows)]
    for name, values in columns.items():
        text = [f"{line}\t{value}" for line, value in zip(text, [name, *values, "n/a"], strict=False)]
    path.write_text("\n".join(text) + "\n")


def save(raw, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".fif":
        raw.save(path, verbose="error")
    else:
        raw.export(path, fmt="auto", add_ch_type=False, verbose="error")


def expected(path):
    """Return MNE's epochs of a file, microvolts, in the order of SHOWN."""
    raw = mne.io.read_raw(path, preload=True, verbose="error").set_channel_types({"EOG": "eog"})
    events = np.column_stack([SAMPLES + raw.first_samp, 0 * SAMPLES, np.array(SHOWN) + 1])
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=0.5, baseline=(-0.2, 0), preload=True, verbose="error")
    return 1e6 * epochs.get_data(picks="eeg")[:, :, 40:140]


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "plain.toml").write_text(PLAIN)
    return str(tmp_path / "plain.toml")


def run(raw, tmp_path, recipe="clean", **options):
    return preprocess(PreprocessRequest(dataset="mne", raw=raw, store=tmp_path / "e.zarr", recipe=recipe, **options))


def stored(tmp_path):
    """Return the stored repetitions in the order in which they were shown."""
    subject = EpochStore.open(tmp_path / "e.zarr")["mne", 1]
    found = {}
    for split in (subject.train, subject.test):
        values = split.take(range(len(split)))
        for row, image in enumerate(split.image_ids):
            found[IMAGES.index(image)] = list(values[row, split.valid[row]])
    return subject, np.stack([found[k].pop(0) for k in SHOWN])


@pytest.mark.parametrize("suffix", ["vhdr", "edf", "fif"])
@pytest.mark.parametrize("told_by", ["events.tsv", "annotations"])
def test_epochs_of_a_recording_are_those_of_mne(tmp_path, plain, suffix, told_by):
    if suffix == "edf":
        pytest.importorskip("edfio")
    if suffix == "vhdr":
        pytest.importorskip("pybv")
    path = tmp_path / f"raw/sub-01/eeg/sub-01_task-see_eeg.{suffix}"
    raw = recording()
    save(annotate(raw) if told_by == "annotations" else raw, path)
    if told_by == "events.tsv":
        write_events(path.with_name("sub-01_task-see_events.tsv"))
    # EDF and BrainVision do not know which channel is no EEG: BIDS says so beside it.
    table = "name\ttype\tstatus\n" + "".join(f"{n}\t{'EOG' if n == 'EOG' else 'EEG'}\tgood\n" for n in NAMES)
    path.with_name("sub-01_task-see_channels.tsv").write_text(table)
    report = run(tmp_path / "raw", tmp_path, plain)
    subject, ours = stored(tmp_path)
    assert subject.ch_names == ["Pz", "O1", "Oz"] and subject.units == "uV" and subject.modality == "eeg"
    theirs = expected(path)
    assert np.allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    trials = subject.train.trials.to_pylist() + subject.test.trials.to_pylist()
    assert sorted(t["onset_sample"] for t in trials) == SAMPLES.tolist() and {t["run"] for t in trials} == {1}
    assert subject.train.concepts == ["a1", "a2", "a3", "a4"]
    assert report.subjects[0].per_file[f"sub-01/eeg/{path.name}"]["without an image"] == (told_by == "events.tsv")
    rows = subject.trials.select(["onset_sample", "kind", "left_out"]).to_pylist()
    other = [(100, "event", "no image")] if told_by == "events.tsv" else []
    assert [tuple(row.values()) for row in rows] == other + [(at, "image", None) for at in SAMPLES.tolist()]


def test_runs_and_sessions_are_kept_apart_and_no_epoch_crosses_a_seam(tmp_path, plain):
    folder = tmp_path / "raw/sub-01"
    for session, run_ in ((1, 1), (1, 2), (2, 1)):
        path = folder / f"ses-{session:02d}/eeg/sub-01_ses-{session:02d}_run-{run_}_raw.fif"
        save(recording(10 * session + run_), path)
        write_events(path.with_name(path.name.replace("_raw.fif", "_events.tsv")), extra=False)
    # One image is shown 0.1 s before the end of a run: no epoch of it fits.
    last = folder / "ses-01/eeg/sub-01_ses-01_run-1_events.tsv"
    last.write_text(last.read_text() + f"9.9\t0.1\t{IMAGES[0]}\n")
    line = run(tmp_path / "raw", tmp_path, plain).subjects[0]
    assert line.counts["past the end of the file"] == 1
    subject = EpochStore.open(tmp_path / "e.zarr")["mne", 1]
    assert subject.info["sessions"] == [1, 2]
    for image in (0, 3):
        row = subject.train.image_ids.index(IMAGES[image])
        values, sessions = subject.train.take([row])[0], subject.train.session[row]
        first = np.flatnonzero(np.array(SHOWN) == image)
        wanted = []
        for session, run_ in ((1, 1), (1, 2), (2, 1)):
            path = folder / f"ses-{session:02d}/eeg/sub-01_ses-{session:02d}_run-{run_}_raw.fif"
            wanted += [(session, epoch) for epoch in expected(path)[first]]
        assert sessions[sessions > 0].tolist() == [session for session, _ in wanted]
        assert np.allclose(values[sessions > 0], [epoch for _, epoch in wanted], atol=1e-3)
    table = subject.train.trials.to_pydict()
    assert {(s, r) for s, r in zip(table["session"], table["run"], strict=True)} == {(1, 1), (1, 2), (2, 1)}


def test_projections_are_applied_as_in_epochs_of_mne(tmp_path, plain):
    path = tmp_path / "raw/sub-01/eeg/sub-01_eeg.fif"
    save(recording().set_eeg_reference(projection=True, verbose="error"), path)
    write_events(path.with_name("sub-01_events.tsv"))
    run(tmp_path / "raw", tmp_path, plain)
    ours, theirs = stored(tmp_path)[1], expected(path)
    assert np.abs(theirs.mean(axis=1)).max() < 1e-9, "the average of the channels is zero"
    assert np.allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("named_by", ["metadata", "event names"])
def test_epochs_files_are_read_as_mne_reads_them(tmp_path, named_by):
    raw = recording()
    events = np.column_stack([SAMPLES, 0 * SAMPLES, np.array(SHOWN) + 1])
    table = pd.DataFrame({"stim_file": [IMAGES[k] for k in SHOWN], "session": [1] * 6 + [2] * 6})
    names = {image: code + 1 for code, image in enumerate(IMAGES)}
    whole = mne.Epochs(raw, events, names, -0.1, 0.4, baseline=(None, 0), metadata=table, preload=True, verbose="error")
    if named_by == "event names":
        whole.metadata = None
    (tmp_path / "raw").mkdir()
    whole.save(tmp_path / "raw/sub-01-epo.fif", verbose="error")
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\nscale = "none"\ndtype = "float32"\n')
    run(tmp_path / "raw", tmp_path, str(own))
    subject, ours = stored(tmp_path)
    theirs = mne.read_epochs(tmp_path / "raw/sub-01-epo.fif", verbose="error").get_data(picks="eeg") * 1e6
    assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())
    assert np.allclose(subject.times, whole.times) and subject.ch_names == NAMES[:3]
    assert subject.info["sessions"] == ([1, 2] if named_by == "metadata" else [1])
    preprocess(PreprocessRequest(dataset="mne", raw=tmp_path / "raw", store=tmp_path / "white.zarr"))
    white = EpochStore.open(tmp_path / "white.zarr")["mne", 1]
    assert white.units == "sd of noise" and white.recipe["scale"] == "mvnn"


def test_magnetometers_are_femtotesla(tmp_path, plain):
    path = tmp_path / "raw/sub-01/meg/sub-01_meg.fif"
    save(recording(kinds=("mag", "mag", "mag", "eog"), scale=1e-13), path)
    write_events(path.with_name("sub-01_events.tsv"))
    run(tmp_path / "raw", tmp_path, plain)
    subject = EpochStore.open(tmp_path / "e.zarr")["mne", 1]
    assert (subject.modality, subject.units) == ("meg", "fT")
    assert 1 < np.abs(subject.test.mean).max() < 1e4


@pytest.fixture
def bids(tmp_path):
    path = tmp_path / "raw/sub-01/eeg/sub-01_eeg.fif"
    save(recording(), path)
    write_events(path.with_name("sub-01_events.tsv"))
    return tmp_path / "raw"


def events(edit):
    def change(raw):
        path = raw / "sub-01/eeg/sub-01_events.tsv"
        path.write_text(edit(path.read_text()))

    return change


def in_samples(text):
    head, *lines = text.splitlines()
    fields = [line.split("\t") for line in lines]
    return "\n".join([head, *("\t".join([str(float(f[0]) * SFREQ), *f[1:]]) for f in fields)])


def other_recording(raw_, **how):
    def change(raw):
        path = raw / "sub-01/eeg/sub-01_eeg.fif"
        raw_(**how).save(path, overwrite=True, verbose="error")

    return change


def with_column(text, name, value):
    """Return a table of events with another column: a word, or how many samples later than the onset."""
    head, *lines = text.splitlines()
    cells = [value if isinstance(value, str) else float(line.split("\t")[0]) * SFREQ + value for line in lines]
    return "\n".join([f"{head}\t{name}", *(f"{line}\t{cell}" for line, cell in zip(lines, cells, strict=True))])


def put(data):
    return lambda raw: (raw / "sub-01/eeg/sub-01_eeg.fif").write_bytes(data)


def renamed():
    return recording().rename_channels({"Pz": "Oz-0", "Oz": "Oz-1"})


@pytest.mark.parametrize(
    ("spoil", "field", "said", "fix"),
    [
        (put(b"what is this"), "file", "MNE cannot read it", "whole"),
        (put(b"version https://git-lfs.github.com/spec/v1"), "file", "is a Git LFS pointer", "git lfs pull"),
        (lambda raw: (raw / "sub-01/eeg/sub-01_events.tsv").unlink(), "events", "no sub-01_events.tsv", "column image"),
        (
            events(lambda t: t.replace("stim_file", "picture")),
            "image",
            "no column of image, stim",
            "recording.toml",
        ),
        (
            events(lambda t: t.replace("training_images/0", "0")),
            "split",
            "row 1",
            "column split",
        ),
        (events(in_samples), "onset", "the recording has 10 s and 2,000 samples", "divide them by 200"),
        (events(lambda t: t.replace("\n1.0\t", "\nnow\t")), "onset", "no number in every row", "in s"),
        (
            events(lambda t: t + f"1.0\t0.1\t{IMAGES[1]}\n"),
            "onset",
            "two events, the first is 200",
            "copies",
        ),
        (events(lambda t: t + f"12.0\t0.1\t{IMAGES[1]}\n"), "onset", "1 image is shown outside", "incomplete"),
        (events(lambda t: with_column(t, "sample", 30)), "onset", "row 1 is at 1 s and at sample 230", "correct one"),
        (events(lambda t: with_column(t, "split", "validation")), "split", "row 1: 'validation'", "train or test"),
        (events(lambda t: t.replace("test_images", "training_images")), "test", "no test image", "both splits"),
        (other_recording(recording, scale=10.0), "samples", "varies by", "divide by 1e+06"),
        (other_recording(recording, scale=0.0), "samples", "varies by 0 V", "empty"),
        (other_recording(recording, kinds=["misc"] * 4), "channels", "no EEG and no magnetometer", "types"),
        (other_recording(renamed), "ch_names", "it holds Oz twice", "rename"),
    ],
)
def test_every_fault_is_named_with_its_file_its_field_and_its_remedy(bids, spoil, field, said, fix):
    spoil(bids)
    found = open_dataset("mne", bids, "clean").preflight(1)
    problem = next(p for p in found.problems if p.field == field)
    assert said in problem.what and fix in problem.fix and problem.file.startswith("sub-01")
    result = CliRunner().invoke(app, ["preprocess", "-d", "mne", "--raw", str(bids), "--check"])
    assert result.exit_code == 2 and said in result.stderr


def test_folders_without_recordings_and_unknown_subjects_are_named(bids, tmp_path):
    for folder, said in ((tmp_path / "nowhere", "no folder"), (tmp_path / "raw/sub-01/eeg/x", "holds no recording")):
        if said != "no folder":
            folder.mkdir()
        with pytest.raises(BadRecording, match=said):
            open_dataset("mne", folder, "clean")
    with pytest.raises(UnknownName, match="no subject 4"):
        open_dataset("mne", bids, "clean").preflight(4)
    (bids / "recording.toml").write_text('image = "duration"\n')
    found = open_dataset("mne", bids, "clean").preflight(1)
    assert any("0.1: neither a column 'split'" in p.what for p in found.problems)


def test_onset_and_sample_that_agree_may_both_be_there(bids):
    events(lambda t: with_column(t, "sample", 1))(bids)
    assert not open_dataset("mne", bids, "clean").preflight(1).problems


def test_epochs_that_meet_what_is_marked_bad_or_a_seam_are_left_out_as_mne_does(tmp_path, plain):
    raw = mne.concatenate_raws([recording(1).crop(0, 4.895), recording(2)], verbose="error").crop(0, 9.995)
    marks = mne.Annotations([2.9, 7.0], [0.2, 0.1], ["BAD_muscle", "bad"], orig_time=raw.annotations.orig_time)
    raw.set_annotations(raw.annotations + marks)
    path = tmp_path / "raw/sub-01/eeg/sub-01_eeg.fif"
    save(raw, path)
    write_events(path.with_name("sub-01_events.tsv"))
    line = run(tmp_path / "raw", tmp_path, plain).subjects[0]
    codes = np.array(SHOWN) + 1
    shown = np.column_stack([SAMPLES + raw.first_samp, 0 * SAMPLES, codes])
    theirs = mne.Epochs(raw, shown, tmin=-0.2, tmax=0.5, baseline=(-0.2, 0), preload=True, verbose="error")
    subject = EpochStore.open(tmp_path / "e.zarr")["mne", 1]
    kept = subject.train.trials["onset_sample"].to_pylist() + subject.test.trials["onset_sample"].to_pylist()
    assert sorted(kept) == SAMPLES[theirs.selection].tolist() and 0 < len(kept) < len(SAMPLES)
    assert line.counts["marked bad, or across a seam"] == len(SAMPLES) - len(kept)
    assert line.counts["past the end of the file"] == 0


def test_people_are_never_taken_for_one(tmp_path):
    for names, said in (
        (("sub-BIGMEG1", "sub-BIGMEG2"), "subject 'BIGMEG1' has no number"),
        (("sub-01", "sub-01A"), "subject '01A' has no number"),
        (("sub-1", "sub-01"), "are both of subject 1"),
        (("sub-01", "someone"), "of which subject"),
    ):
        folder = tmp_path / "-".join(names)
        for name in names:
            (folder / name).mkdir(parents=True)
            (folder / name / f"{name}_eeg.fif").write_bytes(b"")
        with pytest.raises(BadRecording, match=said) as caught:
            open_dataset("mne", folder, "clean")
        assert "name" in caught.value.hint


def test_sessions_that_are_called_by_words_are_kept_apart_and_numbered(tmp_path):
    for name in ("pre", "post"):
        path = tmp_path / f"raw/sub-01/ses-{name}/eeg/sub-01_ses-{name}_eeg.fif"
        save(recording(len(name)), path)
        write_events(path.with_name(f"sub-01_ses-{name}_events.tsv"))
    found = open_dataset("mne", tmp_path / "raw", "clean").preflight(1)
    assert {session for session, _ in found.recordings} == {1, 2}
    assert found.notes == ["sub-01: sessions are numbered: post is 1, pre is 2"]


def test_an_edf_that_was_cut_is_truncated(tmp_path):
    pytest.importorskip("edfio")
    path = tmp_path / "raw/sub-01/eeg/sub-01_task-see_eeg.edf"
    save(annotate(recording()), path)
    assert not open_dataset("mne", tmp_path / "raw", "clean").preflight(1).problems
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (problem,) = open_dataset("mne", tmp_path / "raw", "clean").preflight(1).problems
    assert problem.what.startswith("is truncated: have ")


def test_a_rate_above_that_of_the_recording_is_said_and_unknown_keys_with_all_else_that_is_wrong(bids, tmp_path):
    line = run(bids, tmp_path, dry_run=True).subjects[0]
    assert line.notes == ["sub-01: recorded at 200 Hz: epochs at 250 Hz hold nothing above 100 Hz"]
    (bids / "recording.toml").write_text('imagee = "duration"\nsfreq = 9\nimage = 3\n')
    other_recording(recording, scale=10.0)(bids)
    problems = open_dataset("mne", bids, "clean").preflight(1).problems
    assert [problem.field for problem in problems] == ["imagee", "sfreq", "image", "samples"]
    assert "3, which is no name" in problems[2].what
