"""Parquet in and out: images, trials and results.

Reading goes through ``ParquetFile``: ``pyarrow.parquet.read_table`` imports the dataset machinery, which
costs more than all of our tables together.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

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
            facts, schema = file.metadata, file.schema_arrow
            claimed = sum(facts.row_group(n).total_byte_size for n in range(facts.num_row_groups))
            if claimed > MAX_BYTES:
                raise DamagedStore(f"the table '{path}' claims to unpack to {claimed:,} bytes: a bomb")
            if any(pa.types.is_nested(column.type) or pa.types.is_fixed_size_binary(column.type) for column in schema):
                raise DamagedStore(f"the table '{path}' has columns that are neither numbers nor texts")
            texts = [name for n, name in enumerate(schema.names) if file.schema.column(n).physical_type == "BYTE_ARRAY"]
            _measure(path, opened, texts)
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise DamagedStore(f"the table '{path}' cannot be read") from error


def _measure(path: Path, opened: BinaryIO, texts: list[str]) -> None:
    """Refuse a table that unpacks to too much, without unpacking it: a text that is repeated weighs nothing in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_bytes = 0
    for batch in pq.ParquetFile(opened, page_checksum_verification=True, read_dictionary=texts).iter_batches():
        for column in batch.columns:
            n_bytes += column.nbytes
            if isinstance(column, pa.DictionaryArray) and len(column.dictionary):
                wide = np.int64 if column.dictionary.type in (pa.large_string(), pa.large_binary()) else np.int32
                ends = np.frombuffer(column.dictionary.buffers()[1], wide)[: len(column.dictionary) + 1]
                # By hand: Arrow's own `to_numpy` imports pandas.
                rows = np.frombuffer(column.indices.buffers()[1], str(column.indices.type))
                rows = rows[column.indices.offset :][: len(column)].clip(0, len(ends) - 2)
                n_bytes += int(np.diff(ends)[rows].sum(dtype=np.int64))
        if n_bytes > MAX_BYTES:
            raise DamagedStore(f"the table '{path}' unpacks to more than {MAX_BYTES:,} bytes: a bomb")
