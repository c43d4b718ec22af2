"""The images of an embedding store: which row each has, and what is known of its file.

Ids lie in the root's array ``image``; records in tables beside it, each of as many rows as a chunk of ids.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stores.blocks import block_rows_for
from stores.errors import DamagedStore
from stores.group import string_chunk
from stores.images import ImageRecord, image_table, image_table_bytes, read_image_table, records_of
from stores.receipts import read_vouched
from stores.roots import Root, count_strings, read_strings, string_files
from stores.tables import table_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ImageRows"]

_TABLE = "image/.embedctl/images-{}.parquet"
MOST_ROWS = 1 << 20  # of a block: a hundred times as many as any store is made with


class ImageRows:
    """The images that a store had when it was last looked at.

    Parameters
    ----------
    root : Root
        The store's root.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._metadata = root.private / "metadata.json"
        self.n_images = 0
        self.block_rows = 0

    def look(self, *, is_known: bool) -> None:
        """Look at what is there now; ids that are known stay so as long as there are as many.

        Raises
        ------
        DamagedStore
            If it is not what was written.
        """
        self.block_rows = self._root.attributes().get("block_rows", 0)
        if not (is_known and count_strings(self._root.path / "image") == self.n_images):
            self._forget()
            read_vouched(self._root.path, self._metadata, "image/zarr.json")
            self.n_images = count_strings(self._root.path / "image")
        # Rows of a block are counted, made room for, and divided by.
        if type(self.block_rows) is not int or not bool(self.n_images) <= self.block_rows <= MOST_ROWS:
            raise DamagedStore(f"'{self._root.path}' says that a block has {self.block_rows!r} rows")

    def _forget(self) -> None:
        for name in ("ids", "row_of"):
            self.__dict__.pop(name, None)

    @cached_property
    def ids(self) -> list[str]:
        """The image of each row."""
        # Others may have added images since this store was opened; rows never move, so ours are the first ones.
        return read_strings(self._root.path / "image", self._metadata)[: self.n_images]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """From image id to row."""
        return {image: row for row, image in enumerate(self.ids)}

    def records(self) -> dict[str, ImageRecord]:
        """Return the record of every image, in row order."""
        n_tables = -(-self.n_images // string_chunk(self.block_rows)) if self.n_images else 0
        return {record.id: record for number in range(n_tables) for record in records_of(self._table(number))}

    def _table(self, number: int) -> "pa.Table":
        """Return one table: a row per image."""
        size, path = string_chunk(self.block_rows), self._root.path / _TABLE.format(number)
        if not path.exists():
            raise DamagedStore(f"'{path}' is missing")
        read_vouched(self._root.path, self._metadata, _TABLE.format(number))
        ids = self.ids[number * size : (number + 1) * size]
        table = read_image_table(path).slice(0, len(ids))
        if table["id"].to_pylist() != ids:
            raise DamagedStore(f"'{path}' is not about the images of the store")
        return table

    def add(self, new: Sequence[ImageRecord]) -> None:
        """Give images that are not known the next rows."""
        if not self.n_images:
            self.block_rows = block_rows_for(len(new))
        size, first = string_chunk(self.block_rows), self.n_images // string_chunk(self.block_rows)
        known = records_of(self._table(first)) if self.n_images % size else []
        tables = {
            _TABLE.format(first + at // size): image_table_bytes([*known, *new][at : at + size])
            for at in range(0, len(known) + len(new), size)
        }
        ids = [*self.ids, *(record.id for record in new)]
        attributes = self._root.with_attributes(block_rows=self.block_rows)
        # The ids come last, and of those their number: it is what makes the new rows exist.
        id_files = string_files("image", ids, string_chunk(self.block_rows))
        self._root.change({"zarr.json": attributes, **tables, **id_files})
        self._forget()
        self.n_images, self.ids = len(ids), ids

    def replace(self, records: Sequence[ImageRecord], forget: Callable[[list[int]], None]) -> None:
        """Replace the records of known images, once the rows of those with other content were given to ``forget``.

        Raises
        ------
        ValueError
            If an image is not known.
        """
        unknown = [record.id for record in records if record.id not in self.row_of]
        if unknown:
            raise ValueError(f"these images are not in the store: {unknown[:5]}")
        size, some = string_chunk(self.block_rows), defaultdict[int, list[ImageRecord]](list)
        for record in records:
            some[self.row_of[record.id] // size].append(record)
        files, other = dict[str, bytes](), list[int]()
        for number in sorted(some):  # these tables alone: an extraction comes by after every block
            table, new = self._table(number), some[number]
            places = [self.row_of[record.id] - number * size for record in new]
            for record, known in zip(new, table["sha256"].take(places).to_pylist(), strict=True):
                # A hash that was not known has not changed: rows may have been imported before anybody read the image.
                if known not in ("", record.sha256):
                    other.append(self.row_of[record.id])
            files[_TABLE.format(number)] = table_bytes(_with_rows(table, places, image_table(new)))
        forget(other)  # first: a crash must not leave old numbers under a new hash
        self._root.change(files)


def _with_rows(table: "pa.Table", places: list[int], new: "pa.Table") -> "pa.Table":
    """Return a table with other rows at some places; column by column, for it may have thousands of them."""
    import pyarrow as pa

    order = np.arange(len(table))
    order[places] = len(table) + np.arange(len(new))
    return pa.concat_tables([table, new]).take(order).combine_chunks()
