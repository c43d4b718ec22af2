"""Map many files of equal size into one stretch of memory, so that an array in chunks is one NumPy array.

Gathering rows from one array is twice as fast as gathering them chunk by chunk (measured). Python's ``mmap``
cannot choose an address, so this calls the C library; where that is not possible the reader gathers by chunk.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["map_together"]

_FIXED = 0x10  # MAP_FIXED: the same number on Linux and macOS
_FAILED = ctypes.c_void_p(-1).value
_SUPPORTED = sys.platform in ("linux", "darwin") and sys.maxsize > 2**32


class _Mapping:
    """Owns the stretch of memory; the arrays over it keep it alive and its end unmaps it."""

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._length = size * len(files)
        # Reserve the whole stretch first, so that nothing else can settle between two files.
        self._address = self._map(None, self._length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        for number, file in enumerate(files):
            handle = os.open(file, os.O_RDONLY)
            try:
                if os.fstat(handle).st_size < size:  # reading beyond the end of a file would kill the process
                    raise OSError(f"'{file}' is too short to be mapped")
                self._map(self._address + number * size, size, mmap.MAP_SHARED | _FIXED, handle)
            finally:
                os.close(handle)
        self.__array_interface__ = {
            "version": 3,
            "shape": (self._length,),
            "typestr": "|u1",
            "data": (self._address, True),
        }

    def _map(self, address: int | None, length: int, flags: int, handle: int) -> int:
        found: int | None = self._libc.mmap(address, length, mmap.PROT_READ, flags, handle, 0)
        if found is None or found == _FAILED:
            raise OSError(ctypes.get_errno(), "mmap failed")
        return found

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            self._libc.munmap(self._address, self._length)


def map_together(files: Sequence[Path], size: int) -> np.ndarray | None:
    """Return the first ``size`` bytes of each file as one read-only array, or None where that cannot be done.

    Parameters
    ----------
    files : sequence of Path
        In order.
    size : int
        Bytes to map of each; must be a multiple of a memory page.

    Returns
    -------
    (len(files) * size,) uint8 or None
    """
    if not _SUPPORTED or not files or not size or size % mmap.PAGESIZE:
        return None
    try:
        return np.asarray(_Mapping(files, size))
    except OSError:  # too many mappings, or a file system that cannot map
        return None
