"""Stores from Python and notebooks: the same names as on the command line, tables that draw themselves.

::

    store = embedctl.open_embeddings("embeddings.zarr")
    e = store["dinov2-vitb14:blocks.7.mean"]
    e.nearest("aardvark/aardvark_01b.jpg", k=5)
    store.compare("clip-vitb32", "dreamsim-clip-vitb32")

    s = embedctl.open_epochs("epochs.zarr")["things-eeg2", 1]
    s.test.mean, s.ch_names, s.to_mne("test")
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedctl.html import page, rows_of
from embedctl.one_embedding import OneEmbedding
from embedctl.stored import COLUMNS, called, embedding_rows
from stores.embeddings import EmbeddingStore
from stores.errors import UnknownName, suggest
from stores.names import counted
from stores.remote import is_remote, on_disk

if TYPE_CHECKING:
    import pyarrow
    from matplotlib.figure import Figure

    from embedctl.recordings import Epochs
    from pipelines.similarity import Similarity

__all__ = ["Embeddings", "open_embeddings", "open_epochs", "read_results"]


def open_embeddings(path: Path | str = "embeddings.zarr", images: Path | str | None = None) -> "Embeddings":
    """Open an embedding store.

    Parameters
    ----------
    path : Path or str
        The store: a folder, or the address of one in an object store, ``s3://bucket/embeddings.zarr``.
    images : Path or str, optional
        Folder of the images, for thumbnails; by default the folder ``images`` beside the store, or
        here if that is not on a disk.

    Raises
    ------
    EmbedctlError
        If there is no embedding store at ``path``.
    """
    store = EmbeddingStore.open(path)
    beside = Path("images") if is_remote(store.path) else store.path.parent / "images"
    return Embeddings(store, on_disk(images) if images else beside)


def open_epochs(path: Path | str = "epochs.zarr") -> "Epochs":
    """Open an epoch store.

    Raises
    ------
    EmbedctlError
        If there is no epoch store at ``path``.
    """
    from embedctl.recordings import Epochs
    from stores.epochs import EpochStore

    return Epochs(EpochStore.open(on_disk(path)))


def read_results(runs: Path | str = "runs") -> "pyarrow.Table":
    """Read the results of every finished run, one row each.

    Raises
    ------
    EmbedctlError
        If there is no folder of runs at ``runs``.
    """
    from stores import results

    return results.read_results(on_disk(runs))


class Embeddings:
    """An embedding store: ``store.names`` says what is there, ``store[name]`` opens one.

    Parameters
    ----------
    store : EmbeddingStore
        The open store.
    images : Path
        Where the images lie; need not exist.
    """

    def __init__(self, store: EmbeddingStore, images: Path) -> None:
        self._store = store
        self._images = images

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self._store.path

    @property
    def names(self) -> list[str]:
        """Every embedding: its bare name where that means it, else ``NAME#KEY``."""
        return self._store.names

    def __getitem__(self, name: str) -> "OneEmbedding":
        from pipelines.train.origin import marked, weights_column

        one = self._store[name]
        return OneEmbedding(one, self._images, marked(one.name, weights_column(self._store.resolve(name))))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def compare(self, a: str, b: str) -> "Similarity":
        """Compare two embeddings over the images both have: debiased linear CKA and RSA.

        Raises
        ------
        UnknownName
            If one of them is not in the store.
        ValueError
            If they share fewer than four images, or one does not vary.
        """
        from pipelines.similarity import similarity

        first, second = self._store[a], self._store[b]
        row_of = {image: row for row, image in enumerate(second.image_ids)}
        both = [(row, row_of[image]) for row, image in enumerate(first.image_ids) if image in row_of]
        rows = np.array(both, dtype=np.intp).reshape(-1, 2)
        return similarity(first.take(rows[:, 0]), second.take(rows[:, 1]))

    def similarities(self, measure: str = "cka") -> tuple[list[str], np.ndarray, int]:
        """Return how alike all embeddings are: their names, the table, and over how many images.

        At most 400 images are used, spread evenly over those that every embedding has. Embeddings of more than 16,384
        features, such as all tokens of a layer, are left out.

        Parameters
        ----------
        measure : str
            ``cka``: debiased linear CKA; ``rsa``: correlation of the dissimilarities.

        Raises
        ------
        UnknownName
            If there is no such measure.
        ValueError
            If the embeddings share fewer than four images, or one has a row that does not vary.
        """
        from pipelines.findings.health import samples
        from pipelines.similarity import cka_matrix, rsa_matrix

        measures = {"cka": cka_matrix, "rsa": rsa_matrix}
        if measure not in measures:
            raise UnknownName(f"no measure called '{measure}'", suggest(measure, measures))
        images, values = samples(self._store)
        return list(values), measures[measure](list(values.values())), len(images)

    def plot_similarity(self, measure: str = "cka") -> "Figure":
        """Draw how alike all embeddings are, by ``cka`` or ``rsa``; see `similarities`."""
        from embedctl.pictures import similarity_figure

        names, table, n_images = self.similarities(measure)
        told = called(self._store)
        return similarity_figure(table, [told[name] for name in names], {"cka": "CKA", "rsa": "RSA"}[measure], n_images)

    def __repr__(self) -> str:
        images = counted(len(self._store.image_ids), "image")
        return f"<Embeddings {self.path}: {counted(len(self), 'embedding')}, {images}>"

    def _repr_html_(self) -> str:
        title = f"{self.path}: {counted(len(self._store.image_ids), 'image')}"
        return page(title, rows_of(COLUMNS, embedding_rows(self._store)))
