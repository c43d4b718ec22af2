"""Parquet in and out: images, trials and results.

Reading goes through ``ParquetFile``: ``pyarrow.parquet.read_table`` imports the dataset machinery, which
costs more than all of our tables together.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stores.errors import DamagedStore
from stores.files import open_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MAX_BYTES", "read_table", "table_bytes"]

MAX_BYTES = 1 << 27
"""What a table may unpack to: records of half a million images, the trials of a hundred subjects."""


def table_bytes(table: "pa.Table") -> bytes:
    """Return ``table`` as a Parquet file: the same bytes for the same table and pyarrow version.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table_bytes(pa.table({"id": ["a.jpg"]}))[:4]
    b'PAR1'
    """
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_table(path: Path) -> "pa.Table":
    """Read a Parquet file whole.

    Raises
    ------
    DamagedStore
        If it is missing or is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            claimed = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
            if claimed > MAX_BYTES:
                raise DamagedStore(f"the table '{path}' claims to unpack to {claimed:,} bytes: a bomb")
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
            texts = [field.name for field in schema if pa.types.is_string(field.type)]
            if any(not (pa.types.is_primitive(field.type) or field.name in texts) for field in schema):
                raise DamagedStore(f"the table '{path}' has columns that are neither texts nor numbers")
            if 8 * n_rows * len(schema) > MAX_BYTES:
                raise DamagedStore(f"the table '{path}' claims {n_rows:,} rows: a bomb")
        # A value that is repeated weighs nothing in the file: it is read once, and its repetitions are counted.
        with (
            open_file(path) as opened,
            pq.ParquetFile(opened, page_checksum_verification=True, read_dictionary=texts) as file,
        ):
            table = file.read()
            if _text_bytes(table, texts) > MAX_BYTES:
                raise DamagedStore(f"the table '{path}' unpacks to more than {MAX_BYTES:,} bytes: a bomb")
            return table.cast(schema)
    except (OSError, pa.ArrowException) as error:
        raise DamagedStore(f"the table '{path}' cannot be read") from error


def _text_bytes(table: "pa.Table", names: Sequence[str]) -> int:
    """Return the bytes of the texts of columns that are read as dictionaries, once they are unpacked."""
    total = 0
    for chunk in (chunk for name in names for chunk in table[name].chunks):
        values = chunk.dictionary
        offsets = np.frombuffer(values.buffers()[1] or bytes(4), np.int32)[values.offset :][: len(values) + 1]
        which = chunk.indices.to_numpy(zero_copy_only=False)  # not a number where there is no text
        total += int(np.diff(offsets)[which[~np.isnan(which)].astype(np.intp)].sum())
    return total
