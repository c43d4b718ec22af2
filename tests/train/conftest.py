"""A small workspace whose recordings are driven by one of its two embeddings."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.images import ImageRecord
from stores.names import EmbeddingName

N_CONCEPTS, PER_CONCEPT, N_TEST, N_CHANS, N_TIMES, DIM = 24, 4, 16, 6, 80, 24
TRAIN_IDS = [
    f"training_images/{c:05d}_thing{c}/thing{c}_{i}.jpg" for c in range(N_CONCEPTS) for i in range(PER_CONCEPT)
]
TEST_IDS = [f"test_images/{c:05d}_other{c}/other{c}_0.jpg" for c in range(N_TEST)]
CH_NAMES = ["O1", "Oz", "O2", "PO7", "Fz", "Cz"]


def concept(image_id):
    return image_id.split("/")[1][6:]


def driven_epochs(target, n_repetitions, rng, noise=1.0):
    """Epochs that carry the embedding linearly, with noise: ``(n, repetition, channel, time)``."""
    mixing = np.random.default_rng(99).standard_normal((target.shape[1], N_CHANS, N_TIMES)) / target.shape[1] ** 0.5
    signal = np.einsum("nd,dct->nct", target, mixing)
    return signal[:, None] + noise * rng.standard_normal((len(target), n_repetitions, N_CHANS, N_TIMES))


def write_subject(
    store,
    subject,
    target,
    *,
    dataset="things-eeg2",
    modality="eeg",
    recipe=None,
    scramble_test=False,
):
    """Write one subject; an fMRI subject has the same numbers, as voxels."""
    rng = np.random.default_rng(subject)
    info = {"ch_names": CH_NAMES, "times": [t / 80 for t in range(N_TIMES)], "sfreq": 80.0, "units": "a.u."}
    info["simulated"] = True
    shape = (N_CHANS, N_TIMES)
    if modality == "fmri":
        info, shape = {"units": "a.u."}, (N_CHANS * N_TIMES,)
    parts = {"train": (TRAIN_IDS, target[: len(TRAIN_IDS)], 2), "test": (TEST_IDS, target[len(TRAIN_IDS) :], 6)}
    with store.writer(
        dataset, subject, recipe=recipe or {"name": "clean"}, modality=modality, info=info, arrays={}
    ) as writer:
        for split, (ids, embedding, n_repetitions) in parts.items():
            epochs = driven_epochs(embedding, n_repetitions, rng)
            if scramble_test and split == "test":
                epochs = rng.standard_normal(epochs.shape)
            out = writer.split(
                split,
                ids,
                [concept(i) for i in ids],
                n_repetitions,
                shape,
                "float32",
                pa.table({"image": ids}),
            )
            for block in out.missing():
                rows = out.images(block)
                here = epochs[rows.start : rows.stop].reshape(len(rows), n_repetitions, *shape)
                out.write_block(block, here, np.ones(here.shape[:2], bool), np.zeros(here.shape[:2], np.int16))
        writer.done()


def write_embedding(store, name, values, rows=None, **provenance):
    rows = np.arange(len(values)) if rows is None else rows
    said = {"weights": "none", "registry": {}, **provenance}
    entry = store.create(
        EmbeddingName.parse(name), "00112233aabb", dim=values.shape[1], dtype="float32", provenance=said
    )
    for block in range(-(-len(values) // store.block_rows)):
        here = rows[(rows >= block * store.block_rows) & (rows < (block + 1) * store.block_rows)]
        if len(here):
            store.write_block(block, {entry.group: (here, values[here].astype(np.float32))}, {})


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """Stores with two subjects and the embeddings ``planted`` and ``unrelated``."""
    return build_workspace(tmp_path_factory.mktemp("workspace"))


def build_workspace(folder, *, scramble_test=False):
    rng = np.random.default_rng(7)
    ids = TRAIN_IDS + TEST_IDS
    centres = {name: rng.standard_normal(DIM) for name in dict.fromkeys(concept(i) for i in ids)}
    planted = np.array([centres[concept(i)] for i in ids]) + 0.5 * rng.standard_normal((len(ids), DIM))
    unrelated = rng.standard_normal((len(ids), DIM))
    embeddings = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    embeddings.add_images([ImageRecord(i, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, i in enumerate(ids)])
    base = {"matched_base": "unrelated", "match": "exact", "aligned_by": "dreamsim", "base": "unrelated"}
    write_embedding(embeddings, "planted", planted, registry=base)
    write_embedding(embeddings, "unrelated", unrelated)
    epochs = EpochStore.open(folder / "epochs.zarr", create=True)
    for subject in (1, 2):
        write_subject(epochs, subject, planted, scramble_test=scramble_test)
    recipe = folder / "quick.toml"
    recipe.write_text('base = "modern"\nbatch = 32\npasses = 6\nlr = 1e-3\nwindow = []\n')
    return SimpleNamespace(
        folder=folder,
        embeddings=folder / "embeddings.zarr",
        epochs=folder / "epochs.zarr",
        recipe=str(recipe),
        planted=planted,
        unrelated=unrelated,
    )
