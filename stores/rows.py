"""Read rows of a plain Zarr array by memory map: as fast as a NumPy memmap, without the zarr library.

Every chunk file is checked when it is first touched: its size, and its checksum's four bytes against the receipt
where there is one. So a missing, truncated, stale or swapped chunk is an error and never numbers (a flipped bit is
found by ``verify``, which reads every byte). All chunks are looked at before memory is asked for: what the metadata
claims costs nothing that the files do not hold. Chunks in another encoding are refused: unpacking what a stranger
packed has no limit.

A reader holds on to the rows it was made for while a writer goes on. A chunk that got more rows since is read as it is
now; one that lost rows is an error that says to open the store again. A mapped chunk stays what it was: a writer puts
a new file in its place.
"""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stores.array_rows import ArrayRows
from stores.codecs import CRC_BYTES
from stores.errors import DamagedStore, EmbedctlError
from stores.files import NotAFile, open_file
from stores.mapping import map_together
from stores.receipts import Vouchers

__all__ = ["RawRows"]


class RawRows(ArrayRows):
    """The rows of one array, read from its chunk files.

    Parameters
    ----------
    folder : Path
        The array's folder.
    vouchers : dict, optional
        What the receipts say about the chunk files, by their path below the group that holds the array. Without
        it every chunk file that exists is read, and a chunk without file reads as the array's fill value.
    look_again : callable, optional
        Reads the receipts again: a chunk that does not fit may have grown since.
    n_rows : int, optional
        How many rows the reader knows of; by now there may be more.

    Raises
    ------
    DamagedStore
        If ``folder`` holds no array, or one whose chunks are not rows and a checksum.
    """

    def __init__(
        self,
        folder: Path,
        vouchers: Vouchers | None = None,
        look_again: Callable[[], Vouchers] | None = None,
        n_rows: int | None = None,
    ) -> None:
        super().__init__(folder, n_rows)
        if not self._node.raw:
            raise DamagedStore(
                f"the chunks of '{folder}' are packed in another way than a store's",
                "read it with zarr if you trust it, and bring its rows in with 'embedctl import'",
            )
        self._vouchers = vouchers
        self._look_again = look_again
        self._chunks: dict[int, np.ndarray | None] = {}
        self._inodes: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process maps the files itself instead of carrying their content along.
        return {
            **{name: value for name, value in self.__dict__.items() if name != "_view"},
            "_chunks": {},
            "_inodes": {},
        }

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop``, the latter not included, as a new array."""
        start, stop, _ = slice(start, stop).indices(len(self))
        size = self.chunk_rows
        starts = range(start - start % size, stop, size)
        chunks = [self._there(at // size) for at in starts]
        out = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        for at, chunk in zip(starts, chunks, strict=True):
            low, high = max(at, start), min(at + size, stop)
            out[low - start : high - start] = self._node.fill if chunk is None else chunk[low - at : high - at]
        return out

    def take(self, rows: Any) -> np.ndarray:
        """Return the rows with these indices, in this order, as a new array.

        Raises
        ------
        IndexError
            If an index is out of range.
        """
        if self._view is not None:
            return self._view.take(np.asarray(rows, dtype=np.intp), axis=0)
        rows = self._counted(rows)
        chunks, within = np.divmod(rows, self.chunk_rows)
        order = np.argsort(chunks, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(chunks[order], prepend=-1)))[1:]
        opened = [self._there(int(chunks[here[0]])) for here in parts]
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for here, chunk in zip(parts, opened, strict=True):
            out[here] = self._node.fill if chunk is None else chunk[within[here]]
        return out

    @cached_property
    def _view(self) -> np.ndarray | None:
        """All rows as one array over the mapped files; None where a chunk is not there or cannot be mapped."""
        numbers = range(-(-len(self) // self.chunk_rows))
        if any(self._chunk(number) is None for number in numbers):
            return None
        files = [self.folder / self._node.file(number) for number in numbers]
        mapped = map_together(files, self._node.chunk_bytes)
        # By name, so it may be another file than the one that was checked; that one is mapped, so no other is it.
        if mapped is None or any(_inode(files[number]) != self._inodes[number] for number in numbers):
            return None
        return self._as_rows(mapped, len(numbers) * self.chunk_rows)[: len(self)]

    def _there(self, number: int) -> np.ndarray | None:
        chunk = self._chunk(number)
        if chunk is None and self._vouchers is not None:
            raise DamagedStore(f"no receipt vouches for '{self.folder / self._node.file(number)}'")
        return chunk

    def _chunk(self, number: int) -> np.ndarray | None:
        if number not in self._chunks:
            self._chunks[number] = self._open(number)
        return self._chunks[number]

    def _open(self, number: int) -> np.ndarray | None:
        name = f"{self.folder.name}/{self._node.file(number)}"
        if self._vouchers is not None and name not in self._vouchers:
            return None
        path = self.folder.parent / name
        seen = None
        while True:
            file = self._mapped(number, path, name)
            if file is None:
                return None
            tail = file[-CRC_BYTES:].tobytes().hex()
            if self._vouchers is None or self._vouchers[name]["tail"] == tail:
                break
            now = self._now(name)
            if now.get("tail") == tail:
                self._check_kept(name, now)
                break
            if seen == (tail, now):  # the writer is not between two steps: this is how it stays
                raise DamagedStore(f"'{path}' is not the chunk its receipt vouches for")
            seen = (tail, now)
        return self._as_rows(file[:-CRC_BYTES], self.chunk_rows)

    def _mapped(self, number: int, path: Path, name: str) -> np.ndarray | None:
        """Return the bytes of a chunk file, mapped; None where there is none and nobody vouches for it."""
        try:
            with open_file(path) as opened:
                self._inodes[number] = os.fstat(opened.fileno()).st_ino
                file = np.memmap(opened, np.uint8, mode="r")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, NotAFile, ValueError) as error:  # empty
            if self._vouchers is None and isinstance(error, FileNotFoundError):
                return None
            if isinstance(error, FileNotFoundError) and self._look_again and not self._now(name):
                raise self._changed(name) from error
            raise DamagedStore(f"'{path}' is missing or empty") from error
        if file.size != self._node.chunk_bytes + CRC_BYTES:
            raise DamagedStore(f"'{path}' is {file.size} bytes, not {self._node.chunk_bytes + CRC_BYTES}")
        return file

    def _now(self, name: str) -> dict[str, Any]:
        """Return what the receipts say about a chunk file by now."""
        return self._look_again().get(name, {}) if self._look_again else {}

    def _check_kept(self, name: str, now: dict[str, Any]) -> None:
        known, held = (self._vouchers or {})[name].get("rows", ()), now.get("rows", [])
        if not all(any(a <= start and stop <= b for a, b in held) for start, stop in known):
            raise self._changed(name)

    def _changed(self, name: str) -> EmbedctlError:
        what = f"'{self.folder.parent / name}' no longer holds the rows it held when the store was opened"
        return EmbedctlError(what, "open the store again: another process has changed it")

    def _as_rows(self, data: np.ndarray, n_rows: int) -> np.ndarray:
        return data.view(self.dtype.newbyteorder("<"), np.ndarray).reshape(n_rows, *self.shape[1:])


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return -1
