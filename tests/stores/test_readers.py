"""Readers take no lock: whatever a writer does meanwhile, a row is the row of its image or an error that says why."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stores.embeddings import EmbeddingStore, ImageRecord
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

DIM = 512  # a chunk of 64 rows is whole pages, so that it is mapped in one piece


def records(numbers, version="a"):
    return [ImageRecord(f"{n}.jpg", version, 1, 0, 8, 8, "RGB") for n in numbers]


def rows_of(ids):
    """Return what the row of each image must be: its number, in every feature."""
    return np.repeat(np.array([int(name.removesuffix(".jpg")) for name in ids], np.float32)[:, None], DIM, 1)


def commit(store, entry, rows):
    rows = np.asarray(rows)
    for block in np.unique(rows // store.block_rows):
        here = rows[rows // store.block_rows == block]
        store.write_block(int(block), {entry.group: (here, rows_of([store.image_ids[row] for row in here]))}, {})


def begin(path, n_images=70, n_committed=70):
    store = EmbeddingStore.open(path, create=True)
    store.add_images(records(range(n_images)))
    entry = store.create(EmbeddingName("hog"), "0a", dim=DIM, dtype="float32", provenance={})
    commit(store, entry, range(n_committed))
    return store, entry


def test_an_embedding_keeps_its_rows_while_images_are_added(tmp_path):
    begin(tmp_path / "e.zarr")
    held = EmbeddingStore.open(tmp_path / "e.zarr")
    writer = EmbeddingStore.open(tmp_path / "e.zarr")
    writer.add_images(records(range(70, 200)))
    before = held["hog"]
    commit(writer, writer.entries()[0], range(60, 200))
    for embedding in (before, held["hog"]):
        assert embedding.values.shape == (70, DIM) and len(embedding.image_ids) == 70
        assert np.array_equal(embedding.take([-1, 69, 0]), rows_of(["69.jpg", "69.jpg", "0.jpg"]))
        with pytest.raises(IndexError):
            embedding.take([70])
    assert np.array_equal(EmbeddingStore.open(tmp_path / "e.zarr")["hog"].take([-1]), rows_of(["199.jpg"]))


def test_rows_dropped_meanwhile_are_an_error_that_says_to_open_again(tmp_path):
    store, _ = begin(tmp_path / "e.zarr")
    held = EmbeddingStore.open(tmp_path / "e.zarr")["hog"]
    store.update_images(records([3], version="b"))
    with pytest.raises(EmbedctlError, match="no longer holds the rows") as problem:
        held.take([3])
    assert problem.value.exit_code == 2 and problem.value.hint.startswith("open the store again")
    assert "3.jpg" not in EmbeddingStore.open(tmp_path / "e.zarr")["hog"].image_ids


def test_an_embedding_removed_meanwhile_is_an_error_that_says_to_open_again(tmp_path):
    store, entry = begin(tmp_path / "e.zarr")
    held = EmbeddingStore.open(tmp_path / "e.zarr")["hog"]
    store.remove(entry)
    with pytest.raises(EmbedctlError, match="no longer holds the rows"):
        held.take([3])


WRITER = """
import sys
from pathlib import Path
import numpy as np
from stores import blocks
from tests.stores.test_readers import EmbeddingName, EmbeddingStore, DIM, commit, records
random = np.random.default_rng(0)
store = EmbeddingStore.open(Path(sys.argv[1]))
with store.lock():
    print("begun", flush=True)
    n = len(store.image_ids)
    while n < 400:
        n += int(random.integers(1, 40))
        store.add_images(records(range(n)))
        entry = store.entries()[0]
        lacking = np.flatnonzero(~store.committed(entry))
        commit(store, entry, random.permutation(lacking)[: 1 + len(lacking) // 2])
        other = store.create(EmbeddingName("pixels"), "0b", dim=4, dtype="float32", provenance={})
        store.remove(other)
print(n)
"""


@pytest.mark.slow
def test_no_reader_ever_sees_a_wrong_row_while_another_process_writes(tmp_path):
    path = tmp_path / "e.zarr"
    begin(path)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    random, held, lengths = np.random.default_rng(1), [EmbeddingStore.open(path)], set()
    assert process.stdout.readline() == "begun\n"
    while process.poll() is None:
        held.append(EmbeddingStore.open(path))
        embedding = held[random.integers(len(held))]["hog"]
        lengths.add(len(embedding))
        asked = random.integers(-len(embedding), len(embedding), 50)
        assert np.array_equal(embedding.take(asked), rows_of([embedding.image_ids[i] for i in asked]))
        assert np.array_equal(embedding.values, rows_of(embedding.image_ids))
        if len(held) > 20:
            del held[random.integers(1, len(held))]
    assert process.returncode == 0 and int(process.stdout.read()) >= 400
    process.stdout.close()
    assert len(lengths) > 5, "it looked while rows were added"
    assert np.array_equal(held[0]["hog"].take([-1]), rows_of(["69.jpg"])), "the first one still knows what it knew"
