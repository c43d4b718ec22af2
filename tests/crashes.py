"""Cut the power at every single write of a piece of work, one after the other, and look at what is left.

``python -m tests.crashes NAME`` runs the work once to count its writes; then, for every n, a forked process does
the same work and ends at its n-th write without any clean-up. A file that was being flushed loses its second half.
Each time the store is opened and looked at, the work is done again, and every file must be the one of the
undisturbed run. A process of its own, because forking beside threads is not safe.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from pipelines.imports import imports
from pipelines.imports.imports import import_embeddings
from pipelines.imports.request import ImportRequest
from stores import blocks, split_writer
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.epochs import EpochStore
from stores.merge import merge
from stores.names import EmbeddingName
from stores.results import assemble, finished, read_array, read_summary, remove_runs, write_run

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


def die(name: str, arguments: tuple) -> None:
    """End like a killed process on a computer that lost its power."""
    if name == "fsync" and not os.path.isdir(f"/proc/self/fd/{arguments[0]}"):
        os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
    os._exit(9)


@dataclass(frozen=True)
class Work:
    """Something a command does: what was there before, the work, and what must be true whenever one looks."""

    before: Callable[[Path], None]
    do: Callable[[Path], None]
    look: Callable[[Path], None]


def check(work: Work, folder: Path) -> int:
    """Check ``work`` and return the number of writes it takes."""
    before, whole = folder / "before", folder / "whole"
    before.mkdir()
    work.before(before)
    shutil.copytree(before, whole)
    with PowerCut() as count:
        work.do(whole)
    expected = files(whole)
    for n in range(1, count.n + 1):
        path = folder / "crashed"
        shutil.copytree(before, path)
        child = os.fork()
        if not child:
            with PowerCut(die, at=n):
                work.do(path)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, f"the work ended before write {n}"
        try:
            look_with_zarr(path)
            work.look(path)
            with PowerCut():
                work.do(path)
            work.look(path)
            found = files(path)
            different = {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
            assert not different, different
        except Exception as problem:
            raise AssertionError(f"after a crash at write {n} of {count.n}") from problem
        shutil.rmtree(path)
    return count.n


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look_with_zarr(path: Path) -> None:
    """Other programs must be able to open whatever a crash leaves, without a warning."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for store in path.glob("*.zarr"):
            for _, member in zarr.open_group(store, mode="r").members(max_depth=None):
                if isinstance(member, zarr.Array):
                    member[...]


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


# A merge: another store with more images, in other blocks.


def two_stores(path: Path) -> None:
    extract(path, 140)
    (path / "e.zarr").rename(path / "o.zarr")
    extract(path, 70)


def join(path: Path) -> None:
    with patch.object(blocks, "MAX_CHUNK_BYTES", 64 * 2 * 3):
        merge(path / "e.zarr", path / "o.zarr")


# An import: rows of 70 of 80 images, which are two blocks of the store.

IMPORTED = np.arange(70 * 3, dtype=np.float32).reshape(70, 3)


def others(path: Path) -> None:
    """Leave what another program computed."""
    (path / "images").mkdir()
    for image in range(80):
        (path / f"images/{image:03d}.jpg").touch()
    (path / "ids.txt").write_text("".join(f"{image:03d}.jpg\n" for image in range(70)))
    np.save(path / "theirs.npy", IMPORTED)


def bring(path: Path) -> None:
    given = ImportRequest(
        name="theirs", arrays=(Path("theirs.npy"),), ids=(Path("ids.txt"),), store=Path("e.zarr"), dtype="float32"
    )
    with contextlib.chdir(path), patch.object(imports, "datetime") as clock:
        clock.now.return_value.isoformat.return_value = "2026-11-21"
        import_embeddings(given)


def look_at_import(path: Path) -> None:
    if (path / "e.zarr" / "image").exists() and (store := EmbeddingStore.open(path / "e.zarr")).names:
        found = store["theirs"]
        assert np.array_equal(found.values, IMPORTED[[int(name[:3]) for name in found.image_ids]])


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


def look_at_epochs(path: Path, kept: tuple[int, ...] = ()) -> None:
    if not (path / "p.zarr").exists():
        return
    store = EpochStore.open(path / "p.zarr")
    assert set(kept) <= set(store.subjects("things-eeg2"))
    for subject in store.subjects("things-eeg2"):
        epochs = store["things-eeg2", subject]
        assert (epochs.train.mean == subject).all() and epochs.train.mean.shape == (5, 3, 4)
        assert (epochs.test.take([0, 1]) == subject).all() and (epochs.arrays["whitener"] == subject).all()


# Results


def train(path: Path) -> None:
    for seed in range(2):
        if not finished(path / "runs", f"run-{seed}"):
            write_run(
                path / "runs",
                f"run-{seed}",
                config={"seed": seed},
                summary={"run_id": f"run-{seed}", "top1": 0.5},
                arrays={"scores": np.eye(3)},
                checkpoint=b"weights",
                metrics=[{"step": 1}],
            )
    assemble(path / "runs")


def look_at_runs(path: Path) -> None:
    for run in (path / "runs").glob("run-*"):
        if finished(path / "runs", run.name):
            assert read_summary(path / "runs", run.name)["top1"] == 0.5
            assert (read_array(path / "runs", run.name, "scores") == np.eye(3)).all()


def remove_run(path: Path) -> None:
    if (path / "runs/run-0").exists():
        remove_runs(path / "runs", ["run-0"])
    assemble(path / "runs")


WORK = {
    "a first extraction": Work(lambda path: None, lambda path: extract(path, 140), look_at_embeddings),
    "ten more images": Work(
        lambda path: extract(path, 70), lambda path: extract(path, 80), lambda path: look_at_embeddings(path, kept=70)
    ),
    "changed images": Work(lambda path: extract(path, 70), lambda path: extract(path, 70, "b"), look_at_embeddings),
    "a removal": Work(lambda path: extract(path, 70), remove, lambda path: look_at_embeddings(path, kept=70)),
    "a merge": Work(two_stores, join, lambda path: look_at_embeddings(path, kept=70)),
    "an import": Work(others, bring, look_at_import),
    "a first subject": Work(lambda path: None, preprocess, look_at_epochs),
    "a second subject": Work(
        preprocess, lambda path: preprocess(path, (1, 2)), lambda path: look_at_epochs(path, kept=(1,))
    ),
    "two runs": Work(lambda path: None, train, look_at_runs),
    "a run removed": Work(train, remove_run, look_at_runs),
}

if __name__ == "__main__":
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # thousands of small files
    with tempfile.TemporaryDirectory(dir=memory) as name:
        print(check(WORK[sys.argv[1]], Path(name)))
