"""Reading which image each row of an array is of.

Three formats, told apart by the ending: ``.json``, a list of texts; ``.csv``, a table whose header names a column
``image`` or ``id``; anything else is text with one id per line. An id is the image's path below the image folder,
``/``-separated.
"""

import csv
import io
import json
from pathlib import Path

from stores.errors import EmbedctlError
from stores.files import read_file

__all__ = ["read_ids"]

COLUMNS = ("image", "id")


def read_ids(path: Path) -> list[str]:
    r"""Return the ids in the order of the file.

    Raises
    ------
    EmbedctlError
        If there is no such file, it is not in its format, or an id is empty.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ids.csv"
    ...     _ = path.write_text("row,image\n0,a.jpg\n1,b.jpg\n")
    ...     read_ids(path)
    ['a.jpg', 'b.jpg']
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise EmbedctlError(f"'{path}' is no text in UTF-8", "save the list of ids as UTF-8") from problem
    except OSError as problem:
        raise EmbedctlError(
            f"'{path}' cannot be read: {problem.strerror or problem}", "name the list of image ids with --ids"
        ) from problem
    read = {".json": _json, ".csv": _csv}.get(path.suffix.lower(), _lines)
    ids = read(path, text)
    if not ids:
        raise EmbedctlError(f"'{path}' lists no image", "one id per row of the array, in its order")
    if "" in ids:
        raise EmbedctlError(f"'{path}': number {ids.index('') + 1} of its ids is empty", "give every row its image")
    return ids


def _lines(path: Path, text: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # splitlines() cuts at characters names may have
    return lines[:-1] if lines[-1] == "" else lines


def _json(path: Path, text: str) -> list[str]:
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise EmbedctlError(f"'{path}' is not JSON: {problem}", "write a list of texts") from problem
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise EmbedctlError(f"'{path}' is not a list of texts", 'write ["a.jpg", "b.jpg", ...]')
    return ids


def _csv(path: Path, text: str) -> list[str]:
    try:
        header, *rows = csv.reader(io.StringIO(text)) if text else [[]]
    except csv.Error as problem:
        raise EmbedctlError(f"'{path}' is not CSV: {problem}", "commas between columns, one line per row") from problem
    column = next((name for name in COLUMNS if name in header), None)
    if column is None:
        raise EmbedctlError(
            f"'{path}' has no column 'image' or 'id', only {', '.join(header) or 'nothing'}",
            "name the column of ids in the first line",
        )
    at = header.index(column)
    return [row[at] if at < len(row) else "" for row in rows]
