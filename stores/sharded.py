"""Read rows of an array of shards, one chunk at a time: for object stores, where nothing is mapped.

Every chunk is compared with its own checksum and with the one in the receipt: a flipped bit, a stale shard or one in
another's place is an error and never numbers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from stores.array_rows import ArrayRows
from stores.codecs import CRC_BYTES
from stores.errors import DamagedStore, EmbedctlError
from stores.receipts import Vouchers
from stores.remote import read_ranges

__all__ = ["ShardedRows"]


class ShardedRows(ArrayRows):
    """The rows of one array of embeddings, as `stores.rows.RawRows` gives them.

    Parameters
    ----------
    folder : Path
        The array's folder.
    vouchers : dict
        What the receipts say about the shards, by their path below the group that holds the array.
    look_again : callable
        Reads the receipts again: a shard that does not fit may have grown since.
    n_rows : int
        How many rows the reader knows of.
    """

    def __init__(self, folder: Path, vouchers: Vouchers, look_again: Callable[[], Vouchers], n_rows: int) -> None:
        super().__init__(folder, n_rows)
        self._vouchers, self._look_again = vouchers, look_again

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop``, the latter not included."""
        return self.take(np.arange(*slice(start, stop).indices(len(self))))

    def take(self, rows: Any) -> np.ndarray:
        """Return the rows with these indices, in this order; each chunk that holds one is fetched once.

        Raises
        ------
        IndexError
            If an index is out of range.
        DamagedStore
            If a chunk is not the one that was committed.
        """
        rows = self._counted(rows)
        out = np.full((len(rows), *self.shape[1:]), self._node.fill, self.dtype)
        shards = rows // self.chunk_rows
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            chunks, within = np.divmod(rows[here] - shard * self.chunk_rows, self._node.inner)
            for chunk, numbers in self._fetch(shard, np.unique(chunks).tolist()).items():
                mine = chunks == chunk
                out[here[mine]] = numbers[within[mine]]
        return out

    def _fetch(self, shard: int, chunks: list[int]) -> dict[int, np.ndarray]:
        """Return chunks of one shard; none of one that nobody vouches for."""
        name = f"{self.folder.name}/{self._node.file(shard)}"
        if name not in self._vouchers:
            return {}
        shape = (self._node.inner, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize + CRC_BYTES
        path = self.folder.parent / name
        known = self._vouchers[name]
        while True:
            try:
                found = read_ranges(path, [(chunk * size, (chunk + 1) * size) for chunk in chunks])
            except FileNotFoundError as problem:
                raise DamagedStore(f"'{path}' is missing") from problem
            tails = [data[-CRC_BYTES:].hex() for data in found]
            if all(len(data) == size for data in found) and tails == [known["inner"][chunk] for chunk in chunks]:
                break
            now = self._look_again().get(name, {})
            if not now or now == known:
                raise DamagedStore(f"'{path}' is not the shard its receipt vouches for")
            if not all(any(a <= start and stop <= b for a, b in now["rows"]) for start, stop in known["rows"]):
                what = f"'{path}' no longer holds the rows it held when the store was opened"
                raise EmbedctlError(what, "open the store again: another process has changed it")
            known = now
        for data, tail in zip(found, tails, strict=True):
            if google_crc32c.value(data[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little").hex() != tail:
                raise DamagedStore(f"'{path}' holds numbers that do not fit their checksum")
        little = self.dtype.newbyteorder("<")
        numbers = [np.frombuffer(data[:-CRC_BYTES], little).reshape(shape) for data in found]
        return dict(zip(chunks, numbers, strict=True))
