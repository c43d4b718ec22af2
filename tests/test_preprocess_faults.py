"""Bad channels, missing sessions and interruptions: what is lost is counted, and nothing else changes."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import pipelines.cores as cores
import pipelines.preprocess.preprocess as module
import pipelines.preprocess.recorded as recorded
import pipelines.preprocess.recording_checks as checks
from embedctl.cli import app
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.preprocess.things_eeg2 import Recording
from pipelines.simulate.recordings import simulate_things_eeg2
from stores import epoch_writer
from stores.epochs import EpochStore
from stores.errors import BadRecording, CannotWrite, StoreLocked, StoreMismatch

TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.jpg" for c in range(1, 7) for i in range(1, 3)]
TEST = [f"test_images/{c:05d}_t{c:02d}/t{c:02d}_01s.jpg" for c in range(1, 5)]
ROWS = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(TRAINING + TEST)}
CHANNELS = ("Cz", "P7", "Pz", "O1", "Oz", "O2")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    simulate_things_eeg2(
        folder, TRAINING, TEST, ROWS, subjects=[1], sessions=2, test_repetitions=6, ch_names=CHANNELS, n_sources=4
    )
    return folder


@pytest.fixture
def raw(simulated, tmp_path):
    return shutil.copytree(simulated, tmp_path / "raw")


def run(raw, tmp_path, store="epochs.zarr", **options):
    return preprocess(PreprocessRequest(dataset="things-eeg2", raw=raw, store=tmp_path / store, **options))


def subject(tmp_path, store="epochs.zarr"):
    return EpochStore.open(tmp_path / store)["things-eeg2", 1]


def edit(raw, change, file="sub-01/ses-01/raw_eeg_training.npy"):
    whole = np.load(raw / file, allow_pickle=True).item()
    change(whole["raw_eeg_data"])
    np.save(raw / file, whole, allow_pickle=True)


def onsets(raw, file="sub-01/ses-01/raw_eeg_training.npy"):
    stim = np.load(raw / file, allow_pickle=True).item()["raw_eeg_data"][-1]
    return np.flatnonzero((stim > 0) & (stim < 99999)), stim[(stim > 0) & (stim < 99999)].astype(int)


def plain(tmp_path, **fields):
    """Return a recipe that does not whiten."""
    lines = ['base = "clean"', 'mvnn = "none"', 'dtype = "float32"']
    (tmp_path / "plain.toml").write_text("\n".join(lines + [f"{k} = {v}" for k, v in fields.items()]))
    return str(tmp_path / "plain.toml")


def test_a_planted_impulse_lands_on_its_sample_and_in_its_image_channel_and_unit(raw, tmp_path):
    (onset, *_), (code, *_) = onsets(raw)

    def strike(samples):
        samples[CHANNELS.index("O1"), onset + 400] += 1  # a volt, 0.4 s after the first image

    edit(raw, strike)
    run(raw, tmp_path, recipe=plain(tmp_path))
    epochs = subject(tmp_path).train.take(np.arange(len(TRAINING)))
    image, repetition, channel, time = np.unravel_index(np.nanargmax(epochs), epochs.shape)
    found = subject(tmp_path)
    row = found.train.trials.filter(found.train.trials["onset_sample"].to_numpy() == onset).to_pylist()
    assert any(r["image_id"] == TRAINING[code - 1] and r["session"] == 1 for r in row)
    assert found.ch_names[channel] == "O1" and found.units == "uV"
    shown_later = found.times[time]
    # The images that follow see it earlier: it is at 0.4 s of the first, 0.2 s of the next.
    first = epochs[code - 1][np.flatnonzero(found.train.session[code - 1] == 1)[0], channel]
    assert found.times[np.argmax(first)] == pytest.approx(0.4)
    assert shown_later in (0.0, 0.2, 0.4)
    assert first.max() == pytest.approx(1e6 / 4, rel=0.05), "a low-pass by four spreads a volt over four samples"


def test_every_event_of_every_recording_is_a_row_of_the_subject_that_says_what_became_of_it(raw, tmp_path):
    def spoil(samples):
        at = np.flatnonzero(samples[-1])
        samples[-1, at[-1]], samples[-1, -300] = 0, samples[-1, at[-1]]  # no whole epoch is left
        samples[2, at[5] + 300 : at[5] + 700] = samples[2, at[5]]

    edit(raw, spoil)
    run(raw, tmp_path, recipe=plain(tmp_path, repetitions="{ train = 1, test = 4 }"))
    found = subject(tmp_path)
    told = [tuple(row.values()) for row in found.trials.select(["session", "split", "onset_sample"]).to_pylist()]
    events = []
    for session in (1, 2):
        for split, part in (("train", "training"), ("test", "test")):
            file = raw / f"sub-01/ses-{session:02d}/raw_eeg_{part}.npy"
            stim = np.load(file, allow_pickle=True).item()["raw_eeg_data"][-1]
            events += [((session, split, at), int(stim[at])) for at in np.flatnonzero(stim).tolist()]
    assert told == [event for event, _ in events], "each once, in the order in which they were seen"
    rows = found.trials.to_pylist()
    shown = {"train": TRAINING, "test": TEST}
    for row, (_, code) in zip(rows, events, strict=True):
        image = None if code == 99999 else shown[row["split"]][code - 1]
        assert (row["event_code"], row["image_id"], row["kind"]) == (code, image, "image" if image else "target")
    counts = {why: [row["left_out"] for row in rows].count(why) for why in {row["left_out"] for row in rows}}
    assert counts.pop("past the end of the file") == 1 and counts.pop("unusable channel") > 0
    kept = counts.pop(None)
    assert set(counts) == {"target", "not drawn"} and counts["target"] == [code for _, code in events].count(99999)
    assert kept == found.train.valid.sum() + found.test.valid.sum() == sum(row["valid"] for row in rows)
    for split in (found.train, found.test):  # which hold epochs, and which
        places = [row for row in rows if row["repetition"] is not None and row["split"] == split.path.name]
        assert [row["left_out"] is None for row in places] == [
            split.valid[split.image_ids.index(row["image_id"]), row["repetition"]] for row in places
        ]
        assert len(split.trials) == len(places)
    result = CliRunner().invoke(app, ["show", str(tmp_path / "epochs.zarr"), "--json"])
    (line,) = json.loads(result.stdout)["subjects"]
    assert line["events"] == len(events) and line["left_out"]["not drawn"] == counts["not drawn"]


@pytest.mark.parametrize("value", [np.nan, np.inf, "flat"])
def test_repetitions_with_an_unusable_channel_are_lost_and_counted_and_the_rest_is_whitened(raw, tmp_path, value):
    run(raw, tmp_path, store="before.zarr")
    shown, codes = onsets(raw)
    at = shown[5]

    def spoil(samples):
        if value == "flat":
            samples[2, at + 300 : at + 700] = samples[2, at]
        else:
            samples[2, at + 50] = value

    edit(raw, spoil)
    line = run(raw, tmp_path).subjects[0]
    lost = line.counts["repetitions lost to them"]
    assert 1 <= lost <= 7 and line.counts["unusable channel-epochs"] == lost
    before, after = subject(tmp_path, "before.zarr"), subject(tmp_path)
    assert before.train.valid.sum() - after.train.valid.sum() == lost
    assert np.array_equal(before.test.valid, after.test.valid)
    assert after.train.trials["valid"].to_pylist().count(False) == lost
    assert np.isfinite(after.train.mean[after.train.valid.any(axis=1)]).all()
    assert after.train.valid.any(axis=1).all()
    assert after.info["counts"]["repetitions lost to them"] == lost


def test_a_channel_dead_for_a_whole_session_is_zero_there_and_said(raw, tmp_path):
    def kill(samples):
        samples[3] = np.nan

    for part in ("training", "test"):
        edit(raw, kill, f"sub-01/ses-02/raw_eeg_{part}.npy")
    line = run(raw, tmp_path).subjects[0]
    *located, dead = line.notes
    assert dead == "sub-01/ses-02: O1 flat or broken in most epochs: zero in this session"
    for split, note in zip(("train", "test"), located, strict=True):
        assert note.startswith("sub-01/ses-02: channel O1 at ")
        assert note.endswith(f" s of {split} is the first sample that is not a finite number")
    found = subject(tmp_path)
    epochs = found.test.take(np.arange(len(TEST)))
    second = found.test.session == 2
    assert found.test.valid[second].all() and not epochs[second][:, 3].any() and epochs[second][:, 4].any()
    assert epochs[found.test.session == 1][:, 3].any()


def test_a_channel_dead_in_the_test_recording_alone_is_said_and_changes_nothing_of_training(tmp_path):
    raw = tmp_path / "raw"
    simulate_things_eeg2(
        raw, TRAINING, TEST, ROWS, subjects=[1], sessions=2, test_repetitions=20, ch_names=CHANNELS, n_sources=4
    )
    run(raw, tmp_path, store="before.zarr")
    edit(raw, lambda samples: samples[3].fill(0.0), "sub-01/ses-02/raw_eeg_test.npy")
    line = run(raw, tmp_path).subjects[0]
    said = "sub-01/ses-02: O1 flat or broken in most test epochs alone: those epochs are left out"
    before, after = subject(tmp_path, "before.zarr"), subject(tmp_path)
    assert line.notes == [said] and after.info["notes"] == [said]
    assert (
        line.counts["dead channels"] == 0
        and line.counts["repetitions lost to them"] == line.per_file["ses-02 test"]["events"] - 1
    )  # a target
    assert np.array_equal(before.arrays["whitener"], after.arrays["whitener"])
    everything = np.arange(len(TRAINING))
    assert np.array_equal(before.train.take(everything), after.train.take(everything), equal_nan=True)
    assert before.train.trials.equals(after.train.trials)
    assert set(np.unique(after.test.session[after.test.valid])) == {1}


def test_a_channel_dead_in_training_is_zero_in_a_test_recording_where_it_lives(raw, tmp_path):
    edit(raw, lambda samples: samples[3].fill(0.0), "sub-01/ses-02/raw_eeg_training.npy")
    line = run(raw, tmp_path).subjects[0]
    assert line.notes == ["sub-01/ses-02: O1 flat or broken in most epochs: zero in this session"]
    test = subject(tmp_path).test
    second = test.take(np.arange(len(TEST)))[test.session == 2]
    assert not second[:, 3].any() and second[:, 4].any()


@pytest.mark.parametrize("mvnn", ["epochs", "time", "none"])
@pytest.mark.parametrize("part", ["training", "test"])
def test_nice_names_the_sample_that_is_not_finite(raw, tmp_path, part, mvnn):
    more = f'repetitions = {{}}\nmvnn = "{mvnn}"\n'
    (tmp_path / "nice.toml").write_text(f'base = "nice"\nchannels = {list(CHANNELS)}\n{more}'.replace("'", '"'))
    file = f"sub-01/ses-01/raw_eeg_{part}.npy"
    at = onsets(raw, file)[0][5]

    def spoil(samples):
        samples[2, at + 50] = np.nan

    edit(raw, spoil, file)
    with pytest.raises(BadRecording, match=rf"channel Pz at {(at + 50) / 1000:.3f} s is not a finite number") as caught:
        run(raw, tmp_path, recipe=str(tmp_path / "nice.toml"))
    assert "--recipe clean" in caught.value.hint
    assert EpochStore.open(tmp_path / "epochs.zarr").datasets() == []


def test_a_missing_session_means_fewer_repetitions(raw, tmp_path):
    (raw / "sub-01/ses-02/raw_eeg_test.npy").unlink()
    (raw / "sub-01/ses-02/raw_eeg_training.npy").unlink()
    line = run(raw, tmp_path).subjects[0]
    found = subject(tmp_path)
    assert len(found.train.image_ids) == 6 and set(np.unique(found.train.session[found.train.valid])) == {1}
    assert found.test.valid.sum(axis=1).min() == 3
    assert any("6 of 12 train images never shown" in note for note in line.notes)
    assert found.arrays["whitener"].shape == (1, 6, 6)


def test_a_session_that_cannot_be_whitened_is_named_before_anything_is_written(raw, tmp_path):
    (raw / "sub-01/ses-02/raw_eeg_training.npy").unlink()
    with pytest.raises(BadRecording, match="sub-01/ses-02 has no training recording") as caught:
        run(raw, tmp_path)
    assert "move the session's folder away" in caught.value.hint
    assert not (tmp_path / "epochs.zarr").exists()
    assert run(raw, tmp_path, recipe=plain(tmp_path)).subjects[0].state == "written"


def test_a_recipe_that_draws_more_repetitions_than_there_are_says_so(raw, tmp_path):
    line = run(raw, tmp_path, recipe=plain(tmp_path, repetitions="{ test = 20 }")).subjects[0]
    assert line.notes == [
        f"sub-01/ses-0{session}: recipe plain draws 20 test repetitions of an image, some have 3" for session in (1, 2)
    ]


def test_epochs_past_the_end_of_the_file_are_counted(raw, tmp_path):
    file = "sub-01/ses-01/raw_eeg_training.npy"
    last = onsets(raw, file)[0][-1]
    whole = np.load(raw / file, allow_pickle=True).item()
    whole["raw_eeg_data"] = np.ascontiguousarray(whole["raw_eeg_data"][:, : last + 500])
    np.save(raw / file, whole, allow_pickle=True)
    line = run(raw, tmp_path).subjects[0]
    assert line.counts["past the end of the file"] == 3


class Stop(Exception):
    pass


def test_an_interrupted_subject_is_invisible_goes_on_and_ends_with_the_same_bytes(raw, tmp_path, monkeypatch):
    import stores.split_writer

    monkeypatch.setattr(stores.split_writer, "BLOCK_BYTES", 40_000)  # several blocks
    run(raw, tmp_path, store="whole.zarr")
    monkeypatch.setattr(cores, "n_cores", lambda: 1)  # so that none is computed ahead
    real, calls = recorded.block_of_epochs, []

    def failing(*arguments):
        calls.append(arguments[2:])
        if len(calls) == 4:
            raise Stop
        return real(*arguments)

    monkeypatch.setattr(recorded, "block_of_epochs", failing)
    with pytest.raises(Stop):
        run(raw, tmp_path)
    assert EpochStore.open(tmp_path / "epochs.zarr").datasets() == []
    assert run(raw, tmp_path).subjects[0].state == "written"
    assert len(calls) == len(set(map(str, calls))) + 1, "only the block that failed was computed twice"

    def content(store):
        root = tmp_path / store / "things-eeg2"
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("c/*") if p.is_file()}

    assert content("epochs.zarr") == content("whole.zarr")
    assert subject(tmp_path).key == subject(tmp_path, "whole.zarr").key


def test_the_bytes_are_the_same_on_any_number_of_cores(raw, tmp_path, monkeypatch):
    import stores.split_writer

    monkeypatch.setattr(stores.split_writer, "BLOCK_BYTES", 40_000)  # several blocks
    keys = []
    for n in (1, 3):
        monkeypatch.setattr(cores, "n_cores", lambda n=n: n)
        line = run(raw, tmp_path, store=f"{n}.zarr").subjects[0]
        held = subject(tmp_path, f"{n}.zarr")
        keys.append((held.key, held.arrays["whitener"].tobytes(), line.counts, line.notes))
    assert keys[0] == keys[1]


def test_to_go_on_takes_only_the_space_of_what_is_missing(raw, tmp_path, monkeypatch):
    import stores.split_writer

    monkeypatch.setattr(stores.split_writer, "BLOCK_BYTES", 40_000)  # several blocks
    real, calls = recorded.block_of_epochs, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise Stop
        return real(*arguments)

    monkeypatch.setattr(recorded, "block_of_epochs", failing)
    needed = run(raw, tmp_path, dry_run=True).bytes
    with pytest.raises(Stop):
        run(raw, tmp_path)
    left = run(raw, tmp_path, dry_run=True).bytes
    assert 0 < left < needed
    monkeypatch.setattr(module, "bytes_free", lambda path: left - 1)
    with pytest.raises(CannotWrite):
        run(raw, tmp_path)
    monkeypatch.setattr(module, "bytes_free", lambda path: left)
    assert run(raw, tmp_path).subjects[0].state == "written"


def test_a_subject_that_another_process_is_writing_is_known_before_the_first_pass(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "examine", lambda *_: pytest.fail("the first pass ran for nothing"))
    with EpochStore.open(tmp_path / "epochs.zarr", create=True).lock("things-eeg2", 1), pytest.raises(StoreLocked):
        run(raw, tmp_path)


def test_a_recipe_without_subjects_binds_nobody(raw, tmp_path, monkeypatch):
    place = epoch_writer.place

    def killed(draft, final):
        if final.name == "sub-01":
            raise Stop
        place(draft, final)

    monkeypatch.setattr(epoch_writer, "place", killed)
    with pytest.raises(Stop):
        run(raw, tmp_path)
    assert (tmp_path / "epochs.zarr/things-eeg2/zarr.json").is_file(), "its recipe is there, and no subject"
    monkeypatch.setattr(epoch_writer, "place", place)
    assert run(raw, tmp_path, recipe=plain(tmp_path)).subjects[0].state == "written"
    store = EpochStore.open(tmp_path / "epochs.zarr")
    assert store.recipe("things-eeg2")["name"] == subject(tmp_path).recipe["name"] == "plain"
    assert store.is_consolidated


def test_another_recipe_is_refused_before_any_recording_is_looked_at(raw, tmp_path):
    run(raw, tmp_path)
    (raw / "sub-01/ses-01/raw_eeg_training.npy").write_bytes(b"")
    with pytest.raises(StoreMismatch, match="another recipe"):
        run(raw, tmp_path, recipe=plain(tmp_path))


def test_values_beyond_the_stored_number_type_are_cut_and_counted(raw, tmp_path):
    (onset, *_), _ = onsets(raw)

    def strike(samples):
        samples[CHANNELS.index("O1"), onset + 400] += 1  # a volt: 250,000 microvolts after the low-pass

    edit(raw, strike)
    recipe = tmp_path / "half.toml"
    recipe.write_text('base = "clean"\nmvnn = "none"\n')
    line = run(raw, tmp_path, recipe=str(recipe)).subjects[0]
    cut = int((np.abs(subject(tmp_path).train.take(np.arange(len(TRAINING)))) == 65504).sum())
    assert cut and line.counts["values beyond float16"] == cut
    assert line.notes[-1] == f"sub-01: {cut} values cut to the largest that float16 holds"


def test_a_subject_of_other_recordings_is_not_taken_for_the_same(raw, tmp_path):
    run(raw, tmp_path)
    edit(raw, lambda samples: np.multiply(samples[:-1], 1.1, out=samples[:-1]))
    with pytest.raises(StoreMismatch, match="things-eeg2/sub-01 from other recordings") as caught:
        run(raw, tmp_path)
    assert "--store" in caught.value.hint


def test_too_little_space_is_known_before_anything_is_written(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "bytes_free", lambda path: 1000)
    with pytest.raises(CannotWrite, match="1.0 kB are free") as problem:
        run(raw, tmp_path)
    assert problem.value.hint == "free some space, or --keep mean"
    with pytest.raises(CannotWrite, match="1.0 kB are free") as problem:
        run(raw, tmp_path, keep="mean")
    assert problem.value.hint == "free some space"
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY, f_frsize=1, f_bavail=1))
    with pytest.raises(CannotWrite, match=f"cannot write '{tmp_path / 'epochs.zarr'}': the disk is read-only"):
        run(raw, tmp_path)
    assert not (tmp_path / "epochs.zarr").exists()


def test_what_is_heard_is_what_is_done(raw, tmp_path):
    class Heard:
        def __init__(self):
            self.parts = []

        def start(self, label, total, unit):
            self.parts.append([label, total, unit, 0])

        def advance(self, n=1, **figures):
            self.parts[-1][-1] += n

        def say(self, text):
            pass

    heard = Heard()
    preprocess(PreprocessRequest(dataset="things-eeg2", raw=raw, store=tmp_path / "epochs.zarr"), heard)
    assert [part[0] for part in heard.parts] == ["sub-01: examine", "sub-01: whiten and write"]
    assert all(total == advanced for _, total, _, advanced in heard.parts)


def show_once(raw, part):
    """Leave every image of a part's recordings one presentation per session."""

    def change(samples):
        codes = samples[-1]
        for at in np.flatnonzero(codes):
            codes[at] = 0 if codes[at] in codes[:at] else codes[at]

    for session in (1, 2):
        edit(raw, change, f"sub-01/ses-{session:02d}/raw_eeg_{part}.npy")


