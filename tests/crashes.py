"""The smallest stores of each kind, written by the stores alone, and a count of the writes that takes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from stores import blocks, split_writer
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.epochs import EpochStore
from stores.names import EmbeddingName
from stores.results import assemble, finished, write_run
from tests.summaries import summary_of

WRITES = ("fsync", "replace", "rename", "mkdir", "link", "unlink", "rmdir")


class PowerCut:
    """Counts the writes of this process; at number ``at``, ``act`` is called in their place."""

    def __init__(self, act: Callable[[str, tuple], None] | None = None, at: int = sys.maxsize) -> None:
        self.n, self._act, self._at = 0, act, at

    def __enter__(self) -> "PowerCut":
        self._true = {name: getattr(os, name) for name in WRITES}
        for name in WRITES:
            setattr(os, name, self._counting(name))
        return self

    def __exit__(self, *problem: object) -> None:
        for name, function in self._true.items():
            setattr(os, name, function)

    def _counting(self, name: str) -> Callable:
        def write(*arguments, **options):
            self.n += 1
            if self._act and self.n >= self._at:
                self._act(name, arguments)
            # Flushing is what a test on one computer cannot see, and most of the time a write takes.
            return None if name == "fsync" else self._true[name](*arguments, **options)

        return write


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Embeddings: two of them, over images of which two are broken.

NAMES = ("pixels", "clip-vitb32:blocks.7.mean")
BROKEN = {3, 71}


def records(n_images: int, version: str = "a") -> list[ImageRecord]:
    return [ImageRecord(f"{n:03d}.jpg", version if n % 30 == 0 else "a", 1, 2, 3, 4, "RGB") for n in range(n_images)]


def numbers(record: ImageRecord, dim: int) -> np.ndarray:
    return np.full(dim, int(record.id[:3]) + (0.5 if record.sha256 == "b" else 0.0), np.float16)


def extract(path: Path, n_images: int, version: str = "a") -> None:
    """Do what ``extract`` does: add images, compute what is missing, block by block."""
    with patch.object(blocks, "MAX_CHUNK_BYTES", 64 * 2 * 3):  # two chunks per block
        _extract(path, n_images, version)


def _extract(path: Path, n_images: int, version: str) -> None:
    store = EmbeddingStore.open(path / "e.zarr", create=True)
    new = records(n_images, version)
    if is_complete(store, new):  # as the command does: it takes no lock where there is nothing to do
        if not store.is_consolidated:
            store.consolidate()
        return
    with store.lock():
        store.update_images([record for record in new if record.id in store.row_of])
        store.add_images(new)
        entries = [
            store.create(EmbeddingName.parse(name), "0a", dim=3, dtype="float16", provenance={}) for name in NAMES
        ]
        for block in range(-(-n_images // store.block_rows)):
            here = range(block * store.block_rows, min((block + 1) * store.block_rows, n_images))
            parts = {}
            for entry in entries:
                committed = store.committed(entry)
                rows = [row for row in here if not committed[row] and row not in BROKEN]
                values = np.array([numbers(new[row], 3) for row in rows], np.float16).reshape(-1, 3)
                parts[entry.group] = np.array(rows, int), values
            lacking = any(len(rows) for rows, _ in parts.values())
            if lacking or not BROKEN & set(here) <= set(store.absent(entries[1])):
                store.write_block(block, parts, {row: "broken" for row in here if row in BROKEN})
        store.consolidate()


def is_complete(store: EmbeddingStore, wanted: list[ImageRecord]) -> bool:
    known = [len(store.committed(entry).nonzero()[0]) + len(store.absent(entry)) for entry in store.entries()]
    return known == [len(wanted)] * len(NAMES) and list(store.images().values()) == wanted


def look_at_embeddings(path: Path, kept: int = 0) -> None:
    if not (path / "e.zarr").exists():
        return
    store = EmbeddingStore.open(path / "e.zarr")
    table = store.images()
    for name in store.names:
        embedding = store[name]
        expected = [numbers(table[image], 3) for image in embedding.image_ids]
        assert np.array_equal(embedding.values, np.array(expected, np.float16).reshape(-1, 3))
        assert set(embedding.absent.values()) <= {"broken"}
        must = {record.id for record in records(kept) if int(record.id[:3]) not in BROKEN}
        assert must <= set(embedding.image_ids), "a committed row was lost"


def remove(path: Path) -> None:
    store = EmbeddingStore.open(path / "e.zarr")
    for entry in store.entries():
        if entry.name.encoder == "pixels":
            store.remove(entry)
    store.consolidate()


# Epochs: one subject of two splits.


def preprocess(path: Path, subjects: tuple[int, ...] = (1,)) -> None:
    with patch.object(split_writer, "BLOCK_BYTES", 3 * 2 * 3 * 4 * 2):  # three images per block
        _preprocess(path, subjects)


def _preprocess(path: Path, subjects: tuple[int, ...]) -> None:
    store = EpochStore.open(path / "p.zarr", create=True)
    info = {"ch_names": ["Oz", "O1", "O2"], "times": [0.0, 0.1, 0.2, 0.3], "sfreq": 10.0, "units": "uV"}
    for subject in subjects:
        if subject in store.subjects("things-eeg2"):
            continue
        whitener = np.full((2, 3, 3), subject, "f4")
        options = {"recipe": {"name": "clean"}, "modality": "eeg", "info": info, "arrays": {"whitener": whitener}}
        with store.writer("things-eeg2", subject, **options) as writer:
            for split, n in (("train", 5), ("test", 2)):
                ids, trials = [f"{split}/{i}.jpg" for i in range(n)], pa.table({"onset": [0.5, 1.5]})
                to = writer.split(split, ids, ["cat"] * n, 2, (3, 4), "float16", trials)
                for block in to.missing():
                    images = to.images(block)
                    epochs = np.full((len(images), 2, 3, 4), subject, "f4")
                    to.write_block(block, epochs, np.ones((len(images), 2), bool), np.zeros((len(images), 2), int))
            writer.done()
    if not store.is_consolidated:  # as the command does where every subject is there already
        store.consolidate()


# Results


def train(path: Path) -> None:
    for seed in range(2):
        if not finished(path / "runs", f"run-{seed}"):
            write_run(
                path / "runs",
                f"run-{seed}",
                config={"seed": seed},
                summary=summary_of(f"run-{seed}"),
                arrays={"scores": np.eye(3)},
                checkpoint=b"weights",
                metrics=[{"step": 1}],
            )
    assemble(path / "runs")
