"""The notebook API: what is opened, what is asked of it, and how it draws itself."""

import pickle
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import embedctl
from pipelines.similarity import similarity
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.epochs import EpochStore
from stores.errors import EmbedctlError, UnknownName
from stores.names import EmbeddingName
from stores.remote import locate

ROOT = Path(__file__).parent.parent
NASTY = "a/</script><script>alert(1)</script>.jpg"
IDS = [f"concept_{n // 4}/image_{n:02d}.jpg" for n in range(19)] + [NASTY]


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return {"pixels": rng.normal(size=(20, 6)).astype("f4"), "hog": rng.normal(size=(20, 9)).astype("f4")}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("workspace")
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(name, "00", 1, 0, 8, 8, "RGB") for name in IDS])
    for name, rows in values.items():
        entry = store.create(
            EmbeddingName(name), "0a1b", dim=rows.shape[1], dtype="float32", provenance={"weights": "<b>none</b>"}
        )
        absent = {3: "truncated"} if name == "hog" else {}
        kept = np.array([row for row in range(20) if row not in absent])
        store.write_block(0, {entry.group: (kept, rows[kept])}, absent)
    image = folder / "images" / IDS[0]
    image.parent.mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(image)
    return folder


@pytest.fixture(scope="module")
def store(workspace):
    return embedctl.open_embeddings(workspace / "embeddings.zarr")


def test_importing_embedctl_loads_nothing_heavy():
    code = "import embedctl, sys; sys.exit(bool({'numpy', 'zarr', 'pyarrow', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="open_everything"):
        _ = embedctl.open_everything


def test_a_store_says_what_it_holds(store):
    assert store.names == ["hog", "pixels"]
    assert len(store) == 2 and "hog" in store and "vgg" not in store


def test_an_embedding_holds_its_committed_rows_only(store, values):
    e = store["hog"]
    assert len(e) == len(e.image_ids) == 19 and IDS[3] not in e.image_ids
    assert np.array_equal(e.values, np.delete(values["hog"], 3, axis=0))
    assert np.array_equal(e.take([5, 0]), e.values[[5, 0]])
    assert np.array_equal(e.to_dask().compute(), e.values)
    assert e.to_xarray().sel(image=IDS[4]).values.tolist() == values["hog"][4].tolist()
    assert e.absent == {IDS[3]: "truncated"}
    assert e.provenance["weights"] == "<b>none</b>"


def test_the_nearest_images_are_those_of_a_plain_loop(store, values):
    x = values["pixels"].astype(float)
    cosines = [x[7] @ row / np.linalg.norm(x[7]) / np.linalg.norm(row) for row in x]
    order = sorted((row for row in range(20) if row != 7), key=lambda row: -cosines[row])
    found = store["pixels"].nearest(IDS[7], k=4)
    assert [name for name, _ in found] == [IDS[row] for row in order[:4]]
    assert [cosine for _, cosine in found] == pytest.approx([cosines[row] for row in order[:4]])
    assert len(store["pixels"].nearest(IDS[7], k=99)) == 19


def test_what_cannot_be_asked_is_said_as_found_and_expected(store):
    with pytest.raises(TypeError, match="expected the id of an image"):
        store["pixels"].nearest(0)
    with pytest.raises(ValueError, match="k is -1, expected 1 or more"):
        store["pixels"].nearest(IDS[7], k=-1)
    for n in (0, -3):
        for draw in (store["pixels"].plot_map, store["pixels"].plot_rdm):
            with pytest.raises(ValueError, match=f"n is {n}, expected 1 or more"):
                draw(n=n)


def test_the_nearest_of_an_image_without_a_row_says_why(store):
    with pytest.raises(UnknownName, match="truncated"):
        store["hog"].nearest(IDS[3])
    with pytest.raises(UnknownName) as problem:
        store["hog"].nearest("concept_0/image_0.jpg")
    assert "did you mean" in problem.value.hint


def test_comparing_uses_the_images_both_have(store, values):
    kept = np.delete(np.arange(20), 3)
    expected = similarity(values["pixels"][kept], values["hog"][kept])
    assert store.compare("pixels", "hog") == expected
    assert expected.n_images == 19


def test_nothing_in_a_page_comes_through_unescaped(store):
    pages = [store, store["pixels"], store["pixels"].nearest(IDS[0], k=19)]
    for drawn in (thing._repr_html_() for thing in pages):
        assert "<script>" not in drawn and "<b>none</b>" not in drawn
        assert not re.search(r"https?://", drawn)


def test_neighbours_show_thumbnails_of_images_that_are_there(store):
    drawn = store["pixels"].nearest(IDS[0], k=2)._repr_html_()
    assert drawn.count("data:image/jpeg;base64,") == 1


def test_no_picture_from_outside_the_folder_is_shown(tmp_path):
    from embedctl.html import thumbnail

    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "images").mkdir()
    assert thumbnail(tmp_path, "secret.png")
    assert thumbnail(tmp_path / "images", "../secret.png") == ""


