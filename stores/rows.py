"""Read rows of a plain Zarr array by memory map: as fast as a NumPy memmap, without the zarr library.

Every chunk file is checked when it is first touched: its size, and its checksum's four bytes against the receipt
where there is one. So a missing, truncated, stale or swapped chunk is an error and never numbers (a flipped bit is
found by ``verify``, which reads every byte).
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stores.codecs import CRC_BYTES
from stores.errors import DamagedStore
from stores.layout import read_array
from stores.mapping import map_together
from stores.receipts import Vouchers

__all__ = ["RawRows"]


class RawRows:
    """The rows of one array, read from its chunk files.

    Parameters
    ----------
    folder : Path
        The array's folder.
    vouchers : dict, optional
        What the receipts say about the chunk files, by their path below the group that holds the array. Without
        it every chunk file that exists is read; a chunk without file reads as the array's fill value.
    look_again : callable, optional
        Reads the receipts again: a chunk that does not fit may have grown since.

    Raises
    ------
    DamagedStore
        If ``folder`` holds no array.
    """

    def __init__(
        self, folder: Path, vouchers: Vouchers | None = None, look_again: Callable[[], Vouchers] | None = None
    ) -> None:
        self.folder = folder
        self._node = read_array(folder)
        self._vouchers = vouchers
        self._look_again = look_again
        self._chunks: dict[int, np.ndarray | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process maps the files itself instead of carrying their content along.
        return {**{name: value for name, value in self.__dict__.items() if name != "_view"}, "_chunks": {}}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, rows first."""
        return self._node.shape

    @property
    def dtype(self) -> np.dtype:
        """Number type of the array."""
        return np.dtype(self._node.dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows per chunk file."""
        return self._node.chunks[0]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop``, the latter not included, as a new array."""
        start, stop, _ = slice(start, stop).indices(len(self))
        size = self.chunk_rows
        out = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        for at in range(start - start % size, stop, size):
            low, high = max(at, start), min(at + size, stop)
            chunk = self._chunk(at // size)
            out[low - start : high - start] = self._node.fill if chunk is None else chunk[low - at : high - at]
        return out

    def take(self, rows: Any) -> np.ndarray:
        """Return the rows with these indices, in this order, as a new array.

        Raises
        ------
        IndexError
            If an index is out of range.
        """
        rows = np.asarray(rows, dtype=np.intp)
        if self._view is not None:
            return self._view.take(rows, axis=0)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"row {rows.max()} or {rows.min()} is out of range: there are {len(self)} rows")
        chunks, within = np.divmod(np.where(rows < 0, rows + len(self), rows), self.chunk_rows)
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(chunks, kind="stable")
        starts = np.flatnonzero(np.diff(chunks[order], prepend=-1))
        for here in np.split(order, starts)[1:]:
            chunk = self._chunk(int(chunks[here[0]]))
            out[here] = self._node.fill if chunk is None else chunk[within[here]]
        return out

    @cached_property
    def _view(self) -> np.ndarray | None:
        """All rows as one array over the mapped files; None where a chunk is not there or cannot be mapped."""
        numbers = range(self._node.n_chunks)
        if not self._node.raw or any(self._chunk(number) is None for number in numbers):
            return None
        mapped = map_together([self.folder / self._node.file(number) for number in numbers], self._node.chunk_bytes)
        return None if mapped is None else self._as_rows(mapped, len(numbers) * self.chunk_rows)[: len(self)]

    def _chunk(self, number: int) -> np.ndarray | None:
        if number not in self._chunks:
            self._chunks[number] = self._open(number)
        return self._chunks[number]

    def _open(self, number: int) -> np.ndarray | None:
        name = f"{self.folder.name}/{self._node.file(number)}"
        if self._vouchers is not None and name not in self._vouchers:
            return None
        if not self._node.raw:
            return self._through_zarr(number)
        path = self.folder.parent / name
        try:
            file = np.memmap(path, np.uint8, mode="r")
        except (FileNotFoundError, ValueError) as error:  # ValueError: the file is empty
            if self._vouchers is None and isinstance(error, FileNotFoundError):
                return None
            raise DamagedStore(f"'{path}' is missing or empty") from error
        if file.size != self._node.chunk_bytes + CRC_BYTES:
            raise DamagedStore(f"'{path}' is {file.size} bytes, not {self._node.chunk_bytes + CRC_BYTES}")
        if not self._is_vouched_for(name, file[-CRC_BYTES:].tobytes().hex()):
            raise DamagedStore(f"'{path}' is not the chunk its receipt vouches for")
        return self._as_rows(file[:-CRC_BYTES], self.chunk_rows)

    def _is_vouched_for(self, name: str, tail: str) -> bool:
        if self._vouchers is None:
            return True
        known = self._vouchers[name]
        if known["tail"] == tail:
            return True
        now = self._look_again().get(name, {}) if self._look_again else {}
        held = now.get("rows", [])
        # Grown since: fine. Computed anew or dropped since: its rows are not the ones this reader knows of.
        kept = all(any(a <= start and stop <= b for a, b in held) for start, stop in known.get("rows", ()))
        return now.get("tail") == tail and kept

    def _as_rows(self, data: np.ndarray, n_rows: int) -> np.ndarray:
        return data.view(self.dtype.newbyteorder("<"), np.ndarray).reshape(n_rows, *self.shape[1:])

    def _through_zarr(self, number: int) -> np.ndarray:
        import zarr  # 0.7 s: only for an array somebody else wrote or encoded anew

        rows: np.ndarray = zarr.open_array(
            self.folder, mode="r"
        )[  # type: ignore[assignment]
            number * self.chunk_rows : (number + 1) * self.chunk_rows
        ]
        return rows
