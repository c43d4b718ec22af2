"""The image table: what is known of each image file, one row per row of the store."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from stores.errors import DamagedStore, EmbedctlError
from stores.tables import read_table, table_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ImageRecord", "check_ids", "image_table", "image_table_bytes", "read_image_table", "records_of"]


@dataclass(frozen=True)
class ImageRecord:
    """One image file.

    Parameters
    ----------
    id : str
        Path below the images folder, ``/``-separated.
    sha256 : str
        Of the file's bytes, in hex.
    bytes : int
        Size of the file.
    mtime_ns : int
        When it was last changed.
    width, height : int
        In pixels; 0 where the file is no image.
    mode : str
        Pillow's word for its colours.
    """

    id: str
    sha256: str
    bytes: int
    mtime_ns: int
    width: int
    height: int
    mode: str


def image_table(records: Iterable[ImageRecord]) -> "pa.Table":
    """Return the records as a table, a column per field.

    Examples
    --------
    >>> image_table([ImageRecord("a.jpg", "00", 1, 2, 3, 4, "RGB")]).num_columns
    7
    """
    import pyarrow as pa

    rows, types = list(records), {int: pa.int64(), str: pa.string()}
    columns = {
        field.name: pa.array([getattr(row, field.name) for row in rows], types[field.type])  # type: ignore[index]
        for field in fields(ImageRecord)
    }
    return pa.table(columns)


def image_table_bytes(records: Iterable[ImageRecord]) -> bytes:
    """Return the records as a Parquet file.

    Examples
    --------
    >>> image_table_bytes([ImageRecord("a.jpg", "00", 1, 2, 3, 4, "RGB")])[:4]
    b'PAR1'
    """
    return table_bytes(image_table(records))


def read_image_table(path: Path) -> "pa.Table":
    """Read a table of images.

    Raises
    ------
    DamagedStore
        If the table is missing or not one of ours.
    """
    table, ours = read_table(path), image_table([]).schema
    if not set(ours) <= set(table.schema):
        raise DamagedStore(f"'{path}' is not a table of images", "remove the store, and run embedctl extract again")
    return table.select(ours.names)


def records_of(table: "pa.Table") -> list[ImageRecord]:
    """Return the records of a table of images.

    Examples
    --------
    >>> records_of(image_table([ImageRecord("a.jpg", "00", 1, 2, 3, 4, "RGB")]))
    [ImageRecord(id='a.jpg', sha256='00', bytes=1, mtime_ns=2, width=3, height=4, mode='RGB')]
    """
    return [ImageRecord(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


def check_ids(ids: Iterable[str]) -> None:
    """Refuse image ids that cannot be kept.

    Raises
    ------
    EmbedctlError
        If an id is not Unicode.
    ValueError
        If an id is empty or comes twice.
    """
    seen = set()
    for text in ids:
        if not text or text in seen:
            raise ValueError(f"the image id {text!r} is empty or comes twice")
        seen.add(text)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EmbedctlError(f"the file name {text!r} is not Unicode", "rename the file") from error
