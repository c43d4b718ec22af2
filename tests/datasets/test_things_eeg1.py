"""THINGS-EEG1: onsets in samples, backslashes, and test concepts that must not be trained on."""

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

pytest.importorskip("pybv")
CHANNELS = ["Fz", "Pz", "O1", "Oz"]
MAIN = [f"stimuli\\{c}\\{c}_{i:02d}b.jpg" for c in ("ant", "bee", "cat", "wig") for i in (1, 2, 3)]
TEST = ["test_images\\wig_13s.jpg", "test_images\\dog_09s.jpg"]
SHOWN = [(MAIN[k], 0) for k in np.random.default_rng(0).permutation(12)] + [(TEST[k % 2], 1) for k in range(8)]
ONSETS = 500 + 100 * np.arange(len(SHOWN))
HEADER = "onset\tduration\teventnumber\tobjectnumber\tobject\tstim\tisteststim\tteststimnumber\tistarget"


def table(named=True):
    lines = [HEADER]
    for k, (onset, (stim, is_test)) in enumerate(zip(ONSETS, SHOWN, strict=True)):
        shown = stim if named or not is_test else "n/a"
        number = TEST.index(stim) if is_test else -1
        lines.append(f"{onset}\t50\t{k}\t-1\t-1\t{shown}\t{is_test}\t{number}\t{int(k == 3)}")
    return "\n".join(lines) + "\n"


def recording(scale=1e-5, sfreq=1000.0, n=4000):
    noise = np.cumsum(np.random.default_rng(1).normal(size=(4, n)), axis=1)
    data = scale * (noise - noise.mean(axis=1, keepdims=True)) / 20
    return mne.io.RawArray(data, mne.create_info(CHANNELS, sfreq, "eeg"), verbose="error")


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw/sub-02/eeg"
    folder.mkdir(parents=True)
    save(tmp_path / "raw", recording())
    (folder / "sub-02_task-rsvp_events.tsv").write_text(table())
    return tmp_path / "raw"


def save(raw, inst):
    inst.export(raw / "sub-02/eeg/sub-02_task-rsvp_eeg.vhdr", overwrite=True, verbose="error")


def test_onsets_are_samples_and_test_concepts_are_out_of_training(raw, tmp_path):
    own = tmp_path / "plain.toml"
    own.write_text(
        'base = "clean"\nsfreq = 1000.0\nmvnn = "none"\ndtype = "float32"\ncompute = "float64"\n'
        "epoch = [-0.1, 0.3]\nwindow = [0.0, 0.3]\nbaseline = [-0.1, 0.0]\n"
    )
    request = PreprocessRequest(dataset="things-eeg1", raw=raw, store=tmp_path / "e.zarr", recipe=str(own))
    line = preprocess(request).subjects[0]
    found = EpochStore.open(tmp_path / "e.zarr")["things-eeg1", 2]
    assert found.train.image_ids == [name.replace("\\", "/") for name in MAIN[:9]]
    assert found.train.concepts == ["ant"] * 3 + ["bee"] * 3 + ["cat"] * 3 and found.test.concepts == ["dog", "wig"]
    assert found.test.n_repetitions == 4
    assert (
        line.per_file["ses-01 train"]["of test concepts"] == 3 and line.per_file["ses-01 train"]["with a target"] <= 1
    )
    table = found.trials.to_pylist()
    said = [(row["onset_sample"], row["image_id"], row["kind"]) for row in table]
    kinds = ["target" if k == 3 and not MAIN[9:].count(SHOWN[3][0]) else "image" for k in range(len(SHOWN))]
    names = [stim.replace("\\", "/") for stim, _ in SHOWN]
    assert said == list(zip(ONSETS.tolist(), names, kinds, strict=True))
    away = {row["image_id"] for row in table if row["left_out"] == "training image of a test concept"}
    assert away == {name.replace("\\", "/") for name in MAIN[9:]}
    whole = mne.io.read_raw(raw / "sub-02/eeg/sub-02_task-rsvp_eeg.vhdr", preload=True, verbose="error")
    codes = [1 + (MAIN + TEST).index(stim) for stim, _ in SHOWN]
    events = np.column_stack([ONSETS, 0 * ONSETS, codes])
    theirs = mne.Epochs(whole, events, tmin=-0.1, tmax=0.3, baseline=(-0.1, 0), preload=True, verbose="error")
    for split in (found.train, found.test):
        stored = split.take(range(len(split)))
        for row, image in enumerate(split.image_ids):
            wanted = 1e6 * theirs[str(1 + (MAIN + TEST).index(image.replace("/", "\\")))].get_data()[:, :, 100:400]
            assert np.allclose(stored[row, : len(wanted)], wanted, atol=1e-3)


