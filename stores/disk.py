"""What a disk has to offer: how much room there is, and whether it can be written to at all."""

import os
import shutil
import sys
from pathlib import Path

from stores.errors import CannotWrite
from stores.remote import is_remote

__all__ = ["bytes_free", "check_writable", "flush_disk", "require_room", "size"]


def bytes_free(path: Path) -> int:
    """Return the bytes that are free where ``path`` is, or will be: in an object store more than can be counted.

    Examples
    --------
    >>> bytes_free(Path("nowhere/yet")) > 0
    True
    """
    return sys.maxsize if is_remote(path) else shutil.disk_usage(_there(path)).free


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written, before anything is computed for it.

    Where ``path`` is not there yet, it is tried whether a folder can be made beside it.

    Raises
    ------
    CannotWrite
        If its disk is mounted read-only, or no folder can be made.
    """
    if is_remote(path) or not hasattr(os, "statvfs"):
        return
    if os.statvfs(_there(path)).f_flag & os.ST_RDONLY:
        raise CannotWrite(f"cannot write '{path}': the disk is read-only", "name a folder you can write to")
    if not path.exists():
        from stores.commits import draft_name, drop, make_folder  # which ask here how much room there is

        draft = _there(path) / draft_name(path.name)
        if not draft.parent.is_dir():
            raise CannotWrite(f"cannot write '{path}': '{draft.parent}' is a file", "name another place")
        make_folder(draft)
        drop(draft)


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


def require_room(path: Path, needed: float, free: float, hint: str) -> None:
    """Refuse a disk with less room than what is to be written to ``path`` takes.

    Raises
    ------
    CannotWrite
        If so.

    Examples
    --------
    >>> require_room(Path("e.zarr"), 300_000, 24_000, "free some space")
    Traceback (most recent call last):
    stores.errors.CannotWrite: 'e.zarr' needs 300.0 kB and 24.0 kB are free
    hint: free some space
    """
    if needed > free:
        raise CannotWrite(f"'{path}' needs {size(needed)} and {size(free)} are free", hint)


def size(n_bytes: float) -> str:
    """Show a number of bytes as people say it.

    Examples
    --------
    >>> size(512), size(3_400_000)
    ('512 B', '3.4 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _there(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
