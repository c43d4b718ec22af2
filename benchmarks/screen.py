"""`embedctl screen` at full size: 50 embeddings of 768 features, one subject of 16,540 images, 17 of 63 channels x 250.

    python -m benchmarks.screen [FOLDER]

Makes both stores in FOLDER (a temporary one by default; 2.4 GB, one embedding planted), then runs the command in a
process of its own, on one thread. Limits: 90 CPU seconds, user and system, start-up and reading the stores included;
3 GB of memory.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.train.recipes import read_recipe
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.images import ImageRecord
from stores.names import EmbeddingName

N_CONCEPTS, PER_CONCEPT, N_TEST, N_EMBEDDINGS, DIM, N_CHANS, N_TIMES = 1654, 10, 200, 50, 768, 63, 250


def make(
    folder: Path, n_concepts: int = N_CONCEPTS, n_embeddings: int = N_EMBEDDINGS, subjects: Sequence[int] = (1,)
) -> None:
    """Write the stores."""
    random = np.random.default_rng(0)
    train = [f"training_images/{c:05d}_c{c}/{c}_{i}.jpg" for c in range(n_concepts) for i in range(PER_CONCEPT)]
    test = [f"test_images/{c:05d}_t{c}/{c}.jpg" for c in range(N_TEST)]
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(name, f"{row:064x}", 1, 1, 1, 1, "RGB") for row, name in enumerate(train + test)])
    n_images, planted = len(train + test), np.empty(0)
    for number in range(n_embeddings):
        values = random.standard_normal((n_images, DIM), dtype=np.float32)
        planted = values if number == 0 else planted
        entry = store.create(
            EmbeddingName.parse(f"encoder{number}"), f"{number:012x}", dim=DIM, dtype="float16",
            provenance={"weights": "random:7"},
        )  # fmt: skip
        for block in range(-(-n_images // store.block_rows)):
            rows = np.arange(block * store.block_rows, min((block + 1) * store.block_rows, n_images))
            store.write_block(block, {entry.group: (rows, values[rows].astype(np.float16))}, {})
    store.consolidate()
    channels = [*read_recipe("modern", "eeg").channels, *(f"E{c}" for c in range(N_CHANS - 17))]
    info = {"ch_names": channels, "times": [t / 250 for t in range(N_TIMES)], "sfreq": 250.0, "units": "a.u."}
    mixing = 0.1 * random.standard_normal((DIM, N_CHANS * N_TIMES), dtype=np.float32) / DIM**0.5
    epochs = EpochStore.open(folder / "epochs.zarr", create=True)
    parts = {"train": (train, planted[: len(train)]), "test": (test, planted[len(train) :])}
    for subject in subjects:
        with epochs.writer(
            "things-eeg2", subject, recipe={"name": "clean"}, modality="eeg", info=info, arrays={}, keep="mean"
        ) as writer:
            for split, (ids, shown) in parts.items():
                concepts = [name.split("/")[1] for name in ids]
                out = writer.split(split, ids, concepts, 1, (N_CHANS, N_TIMES), "float32", pa.table({"image": ids}))
                for block in out.missing():
                    rows = out.images(block)
                    noise = random.standard_normal((len(rows), N_CHANS * N_TIMES), dtype=np.float32)
                    here = (shown[rows.start : rows.stop] @ mixing + noise).reshape(len(rows), 1, N_CHANS, N_TIMES)
                    out.write_block(block, here, np.ones(here.shape[:2], bool), np.zeros(here.shape[:2], np.int16))
            writer.done()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        if not (folder / "epochs.zarr").exists():
            make(folder)
        words = ["--embeddings", folder / "embeddings.zarr", "--epochs", folder / "epochs.zarr", "--json"]
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(
            [sys.executable, "-m", "embedctl", "screen", "--brain", "eeg", *map(str, words)],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        ).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    first = json.loads(said)["rows"][0]
    print(f"first: {first['embedding']}, top-1 {first['top1']:.1%}, penalty {first['penalties']['1']:g}")
    print(f"{after.ru_utime - before.ru_utime:.1f} s user, {after.ru_stime - before.ru_stime:.1f} s system", end=", ")
    print(f"{time.perf_counter() - started:.1f} s wall, {after.ru_maxrss / 1e6:.2f} GB at the highest")


if __name__ == "__main__":
    main()
