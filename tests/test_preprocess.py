"""From raw recordings to the epoch store, end to end."""

import shutil

import numpy as np
import pytest

import pipelines.preprocess.preprocess as module
from pipelines.preprocess import distributed
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.epochs import EpochStore
from stores.errors import BadRecording, StoreMismatch, UnknownName

TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.jpg" for c in range(1, 7) for i in range(1, 3)]
TEST = [f"test_images/{c:05d}_t{c:02d}/t{c:02d}_01s.jpg" for c in range(1, 5)]
ROWS = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(TRAINING + TEST)}
CHANNELS = ("F3", "Cz", "P7", "Pz", "O1", "Oz", "O2")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    simulate_things_eeg2(folder, TRAINING, TEST, ROWS, subjects=[1, 2], test_repetitions=8, ch_names=CHANNELS)
    return folder


@pytest.fixture
def raw(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "raw/things-eeg2")


def run(raw, tmp_path, **options):
    request = {"dataset": "things-eeg2", "raw": raw, "store": tmp_path / "epochs.zarr", **options}
    return preprocess(PreprocessRequest(**request))


class Heard:
    """Hears what is said of progress."""

    def __init__(self):
        self.started, self.total, self.done = [], 0, 0

    def start(self, label, total, unit):
        self.started, self.total = [*self.started, label], self.total + total

    def advance(self, n=1, **figures):
        self.done += n

    def say(self, text):
        pass


def in_processes(monkeypatch):
    """Let two subjects of four sessions each be worth two processes."""
    monkeypatch.setattr(distributed, "WORTH", 0)
    monkeypatch.setattr(module, "n_cores", lambda: 8)


def test_every_repetition_of_every_image_arrives_in_the_store(raw, tmp_path):
    report = run(raw, tmp_path)
    assert [line.state for line in report.subjects] == ["written", "written"]
    store = EpochStore.open(tmp_path / "epochs.zarr")
    assert store.subjects("things-eeg2") == [1, 2]
    subject = store["things-eeg2", 1]
    assert subject.train.image_ids == TRAINING and subject.test.image_ids == TEST
    assert subject.train.concepts[:3] == ["c01", "c01", "c02"]
    assert subject.ch_names == list(CHANNELS) and subject.info["time_offset_ms"] == 0
    assert subject.info["simulated"] is True, "as the raw files say of themselves"
    assert np.allclose(subject.times, np.arange(250) / 250)
    assert np.isfinite(subject.train.mean).all() and np.isfinite(subject.test.mean).all()
    counts = subject.train.valid.sum(axis=1)
    assert counts.min() == 4 and subject.test.valid.sum(axis=1).min() == 8
    assert len(subject.train.trials) == counts.sum()
    assert subject.train.trials["valid"].to_pylist() == [True] * counts.sum()


@pytest.mark.slow
def test_subjects_in_processes_of_this_computer_have_the_bytes_of_one_process(raw, tmp_path, monkeypatch):
    alone = run(raw, tmp_path)
    in_processes(monkeypatch)
    heard = Heard()
    asked = PreprocessRequest(dataset="things-eeg2", raw=raw, store=tmp_path / "both.zarr")
    report = preprocess(asked, heard)
    assert [line.state for line in report.subjects] == ["written", "written"]
    assert [line.counts for line in report.subjects] == [line.counts for line in alone.subjects]
    assert heard.started == ["2 subjects in 2 processes"] and heard.done == heard.total > 0
    files = [p for p in sorted((tmp_path / "epochs.zarr").rglob("*")) if p.is_file()]
    for path in files:
        name = path.relative_to(tmp_path / "epochs.zarr")
        if "receipts" not in name.parts and name.name != "metadata.json":
            assert path.read_bytes() == (tmp_path / "both.zarr" / name).read_bytes(), name


@pytest.mark.slow
def test_what_is_wrong_with_a_subject_in_another_process_is_told_as_here_and_it_goes_on_from_there(
    raw, tmp_path, monkeypatch
):
    in_processes(monkeypatch)
    file = raw / "sub-02/ses-01/raw_eeg_training.npy"
    whole = np.load(file, allow_pickle=True).item()
    good = whole["raw_eeg_data"][2, 3000]
    whole["raw_eeg_data"][2, 3000] = np.nan
    np.save(file, whole, allow_pickle=True)
    (tmp_path / "keep.toml").write_text('base = "clean"\nbad_channels = "keep"\n')
    with pytest.raises(BadRecording, match=r"channel P7 at 3.000 s is not a finite number") as caught:
        run(raw, tmp_path, recipe=str(tmp_path / "keep.toml"))
    assert "--recipe clean" in caught.value.hint
    whole["raw_eeg_data"][2, 3000] = good
    np.save(file, whole, allow_pickle=True)
    states = [line.state for line in run(raw, tmp_path, recipe=str(tmp_path / "keep.toml")).subjects]
    assert states[1] == "written" and set(states) <= {"already there", "written"}


