"""Memory-map the arrays inside a pickled dictionary, ``.npy`` or bare, without unpickling it.

Two things are called ``.npy`` in this field: ``numpy.save`` of a dictionary (a NumPy header, then a
pickle) and a bare pickle. In both, each array is one run of bytes, so a 2.8 GB session opens in
milliseconds and nothing in the file can run. See `pipelines.preprocess.pickle_walk`.
"""

import math
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.impostors import opened, refuse_impostor
from pipelines.preprocess.pickle_walk import (
    ArrayRecord,
    Bytes,
    DtypeRecord,
    ForeignGlobals,
    MalformedPickle,
    ScalarRecord,
    ShortPickle,
    walk,
)
from stores.errors import BadRecording

__all__ = ["map_pickled"]

_CODE = re.compile(r"[biufcSU]\d+|\?|O8?")
_MAX_DEPTH = 20
_MAX_AXES = 64  # NumPy's own
_MAX_WEIGHT = 1 << 26


def map_pickled(path: Path) -> dict[str, Any]:
    """Return the dictionary pickled in ``path``, its arrays mapped from the file, read-only.

    Parameters
    ----------
    path : Path
        ``numpy.save`` of a dictionary, or a bare pickle of one (protocols 2 to 5).

    Returns
    -------
    dict
        Numeric and text arrays as read-only views of one `numpy.memmap` (not necessarily aligned:
        copy a block before computing on it); lists, text and numbers as they are.

    Raises
    ------
    BadRecording
        If the file is missing, truncated, a web page or a Git LFS pointer, holds no dictionary,
        or names a function that a dictionary of arrays does not need. Nothing is ever called.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "raw.npy"
    >>> np.save(path, {"raw_eeg_data": np.eye(3), "sfreq": 1000})
    >>> raw = map_pickled(path)
    >>> raw["raw_eeg_data"].shape, raw["sfreq"], raw["raw_eeg_data"].flags.writeable
    ((3, 3), 1000, False)
    """
    with opened(path) as file:
        size = path.stat().st_size
        head = file.read(512)
        start = _pickle_start(path, head)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        found = walk(data, start)
    except ForeignGlobals as problem:
        if set(problem.names) == {"_codecs.encode"}:
            raise BadRecording(
                f"{path} is a pickle of protocol 2 or older, which stores arrays as text",
                "save it again with pickle protocol 4",
            ) from None
        raise BadRecording(
            f"{path} is a pickle that wants to call {problem}",
            "a recording needs NumPy arrays, lists, text and numbers only: ask where this file comes from",
        ) from None
    except ShortPickle as problem:
        have, need = _gigabytes(size, problem.needed)
        raise BadRecording(f"{path} is truncated: have {have} of {need}", "download it again") from None
    except MalformedPickle as problem:
        raise BadRecording(
            f"{path} does not hold a dictionary of arrays: {problem}",
            "expected numpy.save of a dictionary, or a pickle of one, in protocol 3, 4 or 5",
        ) from None
    finally:
        data.close()
    try:
        return _resolve_top(path, found)
    except (MalformedPickle, TypeError, ValueError, OverflowError, MemoryError) as problem:  # types, shapes and sizes
        raise BadRecording(
            f"{path} does not hold a dictionary of arrays: {problem}", "download it again, or convert it with NumPy"
        ) from None


def _pickle_start(path: Path, head: bytes) -> int:
    """Return where the pickle begins, or say what the file is instead."""
    refuse_impostor(path, head)
    if not head.startswith(b"\x93NUMPY"):
        return 0
    long = head[6] > 1  # versions 2 and 3 of the format count the header in four bytes
    end = (12 if long else 10) + int.from_bytes(head[8 : 12 if long else 10], "little")
    if b"'|O'" not in head[:end] and b"'O'" not in head[:end]:
        raise BadRecording(
            f"{path} holds one plain array, not a dictionary",
            "this is another file of the data set: raw recordings are dictionaries",
        )
    return end


