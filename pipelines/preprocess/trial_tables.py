"""Read the tables that say what each trial showed: ``.csv``, ``.tsv`` and ``.parquet``, as text that runs nothing."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from pipelines.preprocess.impostors import read_head
from stores.errors import BadRecording, DamagedStore
from stores.tables import read_table

__all__ = ["missing_columns", "number_of", "read_trials"]


def read_trials(path: Path) -> pa.Table:
    """Return a table of trials; in text files every column is text, and ``n/a`` is empty.

    Raises
    ------
    BadRecording
        If it is missing, not such a table, or empty.
    """
    read_head(path)
    try:
        if path.suffix == ".parquet":
            table = read_table(path)
        else:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            with open(path, encoding="utf-8-sig") as file:
                header = file.readline().rstrip("\r\n").split(delimiter)
            names = [name.strip().strip('"') for name in header]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise BadRecording(f"{path} has two columns {twice[0]!r}", "rename or remove one of them")
            table = csv.read_csv(
                path,
                read_options=csv.ReadOptions(column_names=names, skip_rows=1),
                parse_options=csv.ParseOptions(delimiter=delimiter),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), null_values=["", "n/a"], strings_can_be_null=True
                ),
            )
    except (pa.ArrowException, UnicodeDecodeError, DamagedStore) as problem:
        first = str(problem).splitlines()[0]
        raise BadRecording(f"{path} is not a table: {first}", "a header line, then a line per trial") from None
    if not len(table):
        raise BadRecording(f"{path} has no line but its header", "one line per trial")
    return table


def missing_columns(path: Path, table: pa.Table, wanted: Sequence[str]) -> None:
    """Raise `BadRecording` that names every column a table lacks."""
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        raise BadRecording(
            f"{path} lacks the column{'s' if len(absent) > 1 else ''} {', '.join(absent)}",
            f"it has {', '.join(table.column_names)}: rename the right one, or download it again",
        )


def number_of(text: str, prefix: str) -> int | None:
    """Return the number in ``3``, ``03``, ``3.0`` or ``PREFIX-03``; None where there is none.

    Examples
    --------
    >>> number_of("sub-03", "sub"), number_of("7", "sub"), number_of("7.0", "ses"), number_of("x", "ses")
    (3, 7, 7, None)
    """
    found = re.fullmatch(rf"(?:{prefix}-?)?(\d+)(?:\.0)?", text.strip())
    return int(found[1]) if found else None