def test_images_seen_once_have_no_say_in_whitening_over_repetitions(raw, tmp_path):
    show_once(raw, "test")
    whiteners = {}
    for fit in ("train", "all"):
        (tmp_path / f"{fit}.toml").write_text(f'base = "clean"\nmvnn = "time"\nfit = "{fit}"\n')
        line = run(raw, tmp_path, store=f"{fit}.zarr", recipe=str(tmp_path / f"{fit}.toml")).subjects[0]
        whiteners[fit] = subject(tmp_path, f"{fit}.zarr").arrays["whitener"]
    assert np.array_equal(whiteners["train"], whiteners["all"]), "an empty estimate halves the covariance"
    assert line.notes[0] == "sub-01/ses-01: no test image was seen twice: the whitening is that of the others"
    show_once(raw, "training")
    with pytest.raises(BadRecording, match="ses-01: no image was seen twice") as caught:
        run(raw, tmp_path, store="none.zarr", recipe=str(tmp_path / "all.toml"))
    assert 'mvnn = "epochs"' in caught.value.hint


def test_recordings_whose_codes_mean_other_images_are_not_taken_for_the_same(raw, tmp_path):
    run(raw, tmp_path)
    path = raw / "image_metadata.npy"
    whole = np.load(path, allow_pickle=True).item()
    for key in ("train_img_files", "train_img_concepts"):
        whole[key] = whole[key][::-1]
    np.save(path, whole, allow_pickle=True)
    with pytest.raises(StoreMismatch, match="other recordings than .* what they mean changed"):
        run(raw, tmp_path)


def test_a_dry_run_and_a_check_map_no_more_than_the_event_channel_and_eight_seconds(raw, tmp_path, monkeypatch):
    seconds = []
    monkeypatch.setattr(
        Recording, "read", lambda self, first, stop, *more: seconds.append(stop - first) or np.ones((6, stop - first))
    )
    monkeypatch.setattr(checks, "_PLAUSIBLE_SD", (-1, 1))
    run(raw, tmp_path, check=True)
    run(raw, tmp_path, dry_run=True)
    assert seconds == [1000] * 8 * 4 * 2, "four files, looked at twice"
