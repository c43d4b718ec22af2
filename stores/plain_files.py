"""Arrays as ``.npy`` with the ids of their rows as ``.json`` lists: what other programs read without us."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stores.commits import digest, json_bytes, put_bytes
from stores.errors import EmbedctlError
from stores.sealed import npy_bytes

__all__ = ["write_plain"]


def write_plain(folder: Path, arrays: Mapping[str, np.ndarray], ids: Mapping[str, Sequence[str]]) -> list[Path]:
    """Write ``NAME.npy`` and ``NAME.json`` into a folder.

    Parameters
    ----------
    folder : Path
        Where; made when missing.
    arrays : mapping of str to array
        The numbers.
    ids : mapping of str to sequence of str
        Lists of ids.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    EmbedctlError
        If one of the files is there already with another content: nothing is written then. What is there as it
        would be written, by a call that was cut short, is left alone.
    CannotWrite
        If the disk is full or read-only.
    """
    files = {folder / f"{name}.npy": npy_bytes(values) for name, values in arrays.items()}
    files |= {folder / f"{name}.json": json_bytes(list(names)) for name, names in ids.items()}
    there = {path for path in files if path.exists()}
    for path in sorted(there):
        if not path.is_file() or digest(path) != digest(files[path]):
            raise EmbedctlError(f"'{path}' is there already", "name another folder with --to, or remove it")
    for path, data in files.items():
        if path not in there:
            put_bytes(path, data)
    return list(files)
