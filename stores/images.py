"""The image table: what is known of each image file, one row per row of the store."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from stores.errors import DamagedStore, EmbedctlError
from stores.tables import read_table, table_bytes

__all__ = ["ImageRecord", "check_ids", "image_table_bytes", "read_image_table"]


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


def image_table_bytes(records: Iterable[ImageRecord]) -> bytes:
    """Return the records as a Parquet file.

    Examples
    --------
    >>> image_table_bytes([ImageRecord("a.jpg", "00", 1, 2, 3, 4, "RGB")])[:4]
    b'PAR1'
    """
    import pyarrow as pa

    # Column by column: written once per block, and ten times as fast as a dictionary per image.
    rows, types = list(records), {int: pa.int64(), str: pa.string()}
    columns = {
        field.name: pa.array([getattr(row, field.name) for row in rows], types[field.type])  # type: ignore[index]
        for field in fields(ImageRecord)
    }
    return table_bytes(pa.table(columns))


def read_image_table(path: Path) -> dict[str, ImageRecord]:
    """Read the records by image id; none where there is no table yet.

    Raises
    ------
    DamagedStore
        If the table is not one of ours.
    """
    if not path.exists():
        return {}
    try:
        table = read_table(path)
        columns = [table[field.name].to_pylist() for field in fields(ImageRecord)]
        return {row[0]: ImageRecord(*row) for row in zip(*columns, strict=True)}
    except (TypeError, KeyError) as error:
        raise DamagedStore(
            f"'{path}' is not a table of images", "remove the store, and run embedctl extract again"
        ) from error


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
