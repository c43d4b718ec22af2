"""Reading a file that a stranger may have put there: never a pipe, a device, or more than there is a use for."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from stores.remote import RemotePath

__all__ = ["MOST", "NotAFile", "open_file", "read_file"]

MOST = 1 << 28
"""Bytes of what is read whole: metadata of a thousand embeddings, ids of a million images."""
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotAFile(OSError):
    """A pipe, a socket or a device."""


def open_file(path: Path | str) -> BinaryIO:
    """Open a file for reading; what is no file is an error, where it could block for ever or never end.

    Raises
    ------
    OSError
        If there is none, or it is a folder, a pipe, a socket or a device.

    Examples
    --------
    >>> open_file("/dev/null")
    Traceback (most recent call last):
    stores.files.NotAFile: [Errno 22] it is no file: '/dev/null'
    """
    return path.open() if isinstance(path, RemotePath) else os.fdopen(_open(path), "rb")


def read_file(path: Path | str, at_most: int = MOST) -> bytes:
    """Return what is in a file.

    Raises
    ------
    OSError
        As `open_file`, or if it holds more than ``at_most`` bytes.
    """
    if isinstance(path, RemotePath):
        return path.read_bytes()
    handle = _open(path)
    try:  # by hand: a store opens by reading hundreds of files
        size = os.fstat(handle).st_size
        data = os.read(handle, size + 1) if size <= at_most else b""
        while len(data) <= at_most and (more := os.read(handle, 1 << 20)):
            data += more
    finally:
        os.close(handle)
    if max(size, len(data)) > at_most:
        raise OSError(errno.EFBIG, f"it holds more than {at_most:,} bytes", str(path))
    return data


def _open(path: Path | str) -> int:
    handle = os.open(path, _FLAGS)
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return handle
    os.close(handle)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotAFile(errno.EINVAL, "it is no file", str(path))
