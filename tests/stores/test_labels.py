"""Numbers never come out under another's name: ids, labels and metadata are what their receipts say, or damage."""

import os
import shutil
from contextlib import suppress

import numpy as np
import pytest

from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import DamagedStore, EmbedctlError
from stores.images import ImageRecord
from stores.names import EmbeddingName
from stores.repair import repair
from stores.verify import find_places
from tests.crashes import extract, files, preprocess
from tests.damage import damages
from tests.stores.test_verify import written  # noqa: F401


def swap(one, other):
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def one_for_the_other(file, old, new):
    assert file.read_bytes().count(old) >= 1
    file.write_bytes(file.read_bytes().replace(old, new, 1))


def read_embedding(path):
    store = EmbeddingStore.open(path / "e.zarr")
    return store["pixels"].image_ids, list(store.images())


def read_epochs(path):
    subject = EpochStore.open(path / "p.zarr")["things-eeg2", 1]
    found = subject.train
    return found.image_ids, found.concepts, found.trials, found.take([0]), found.session, subject.arrays


NEW = ImageRecord("new.jpg", "0a", 1, 2, 3, 4, "RGB")
SUBJECT = "p.zarr/things-eeg2/sub-01"


@pytest.mark.parametrize(
    ("change", "read"),
    [
        (lambda p: swap(p / f"{SUBJECT}/train/image/c/0", p / f"{SUBJECT}/train/concept/c/0"), read_epochs),
        (lambda p: swap(p / f"{SUBJECT}/train/image/c/0", p / f"{SUBJECT}/test/image/c/0"), read_epochs),
        (lambda p: one_for_the_other(p / f"{SUBJECT}/zarr.json", b'"O1"', b'"O3"'), read_epochs),
        (
            lambda p: one_for_the_other(p / "e.zarr/zarr.json", b'"block_rows": 128', b'"block_rows": 129'),
            read_embedding,
        ),
        (lambda p: one_for_the_other(p / "e.zarr/pixels-0a/zarr.json", b"{}", b'{"dim": 1}'), read_embedding),
        (lambda p: (p / "e.zarr/image/.embedctl/metadata.json").unlink(), read_embedding),
        (
            lambda p: one_for_the_other(p / "e.zarr/image/zarr.json", b"80", b"70"),
            lambda p: EmbeddingStore(p / "e.zarr"),
        ),
        (lambda p: one_for_the_other(p / f"{SUBJECT}/train/session/zarr.json", b"int16", b"int1&"), read_epochs),
        (lambda p: one_for_the_other(p / f"{SUBJECT}/train/epochs/zarr.json", b"3,\n  4", b"4,\n  3"), read_epochs),
        (lambda p: one_for_the_other(p / f"{SUBJECT}/whitener/zarr.json", b"float32", b"uint32"), read_epochs),
    ],
)
def test_a_label_that_is_not_what_was_written_is_never_read(written, tmp_path, change, read):  # noqa: F811
    path = shutil.copytree(written, tmp_path / "workspace")
    for each in (read_embedding, read_epochs):
        each(path)
    change(path)
    with pytest.raises(DamagedStore):
        read(path)


