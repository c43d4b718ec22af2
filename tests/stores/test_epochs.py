"""Epochs in the order of the images; a subject is there whole or not at all."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from stores import epoch_writer, split_writer
from stores.epochs import EpochStore
from stores.errors import DamagedStore, EmbedctlError, StoreLocked, StoreMismatch, UnknownName
from stores.receipts import read_receipt

CLEAN = {"name": "clean", "sfreq": 250.0}
INFO = {
    "ch_names": ["Oz", "O1", "O2"],
    "ch_pos": [[0.0, 0.1, 0.2]] * 3,
    "times": [-0.1, 0.0, 0.1, 0.2],
    "sfreq": 10.0,
    "units": "uV",
    "counts": {"targets": np.int64(3)},
}
SIZES = {"train": 10, "test": 3}
REPETITIONS = {"train": 2, "test": 5}
ARRAYS = {"whitener": np.arange(18, dtype="f4").reshape(2, 3, 3)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(split_writer, "BLOCK_BYTES", 4 * 2 * 3 * 4 * 2)


@pytest.fixture
def store(tmp_path):
    return EpochStore.open(tmp_path / "p.zarr", create=True)


def recorded(split, row_shape=(3, 4)):
    """Return repetitions, which of them were recorded, and in which session."""
    random = np.random.default_rng(SIZES[split])
    shape = SIZES[split], REPETITIONS[split]
    valid = random.random(shape) < 0.7
    valid[0] = False
    return random.standard_normal((*shape, *row_shape)).astype("f4"), valid, random.integers(0, 4, shape)


def begin(store, subject=1, recipe=CLEAN, info=INFO, arrays=ARRAYS, dataset="things-eeg2", keep="all", modality="eeg"):
    return store.writer(dataset, subject, recipe=recipe, modality=modality, info=info, arrays=arrays, keep=keep)


def begin_split(writer, split, row_shape=(3, 4), dtype="float16", last_id="", concept="cat"):
    ids = [f"{split}_images/cat/{i}.jpg" for i in range(SIZES[split])]
    ids[-1] = last_id or ids[-1]
    trials = pa.table({"onset": np.arange(7) / 2})
    return writer.split(split, ids, [concept] * len(ids), REPETITIONS[split], row_shape, dtype, trials)


def write(to, split, blocks=None, row_shape=(3, 4)):
    epochs, valid, session = recorded(split, row_shape)
    for block in to.missing() if blocks is None else blocks:
        rows = to.images(block)
        here = slice(rows.start, rows.stop)
        to.write_block(block, epochs[here], valid[here], session[here])


def complete(store, labels=None, **options):
    with begin(store, **options) as writer:
        for split in SIZES:
            write(begin_split(writer, split, **(labels or {})), split)
        writer.done()


def test_a_new_store_holds_no_dataset(store):
    assert store.datasets() == [] and store.subjects("things-eeg2") == [] and store.recipe("things-eeg2") is None


def test_what_was_written_is_what_is_read(store):
    complete(store)
    subject = EpochStore.open(store.path)["things-eeg2", 1]
    assert (subject.dataset, subject.subject, subject.modality, subject.recipe) == ("things-eeg2", 1, "eeg", CLEAN)
    assert (subject.ch_names, subject.sfreq, subject.units) == (["Oz", "O1", "O2"], 10.0, "uV")
    assert subject.times.tolist() == INFO["times"] and subject.info["counts"] == {"targets": 3}
    assert np.array_equal(subject.arrays["whitener"], ARRAYS["whitener"])
    for split, held in (("train", subject.train), ("test", subject.test)):
        epochs, valid, session = recorded(split)
        assert held.image_ids == [f"{split}_images/cat/{i}.jpg" for i in range(SIZES[split])]
        assert held.concepts == ["cat"] * SIZES[split] and held.n_repetitions == REPETITIONS[split]
        assert np.array_equal(held.valid, valid) and held.valid.dtype == bool
        assert np.array_equal(held.session, np.where(valid, session, -1))
        assert held.trials.column("onset").to_pylist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
        asked = [SIZES[split] - 1, 0, 1]
        stored = np.where(valid[..., None, None], epochs.astype("f2").astype("f4"), np.nan)
        assert held.take(asked).dtype == np.float32
        assert np.array_equal(held.take(asked), stored[asked], equal_nan=True)


def test_the_mean_is_the_plain_mean_of_the_valid_repetitions_as_they_are_stored(store):
    complete(store)
    for split in (store["things-eeg2", 1].train, store["things-eeg2", 1].test):
        epochs = split.take(range(len(split))).astype("f8")
        expected = np.full(split.mean.shape, np.nan)
        for image, valid in enumerate(split.valid):
            if valid.any():
                expected[image] = epochs[image, valid].mean(axis=0)
        assert split.mean.dtype == np.float32
        assert np.array_equal(split.mean, expected.astype("f4"), equal_nan=True)
        assert np.isnan(split.mean[0]).all(), "an image without a valid repetition has no mean"


def test_keeping_the_mean_alone_keeps_the_same_mean(store, tmp_path):
    complete(store)
    lean = EpochStore.open(tmp_path / "lean.zarr", create=True)
    complete(lean, keep="mean")
    assert np.array_equal(lean["things-eeg2", 1].test.mean, store["things-eeg2", 1].test.mean, equal_nan=True)
    assert not list(lean.path.rglob("epochs"))
    with pytest.raises(EmbedctlError, match="mean alone"):
        lean["things-eeg2", 1].test.take([0])


def test_fmri_has_voxels(store):
    with begin(store, info={"units": "percent"}, arrays={}, modality="fmri", dataset="nsd") as writer:
        write(begin_split(writer, "test", (50,), "float32"), "test", row_shape=(50,))
        writer.done()
    test = store["nsd", 1].test
    epochs, valid, _ = recorded("test", (50,))
    assert test.mean.shape == (3, 50) and np.array_equal(test.take([2])[0][valid[2]], epochs[2][valid[2]])
    with pytest.raises(EmbedctlError, match="no split 'train'"):
        store["nsd", 1].train  # noqa: B018


class TestUntilItIsDone:
    def test_nobody_sees_the_subject(self, store):
        with begin(store) as writer:
            write(begin_split(writer, "train"), "train")
            write(begin_split(writer, "test"), "test", blocks=[0])
            assert store.datasets() == []
            with pytest.raises(ValueError, match="test"):
                writer.done()
        assert store.datasets() == []
        with pytest.raises(UnknownName):
            store["things-eeg2", 1]

    def test_a_resumed_writer_continues_where_it_stopped(self, store):
        with begin(store) as writer:
            to = begin_split(writer, "train")
            assert to.block_images == 4 and to.missing() == [0, 1, 2]
            assert [list(to.images(block)) for block in to.missing()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
            write(to, "train", blocks=[1])
        with begin(store) as writer:
            assert begin_split(writer, "train").missing() == [0, 2]

    @pytest.mark.parametrize(
        "other",
        [
            {"recipe": {**CLEAN, "sfreq": 100.0}},
            {"info": {**INFO, "units": "V"}},
            {"arrays": {"whitener": ARRAYS["whitener"] + 1}},
            {"keep": "mean"},
        ],
    )
    def test_other_inputs_begin_again(self, store, other):
        with begin(store) as writer:
            write(begin_split(writer, "train"), "train", blocks=[1])
        with begin(store, **other) as writer:
            assert begin_split(writer, "train").missing() == [0, 1, 2]

    def test_a_split_without_blocks_or_none_at_all_is_not_done(self, store):
        with begin(store) as writer, pytest.raises(ValueError):
            writer.done()

    def test_a_second_writer_is_kept_out(self, store):
        with begin(store), pytest.raises(StoreLocked) as problem, begin(store):
            pass
        assert str(store.path) in str(problem.value)
        with begin(store), begin(store, subject=2):
            pass


class TestOnceItIsDone:
    def test_doing_it_again_finds_nothing_to_do(self, store):
        complete(store)
        before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*") if path.is_file()}
        with begin(store) as writer:
            assert [begin_split(writer, split).missing() for split in SIZES] == [[], []]
            writer.done()
        assert before == {path: path.stat().st_mtime_ns for path in store.path.rglob("*") if path.is_file()}

    def test_a_writer_killed_after_its_first_subject_leaves_a_recipe_that_is_read(self, store, monkeypatch):
        def killed(root, without=""):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(epoch_writer, "publish", killed)
            with pytest.raises(KeyboardInterrupt):
                complete(store)
        assert store.recipe("things-eeg2") == CLEAN and store.subjects("things-eeg2") == [1]
        complete(store, subject=2)
        assert store.recipe("things-eeg2") == CLEAN and store.is_consolidated

    def test_another_recipe_needs_another_store(self, store):
        complete(store)
        for subject in (1, 2):
            with pytest.raises(StoreMismatch, match="another recipe .*sfreq") as problem:
                begin(store, subject=subject, recipe={**CLEAN, "sfreq": 100.0})
            assert problem.value.exit_code == 2 and "another store" in problem.value.hint
        complete(store, recipe={**CLEAN, "sfreq": 100.0}, dataset="things-meg")
        assert store.datasets() == ["things-eeg2", "things-meg"]

    def test_other_inputs_are_refused(self, store):
        complete(store)
        for _ in range(2):  # and the refusal holds no lock
            with pytest.raises(StoreMismatch, match="other inputs"), begin(store, info={**INFO, "units": "V"}):
                pass

    def test_removing_makes_room_and_with_the_last_subject_for_another_recipe(self, store):
        complete(store)
        complete(store, subject=12)
        assert store.subjects("things-eeg2") == [1, 12] and store.recipe("things-eeg2") == CLEAN
        store.remove("things-eeg2", 1)
        assert store.subjects("things-eeg2") == [12]
        store.remove("things-eeg2", 12)
        assert store.datasets() == []
        vouched = read_receipt(store.path / "subject" / ".embedctl" / "metadata.json")["files"]
        assert [name for name in vouched if not (store.path / name).is_file()] == []
        complete(store, recipe={"name": "other"})

    def test_what_is_not_there_is_answered_with_what_is(self, store):
        complete(store)
        with pytest.raises(UnknownName) as problem:
            store["things-eeg", 1]
        assert problem.value.hint == "did you mean 'things-eeg2'?"
        with pytest.raises(UnknownName) as problem:
            store["things-eeg2", 7]
        assert problem.value.hint == "stored subjects: 1"

    def test_the_key_changes_with_the_numbers_and_with_the_recipe(self, store, tmp_path):
        complete(store)
        copy = EpochStore.open(tmp_path / "copy.zarr", create=True)
        complete(copy)
        assert store["things-eeg2", 1].key == copy["things-eeg2", 1].key
        other = EpochStore.open(tmp_path / "other.zarr", create=True)
        complete(other, recipe={"name": "other"})
        assert store["things-eeg2", 1].key != other["things-eeg2", 1].key

    @pytest.mark.parametrize(
        "other",
        [
            {"labels": {"last_id": "another.jpg"}},
            {"labels": {"concept": "dog"}},
            {"info": {**INFO, "ch_names": ["O1", "Oz", "O2"]}},
            {"info": {**INFO, "times": [0.0, 0.1, 0.2, 0.3]}},
            {"info": {**INFO, "sfreq": 20.0}},
            {"info": {**INFO, "units": "V"}},
        ],
        ids=lambda other: str(next(iter(other.values())))[:40],
    )
    def test_the_key_changes_with_the_labels_of_the_numbers(self, store, tmp_path, other):
        complete(store)
        relabelled = EpochStore.open(tmp_path / "relabelled.zarr", create=True)
        complete(relabelled, **other)
        assert relabelled["things-eeg2", 1].key != store["things-eeg2", 1].key

    @pytest.mark.parametrize("array", ["epochs", "mean", "valid", "session"])
    @pytest.mark.parametrize("damage", ["cut", "lost", "swapped"])
    def test_a_damaged_chunk_is_never_numbers(self, store, array, damage):
        complete(store)
        chunks = store.path / "things-eeg2" / "sub-01" / "train" / array / "c"
        chunk = next(path for path in (chunks / "0").rglob("*") if path.is_file())
        if damage == "cut":
            chunk.write_bytes(chunk.read_bytes()[:-1])
        elif damage == "lost":
            chunk.unlink()
        else:
            shutil.copy(chunks / "1" / chunk.relative_to(chunks / "0"), chunk)
        train = store["things-eeg2", 1].train
        with pytest.raises(DamagedStore):
            train.take([0]) if array == "epochs" else getattr(train, array)


class TestWhatCannotBeWritten:
    @pytest.mark.parametrize("dataset", ["", "../x", "a/b", "con", "subject", "x" * 200])
    def test_a_name_that_is_no_folder(self, store, dataset):
        with pytest.raises(EmbedctlError):
            begin(store, dataset=dataset)

    def test_valid_numbers_that_are_none(self, store):
        with begin(store) as writer:
            to = begin_split(writer, "test")
            epochs, valid, session = recorded("test")
            n = len(to.images(0))
            epochs, valid, session = epochs[:n].copy(), np.ones_like(valid[:n]), session[:n]
            for value in (np.nan, 1e6):
                epochs[0, 0, 0, 0] = value
                with pytest.raises(ValueError, match="not finite as float16"):
                    to.write_block(0, epochs, valid, session)

    def test_other_shapes(self, store):
        with begin(store) as writer:
            to = begin_split(writer, "test")
            epochs, valid, session = recorded("test")
            with pytest.raises(ValueError, match="images of"):
                to.write_block(0, epochs[:, :1], valid, session)
            with pytest.raises(ValueError, match="ids"):
                writer.split("test", ["a", "a"], ["x", "x"], 2, (3, 4), "float16", pa.table({}))
            with pytest.raises(ValueError, match="axis channel"):
                writer.split("test", ["a"], ["x"], 2, (5, 4), "float16", pa.table({}))
            with pytest.raises(ValueError, match="train or test"):
                writer.split("validation", ["a"], ["x"], 2, (3, 4), "float16", pa.table({}))
