"""A folder that was renamed or copied by hand is no other embedding, subject or run: it is found, and named back."""

import shutil

import numpy as np
import pytest

from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import DamagedStore
from stores.images import ImageRecord
from stores.names import EmbeddingName
from stores.repair import repair
from stores.results import read_array, write_run
from stores.verify import find_places
from tests.crashes import files, preprocess
from tests.damage import damages
from tests.summaries import summary_of

KEY = {"hog": "0a0a", "pixels": "0b0b"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made")
    store = EmbeddingStore.open(path / "e.zarr", create=True)
    store.add_images([ImageRecord(f"{n}.jpg", "a", 1, 2, 3, 4, "RGB") for n in range(3)])
    for n, (name, key) in enumerate(KEY.items()):
        said = {"encoder": name, "key": key}
        entry = store.create(EmbeddingName(name), key, dim=2, dtype="float32", provenance=said)
        store.write_block(0, {entry.group: (np.arange(3), np.full((3, 2), n, "f4"))}, {})
    store.consolidate()
    preprocess(path, (1, 2))
    for run in ("run-a", "run-b"):
        scores = {"scores": np.zeros(2)}
        write_run(path / "runs", run, config={}, summary=summary_of(run), arrays=scores, checkpoint=b"", metrics=[])
    return path


def rename(one, other):
    one.rename(other)


def swap(one, other):
    one.rename(aside := one.with_name("aside"))
    other.rename(one)
    aside.rename(other)


def read_embeddings(path):
    store = EmbeddingStore.open(path / "e.zarr")
    return [store[name].values for name in store.names]


def read_subject(number):
    return lambda path: EpochStore.open(path / "p.zarr")["things-eeg2", number]


S = "p.zarr/things-eeg2"
CASES = [
    (swap, "e.zarr/hog-0a0a", "e.zarr/pixels-0b0b", read_embeddings, 2),
    (rename, "e.zarr/hog-0a0a", "e.zarr/dinov2-vitb14-0a0a", read_embeddings, 2),
    (shutil.copytree, "e.zarr/hog-0a0a", "e.zarr/hog-ffff", read_embeddings, 1),
    (rename, "e.zarr/hog-0a0a", "e.zarr/weird", None, 2),
    (swap, f"{S}/sub-01", f"{S}/sub-02", read_subject(1), 2),
    (rename, f"{S}/sub-01", f"{S}/sub-07", read_subject(7), 2),
    (shutil.copytree, f"{S}/sub-01", f"{S}/sub-07", read_subject(7), 1),
    (rename, f"{S}/sub-01", f"{S}/old", None, 2),
    (rename, f"{S}/sub-01", f"{S}/sub-01x", None, 2),
    (rename, S, "p.zarr/old", None, 4),
]


@pytest.mark.parametrize(("do", "one", "other", "read", "n_found"), CASES)
def test_a_store_whose_folders_have_other_names_is_damaged_and_repaired(made, tmp_path, do, one, other, read, n_found):
    path = shutil.copytree(made, tmp_path / "workspace")
    do(path / one, path / other)
    assert len(damages(path)) == n_found
    if read:
        with pytest.raises(DamagedStore, match="than its name says"):
            read(path)
    done = [repair(place, kind) for place, kind in find_places(path)]
    assert not any(one.lost or one.dropped for one in done) and not damages(path)
    assert files(path) == files(made)


def test_a_folder_whose_own_name_nothing_says_is_left_as_it_is(made, tmp_path):
    path = shutil.copytree(made / "e.zarr", tmp_path / "e.zarr")
    entry = EmbeddingStore.open(path).create(
        EmbeddingName("gabor-pyramid"), "0c0c", dim=2, dtype="float32", provenance={"encoder": "gabor-pyramid"}
    )  # and the command was killed before the root knew it
    (path / entry.group).rename(path / "other-0c0c")
    before = files(path)
    with pytest.raises(DamagedStore, match="does not say which"):
        repair(path, "embeddings")
    assert files(path) == before


def test_a_run_under_another_name_is_damaged_and_no_longer_counts(made, tmp_path):
    path = shutil.copytree(made / "runs", tmp_path / "runs")
    swap(path / "run-a", path / "run-b")
    shutil.copytree(path / "run-a", path / "copy")
    assert {damage.part for damage in damages(path)} == {"run-a", "run-b", "copy"}
    with pytest.raises(DamagedStore, match="than its name says"):
        read_array(path, "run-a", "scores")
    assert repair(path, "runs").dropped == ["copy", "run-a", "run-b"]
    assert not damages(path) and (path / "copy" / "scores.npy").exists()


def test_a_damaged_name_is_the_damage_of_its_file_alone(made, tmp_path):
    path = shutil.copytree(made, tmp_path / "workspace")
    for file in ("e.zarr/hog-0a0a/zarr.json", f"{S}/sub-01/zarr.json", "runs/run-a/summary.json"):
        said = (path / file).read_bytes()
        for old, new in ((b"0a0a", b"0a0b"), (b'"subject": 1', b'"subject": 2'), (b"run-a", b"run-b")):
            (path / file).write_bytes(said := said.replace(old, new))
        assert damages(path)[-1].file == path / file and len(damages(path)) == 1, file
        shutil.copyfile(made / file, path / file)


def test_a_subject_without_its_receipts_is_damaged(made, tmp_path):
    path = shutil.copytree(made, tmp_path / "workspace")
    shutil.rmtree(path / S / "sub-01" / "split" / ".embedctl")
    assert any(damage.part == "things-eeg2/sub-01" for damage in damages(path))
