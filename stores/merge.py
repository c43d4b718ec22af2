"""Join two embedding stores: what one has and the other lacks is copied, row by row, under the same commits.

First it is decided what to bring, and whether the two contradict each other; then images get their rows, and rows
their numbers. Doing it again after an interruption brings what is still missing.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stores.disk import bytes_free, require_room
from stores.embedding import Embedding, Entry
from stores.embeddings import EmbeddingStore
from stores.errors import DamagedStore, EmbedctlError, StoreMismatch

__all__ = ["Brought", "Merge", "merge"]

# Recorded with the first rows of an embedding: the last bits of a row depend on them (the batch size is in the key).
_RECORDED = ("threads", "device", "form")


@dataclass(frozen=True)
class Brought:
    """What the other store gives of one embedding.

    Parameters
    ----------
    name : str
        ``NAME#KEY``.
    rows : int
        Rows that were missing.
    already : int
        Rows that both stores have.
    absent : int
        Rows without numbers that are known to be so from now on.
    """

    name: str
    rows: int
    already: int
    absent: int


@dataclass(frozen=True)
class Merge:
    """What a merge did, or would do.

    Parameters
    ----------
    images : int
        Images that were new.
    embeddings : list of Brought
        One per embedding of the other store.
    bytes : int
        Of the rows brought.
    """

    images: int
    embeddings: list[Brought] = field(default_factory=list)
    bytes: int = 0


def merge(
    into: Path, source: Path, *, dry_run: bool = False, begin: Callable[[int], Callable[[int], None]] | None = None
) -> Merge:
    """Bring the images and rows of ``source`` that ``into`` lacks; ``source`` is only read.

    Parameters
    ----------
    into, source : Path
        Embedding stores.
    dry_run : bool
        Only tell what there is to bring.
    begin : callable, optional
        Is told the number of rows, and returns what is told how many more are done.

    Raises
    ------
    EmbedctlError
        If an image has other content, or a row other numbers, in the two stores. Nothing has been written then.
    StoreMismatch
        If an embedding was computed on another device, with another number of threads or in another form of the
        network: rows would differ in their last bits.
    StoreLocked
        If a live process is writing ``into``.
    CannotWrite
        If its disk has no room.
    """
    theirs, ours = EmbeddingStore.open(source), EmbeddingStore.open(into)
    if into.resolve() == source.resolve():
        raise EmbedctlError(f"'{into}' and '{source}' are one store", "name two")
    with nullcontext() if dry_run else ours.lock():
        joint = _Joint(ours, theirs)
        joint.check()
        found = joint.outlook()
        if dry_run:
            return found
        require_room(into, found.bytes, bytes_free(into), "free some space on its disk")
        advance = begin(sum(one.rows for one in found.embeddings)) if begin else lambda n: None
        joint.bring(advance)
        if not ours.is_consolidated or found.images or found.bytes:
            ours.consolidate()
    return found


class _Joint:
    """Two stores side by side: rows of one, and where the same images are in the other."""

    def __init__(self, ours: EmbeddingStore, theirs: EmbeddingStore) -> None:
        self.ours, self.theirs = ours, theirs
        self._records, self._known = theirs.images(), ours.images()
        self.new = [record for image, record in self._records.items() if image not in self._known]
        row_of = {**ours.row_of, **{record.id: ours.n_images + n for n, record in enumerate(self.new)}}
        # Of each of their rows, its row in our store, as it will be.
        self.places = np.array([row_of[image] for image in theirs.image_ids], dtype=np.intp)
        self.n_images = len(row_of)

    def check(self) -> None:
        """Refuse what contradicts itself."""
        other = [
            image
            for image, record in self._records.items()
            if image in self._known
            and "" not in (hashes := {record.sha256, self._known[image].sha256})
            and len(hashes) > 1
        ]
        if other:
            shown = ", ".join(f"'{image}'" for image in other[:5])
            more = f" and {len(other) - 5:,} more" if len(other) > 5 else ""
            raise EmbedctlError(
                f"images with other content in '{self.theirs.path}': {shown}{more}",
                "embedctl extract --refresh in one of the stores, with the images that are right",
            )
        for theirs, ours in self._pairs():
            if ours is not None:
                self._check_pair(theirs, ours)

    def _check_pair(self, theirs: Entry, ours: Entry) -> None:
        name = f"{theirs.name}#{theirs.key}"
        hint = f"keep one of the two: embedctl remove {self.theirs.path} {name}"
        for fact in _RECORDED:
            here, there = ((e.form if fact == "form" else e.provenance.get(fact)) for e in (ours, theirs))
            if here != there:
                raise StoreMismatch(f"'{name}' was computed with {fact} = {here} here, {there} there", hint)
        both = self._committed(ours)[self.places] & self.theirs.committed(theirs)
        read_ours, read_theirs = _reader(self.ours, ours), _reader(self.theirs, theirs)
        for rows in _pieces(np.flatnonzero(both), self.theirs.block_rows):
            same = (read_ours(self.places[rows]) == read_theirs(rows)).all(axis=1)
            if not same.all():
                image = self.theirs.image_ids[rows[~same][0]]
                raise EmbedctlError(f"'{name}' has other numbers of '{image}' in '{self.theirs.path}'", hint)

    def outlook(self) -> Merge:
        """Tell what there is to bring."""
        found = Merge(len(self.new))
        n_bytes = 0
        for theirs, ours in self._pairs():
            rows, absent = self._lacking(theirs, ours)
            n_bytes += len(rows) * theirs.dim * np.dtype(theirs.dtype).itemsize
            brought = Brought(f"{theirs.name}#{theirs.key}", len(rows), theirs.n_committed - len(rows), len(absent))
            found.embeddings.append(brought)
        return Merge(found.images, found.embeddings, n_bytes)

    def bring(self, advance: Callable[[int], None]) -> None:
        """Bring everything."""
        unread = {image for image, record in self._known.items() if not record.sha256}
        if learnt := [
            self._records[image] for image in unread if image in self._records and self._records[image].sha256
        ]:
            self.ours.update_images(sorted(learnt, key=lambda record: self.ours.row_of[record.id]))
        self.ours.add_images(self.new)
        for theirs, ours in self._pairs():
            rows, absent = self._lacking(theirs, ours)
            entry = self.ours.create(
                theirs.name, theirs.key, dim=theirs.dim, dtype=theirs.dtype, provenance=theirs.provenance
            )
            read, places = _reader(self.theirs, theirs), self.places[rows]
            for block in sorted({row // self.ours.block_rows for row in (*places.tolist(), *absent)}):
                here = range(block * self.ours.block_rows, (block + 1) * self.ours.block_rows)
                mine = rows[(places >= here.start) & (places < here.stop)]
                reasons = {row: why for row, why in absent.items() if row in here}
                values = read(mine)
                if not np.isfinite(values).all():
                    raise DamagedStore(f"'{self.theirs.path}' calls rows of '{theirs.name}' committed that hold none")
                self.ours.write_block(block, {entry.group: (self.places[mine], values)}, reasons)
                advance(len(mine))

    def _pairs(self) -> Iterator[tuple[Entry, Entry | None]]:
        """Yield their embeddings, each with ours of the same name and key."""
        ours = {entry.group: entry for entry in self.ours.entries()}
        for entry in self.theirs.entries():
            yield entry, ours.get(entry.group)

    def _lacking(self, theirs: Entry, ours: Entry | None) -> tuple[np.ndarray, dict[int, str]]:
        """Return which of their rows we lack, and which of our rows are known to have no numbers from them."""
        there, here = self.theirs.committed(theirs), self._committed(ours)
        known = self.ours.absent(ours) if ours else {}
        reasons = {int(self.places[row]): why for row, why in self.theirs.absent(theirs).items()}
        absent = {row: why for row, why in reasons.items() if not here[row] and row not in known}
        return np.flatnonzero(there & ~here[self.places]), absent

    def _committed(self, ours: Entry | None) -> np.ndarray:
        """Return which rows we have, of all there will be."""
        found = np.zeros(self.n_images, dtype=bool)
        if ours:
            committed = self.ours.committed(ours)
            found[: len(committed)] = committed
        return found


def _reader(store: EmbeddingStore, entry: Entry) -> Callable[[np.ndarray], np.ndarray]:
    """Return what reads committed rows of the store."""
    embedding: Embedding = store[f"{entry.name}#{entry.key}"]
    committed = np.flatnonzero(store.committed(entry))
    return lambda rows: embedding.take(np.searchsorted(committed, rows))


def _pieces(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), max(1, size)):
        yield rows[start : start + size]