def test_test_images_may_be_named_by_their_list(raw):
    (raw / "sub-02/eeg/sub-02_task-rsvp_events.tsv").write_text(table(named=False))
    dataset = open_dataset("things-eeg1", raw, "clean")
    (problem,) = dataset.preflight(2).problems
    assert problem.field == "stim" and "test_images.csv" in problem.fix
    (raw / "test_images.csv").write_text("stim\n" + "\n".join(TEST) + "\n")
    found = open_dataset("things-eeg1", raw, "clean").preflight(2)
    assert not found.problems and found.images["test"].ids == ["test_images/dog_09s.jpg", "test_images/wig_13s.jpg"]


def edit(change):
    def spoil(raw):
        path = raw / "sub-02/eeg/sub-02_task-rsvp_events.tsv"
        path.write_text(change(path.read_text()))

    return spoil


def onsets_times(factor):
    def change(text):
        head, *lines = text.splitlines()
        fields = [line.split("\t", 1) for line in lines]
        return "\n".join([head, *(f"{float(onset) * factor:g}\t{rest}" for onset, rest in fields)]) + "\n"

    return edit(change)


@pytest.mark.parametrize(
    ("spoil", "field", "said", "fix"),
    [
        (onsets_times(0.001), "onset", "the recording has 4 s and 4,000 samples", "they are seconds"),
        (edit(lambda t: t.replace("\n2400\t", "\n4400\t")), "onset", "1 event after the end", "incomplete"),
        (onsets_times(0.5), "sfreq", "every 50 ms at 1000 Hz", "should have 500 Hz"),
        (
            edit(lambda t: t.replace("\n600\t", "\n500\t")),
            "onset",
            "1 sample has two events, the first is 500",
            "one",
        ),
        (edit(lambda t: t.replace("\n600\t", "\nnow\t")), "onset", "no number in every row", "download"),
        (edit(lambda t: t.replace("\tstim\t", "\tpicture\t")), "table", "lacks the column stim", "suggest"),
        (edit(lambda t: t.replace(".jpg\t1\t", ".jpg\tyes\t")), "isteststim", "'yes' in line", "0 or 1"),
        (edit(lambda t: t.replace("bee_01b.jpg", "")), "stim", "names no image", "download"),
        (edit(lambda t: "".join(x for x in t.splitlines(True) if "test_images" not in x)), "test", "no test", "sub-01"),
        (lambda raw: (raw / "sub-02/eeg/sub-02_task-rsvp_events.tsv").unlink(), "table", "no file", "names"),
        (lambda raw: (raw / "sub-02/eeg/sub-02_task-rsvp_eeg.eeg").unlink(), "file", "MNE cannot read", "whole"),
        (lambda raw: (raw / "sub-02/eeg/sub-02_task-rsvp_eeg.vhdr").unlink(), "file", "0 recordings", "again"),
        (lambda raw: save(raw, recording(scale=10.0)), "samples", "varies by", "divide by 1e+06"),
    ],
)
def test_every_fault_is_named_with_its_file_its_field_and_its_remedy(raw, spoil, field, said, fix):
    spoil(raw)
    found = open_dataset("things-eeg1", raw, "clean").preflight(2)
    problem = next(p for p in found.problems if p.field == field)
    assert said in problem.what and problem.file.startswith("sub-02")
    assert fix in problem.fix or fix == "suggest"
    result = CliRunner().invoke(app, ["preprocess", "-d", "things-eeg1", "--raw", str(raw), "--check"])
    assert result.exit_code == 2 and said in result.stderr


def test_the_channels_of_eeg2_and_absent_subjects_are_named(raw, tmp_path):
    (problem,) = open_dataset("things-eeg1", raw, "nice").preflight(2).problems[:1]
    assert problem.field == "ch_names" and "channels are absent" in problem.what
    with pytest.raises(UnknownName, match="no subject 9"):
        open_dataset("things-eeg1", raw, "clean").preflight(9)
    with pytest.raises(BadRecording, match="holds no subjects"):
        open_dataset("things-eeg1", raw / "sub-02", "clean")
