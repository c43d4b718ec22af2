"""Reading of what may be a stranger's: a regular file of a size that is told before, or an error at once.

In a store that came from elsewhere anything can lie under the name of a file: a pipe, of which the reading never ends,
or a link to a device that has no end. Opening either can do harm already, so it is looked at before.
"""

import errno
import os
import stat
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from stores.remote import RemotePath

__all__ = ["MOST", "open_file", "read_file", "read_text"]

MOST = 1 << 28
"""Bytes of the largest file that is read whole without anybody vouching for its size: metadata of 30,000 embeddings."""
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_file(path: Path | str) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raises
    ------
    OSError
        If it is anything else: a pipe, a device, a socket.

    Examples
    --------
    >>> open_file("/dev/null")
    Traceback (most recent call last):
    OSError: [Errno 22] not a regular file: '/dev/null'
    """
    if isinstance(path, RemotePath):
        return BytesIO(path.read_bytes())
    return os.fdopen(_open(path), "rb")


def read_file(path: Path | str, at_most: int = MOST) -> bytes:
    """Return the content of a regular file of ``at_most`` so many bytes; raises as `open_file`, or if it is larger.

    Examples
    --------
    >>> read_file(__file__, at_most=3)
    Traceback (most recent call last):
    OSError: [Errno 27] ...
    """
    if isinstance(path, RemotePath):
        return path.read_bytes()
    handle = _open(path)
    try:
        size, pieces = 0, []
        if os.fstat(handle).st_size <= at_most:
            while size <= at_most and (piece := os.read(handle, min(at_most + 1 - size, 1 << 30))):
                pieces.append(piece)
                size += len(piece)
            if size <= at_most:
                return b"".join(pieces)
        raise OSError(errno.EFBIG, f"over {at_most:,} bytes", str(path))
    finally:
        os.close(handle)


def read_text(path: Path | str) -> str:
    """Return a file of UTF-8 text; raises as `read_file`."""
    return read_file(path).decode("utf-8")


def _open(path: Path | str) -> int:
    _refuse(os.stat(path).st_mode, path)
    handle = os.open(path, _FLAGS)
    try:
        _refuse(os.fstat(handle).st_mode, path)  # another may have come in its place
    except OSError:
        os.close(handle)
        raise
    return handle


def _refuse(mode: int, path: Path | str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