def test_ids_that_changed_places_are_damage_and_no_writer_makes_them_official(tmp_path):
    store = EmbeddingStore.open(tmp_path / "e.zarr", create=True)
    first = [ImageRecord(f"{n:05d}.jpg", "0a", 1, 2, 3, 4, "RGB") for n in range(64)]
    store.add_images(first)
    store.add_images([ImageRecord(f"{n:05d}.jpg", "0a", 1, 2, 3, 4, "RGB") for n in range(64, 2048)])
    entry = store.create(EmbeddingName("pixels"), "0a", dim=1, dtype="float32", provenance={"weights": "none"})
    store.write_block(0, {entry.group: (np.arange(64), np.arange(64, dtype="f4")[:, None])}, {})
    swap(tmp_path / "e.zarr/image/c/0", tmp_path / "e.zarr/image/c/1")
    with pytest.raises(DamagedStore, match="is not what its receipt says"):
        EmbeddingStore.open(tmp_path / "e.zarr")["pixels"]
    with pytest.raises(DamagedStore):
        EmbeddingStore.open(tmp_path / "e.zarr").add_images([ImageRecord("new.jpg", "0a", 1, 2, 3, 4, "RGB")])
    assert damages(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "write"),
    [
        (
            "e.zarr/pixels-0a/values/zarr.json",
            b"float16",
            b"float32",
            lambda p: EmbeddingStore(p / "e.zarr").add_images([NEW]),
        ),
        ("e.zarr/pixels-0a/zarr.json", b"{}", b'{"a": 1}', lambda p: EmbeddingStore(p / "e.zarr").add_images([NEW])),
        ("e.zarr/pixels-0a/zarr.json", b"{}", b'{"a": 1}', lambda p: EmbeddingStore(p / "e.zarr").consolidate()),
        ("p.zarr/things-eeg2/zarr.json", b"clean", b"cleam", lambda p: EpochStore(p / "p.zarr").consolidate()),
        (f"{SUBJECT}/zarr.json", b'"O1"', b'"O3"', lambda p: EpochStore(p / "p.zarr").consolidate()),
        (f"{SUBJECT}/whitener/zarr.json", b"float32", b"uint32", lambda p: EpochStore(p / "p.zarr").consolidate()),
        ("p.zarr/zarr.json", b'"epochs"', b'"epochz"', lambda p: EpochStore(p / "p.zarr").consolidate()),
    ],
)
def test_no_writer_vouches_for_metadata_that_was_not_written(written, tmp_path, file, old, new, write):  # noqa: F811
    path = shutil.copytree(written, tmp_path / "workspace")
    one_for_the_other(path / file, old, new)
    with suppress(DamagedStore):
        write(path)
    assert [damage.file for damage in damages(path)] == [path / file]
    for place, kind in find_places(path):
        repair(place, kind)
    assert not damages(path)
    assert (path / file).read_bytes() == (written / file).read_bytes()


def test_repair_restores_the_metadata_of_every_subject_that_is_damaged(written, tmp_path):  # noqa: F811
    path = shutil.copytree(written, tmp_path / "workspace")
    for subject in ("sub-01", "sub-02"):
        one_for_the_other(path / "p.zarr/things-eeg2" / subject / "zarr.json", b'"O1"', b'"O3"')
        (path / "p.zarr/things-eeg2" / subject / "train/mean/c/0/0/0").unlink()
    done = repair(path / "p.zarr", "epochs")
    assert not done.lost and done.dropped == ["things-eeg2/sub-01", "things-eeg2/sub-02"]
    preprocess(path, (1, 2))
    assert files(path / "p.zarr") == files(written / "p.zarr")


PLACES = ["e.zarr/zarr.json", "e.zarr/image/c/0", "e.zarr/image/.embedctl/metadata.json",
          "e.zarr/image/.embedctl/images-0.parquet", "e.zarr/pixels-0a/values/c/0/0",
          "e.zarr/pixels-0a/values/.embedctl/receipts/000000.json"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_damage_and_neither_waited_for_nor_read_to_the_end(written, tmp_path, place, kind):  # noqa: F811
    path = shutil.copytree(written, tmp_path / "workspace")
    (path / place).unlink()
    os.mkfifo(path / place) if kind == "pipe" else (path / place).symlink_to("/dev/zero")
    assert damages(path)
    with pytest.raises(EmbedctlError):
        read_embedding(path)
        list(EmbeddingStore.open(path / "e.zarr")["pixels"].values)


def test_links_that_lead_in_a_circle_are_not_followed(tmp_path):
    extract(tmp_path, 5)
    for name in ("a", "b", "c"):
        (tmp_path / "e.zarr" / name).symlink_to(".")
    assert EmbeddingStore.open(tmp_path / "e.zarr").is_consolidated
    assert not damages(tmp_path)


@pytest.mark.parametrize("place", ["runs/run-0", "runs/.embedctl"])
def test_repair_touches_nothing_behind_a_link(written, tmp_path, place):  # noqa: F811
    path, victim = shutil.copytree(written, tmp_path / "workspace"), tmp_path / "victim"
    shutil.move(path / place, victim)
    (path / place).symlink_to(victim)
    if place == "runs/run-0":
        (victim / "scores.npy").write_bytes(b"edited by its owner")
    else:
        (path / "runs/run-1/occlusion/summary.json").write_bytes(b"{}")
    before = sorted((file, file.lstat().st_mtime_ns) for file in victim.rglob("*"))
    with pytest.raises(EmbedctlError, match="is a link"):
        repair(path / "runs", "runs")
    assert sorted((file, file.lstat().st_mtime_ns) for file in victim.rglob("*")) == before
