"""How fast a store is read: a random batch against a NumPy memmap, and opening a store of 40 embeddings.

    python benchmarks/store_reads.py [FOLDER]

Makes a store of 16,740 images in FOLDER (a temporary one by default): one embedding of 768 features and 39 of 16.
Limits: a batch of 1,024 rows takes at most 1.5 times as long as from a memmap; opening and listing takes
50 ms. Times are medians, taken in turns so that a busy machine slows both sides alike.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from stores.embeddings import EmbeddingStore, ImageRecord
from stores.names import EmbeddingName

N_IMAGES, N_EMBEDDINGS, BATCH = 16_740, 40, 1024


def make(path: Path) -> None:
    store, random = EmbeddingStore.open(path, create=True), np.random.default_rng(0)
    names = [f"training_images/{n // 10:05d}_concept/concept_{n:05d}.jpg" for n in range(N_IMAGES)]
    with store.lock():
        store.add_images([ImageRecord(name, f"{row:064x}", 1, 1, 1, 1, "RGB") for row, name in enumerate(names)])
        for number in range(N_EMBEDDINGS):
            name = EmbeddingName.parse(f"encoder{number}:blocks.7.mean")
            dim = 16 if number else 768
            store.create(name, f"{number:012x}", dim=dim, dtype="float16", provenance={"weights": "random:7"})
        for block in range(-(-N_IMAGES // store.block_rows)):
            rows = np.arange(block * store.block_rows, min((block + 1) * store.block_rows, N_IMAGES))
            values = random.standard_normal((len(rows), 768)).astype("float16")
            store.write_block(block, {entry.group: (rows, values[:, : entry.dim]) for entry in store.entries()}, {})
        store.consolidate()


def milliseconds(actions: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median time of each action, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(turns):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: median(taken) for name, taken in times.items()}


def main(folder: Path) -> None:
    path = folder / "embeddings.zarr"
    if not path.exists():
        make(path)
    embedding = EmbeddingStore.open(path)["encoder0:blocks.7.mean"]
    np.save(folder / "values.npy", embedding.values)
    memmap, random = np.load(folder / "values.npy", mmap_mode="r"), np.random.default_rng(1)
    rows = random.permutation(N_IMAGES)[:BATCH]
    assert np.array_equal(embedding.take(rows), memmap[rows])
    batch = milliseconds({"store": lambda: embedding.take(rows), "memmap": lambda: memmap[rows]}, turns=500)
    looks = {"names": lambda: EmbeddingStore.open(path).names, "counts": lambda: EmbeddingStore.open(path).entries()}
    listing = milliseconds(looks, turns=20)
    print(f"{BATCH} random rows of {N_IMAGES} x 768 float16: store {batch['store']:.2f} ms, memmap "
          f"{batch['memmap']:.2f} ms, ratio {batch['store'] / batch['memmap']:.2f} (at most 1.5)")  # fmt: skip
    print(f"open a store of {N_EMBEDDINGS} embeddings and list them: {listing['names']:.0f} ms (at most 50); "
          f"with the number of committed rows of each: {listing['counts']:.0f} ms")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