@pytest.mark.slow
def test_workers_of_a_cluster_write_the_bytes_of_this_computer(raw, tmp_path):
    from distributed import LocalCluster

    options = {"dataset": "things-eeg2", "raw": raw}
    preprocess(PreprocessRequest(**options, store=tmp_path / "here.zarr"))
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        report = preprocess(PreprocessRequest(**options, store=tmp_path / "there.zarr", scheduler=address))
    assert {line.state for line in report.subjects} == {"written"}
    here, there = (EpochStore.open(tmp_path / f"{name}.zarr") for name in ("here", "there"))
    assert there.subjects("things-eeg2") == here.subjects("things-eeg2") and there.is_consolidated
    for subject in here.subjects("things-eeg2"):
        assert there["things-eeg2", subject].key == here["things-eeg2", subject].key


def test_running_again_does_nothing(raw, tmp_path):
    run(raw, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "epochs.zarr").rglob("*") if path.is_file()}
    assert [line.state for line in run(raw, tmp_path).subjects] == ["already there", "already there"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "epochs.zarr").rglob("*") if path.is_file()}


def test_another_recipe_does_not_enter_the_same_store(raw, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "clean"\ndtype = "float32"\n')
    run(raw, tmp_path, subjects=(1,))
    with pytest.raises(StoreMismatch, match="another recipe .'clean', which differs in dtype, name"):
        run(raw, tmp_path, subjects=(2,), recipe=str(own))


@pytest.mark.parametrize("options", [{"dry_run": True}, {"check": True}])
def test_a_dry_run_and_a_check_write_nothing(raw, tmp_path, options):
    report = run(raw, tmp_path, **options)
    assert not (tmp_path / "epochs.zarr").exists()
    assert report.subjects[0].per_file["all train"] == {"images in the metadata": 12, "images shown": 12}
    assert not report.problems


def test_the_mean_alone_can_be_kept(raw, tmp_path):
    run(raw, tmp_path, subjects=(1,))
    run(raw, tmp_path, subjects=(1,), keep="mean", store=tmp_path / "mean.zarr")
    whole = EpochStore.open(tmp_path / "epochs.zarr")["things-eeg2", 1]
    mean = EpochStore.open(tmp_path / "mean.zarr")["things-eeg2", 1]
    assert np.array_equal(whole.test.mean, mean.test.mean)
    with pytest.raises(StoreMismatch, match="the mean alone"):
        run(raw, tmp_path, subjects=(1,), store=tmp_path / "mean.zarr")


def test_an_unknown_dataset_recipe_or_subject_is_named(raw, tmp_path):
    for options, said in (
        ({"dataset": "things-eeg"}, "no dataset 'things-eeg'"),
        ({"recipe": "cleen"}, "no preprocessing recipe 'cleen'"),
        ({"subjects": (3,)}, "no subject 3"),
    ):
        with pytest.raises(UnknownName, match=said) as caught:
            run(raw, tmp_path, **options)
        assert caught.value.hint and caught.value.exit_code == 2


def test_a_wrong_folder_is_named(tmp_path):
    for folder, said in ((tmp_path / "absent", "no folder"), (tmp_path, "holds no subjects")):
        with pytest.raises(BadRecording, match=said) as caught:
            run(folder, tmp_path)
        assert caught.value.hint and caught.value.exit_code == 2


def test_a_truncated_recording_is_named_before_anything_is_written(raw, tmp_path):
    with open(raw / "sub-02/ses-03/raw_eeg_training.npy", "r+b") as file:
        file.truncate(100_000)
    with pytest.raises(
        BadRecording, match=r"sub-02/ses-03/raw_eeg_training.npy: file: is truncated: have 100 of 462 kB"
    ) as caught:
        run(raw, tmp_path)
    assert caught.value.hint == "download it again"
    assert not (tmp_path / "epochs.zarr").exists()


def test_a_subject_stored_under_the_name_of_another_is_found(raw, tmp_path):
    file = "ses-02/raw_eeg_test.npy"
    (raw / "sub-02" / file).write_bytes((raw / "sub-01" / file).read_bytes())
    said = f"sub-02/{file} of subject 2 holds the same as sub-01/{file} of subject 1"
    with pytest.raises(BadRecording, match=said) as caught:
        run(raw, tmp_path)
    assert "mislabelled" in caught.value.hint and not (tmp_path / "epochs.zarr").exists()
    assert [what for what, _ in run(raw, tmp_path, check=True).problems] == [said]
