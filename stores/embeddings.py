"""The embedding store: one array per embedding over the same images, each row committed or known to be absent.

See ``docs/storage.md`` for what is on the disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stores.blocks import block_rows_for, chunk_rows_for, commit_rows, finish_receipts, read_vouchers, rows_in
from stores.commits import discard, draft_name, place
from stores.embedding import Embedding, Entry, display_names, resolve
from stores.errors import StoreMismatch
from stores.images import ImageRecord, check_ids, image_table_bytes, read_image_table
from stores.layout import array_node, group_node, private, read_array, read_node
from stores.locks import lock
from stores.names import EmbeddingName
from stores.receipts import Vouchers, change, finish
from stores.roots import Root, node_bytes, read_strings, string_files

__all__ = ["EmbeddingStore", "ImageRecord", "Rows"]

Rows = tuple[np.ndarray, np.ndarray]
"""Rows of the store, ``(n,)``, and their values, ``(n, dim)``."""


class EmbeddingStore:
    """A folder of embeddings over the same images.

    An open store is what was committed when it was opened; entering `lock` looks again.

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
        self._is_locked = False
        self._look()

    @classmethod
    def open(cls, path: Path | str, *, create: bool = False) -> "EmbeddingStore":
        """Open the store at ``path``; with ``create``, make an empty one where nothing is.

        Raises
        ------
        EmbedctlError
            If nothing is there, or something that is not an embedding store.
        StoreMismatch
            If a newer embedctl wrote it.
        CannotWrite
            If it cannot be made.
        """
        Root(Path(path), "embeddings", "image").open("embedctl extract", create)
        return cls(Path(path))

    def _look(self) -> None:
        self.block_rows: int = self._root.attributes().get("block_rows", 0)
        self.image_ids: list[str] = read_strings(self.path / "image")
        self.row_of: dict[str, int] = {image: row for row, image in enumerate(self.image_ids)}
        self._vouchers: dict[str, Vouchers] = {}
        self._entries: dict[str, Entry] = {}
        for folder in self._groups():
            self._vouchers[folder.name] = read_vouchers(folder / "values")
            self._entries[folder.name] = self._read_entry(folder)

    def _groups(self) -> list[Path]:
        return sorted(folder.parent for folder in self.path.glob("*/values") if (folder / "zarr.json").is_file())

    def _read_entry(self, folder: Path) -> Entry:
        name, _, key = folder.name.rpartition("-")
        node, provenance = read_array(folder / "values"), read_node(folder)["attributes"].get("embedctl", {})
        n_committed, n_absent = _count(self._vouchers[folder.name])
        parsed = EmbeddingName.parse(name.replace("~", ":"))
        return Entry(parsed, key, node.shape[1], node.dtype, folder.name, provenance, n_committed, n_absent)

    # Reading

    @property
    def names(self) -> list[str]:
        """Every embedding: its bare name where that means it, else ``NAME#KEY``."""
        return display_names(self.entries())

    def entries(self) -> list[Entry]:
        """Return what is known about each embedding, by name."""
        return sorted(self._entries.values(), key=lambda entry: (entry.name, entry.key))

    def images(self) -> dict[str, ImageRecord]:
        """Return the record of every image, in row order."""
        table = read_image_table(self._table)
        return {image: table[image] for image in self.image_ids if image in table}

    def resolve(self, text: str) -> Entry:
        """Return the entry that ``NAME`` or ``NAME#KEY`` means (see `stores.embedding.resolve`)."""
        return resolve(self.entries(), text)

    def committed(self, entry: Entry) -> np.ndarray:
        """Return, per image ``(n_images,)``, whether its row is committed."""
        mask = np.zeros(len(self.image_ids), dtype=bool)
        mask[rows_in(self._vouchers[entry.group])] = True
        return mask

    def absent(self, entry: Entry) -> dict[int, str]:
        """Return the rows that have no numbers for a reason, with the reason."""
        vouchers = self._vouchers[entry.group].values()
        return dict(sorted((int(row), why) for voucher in vouchers for row, why in voucher["absent"].items()))

    def __getitem__(self, text: str) -> Embedding:
        entry = self.resolve(text)
        absent = {self.image_ids[row]: why for row, why in self.absent(entry).items()}
        vouchers = self._vouchers[entry.group]
        return Embedding(self.path, entry, self.image_ids, rows_in(vouchers), absent, vouchers)

    def __repr__(self) -> str:
        return f"<EmbeddingStore {self.path}: {len(self._entries)} embeddings, {len(self.image_ids)} images>"

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer; first finish what an interrupted one had begun. Every writing method does so itself.

        Raises
        ------
        StoreLocked
            If a live process is writing.
        """
        if self._is_locked:
            yield
            return
        with lock(self._root.private / "locks", "store"):
            self._is_locked = True
            try:
                self._recover()
                yield
            finally:
                self._is_locked = False

    def _recover(self) -> None:
        self._root.finish()
        for folder in self._groups():
            finish(_metadata(folder), folder, self._root.drafts)
            finish_receipts(folder / "values", self._root.drafts)
        self._look()
        self._grow()

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
            if not self.block_rows:
                self.block_rows = block_rows_for(len(new))
            known = self.images()
            ids = [*self.image_ids, *(record.id for record in new)]
            table = image_table_bytes([*known.values(), *new])
            self._root.change(
                {
                    "zarr.json": self._root.with_attributes(block_rows=self.block_rows),
                    _TABLE: table,
                    # The ids come last: their number is what makes the new rows exist.
                    **string_files("image", ids, _string_chunk(self.block_rows)),
                }
            )
            self.image_ids = ids
            self.row_of = {image: row for row, image in enumerate(ids)}
            self._grow()

    def update_images(self, records: Sequence[ImageRecord]) -> None:
        """Replace the record of known images; rows of an image whose content changed are no longer committed."""
        with self.lock():
            known = self.images()
            changed = [self.row_of[record.id] for record in records if known[record.id].sha256 != record.sha256]
            for group in self._entries:  # first: a crash must not leave old numbers under a new hash
                self._forget(group, changed)
            table = {**known, **{record.id: record for record in records}}
            self._root.change({_TABLE: image_table_bytes(table.values())})

    def _forget(self, group: str, rows: Sequence[int]) -> None:
        known = {*rows_in(self._vouchers[group]).tolist(), *self.absent(self._entries[group])}
        for block in sorted({row // self.block_rows for row in rows if row in known}):
            here = [row for row in rows if row in known and row // self.block_rows == block]
            self._commit(group, block, (np.arange(0), np.empty((0, self._entries[group].dim))), {}, here)

    def _grow(self) -> None:
        """Give every array as many rows as there are images."""
        for folder in self._groups():
            node = read_array(folder / "values")
            if node.shape[0] != len(self.image_ids) or read_array(folder / "image").shape[0] != len(self.image_ids):
                files = self._group_files(node.shape[1], node.dtype)
                change(_metadata(folder), folder, files, drafts=self._root.drafts)

    def _group_files(self, dim: int, dtype: str) -> dict[str, bytes]:
        n_images, row_bytes = len(self.image_ids), dim * np.dtype(dtype).itemsize
        chunk = chunk_rows_for(self.block_rows, row_bytes)
        return {
            **string_files("image", self.image_ids, _string_chunk(self.block_rows)),
            "values/zarr.json": node_bytes(array_node((n_images, dim), dtype, (chunk, dim), ("image", "feature"))),
        }

    def create(self, name: EmbeddingName, key: str, *, dim: int, dtype: str, provenance: Mapping[str, Any]) -> Entry:
        """Make room for an embedding, or return the one that is there.

        Raises
        ------
        StoreMismatch
            If it is there with another number of features or number type.
        """
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype is {dtype!r}, not float16 or float32")
        if not (key.isalnum() and key.isascii()):
            raise ValueError(f"the key {key!r} is not letters and digits")
        group = name.group(key)
        with self.lock():
            if group in self._entries:
                found = self._entries[group]
                if (found.dim, found.dtype) != (dim, dtype):
                    what = f"'{name}#{key}' is stored as {found.dim} x {found.dtype}, not {dim} x {dtype}"
                    raise StoreMismatch(what, "remove it, or write to another store with --store")
                return found
            if not self.block_rows:
                raise ValueError("add the images before the embeddings: their number decides the chunks")
            files = {"zarr.json": node_bytes(group_node({"embedctl": dict(provenance)}))}
            draft = self._root.drafts / draft_name(group)
            change(_metadata(draft), draft, {**files, **self._group_files(dim, dtype)})
            place(draft, self.path / group)
            self._vouchers[group] = {}
            self._entries[group] = self._read_entry(self.path / group)
            return self._entries[group]

    def write_block(self, block: int, parts: Mapping[str, Rows], absent: Mapping[int, str]) -> None:
        """Commit rows of one block, for every embedding of the pass.

        Parameters
        ----------
        block : int
            Number of the block: rows ``block * block_rows`` and on.
        parts : mapping of str to (rows, values)
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
        for group, (rows, values) in parts.items():
            self._check(block, group, rows, values, absent)
        with self.lock():
            for group, part in parts.items():
                self._commit(group, block, part, absent)

    def _check(self, block: int, group: str, rows: np.ndarray, values: np.ndarray, absent: Mapping[int, str]) -> None:
        entry, here = self._entries[group], self._block(block)
        outside = [row for row in (*np.asarray(rows).tolist(), *absent) if row not in here]
        if outside or set(np.asarray(rows).tolist()) & set(absent):
            raise ValueError(f"block {block} has rows {here.start} to {here.stop - 1}; not {outside[:5]}, none twice")
        if values.shape != (len(rows), entry.dim) or values.dtype != entry.dtype:
            found, wanted = f"{values.shape} {values.dtype}", f"({len(rows)}, {entry.dim}) {entry.dtype}"
            raise ValueError(f"values of {group} are {found}, not {wanted}")
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            raise ValueError(f"values of {group} are not finite in rows {np.asarray(rows)[broken][:5].tolist()}")

    def _block(self, block: int) -> range:
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, len(self.image_ids)))

    def _commit(
        self, group: str, block: int, part: Rows, absent: Mapping[int, str], forget: Sequence[int] = ()
    ) -> None:
        whole = range(block * self.block_rows, (block + 1) * self.block_rows)
        folder, rows = self.path / group, np.asarray(part[0], dtype=np.intp)
        self._vouchers[group] |= commit_rows(folder / "values", whole, rows, part[1], absent, self._root.drafts, forget)
        self._entries[group] = self._read_entry(folder)

    def remove(self, entry: Entry) -> None:
        """Drop an embedding with all its rows."""
        with self.lock():
            discard(self.path / entry.group, self._root.drafts)
            del self._vouchers[entry.group], self._entries[entry.group]
            self.consolidate()

    def consolidate(self) -> None:
        """Write all metadata into the root, where other programs look first: the end of every writing command."""
        with self.lock():
            self._root.consolidate()

    @property
    def _table(self) -> Path:
        return self.path / _TABLE


def _metadata(group: Path) -> Path:
    return private(group / "values") / "metadata.json"


def _count(vouchers: Vouchers) -> tuple[int, int]:
    n_committed = sum(stop - start for voucher in vouchers.values() for start, stop in voucher["rows"])
    return n_committed, sum(len(voucher["absent"]) for voucher in vouchers.values())


def _string_chunk(block_rows: int) -> int:
    """Return the ids per chunk: a chunk of strings is small, so it spans several blocks."""
    return 16 * block_rows


_TABLE = "image/.embedctl/images.parquet"
