"""The embedding store: one array per embedding over the same images, each row committed or known to be absent.

See ``docs/storage.md`` for what is on the disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from stores.commits import discard, is_vacant
from stores.embedding import Embedding, Entry, display_names, resolve
from stores.errors import DamagedStore, StoreMismatch
from stores.group import Group
from stores.image_rows import ImageRows
from stores.images import ImageRecord, check_ids
from stores.locks import clear_dead, of_living
from stores.names import EmbeddingName, counted
from stores.parts import WHOLE, Part, refuse_beside
from stores.remote import is_remote, locate
from stores.roots import Root
from stores.speed import read_speed, write_speed

__all__ = ["EmbeddingStore", "ImageRecord", "Rows"]

Rows = tuple[np.ndarray, np.ndarray]
"""Rows of the store, ``(n,)``, and their values, ``(n, dim)``."""

PATIENCE = 600.0
"""Seconds that the holder of a part waits for its turn at what all parts share: others hold that for seconds."""


class EmbeddingStore:
    """A folder of embeddings over the same images.

    An open store knows the images and embeddings of when it was opened, and of each embedding the rows that were
    committed when it was first asked for them, whatever other processes add meanwhile: to see that, open it again.
    Entering `lock` looks again.

    Parameters
    ----------
    path : Path
        Its folder. Use `open`.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> store = EmbeddingStore.open(Path(mkdtemp()) / "embeddings.zarr", create=True)
    >>> store.add_images([ImageRecord(f"{n}.jpg", "00", 1, 0, 8, 8, "RGB") for n in range(3)])
    >>> entry = store.create(EmbeddingName("pixels"), "0a1b", dim=2, dtype="float16", provenance={"weights": "none"})
    >>> rows = np.array([0, 2])
    >>> store.write_block(0, {entry.group: (rows, np.ones((2, 2), "float16"))}, absent={1: "not an image"})
    >>> store.names, store["pixels"].image_ids, store["pixels"].absent
    (['pixels'], ['0.jpg', '2.jpg'], {'1.jpg': 'not an image'})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = Root(path, "embeddings", "image")
        self._images = ImageRows(self._root)
        self._is_locked = False
        self._part: Part | None = None
        self._groups: dict[str, Group] = {}
        self._look()

    @classmethod
    def open(cls, path: Path | str, *, create: bool = False) -> "EmbeddingStore":
        """Open the store at ``path``; with ``create``, make an empty one where nothing is.

        An address is a path as well: ``s3://bucket/embeddings.zarr``.

        Raises
        ------
        EmbedctlError
            If nothing is there, or something that is not an embedding store.
        StoreMismatch
            If a newer embedctl wrote it.
        DamagedStore
            If its metadata cannot be trusted.
        CannotWrite
            If it cannot be made.
        """
        place = locate(path)
        Root(place, "embeddings", "image").open("embedctl extract", create)
        return cls(place)

    @classmethod
    def find(cls, path: Path | str) -> "EmbeddingStore | None":
        """Open the store at ``path``, if there is one or something that should be one; None where one can be made."""
        place = locate(path)
        is_there = not is_vacant(place) if is_remote(place) else place.exists()
        return cls.open(place) if is_there else None

    def _look(self) -> None:
        # While a part is held nothing is removed: what was read of images and groups stays true, and more may come.
        known = self._groups if self._part else {}
        self._images.look(is_known=bool(known))
        self._groups = {}
        for folder in [folder for folder in self.path.iterdir() if folder.name in known or Group.is_one(folder)]:
            try:
                if folder.name in known:
                    self._groups[folder.name] = known[folder.name].again()
                else:
                    self._groups[folder.name] = Group(folder, self._root.drafts, self.n_images)
            except DamagedStore:
                if folder.exists():  # else another process has just removed it
                    raise

    # Reading

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return self._images.block_rows

    @property
    def n_images(self) -> int:
        """Number of images, which is that of rows."""
        return self._images.n_images

    @property
    def image_ids(self) -> list[str]:
        """The image of each row."""
        return self._images.ids

    @property
    def row_of(self) -> dict[str, int]:
        """From image id to row. A row, once given, never moves."""
        return self._images.row_of

    @property
    def names(self) -> list[str]:
        """Every embedding: its bare name where that means it, else ``NAME#KEY``."""
        return display_names(self._sorted())

    def entries(self) -> list[Entry]:
        """Return what is known about each embedding, by name."""
        return [group.entry for group in self._sorted()]

    def _sorted(self) -> list[Group]:
        return sorted(self._groups.values(), key=lambda group: (group.name, group.key))

    def images(self) -> dict[str, ImageRecord]:
        """Return the record of every image, in row order."""
        return self._images.records()

    def resolve(self, text: str) -> Entry:
        """Return the entry that ``NAME`` or ``NAME#KEY`` means (see `stores.embedding.resolve`)."""
        return resolve(self._sorted(), text).entry

    def committed(self, entry: Entry) -> np.ndarray:
        """Return, per image ``(n_images,)``, whether its row is committed."""
        mask = np.zeros(self.n_images, dtype=bool)
        mask[self._groups[entry.group].committed_rows()] = True
        return mask

    def absent(self, entry: Entry) -> dict[int, str]:
        """Return the rows that have no numbers for a reason, with the reason."""
        return self._groups[entry.group].absent()

    def __getitem__(self, text: str) -> Embedding:
        return resolve(self._sorted(), text).embedding(self.image_ids)

    def __repr__(self) -> str:
        held = f"{counted(len(self._groups), 'embedding')}, {counted(self.n_images, 'image')}"
        return f"<EmbeddingStore {self.path}: {held}>"

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer; first finish what an interrupted one had begun.

        Every writing method takes the lock itself; hold it around many, because each taking reads all receipts. Inside
        `part` it is what the parts share, and held for a moment.

        Raises
        ------
        StoreLocked
            If a live process is writing.
        """
        if self._is_locked:
            yield
            return
        with self._root.lock("embeddings", wait=PATIENCE if self._part else 0.0):
            self._is_locked = True
            try:
                if not self._part:
                    refuse_beside(self._root, WHOLE)
                self._begin(None if self._part else WHOLE)
                if not self._part:
                    clear_dead(self._root.locks)
                yield
            finally:
                self._is_locked = False

    def _begin(self, finish: Part | None) -> None:
        """Look at what is there now; write down how changes of the blocks of ``finish`` ended that were cut short."""
        self._root.finish()
        self._look()
        for group in self._groups.values():
            if finish:
                group.finish(finish.__contains__)
            group.grow(self.image_ids, self.block_rows)

    @contextmanager
    def part(self, part: Part) -> Iterator[None]:
        """Be the only writer of some blocks, beside writers of others; the last one to leave consolidates.

        Raises
        ------
        StoreLocked
            If a live process is writing some of these blocks.
        """
        with ExitStack() as held:
            with self._root.lock("embeddings", wait=PATIENCE):
                refuse_beside(self._root, part)
                held.enter_context(self._root.lock(part.lock))
                self._begin(part)
            self._part = part
            try:
                yield
            finally:
                self._part = None
            with self._root.lock("embeddings", wait=PATIENCE):
                held.close()  # inside, so that of two who leave at once one sees that the other is gone
                if not of_living(self._root.locks, "part-*-of-*"):
                    clear_dead(self._root.locks)
                    self._begin(WHOLE)
                    self._consolidate()

    def help_with(self, part: Part) -> None:
        """Write from now on blocks of a ``part`` that another process holds, on its behalf."""
        self._part = part

    def add_images(self, records: Sequence[ImageRecord]) -> None:
        """Give new images the next rows, in the order given; images known already keep theirs.

        Raises
        ------
        EmbedctlError
            If an id is not Unicode.
        """
        check_ids(record.id for record in records)
        with self.lock():
            new = [record for record in records if record.id not in self.row_of]
            if not new:
                return
            self._check_metadata()
            self._images.add(new)
            for group in self._groups.values():
                group.grow(self.image_ids, self.block_rows)

    def update_images(self, records: Sequence[ImageRecord]) -> None:
        """Replace the record of known images; rows of an image whose content changed are no longer committed.

        Raises
        ------
        ValueError
            If an image is not known.
        """
        with self.lock():
            self._images.replace(records, self._forget)

    def _forget(self, rows: list[int]) -> None:
        for group in self._groups.values():
            group.forget(rows, self.block_rows)

    def create(self, name: EmbeddingName, key: str, *, dim: int, dtype: str, provenance: Mapping[str, Any]) -> Entry:
        """Make room for an embedding, or return the one that is there.

        Parameters
        ----------
        name, key : EmbeddingName, str
            What it is, and the hash of everything that changes its numbers.
        dim : int
            Number of features.
        dtype : {"float16", "float32"}
            Number type.
        provenance : mapping
            Where its numbers come from; kept as the group's attributes.

        Raises
        ------
        StoreMismatch
            If it is there with another number of features or number type.
        """
        if dtype not in ("float16", "float32") or dim < 1:
            raise ValueError(f"an embedding has float16 or float32 features, not {dim} of {dtype!r}")
        if not (key.isalnum() and key.isascii()):
            raise ValueError(f"the key {key!r} is not letters and digits")
        group = name.group(key)
        with self.lock():
            if group not in self._groups:
                if not self.n_images:
                    raise ValueError("add the images before the embeddings: their number decides the chunks")
                self._groups[group] = Group.create(
                    self.path / group,
                    self._root.drafts,
                    image_ids=self.image_ids,
                    block_rows=self.block_rows,
                    dim=dim,
                    dtype=dtype,
                    provenance=provenance,
                )
            found = self._groups[group].entry
            if (found.dim, found.dtype) != (dim, dtype):
                what = f"'{name}#{key}' is stored as {found.dim} x {found.dtype}, not {dim} x {dtype}"
                raise StoreMismatch(what, "remove it, or write to another store")
            return found

    def write_block(self, block: int, by_group: Mapping[str, Rows], absent: Mapping[int, str]) -> None:
        """Commit rows of one block, for every embedding of the pass.

        Parameters
        ----------
        block : int
            Number of the block: rows ``block * block_rows`` and on.
        by_group : mapping of str to (rows, values)
            Per group, rows of the store inside the block and their values, ``(n, dim)``, in the entry's number type.
        absent : mapping of int to str
            Rows that cannot be computed, and why; the same for every group.

        Raises
        ------
        ValueError
            If rows are outside the block, values are of another type or shape, or not finite.
        DamagedStore
            If a chunk that should keep rows is not the one that was committed.
        """
        whole = range(block * self.block_rows, (block + 1) * self.block_rows)
        here = range(whole.start, min(whole.stop, self.n_images))
        for group, (rows, values) in by_group.items():
            given = [*np.asarray(rows).tolist(), *absent]
            if len(set(given)) != len(given) or any(row not in here for row in given):
                what = f"block {block} has rows {here.start} to {here.stop - 1}, each once; got {given[:5]} ..."
                raise ValueError(what)
            self._groups[group].check(np.asarray(rows), values)
        if self._part and block not in self._part:
            raise ValueError(f"block {block} is not of part {self._part}")
        with nullcontext() if self._part else self.lock():
            for group, (rows, values) in by_group.items():
                self._groups[group].commit(whole, np.asarray(rows, dtype=np.intp), values, absent)

    def remove(self, entry: Entry) -> None:
        """Drop an embedding with all its rows."""
        with self.lock():
            self._consolidate(without=entry.group)
            discard(self.path / entry.group, self._root.drafts)
            del self._groups[entry.group]

    def seconds_per_image(self) -> dict[str, float]:
        """Return how long an image took when rows were last computed, by group, as far as that is known."""
        return read_speed(self._root.private)

    def note_speed(self, seconds_per_image: Mapping[str, float]) -> None:
        """Remember how long an image took."""
        with self.lock():
            write_speed(self._root.private, seconds_per_image, self._root.drafts)

    @property
    def is_consolidated(self) -> bool:
        """Whether other programs see in the root what is there: not so where a writer was killed before its end."""
        return self._root.is_consolidated() and all(group.is_finished for group in self._groups.values())

    def consolidate(self) -> None:
        """Write all metadata into the root, where other programs look first: the end of every writing command.

        Inside `part` nothing: the last one to leave does it.
        """
        if self._part:
            return
        with self.lock():
            self._consolidate()

    def _check_metadata(self, without: str = "") -> None:
        for name, group in self._groups.items():
            if name != without:
                group.check_metadata()

    def _consolidate(self, without: str = "") -> None:
        self._check_metadata(without)  # the root's copy of it is what `repair` takes where it is damaged
        self._root.consolidate(without)
