"""How fast an averaged subject (16,540 x 63 x 250, 1 GB) is read, against ``numpy.fromfile`` on the same bytes.

    python benchmarks/epoch_reads.py [FOLDER]

Needs 2.1 GB in FOLDER (a temporary one by default), removed in the end, and 3 GB of memory. Times are medians, taken in
turns, files in memory. Limit: 1.5 times as long; opening the store, and comparing its receipts, is counted.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from stores.epochs import EpochStore

SHAPE, TURNS = (16_540, 63, 250), 7


def make(store: Path, plain: Path) -> None:
    """Write a store of averages alone, block by block, and the same numbers as a plain file."""
    rng = np.random.default_rng(0)
    ids = [f"training_images/{n // 10:05d}_c/c_{n:05d}.jpg" for n in range(SHAPE[0])]
    whole = EpochStore.open(store, create=True)
    info = {"ch_names": [f"C{c}" for c in range(SHAPE[1])], "times": (np.arange(SHAPE[2]) / 250).tolist()}
    trials = pa.table({"image_id": ids})
    with (
        whole.writer("noise", 1, recipe={"name": "none"}, modality="eeg", info=info, arrays={}, keep="mean") as writer,
        open(plain, "wb") as file,
    ):
        for split, names in (("train", ids), ("test", ids[:1])):
            to = writer.split(split, names, names, 1, SHAPE[1:], "float32", trials.slice(0, len(names)))
            for block in to.missing():
                n = len(to.images(block))
                epochs = rng.standard_normal((n, 1, *SHAPE[1:]), dtype=np.float32)
                to.write_block(block, epochs, np.ones((n, 1), bool), np.ones((n, 1), np.int16))
                if split == "train":
                    epochs.tofile(file)
        writer.done()


def main(folder: Path) -> int:
    store, plain = folder / "epochs.zarr", folder / "plain.bin"
    make(store, plain)
    ours, theirs = [], []
    for _ in range(TURNS):
        start = time.perf_counter()
        mean = EpochStore.open(store)["noise", 1].train.mean
        middle = time.perf_counter()
        same = np.fromfile(plain, np.float32)
        theirs.append(time.perf_counter() - middle)
        ours.append(middle - start)
        assert mean.shape == SHAPE and np.array_equal(mean.ravel(), same)
        del mean, same
    ratio = median(ours) / median(theirs)
    print(f"{np.prod(SHAPE) * 4 / 1e9:.2f} GB of averages: store {median(ours):.2f} s, numpy.fromfile "
          f"{median(theirs):.2f} s, ratio {ratio:.2f} (at most 1.5)")  # fmt: skip
    return 0 if ratio <= 1.5 else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(Path(name)))
