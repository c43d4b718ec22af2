"""How fast a store is read: a random batch against a NumPy memmap, and opening a store of 40 embeddings.

    python -m benchmarks.store_reads

Limits: a batch of 1,024 rows takes at most 1.5 times as long as from a memmap; opening and listing takes
50 ms. Times are medians, taken in turns so that a busy machine slows both sides alike.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from stores.embeddings import EmbeddingStore, ImageRecord
from stores.names import EmbeddingName

BATCH = 1024


def make(path: Path, n_images: int, dims: list[int]) -> EmbeddingStore:
    """Make a store of embeddings of these widths."""
    store, random = EmbeddingStore.open(path, create=True), np.random.default_rng(0)
    names = [f"training_images/{n // 10:05d}_concept/concept_{n:05d}.jpg" for n in range(n_images)]
    with store.lock():
        store.add_images([ImageRecord(name, f"{row:064x}", 1, 1, 1, 1, "RGB") for row, name in enumerate(names)])
        for number, dim in enumerate(dims):
            name = EmbeddingName.parse(f"encoder{number}:blocks.7.mean")
            store.create(name, f"{number:012x}", dim=dim, dtype="float16", provenance={"weights": "random:7"})
        entries = store.entries()
        for block in range(-(-n_images // store.block_rows)):
            rows = np.arange(block * store.block_rows, min((block + 1) * store.block_rows, n_images))
            values = random.random((len(rows), max(dims)), "float32").astype("float16")
            store.write_block(block, {entry.group: (rows, values[:, : entry.dim]) for entry in entries}, {})
        store.consolidate()
    return store


def milliseconds(actions: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median time of each action, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(turns):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: median(taken) for name, taken in times.items()}


def batches(path: Path, n_images: int) -> tuple[float, float]:
    """Return the milliseconds of a random batch of a new store, and of a memmap of the same numbers."""
    embedding = make(path, n_images, [768])["encoder0:blocks.7.mean"]
    np.save(path.with_suffix(".npy"), embedding.values)
    memmap, random = np.load(path.with_suffix(".npy"), mmap_mode="r"), np.random.default_rng(1)
    rows = random.permutation(n_images)[:BATCH]
    assert np.array_equal(embedding.take(rows), memmap[rows])
    taken = milliseconds({"store": lambda: embedding.take(rows), "memmap": lambda: memmap[rows]}, turns=500)
    return taken["store"], taken["memmap"]


def listing(path: Path) -> float:
    """Return the milliseconds of opening a new store and listing its 40 embeddings."""
    make(path, 16_740, [16] * 40)
    return milliseconds({"names": lambda: EmbeddingStore.open(path).names}, turns=20)["names"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        store, memmap = batches(Path(name) / "one.zarr", 16_540)
        print(f"{BATCH} random rows of 16,540 x 768 float16: store {store:.2f} ms, memmap {memmap:.2f} ms, "
              f"ratio {store / memmap:.2f} (at most 1.5)")  # fmt: skip
        print(f"open a store and list 40 embeddings: {listing(Path(name) / 'forty.zarr'):.0f} ms (at most 50)")
