"""Read rows of a plain Zarr array by memory map: as fast as a NumPy memmap, without the zarr library.

Every chunk file is checked when it is first touched: its size, and its checksum's four bytes against the receipt
where there is one. So a missing, truncated, stale or swapped chunk is an error and never numbers (a flipped bit is
found by ``verify``, which reads every byte).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import DamagedStore
from stores.layout import CRC_BYTES, read_array

__all__ = ["RawRows"]


class RawRows:
    """The rows of one array, read from its chunk files.

    Parameters
    ----------
    folder : Path
        The array's folder.
    vouchers : mapping of str to mapping, optional
        What the receipts say about the chunk files, by their path below ``folder``. Without it every chunk
        file that exists is read; a chunk without file reads as the array's fill value.

    Raises
    ------
    DamagedStore
        If ``folder`` holds no array.
    """

    def __init__(self, folder: Path, vouchers: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = folder
        self._node = read_array(folder)
        self._vouchers = vouchers
        self._chunks: dict[int, np.ndarray | None] = {}

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
        size = self._node.chunks[0]
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
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"row {rows.max()} or {rows.min()} is out of range: there are {len(self)} rows")
        chunks, within = np.divmod(np.where(rows < 0, rows + len(self), rows), self._node.chunks[0])
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(chunks, kind="stable")
        numbers, starts = np.unique(chunks[order], return_index=True)
        for number, here in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            chunk = self._chunk(number)
            out[here] = self._node.fill if chunk is None else chunk[within[here]]
        return out

    def _chunk(self, number: int) -> np.ndarray | None:
        if number not in self._chunks:
            self._chunks[number] = self._open(number)
        return self._chunks[number]

    def _open(self, number: int) -> np.ndarray | None:
        name = self._node.file(number)
        if self._vouchers is not None and name not in self._vouchers:
            return None
        if not self._node.raw:
            return self._through_zarr(number)
        path = self.folder / name
        try:
            file = np.memmap(path, np.uint8, mode="r")
        except (FileNotFoundError, ValueError) as error:  # ValueError: the file is empty
            if self._vouchers is None and isinstance(error, FileNotFoundError):
                return None
            raise DamagedStore(f"'{path}' is missing or empty", _HINT) from error
        if file.size != self._node.chunk_bytes + CRC_BYTES:
            raise DamagedStore(f"'{path}' is {file.size} bytes, not {self._node.chunk_bytes + CRC_BYTES}", _HINT)
        if self._vouchers is not None and file[-CRC_BYTES:].tobytes().hex() != self._vouchers[name]["tail"]:
            raise DamagedStore(f"'{path}' is not the chunk its receipt vouches for", _HINT)
        rows = np.frombuffer(file, self.dtype.newbyteorder("<"), count=self._node.chunk_bytes // self.dtype.itemsize)
        return rows.reshape(self._node.chunks)

    def _through_zarr(self, number: int) -> np.ndarray:
        import zarr  # 0.7 s: only for an array somebody else wrote or re-encoded

        size = self._node.chunks[0]
        rows: np.ndarray = zarr.open_array(self.folder, mode="r")[number * size : (number + 1) * size]  # type: ignore
        return rows


_HINT = "run: embedctl verify, then embedctl repair"
