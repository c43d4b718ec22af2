"""The embedding of the image that each epoch shows: store rows joined to epochs, checked before anything runs."""

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from pipelines.preprocess.trials import concept_of
from pipelines.train.join import namesakes, resolve
from pipelines.train.several import Target
from stores.embedding import Entry
from stores.embeddings import EmbeddingStore
from stores.errors import DamagedStore, EmbedctlError
from stores.names import counted

__all__ = ["Targets"]


class Targets:
    """Looks up embeddings by the names that epochs give their images.

    Parameters
    ----------
    store : EmbeddingStore
        Where the embeddings are.
    join : str
        How names are joined: ``suffix`` or ``stem`` (see `pipelines.train.join`).

    Attributes
    ----------
    notes : list of str
        What to know about the images that were joined, a line each.
    """

    def __init__(self, store: EmbeddingStore, join: str) -> None:
        self._store, self._join = store, join
        self._content = {name: record.sha256 for name, record in store.images().items()}
        self._joined: dict[tuple[str, ...], np.ndarray] = {}
        self._others: dict[tuple[tuple[str, ...], tuple[int, ...]], dict[int, str]] = {}
        self.notes: list[str] = []

    def check(self, target: Target, train_ids: Sequence[str], test_ids: Sequence[str]) -> str:
        """Make sure that every image of a run has a row, and return a digest of these images' content.

        Raises
        ------
        EmbedctlError
            If an image is not in the store, or has no row in this embedding; the first five are listed.
        """
        shown = [*train_ids, *test_ids]
        is_new = tuple(shown) not in self._joined
        rows = self.require(target, shown)
        if is_new:
            self._look_for_doubles(rows, len(train_ids))
        content = hashlib.blake2b(digest_size=8)
        for row in rows.tolist():
            name = self._store.image_ids[row]
            content.update((self._content.get(name) or name).encode() + b"\0")
        return content.hexdigest()

    def require(self, target: Target, image_ids: Sequence[str]) -> np.ndarray:
        """Return the store's row of every image, ``(n_images,)``, each of them there; raises as `check`."""
        rows = self._store_rows(image_ids)
        for entry in target.parts:
            self._require(entry, image_ids, rows)
        return rows

    def _require(self, entry: Entry, image_ids: Sequence[str], rows: np.ndarray) -> None:
        lacking = np.flatnonzero(~self._store.committed(entry)[rows])
        if len(lacking):
            absent = self._store.absent(entry)
            first = [
                f"{image_ids[i]} ({absent[row]})" if (row := int(rows[i])) in absent else image_ids[i]
                for i in lacking[:5]
            ]
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            again = f"embedctl extract --model {entry.name} computes what is missing; images it cannot read need others"
            raise EmbedctlError(
                f"'{entry.name}' has no embedding of {counted(len(lacking), 'image')}: {', '.join(first)}{more}",
                f"embedctl import --name {entry.name} adds their rows" if entry.provenance.get("imported") else again,
            )

    def others(
        self, target: Target, image_ids: Sequence[str], concepts: Sequence[str], shown: Sequence[int]
    ) -> tuple[np.ndarray | None, list[str]]:
        """Return embeddings ``(n_others, dim)`` of stored images of the gallery's concepts, and which concept each has.

        The gallery's own count too, but none that a query shows, under whatever path: neither its content nor its
        concept and file name. Which concept an image has its path tells, as it does in THINGS.

        Parameters
        ----------
        target : Target
            Which embedding.
        image_ids, concepts : sequence of str
            The gallery.
        shown : sequence of int
            Which images of it are shown.

        Returns
        -------
        embeddings : (n_others, dim) or None
            None where a concept of the gallery has no other image, or images have no concept.
        concepts : list of str
            One for each.
        """
        if not all(concepts):
            return None, []
        asked = (tuple(image_ids), tuple(shown))
        if asked not in self._others:
            self._others[asked] = self._of_concepts(image_ids, set(concepts), shown)
        there = np.all([self._store.committed(entry) for entry in target.parts], axis=0)
        found = {row: concept for row, concept in self._others[asked].items() if there[row]}
        if set(found.values()) != set(concepts):
            return None, []
        return self.rows(target, [self._store.image_ids[row] for row in found]), list(found.values())

    def _of_concepts(self, image_ids: Sequence[str], concepts: set[str], shown: Sequence[int]) -> dict[int, str]:
        """Return the store's rows of images of these concepts that none of the shown ones is a copy of."""
        names, rows = self._store.image_ids, self._store_rows(image_ids)[list(shown)]
        files = {(concept_of(names[row]), PurePosixPath(names[row]).name) for row in rows}
        content = {self._content.get(names[row]) or names[row] for row in rows}
        return {
            row: concept
            for row, name in enumerate(names)
            if (concept := concept_of(name)) in concepts
            and (concept, PurePosixPath(name).name) not in files
            and self._content.get(name) not in content
        }

    def rows(self, target: Target, image_ids: Sequence[str]) -> np.ndarray:
        """Return the embeddings of these images, ``(n_images, dim)`` float32, several side by side.

        Raises
        ------
        DamagedStore
            If one of them is not finite: a committed row always is.
        """
        parts = [self._rows(entry, image_ids) for entry in target.parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _rows(self, entry: Entry, image_ids: Sequence[str]) -> np.ndarray:
        embedding = self._store[f"{entry.name}#{entry.key}"]
        at = np.full(len(self._store.image_ids), -1, dtype=np.intp)
        at[np.flatnonzero(self._store.committed(entry))] = np.arange(len(embedding))
        values = embedding.take(at[self._store_rows(image_ids)]).astype(np.float32)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            raise DamagedStore(
                f"'{entry.name}' has {counted(len(broken), 'row that is', 'rows that are')} not finite, "
                f"first of '{image_ids[broken[0]]}'",
                f"embedctl extract --model {entry.name} --overwrite computes it anew",
            )
        return values

    def _look_for_doubles(self, rows: np.ndarray, n_train: int) -> None:
        """Note images whose name is another's too, and test images that were trained on under another name."""
        names = self._store.image_ids
        if twins := namesakes(rows.tolist(), names, self._content, self._join):
            self._note(
                f"{counted(len(twins), 'image shares its', 'images share their')} file name with others of "
                f"different pixels; the longer path decided: "
                f"'{twins[0][0]}', not '{twins[0][1]}'"
            )
        content = [self._content.get(names[row]) or names[row] for row in rows.tolist()]
        trained_on = set(content[:n_train])
        if seen := [
            names[row] for row, pixels in zip(rows[n_train:], content[n_train:], strict=True) if pixels in trained_on
        ]:
            self._note(
                f"{counted(len(seen), 'test image is a training image', 'test images are training images')} "
                f"as well, the first '{seen[0]}'"
            )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _store_rows(self, image_ids: Sequence[str]) -> np.ndarray:
        asked = tuple(image_ids)
        if asked not in self._joined:
            self._joined[asked] = resolve(asked, self._store.image_ids, self._join, self._content)
        return self._joined[asked]
