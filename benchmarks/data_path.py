"""Getting data to a training step as AlignVis does, and as it is done here, on the same simulated subject.

    python -m benchmarks.data_path [N_IMAGES]

AlignVis's way is re-created from a description of its program, which has no licence to copy from: all repetitions in
memory; an item is copied, demeaned and divided by its norm over time, repetition by repetition, averaged, and paired
with the image's embedding out of a `.npy` file of its own; torch's DataLoader makes batches of 128, here without worker
processes. Here the same normalisation is done once, when the subject is loaded, and a batch is gathered out of two
arrays. One thread, CPU seconds of a pass over N_IMAGES (4,000 by default; 16,540 for full size, 10 GB of memory) x 4
repetitions x 63 channels x 250 in float32, files in the cache. Both must give the same numbers.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.train.course import gather
from pipelines.train.data import load_training
from pipelines.train.recipes import read_recipe
from stores.epochs import EpochStore

N_REPETITIONS, N_CHANS, N_TIMES, DIM, BATCH = 4, 63, 250, 768, 128


class ItemByItem(Dataset):  # type: ignore[type-arg]
    """One item is one image: its repetitions are normalised, and its embedding is read, whenever it is asked for."""

    def __init__(self, epochs: np.ndarray, folder: Path) -> None:
        self._epochs, self._folder = epochs, folder

    def __len__(self) -> int:
        return len(self._epochs)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        repetitions = self._epochs[at].copy()
        norm = np.linalg.norm(repetitions, axis=-1, keepdims=True)
        repetitions -= repetitions.mean(axis=-1, keepdims=True)
        repetitions /= norm
        embedding = np.load(self._folder / f"{at}.npy")
        return torch.from_numpy(repetitions.mean(axis=0)), torch.from_numpy(embedding)


def write_subject(store: EpochStore, epochs: np.ndarray) -> None:
    """Write a subject whose training images have these epochs."""
    names = [f"E{c}" for c in range(N_CHANS)]
    info = {"ch_names": names, "times": [t / 250 for t in range(N_TIMES)], "sfreq": 250.0, "units": "a.u."}
    with store.writer("simulated", 1, recipe={"name": "clean"}, modality="eeg", info=info, arrays={}) as writer:
        for split, there in (("train", epochs), ("test", epochs[:2])):
            ids = [f"{split}/{n}/{n}.jpg" for n in range(len(there))]
            shape, trials = (N_CHANS, N_TIMES), pa.table({"image": ids})
            out = writer.split(split, ids, ids, N_REPETITIONS, shape, "float32", trials)
            for block in out.missing():
                rows = out.images(block)
                here = there[rows.start : rows.stop]
                out.write_block(block, here, np.ones(here.shape[:2], bool), np.zeros(here.shape[:2], np.int16))
        writer.done()


def main(n_images: int) -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    epochs = random.standard_normal((n_images, N_REPETITIONS, N_CHANS, N_TIMES), dtype=np.float32)
    images = random.standard_normal((n_images, DIM), dtype=np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for at, embedding in enumerate(images):
            np.save(folder / f"{at}.npy", embedding)
        items = ItemByItem(epochs, folder)
        orders = [torch.randperm(n_images, generator=torch.Generator().manual_seed(n)) for n in range(3)]
        theirs, first = [], None
        for order in orders:
            started = time.process_time()
            for batch in DataLoader(items, BATCH, sampler=order.tolist(), drop_last=True):
                first = batch if first is None else first
            theirs.append(time.process_time() - started)

        store = EpochStore.open(folder / "epochs.zarr", create=True)
        write_subject(store, epochs)
        recipe = read_recipe("paper", "eeg", "nice").with_(channels=(), window=())
        started = time.process_time()
        rows = load_training(EpochStore.open(folder / "epochs.zarr")["simulated", 1], recipe).rows
        loading = time.process_time() - started
        embeddings, x, ours = torch.from_numpy(images), torch.empty((BATCH, *rows.shape[1:])), []
        for order in orders:
            started = time.process_time()
            for picked in order.split(BATCH)[: n_images // BATCH]:
                gather(rows, picked[:, None], torch.ones(len(picked), 1), x)
                goal = embeddings[picked]
                if order is orders[0] and picked is not None and first is not None:
                    np.testing.assert_allclose(x, first[0], rtol=1e-4, atol=1e-6)
                    assert torch.equal(goal, first[1])
                    first, started = None, time.process_time()  # what was compared is not counted
            ours.append(time.process_time() - started)
    slow, fast = min(theirs), min(ours)
    print(f"a pass over {n_images:,} images: item by item {slow:.2f} s, {1e3 * slow / n_images:.3f} ms each; "
          f"gathered {fast:.3f} s, {1e3 * fast / n_images:.4f} ms each: ratio {slow / fast:.0f}")  # fmt: skip
    print(
        f"loading, once per subject: {loading:.2f} s; with it, 50 passes: ratio {50 * slow / (loading + 50 * fast):.0f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
