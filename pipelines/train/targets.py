"""The embedding of the image that each epoch shows: store rows joined to epochs, checked before anything runs."""

import hashlib
from collections.abc import Sequence

import numpy as np

from pipelines.train.join import resolve
from stores.embedding import Entry
from stores.embeddings import EmbeddingStore
from stores.epochs import SubjectEpochs
from stores.errors import DamagedStore, EmbedctlError

__all__ = ["Targets"]


class Targets:
    """Looks up embeddings by the names that epochs give their images.

    Parameters
    ----------
    store : EmbeddingStore
        Where the embeddings are.
    join : str
        How names are joined: ``suffix`` or ``stem`` (see `pipelines.train.join`).
    """

    def __init__(self, store: EmbeddingStore, join: str) -> None:
        self._store, self._join = store, join
        self._content = {name: record.sha256 for name, record in store.images().items()}
        self._joined: dict[tuple[str, ...], np.ndarray] = {}

    def check(self, entry: Entry, recordings: SubjectEpochs) -> str:
        """Make sure that every image of a subject has a row, and return a digest of these images' content.

        Raises
        ------
        EmbedctlError
            If an image is not in the store, or has no row in this embedding; the first five are listed.
        """
        shown = [*recordings.train.image_ids, *recordings.test.image_ids]
        rows = self._store_rows(shown)
        lacking = np.flatnonzero(~self._store.committed(entry)[rows])
        if len(lacking):
            absent = self._store.absent(entry)
            first = [
                f"{shown[i]} ({absent[row]})" if (row := int(rows[i])) in absent else shown[i] for i in lacking[:5]
            ]
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            raise EmbedctlError(
                f"'{entry.name}' has no embedding of {len(lacking)} images: {', '.join(first)}{more}",
                f"embedctl extract --model {entry.name} computes what is missing; images it cannot read need replacing",
            )
        content = hashlib.blake2b(digest_size=8)
        for row in rows.tolist():
            name = self._store.image_ids[row]
            content.update(self._content.get(name, name).encode() + b"\0")
        return content.hexdigest()

    def rows(self, entry: Entry, image_ids: Sequence[str]) -> np.ndarray:
        """Return the embeddings of these images, ``(n_images, dim)`` float32.

        Raises
        ------
        DamagedStore
            If one of them is not finite: a committed row always is.
        """
        embedding = self._store[f"{entry.name}#{entry.key}"]
        at = np.full(len(self._store.image_ids), -1, dtype=np.intp)
        at[np.flatnonzero(self._store.committed(entry))] = np.arange(len(embedding))
        values = embedding.take(at[self._store_rows(image_ids)]).astype(np.float32)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            raise DamagedStore(
                f"'{entry.name}' has {len(broken)} rows that are not finite, first of '{image_ids[broken[0]]}'",
                f"embedctl extract --model {entry.name} --overwrite computes it anew",
            )
        return values

    def _store_rows(self, image_ids: Sequence[str]) -> np.ndarray:
        asked = tuple(image_ids)
        if asked not in self._joined:
            self._joined[asked] = resolve(asked, self._store.image_ids, self._join, self._content)
        return self._joined[asked]
