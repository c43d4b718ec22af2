"""Subjects whose recordings were whitened session by session, with evidence at a known time, place and frequency."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from pipelines.preprocess.whitening import inverse_square_root
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.images import ImageRecord
from tests.train.conftest import DIM, TEST_IDS, TRAIN_IDS, concept, write_embedding

CH_NAMES = ["Fz", "C3", "Cz", "C4", "P3", "Pz", "O1", "Oz", "O2"]
OCCIPITAL = [6, 7, 8]
SFREQ = 250.0
TIMES = np.arange(150) / SFREQ
SESSIONS = (1, 2)
EARLY, LATE = (0.1, 0.18), (0.36, 0.44)
IDS = TRAIN_IDS + TEST_IDS


@pytest.fixture(scope="module", autouse=True)
def few_permutations():
    """A fifth of the permutations: p ends at 0.005 instead of 0.001."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.interpret.clusters.PERMUTATIONS", 199)
        yield


def within(window, times=TIMES):
    return (times >= window[0]) & (times <= window[1])


def at_sensors(rng, parts, n_repetitions):
    """Return ``(n_images, n_repetitions, n_sensors, n_times)``: embeddings at their times, over occipital sensors."""
    n = len(IDS)
    signal = np.zeros((n, len(CH_NAMES), len(TIMES)))
    for number, (values, window) in enumerate(parts):
        inside = np.flatnonzero(within(window))
        mixing = np.random.default_rng(number).standard_normal((values.shape[1], len(OCCIPITAL), len(inside)))
        signal[:, OCCIPITAL, inside[0] : inside[-1] + 1] += np.einsum("nd,dct->nct", values, mixing) / 1.5
    shared = np.random.default_rng(5).standard_normal((len(CH_NAMES), 3))
    noise = np.einsum("cs,nrst->nrct", shared, rng.standard_normal((n, n_repetitions, 3, len(TIMES))))
    return signal[:, None] + noise + 0.5 * rng.standard_normal(noise.shape), shared


def write_whitened(store, subject, parts, *, keep="all", dataset="things-eeg2", n_repetitions=4):
    rng = np.random.default_rng(subject)
    epochs, shared = at_sensors(rng, parts, n_repetitions)
    session = np.tile(np.arange(n_repetitions) % 2 + 1, (len(IDS), 1))
    gains = {1: 1.0, 2: 1.5}
    covariance = shared @ shared.T + 0.25 * np.eye(len(CH_NAMES))
    whiteners = {s: inverse_square_root(covariance)[0] / gains[s] for s in SESSIONS}
    whitened = np.empty_like(epochs)
    for number, matrix in whiteners.items():
        whitened[session == number] = matrix @ (gains[number] * epochs[session == number])
    info = {"ch_names": CH_NAMES, "times": TIMES.tolist(), "sfreq": SFREQ, "units": "sd of noise", "sessions": [1, 2]}
    arrays = {"whitener": np.stack([whiteners[s] for s in SESSIONS])}
    with store.writer(
        dataset, subject, recipe={"name": "clean"}, modality="eeg", info=info, arrays=arrays, keep=keep
    ) as writer:
        for split, ids, start in (("train", TRAIN_IDS, 0), ("test", TEST_IDS, len(TRAIN_IDS))):
            shape = (len(CH_NAMES), len(TIMES))
            concepts = [concept(name) for name in ids]
            out = writer.split(split, ids, concepts, n_repetitions, shape, "float32", pa.table({"image": ids}))
            for block in out.missing():
                rows = slice(start + out.images(block).start, start + out.images(block).stop)
                valid = np.ones(session[rows].shape, bool)
                out.write_block(block, whitened[rows].astype(np.float32), valid, session[rows].astype(np.int16))
        writer.done()
    return whiteners


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Stores of two subjects: ``early`` and its base ``late`` drive the recordings at different times."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(7)
    early, late = rng.standard_normal((2, len(IDS), DIM))
    embeddings = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    embeddings.add_images([ImageRecord(i, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, i in enumerate(IDS)])
    base = {"matched_base": "late", "match": "exact", "aligned_by": "dreamsim", "base": "late"}
    write_embedding(embeddings, "early", early, registry=base)
    write_embedding(embeddings, "late", late)
    epochs = EpochStore.open(folder / "epochs.zarr", create=True)
    whiteners = {s: write_whitened(epochs, s, [(early, EARLY), (late, LATE)]) for s in (1, 2)}
    recipe = folder / "quick.toml"
    recipe.write_text(
        'base = "modern"\nchannels = ["P3", "Pz", "O1", "Oz", "O2", "Cz"]\nwindow = []\n'
        "batch = 32\npasses = 20\nlr = 1e-3\n"
    )
    return SimpleNamespace(
        folder=folder,
        embeddings=folder / "embeddings.zarr",
        epochs=folder / "epochs.zarr",
        recipe=str(recipe),
        whiteners=whiteners,
    )
