"""What a disk has to offer: how much room there is, and whether it can be written to at all."""

import os
import shutil
import sys
from pathlib import Path

from stores.errors import CannotWrite
from stores.remote import is_remote

__all__ = ["bytes_free", "check_writable", "flush_disk"]


def bytes_free(path: Path) -> int:
    """Return the bytes that are free where ``path`` is, or will be: in an object store more than can be counted.

    Examples
    --------
    >>> bytes_free(Path("nowhere/yet")) > 0
    True
    """
    return sys.maxsize if is_remote(path) else shutil.disk_usage(_there(path)).free


def check_writable(path: Path) -> None:
    """Refuse a disk that is read-only where ``path`` is, or will be, before anything is computed for it.

    Raises
    ------
    CannotWrite
        If it is mounted so.
    """
    if is_remote(path) or not hasattr(os, "statvfs"):
        return
    if os.statvfs(_there(path)).f_flag & os.ST_RDONLY:
        raise CannotWrite(f"cannot write '{path}': the disk is read-only", "name a folder you can write to")


def flush_disk(folder: Path) -> None:
    """Have all on the disk that any process has written to the file system of ``folder``.

    A process that was killed between a rename and its flush leaves a name that is there for everybody, and gone after
    a power cut: before anybody builds on it, it must be flushed.
    """
    if os.name == "nt":
        return
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # not Linux
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(handle)


def _there(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