def _gigabytes(have: int, need: int) -> tuple[str, str]:
    """Write two sizes in the unit of the larger one."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if need >= scale:
            return f"{have / scale:.3g}", f"{need / scale:.3g} {unit}"
    return str(have), f"{need} bytes"


def _resolve_top(path: Path, found: Any) -> dict[str, Any]:
    whole = np.memmap(path, np.uint8, mode="r")
    if isinstance(found, ArrayRecord) and found.shape == () and isinstance(found.content, list) and found.content:
        found = found.content[0]  # numpy.save wraps a dictionary in a 0-d array
    if not isinstance(found, dict):
        raise MalformedPickle(f"it holds {'an array' if isinstance(found, ArrayRecord) else type(found).__name__}")
    _weigh(found, {}, 0)
    return _resolve(whole, found, {}, 0)


def _weigh(value: Any, known: dict[int, int], depth: int) -> int:
    """Return items and letters of what is described, shared parts counted each time: who reads it unfolds it."""
    if isinstance(value, str):
        return 1 + len(value)
    if isinstance(value, ArrayRecord):
        value = value.content
    if not isinstance(value, dict | list | tuple):
        return 1
    if depth > _MAX_DEPTH:
        raise MalformedPickle("containers nested too deeply")
    if id(value) not in known:
        known[id(value)] = _MAX_WEIGHT  # until it is known: one that holds itself has no end
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_weigh(part, known, depth + 1) for part in parts)
    if known[id(value)] >= _MAX_WEIGHT:
        raise MalformedPickle("containers that share their parts so often that nobody can read them out")
    return known[id(value)]


def _resolve(whole: np.memmap, value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Replace records by arrays, each container once: shared parts must not be copied apart."""
    if id(value) in seen:
        return seen[id(value)]
    if depth > _MAX_DEPTH:
        raise MalformedPickle("containers nested too deeply")
    result: Any
    if isinstance(value, ArrayRecord):
        result = _array(whole, value, seen, depth)
    elif isinstance(value, ScalarRecord):
        result = _view(whole, value.content, _dtype(value.dtype), ())[()]
    elif isinstance(value, Bytes):
        result = whole[value.offset : value.offset + value.length].tobytes()
    elif isinstance(value, dict):
        result = seen[id(value)] = {}
        result.update((key, _resolve(whole, item, seen, depth + 1)) for key, item in value.items())
    elif isinstance(value, list):
        result = seen[id(value)] = []
        result.extend(_resolve(whole, item, seen, depth + 1) for item in value)
    elif isinstance(value, tuple):
        result = tuple(_resolve(whole, item, seen, depth + 1) for item in value)
    elif value is None or isinstance(value, str | int | float):
        return value
    else:
        raise MalformedPickle(f"it holds a {type(value).__name__}")
    seen[id(value)] = result
    return result


def _dtype(record: Any) -> np.dtype:
    if not isinstance(record, DtypeRecord) or not _CODE.fullmatch(record.code):
        raise MalformedPickle(f"an array of type {getattr(record, 'code', 'unknown')[:80]!r}")
    dtype = np.dtype(record.code)
    if record.order == "<":
        return dtype.newbyteorder("<")
    return dtype.newbyteorder(">") if record.order == ">" else dtype


def _array(whole: np.memmap, record: ArrayRecord, seen: dict[int, Any], depth: int) -> np.ndarray:
    dtype, shape = _dtype(record.dtype), record.shape
    if not isinstance(shape, tuple) or len(shape) > _MAX_AXES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise MalformedPickle("an array whose shape is no tuple of sizes")
    if dtype.hasobject:
        if not isinstance(record.content, list) or len(record.content) != math.prod(shape):
            raise MalformedPickle("an array of objects without its objects")
        flat = np.empty(len(record.content), object)
        flat[:] = _resolve(whole, record.content, seen, depth + 1)
        return flat.reshape(shape, order="F" if record.fortran else "C")
    if not isinstance(record.content, Bytes):
        raise MalformedPickle("an array stored as text, as protocol 2 does")
    return _view(whole, record.content, dtype, shape, fortran=record.fortran is True)


def _view(
    whole: np.memmap, content: Bytes, dtype: np.dtype, shape: tuple[int, ...], fortran: bool = False
) -> np.ndarray:
    if math.prod(shape) * dtype.itemsize != content.length:
        raise MalformedPickle(f"an array of shape {shape} and type {dtype} in {content.length} bytes")
    if not content.length:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, buffer=whole, offset=content.offset, order="F" if fortran else "C")
