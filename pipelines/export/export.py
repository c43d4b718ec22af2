"""What is exported: of a run its embeddings and scores, an embedding of the store, or the epochs of a subject."""

from pathlib import Path

import numpy as np

from pipelines.export.predict import gallery_of
from pipelines.train.restore import restore
from stores.disk import check_writable
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.plain_files import write_plain
from stores.results import read_array, read_config

__all__ = ["export_embedding", "export_epochs", "export_run"]


def export_run(runs: Path, run_id: str, embeddings: Path, folder: Path) -> list[Path]:
    """Write what a run kept of its test, and the gallery in the same space, so that ``scores = brain @ gallery.T``.

    ``brain.npy`` (n_queries, dim), ``scores.npy`` (n_queries, n_gallery), ``gallery.npy`` (n_gallery, dim), all
    float32, embeddings of length one; ``queries.json`` and ``gallery.json``, the images of their rows.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        A finished run.
    embeddings : Path
        The embedding store: the run keeps no gallery.
    folder : Path
        Where to write.

    Returns
    -------
    list of Path
        The files.
    """
    check_writable(folder)
    ids = read_config(runs, run_id)["gallery_ids"]
    queries = [ids[row] for row in read_array(runs, run_id, "target").tolist()]
    arrays = {name: read_array(runs, run_id, name) for name in ("brain", "scores")}
    arrays["gallery"] = gallery_of(restore(runs, run_id), embeddings, ids)
    return write_plain(folder, arrays, {"queries": queries, "gallery": ids})


def export_embedding(embeddings: Path, text: str, folder: Path) -> list[Path]:
    """Write the committed rows of an embedding: ``NAME.npy`` (n_images, dim) as stored, ``NAME.json``, their images.

    Parameters
    ----------
    embeddings : Path
        The embedding store.
    text : str
        ``NAME`` or ``NAME#KEY``.
    folder : Path
        Where to write.
    """
    check_writable(folder)
    embedding = EmbeddingStore.open(embeddings)[text]
    name = f"{embedding.name.replace(':', '~')}-{embedding.key}"
    return write_plain(folder, {name: np.asarray(embedding.values)}, {name: embedding.image_ids})


def export_epochs(epochs: Path, dataset: str, subject: int, folder: Path) -> list[Path]:
    """Write the mean recording of every image of a subject, and what its axes are.

    ``train.npy`` and ``test.npy``, (n_images, n_chans, n_times) or (n_images, n_voxels) float32 in the store's units,
    NaN where an image has no recording; ``train.json`` and ``test.json``, the images; ``channels.json``, their names;
    ``times.npy``, in seconds from image onset.

    Parameters
    ----------
    epochs : Path
        The epoch store.
    dataset : str
        Name of the dataset.
    subject : int
        Number of the subject.
    folder : Path
        Where to write.
    """
    check_writable(folder)
    recordings = EpochStore.open(epochs)[dataset, subject]
    splits = {"train": recordings.train, "test": recordings.test}
    arrays = {name: np.asarray(split.mean) for name, split in splits.items()}
    ids = {name: split.image_ids for name, split in splits.items()}
    return write_plain(folder, arrays | {"times": recordings.times}, ids | {"channels": list(recordings.ch_names)})
