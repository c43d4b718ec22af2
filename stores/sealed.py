"""What lies in the files of a run, which anyone can seal with a digest: read so that it is that, or damage."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import DamagedStore

__all__ = ["TRAIN_AGAIN", "json_of", "npy_bytes", "npy_of"]

TRAIN_AGAIN = "remove the run and train it again"


class _Said(dict[str, Any]):
    """What a file says; to be asked for what it does not say is damage of the file."""

    def __init__(self, content: dict[str, Any], path: Path) -> None:
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise DamagedStore(f"'{self._path}' says nothing of '{key}'", TRAIN_AGAIN)


def json_of(data: bytes, path: Path) -> dict[str, Any]:
    """Return a JSON object; reading a key it lacks is damage, too.

    Raises
    ------
    DamagedStore
        If the file holds anything else.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedStore(f"'{path}' is not JSON", TRAIN_AGAIN) from error
    if not isinstance(content, dict):
        raise DamagedStore(f"'{path}' holds a {type(content).__name__}, not an object", TRAIN_AGAIN)
    return _Said(content, path)


def npy_bytes(values: np.ndarray) -> bytes:
    """Return an array as the content of an ``.npy`` file."""
    sink = io.BytesIO()
    np.save(sink, values, allow_pickle=False)
    return sink.getvalue()


def npy_of(data: bytes, path: Path) -> np.ndarray:
    """Return an array of numbers or texts; a pickle, or a header that claims more than there is, is damage.

    Raises
    ------
    DamagedStore
        If so.

    Examples
    --------
    >>> npy_of(npy_bytes(np.arange(3)), Path("scores.npy")).tolist()
    [0, 1, 2]
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if math.prod(shape) * dtype.itemsize != len(data) - file.tell() or dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"{shape} of {dtype}")
        file.seek(0)
        values: np.ndarray = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, TypeError, MemoryError, RecursionError) as error:
        raise DamagedStore(f"'{path}' is no array that embedctl wrote", TRAIN_AGAIN) from error
    return values
