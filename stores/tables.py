"""Parquet in and out: images, trials and results.

Reading goes through ``ParquetFile``: ``pyarrow.parquet.read_table`` imports the dataset machinery, which
costs more than all of our tables together.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

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
            batches, n_bytes = [], 0
            for batch in file.iter_batches():  # repeated values weigh nothing in the file
                n_bytes += batch.nbytes
                if n_bytes > MAX_BYTES:
                    raise DamagedStore(f"the table '{path}' unpacks to more than {MAX_BYTES:,} bytes: a bomb")
                batches.append(batch)
            return pa.Table.from_batches(batches, file.schema_arrow)
    except (OSError, pa.ArrowException) as error:
        raise DamagedStore(f"the table '{path}' cannot be read") from error