@pytest.mark.parametrize("opened", ["open_embeddings", "open_epochs", "read_results"])
def test_a_folder_that_is_not_there_is_a_problem_with_a_hint(opened, tmp_path):
    with pytest.raises(EmbedctlError) as problem:
        getattr(embedctl, opened)(tmp_path / "nothing")
    assert problem.value.hint


# Epochs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    path = tmp_path_factory.mktemp("epochs") / "epochs.zarr"
    store = EpochStore.open(path, create=True)
    info = {
        "ch_names": ["Pz", "Oz"],
        "ch_pos": [[0.0, -0.05, 0.09], [0.0, -0.1, 0.03]],
        "times": [0.0, 0.004, 0.008],
        "sfreq": 250.0,
        "units": "uV",
    }
    rng = np.random.default_rng(0)
    with store.writer("things-eeg2", 1, recipe={"name": "clean"}, modality="eeg", info=info, arrays={}) as writer:
        for split, n in (("train", 5), ("test", 2)):
            ids = [f"{split}_images/00001_a/{i}.jpg" for i in range(n)]
            part = writer.split(split, ids, ["a"] * n, 2, (2, 3), "float32", pa.table({"image": ids}))
            valid = np.ones((n, 2), bool)
            valid[0, 1] = False
            for block in part.missing():
                part.write_block(block, rng.normal(size=(n, 2, 2, 3)).astype("f4"), valid, np.ones((n, 2), "i2"))
        writer.done()
    return embedctl.open_epochs(path)


def test_an_epoch_store_opens_subjects(epochs):
    s = epochs["things-eeg2", 1]
    assert (epochs.datasets(), epochs.subjects("things-eeg2")) == (["things-eeg2"], [1])
    assert s.train.mean.shape == (5, 2, 3) and s.test.mean.dtype == np.float32
    assert s.ch_names == ["Pz", "Oz"] and s.times.tolist() == [0.0, 0.004, 0.008]
    assert "things-eeg2" in epochs._repr_html_() and "Pz, Oz" in s._repr_html_()


def test_mne_gets_every_valid_repetition_in_volts(epochs):
    s = epochs["things-eeg2", 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = s.to_mne("test")
    assert len(made) == 3  # the second repetition of the first image is not valid
    assert made.ch_names == s.ch_names and made.times.tolist() == pytest.approx(s.times.tolist())
    assert made.get_data(copy=True)[1] == pytest.approx(s.test.take([1])[0, 0] * 1e-6)
    assert made[s.test.image_ids[1]].average().data == pytest.approx(s.test.mean[1] * 1e-6)
    assert made.get_montage().get_positions()["ch_pos"]["Oz"] == pytest.approx([0, -0.1, 0.03])


@pytest.mark.parametrize(
    ("modality", "units", "kind", "factor"),
    [
        ("meg", "fT", "mag", 1e-15),
        ("meg", "nT", "mag", 1e-9),
        ("meg", "fT/cm", "grad", 1e-13),
        ("eeg", "V", "eeg", 1.0),
    ],
)
def test_mne_gets_every_unit_that_preprocessing_writes_in_volts_and_tesla(epochs, modality, units, kind, factor):
    s = epochs["things-eeg2", 1]
    s.modality, s.units = modality, units
    made = s.to_mne("test")
    assert set(made.get_channel_types()) == {kind}
    assert made.get_data(copy=True)[1] == pytest.approx(s.test.take([1])[0, 0] * factor)


def test_mne_gets_no_unit_that_nobody_knows(epochs):
    s = epochs["things-eeg2", 1]
    s.units = "furlongs"
    with pytest.raises(EmbedctlError, match="'furlongs' cannot be put into volts or tesla"):
        s.to_mne("test")


def test_sensors_of_a_helmet_keep_their_places(epochs):
    s = epochs["things-eeg2", 1]
    s.modality = "meg"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = s.to_mne("test")
    assert made.get_channel_types() == ["mag", "mag"]
    assert made.info["chs"][1]["loc"][:3] == pytest.approx([0, -0.1, 0.03])


def test_a_split_that_is_not_there_is_a_problem(epochs):
    with pytest.raises(UnknownName, match="validation"):
        epochs["things-eeg2", 1].to_mne("validation")


def test_an_address_keeps_its_two_slashes_and_is_refused_where_only_a_disk_will_do(monkeypatch):
    monkeypatch.setattr(EmbeddingStore, "open", lambda place: SimpleNamespace(path=locate(place)))
    assert str(embedctl.open_embeddings("s3://lab/e.zarr").path) == "s3://lab/e.zarr"
    for opened in (embedctl.open_epochs, embedctl.read_results, partial(embedctl.open_embeddings, "e.zarr")):
        with pytest.raises(EmbedctlError, match="'s3://lab/x' is not on a disk"):
            opened("s3://lab/x")


def test_tab_completion_shows_the_functions():
    assert dir(embedctl) == ["__version__", "open_embeddings", "open_epochs", "read_results"]


def test_a_traceback_says_what_to_do(store):
    with pytest.raises(UnknownName) as problem:
        store["pixls"]
    assert problem.value.__notes__ == ["hint: did you mean 'pixels'?"]
    assert pickle.loads(pickle.dumps(problem.value)).__notes__ == problem.value.__notes__
