"""The header of a ``.npy`` file, which anyone can write: what it says its array is, or an error of one kind."""

import io
import math
import sys
from typing import IO, Any

import numpy as np

__all__ = ["read_header"]

_LONGEST, _MOST_AXES = 1 << 16, 32


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and number type that a ``.npy`` file says its array has, and how many bytes that takes.

    The header is 64 kB at most, and ``file`` is left behind it. Fields, and version 3 for their names, are refused: no
    array of ours has any.

    Raises
    ------
    ValueError
        If it says neither, or what no array can be, or says it at more length.

    Examples
    --------
    >>> sink = io.BytesIO()
    >>> np.save(sink, np.ones((3, 2), np.float32))
    >>> read_header(io.BytesIO(sink.getvalue()))
    ((3, 2), dtype('float32'), 24)
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    size = file.read(2 if version == (1, 0) else 4)  # NumPy would ask for as much memory as is said here
    if int.from_bytes(size, "little") > _LONGEST:
        raise ValueError("a header without end")
    header = io.BytesIO(size + file.read(int.from_bytes(size, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(header)
    except Exception as problem:  # NumPy tokenizes, parses and evaluates it: each fails in its own ways
        raise ValueError(f"a header that is none: {type(problem).__name__}") from problem
    if dtype.names or dtype.subdtype:
        raise ValueError("an array of arrays")
    # NumPy takes any int for a size, and bool is one.
    if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n <= sys.maxsize for n in shape):
        raise ValueError("a shape that is none")
    return shape, dtype, math.prod(shape) * dtype.itemsize
