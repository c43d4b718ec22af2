"""The only writer of stores, runs and configuration: a file is the old one or the new one, also after a power cut.

Bytes go to a temporary name, are flushed to the disk, and the finished file is renamed over the old one; then
the folder is flushed, because a rename is a change of the folder. A full or read-only disk is `CannotWrite`.
"""

import errno
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.disk import bytes_free, size
from stores.errors import CannotWrite, DamagedStore
from stores.files import open_file
from stores.lost import refuse_lost
from stores.owners import HOST, PROCESSES, is_running
from stores.remote import RemotePath

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "cannot_write",
    "digest",
    "discard",
    "draft_name",
    "drop",
    "flush_folder",
    "is_vacant",
    "json_bytes",
    "make_folder",
    "place",
    "put_bytes",
    "put_json",
    "put_table",
    "remove_file",
    "sweep",
]

DRAFT = ".draft"
_OURS = re.compile(rf"\.(.+)@([^@!]+)!([0-9]{{1,9}})-(?:[0-9a-f]{{8}}-)?[0-9]+{re.escape(DRAFT)}", re.DOTALL)
"""What `draft_name` gives: whose thing it is to be, host and list of processes, process, what no other process draws.

Anything else belongs to somebody else.
"""
PLACE = f"{HOST}.{PROCESSES}"
"""Whose numbers of processes ours are."""
_DRAWN = os.urandom(4).hex()
_ONE_DAY = 86_400.0
_NAME_BYTES = 120
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_THERE = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_BROKEN = {errno.EIO, getattr(errno, "ESTALE", errno.EIO)}
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP}
_OBSTRUCTED = {errno.EISDIR, errno.ENOTDIR}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_numbers = itertools.count()


def digest(source: bytes | Path) -> str:
    """Return the blake2b digest, 16 bytes in hex, of some bytes or of a file.

    Examples
    --------
    >>> digest(b"") == digest(b"") != digest(b"row")
    True
    """
    if isinstance(source, bytes):
        return blake2b(source, digest_size=16).hexdigest()
    state = blake2b(digest_size=16)
    with open_file(source) as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def put_bytes(path: Path, data: bytes, drafts: Path | None = None) -> None:
    """Replace ``path`` by ``data`` in one step that survives a power cut.

    Parameters
    ----------
    path : Path
        The file; missing folders above it are made.
    data : bytes
        Its whole content.
    drafts : Path, optional
        Folder on the same file system for the temporary file, where the file's own folder must stay clean.

    Raises
    ------
    CannotWrite
        If the disk is full, read-only or not ours to write.
    StoreLocked
        If the lock it is written under was lost.
    """
    refuse_lost(path)
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with cannot_write(path, len(data)):
        make_folder(path.parent)
        make_folder(drafts or path.parent)
        draft = (drafts or path.parent) / draft_name(path.name)
        try:
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def put_json(path: Path, value: Any, drafts: Path | None = None) -> None:
    """Replace ``path`` by ``value`` as JSON, the same bytes for the same value."""
    put_bytes(path, json_bytes(value), drafts)


def put_table(path: Path, table: "pa.Table", drafts: Path | None = None) -> None:
    """Replace ``path`` by ``table`` as Parquet."""
    from stores.tables import table_bytes

    put_bytes(path, table_bytes(table), drafts)


def json_bytes(value: Any) -> bytes:
    r"""Return ``value`` as JSON, keys in the order given, NumPy numbers and arrays as plain ones.

    Raises
    ------
    ValueError
        If a number is not finite: JSON has no word for it.

    Examples
    --------
    >>> json_bytes({"rows": [0, 64]})
    b'{\n "rows": [\n  0,\n  64\n ]\n}\n'
    """
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n").encode()


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it, each one on the disk before the next; an object store has none."""
    if isinstance(path, RemotePath) or path.is_dir():
        return
    make_folder(path.parent)
    with cannot_write(path):
        try:
            path.mkdir(exist_ok=True)
        except FileExistsError as error:  # something else has its name
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        except FileNotFoundError as refused:  # in a folder that is there: a file system of its own kind, as /proc
            raise CannotWrite(
                f"no folder can be made in '{path.parent}'", "name a folder you can write to"
            ) from refused
        flush_folder(path.parent)


def place(folder: Path, final: Path, last: str = "zarr.json") -> None:
    """Rename a finished ``folder`` to ``final``, where nothing or an empty folder may be.

    In an object store it is copied, and ``last`` is the object with which it is there.

    Raises
    ------
    FileExistsError
        If something is there already.
    """
    refuse_lost(final)
    if isinstance(final, RemotePath) and isinstance(folder, RemotePath):
        if (final / last).exists():
            raise FileExistsError(final)
        folder.copy(final, last)
        folder.remove()
        return
    with cannot_write(final):
        make_folder(final.parent)
        if not is_vacant(final):
            raise FileExistsError(final)
        if os.name == "nt":  # elsewhere a rename replaces an empty folder in one step
            with suppress(OSError):
                final.rmdir()
        try:
            os.rename(folder, final)
        except OSError as error:
            if error.errno in _THERE:  # another process was there first
                raise FileExistsError(final) from error
            raise
        flush_folder(final.parent)


def is_vacant(path: Path) -> bool:
    """Say whether nothing is at ``path``, or an empty folder.

    Examples
    --------
    >>> is_vacant(Path("nowhere")), is_vacant(Path("/"))
    (True, False)
    """
    if isinstance(path, RemotePath):
        return not (path / "zarr.json").exists()
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return not path.is_symlink()
    except NotADirectoryError:
        return False


def discard(folder: Path, drafts: Path) -> None:
    """Remove ``folder`` and all below it; it is gone in one step, however long the deleting takes."""
    refuse_lost(folder)
    if isinstance(folder, RemotePath):
        folder.remove()
        return
    with cannot_write(folder):
        make_folder(drafts)
        grave = drafts / draft_name(folder.name)
        os.rename(folder, grave)
        flush_folder(folder.parent)
        drop(grave)


def remove_file(path: Path) -> None:
    """Remove a file or a link, if it is there, so that it is gone also after a power cut."""
    refuse_lost(path)
    with cannot_write(path):
        if path.exists() if isinstance(path, RemotePath) else os.path.lexists(path):
            path.unlink()
            flush_folder(path.parent)


def drop(draft: Path) -> None:
    """Delete a draft, file or folder, that nobody needs."""
    if isinstance(draft, RemotePath):
        draft.remove()
        return
    with cannot_write(draft), suppress(FileNotFoundError):  # another process may be sweeping, too
        shutil.rmtree(draft) if draft.is_dir() and not draft.is_symlink() else draft.unlink()


def sweep(drafts: Path, of: str = "") -> None:
    """Remove what dead processes left in ``drafts``; what a live one is writing stays, and what others put there.

    Parameters
    ----------
    drafts : Path
        The folder.
    of : str
        Only drafts of the thing of this name: in a folder that is not ours alone.
    """
    for path in sorted(drafts.glob(f".*{DRAFT}")):
        parts = _OURS.fullmatch(path.name)
        if not parts or (of and parts[1] != _cut(of)):
            continue
        host, pid = parts[2], int(parts[3])
        if host == PLACE:
            abandoned = pid != os.getpid() and not is_running(pid)
        else:
            abandoned = _age(path) > _ONE_DAY
        if abandoned:
            drop(path)


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:  # gone in the meantime
        return 0.0


def draft_name(name: str) -> str:
    """Return a temporary name for ``name`` that says whose it is."""
    return f".{_cut(name)}@{PLACE}!{os.getpid()}-{_DRAWN}-{next(_numbers)}{DRAFT}"


def _cut(name: str) -> str:
    return os.fsencode(name)[:_NAME_BYTES].decode("utf-8", "ignore")


@contextmanager
def cannot_write(path: Path, n_bytes: int = 0) -> Iterator[None]:
    """Turn a full, read-only, forbidden or broken disk into `CannotWrite`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            needed = f"{size(n_bytes)} for " if n_bytes else ""
            free = f" ({size(bytes_free(path))} free)"
            hint = "free some space and run the same command again: nothing committed is lost"
            raise CannotWrite(f"the disk is full: no room for {needed}'{path}'{free}", hint) from error
        if error.errno in _FORBIDDEN:
            reason = "the disk is read-only" if error.errno == errno.EROFS else "permission denied"
            hint = "name a folder you can write to"
            raise CannotWrite(f"cannot write '{path}': {reason}", hint) from error
        if error.errno in _BROKEN:
            hint = "check the disk or the mount and run the same command again: nothing committed is lost"
            raise CannotWrite(f"cannot write '{path}': the disk answers with an input/output error", hint) from error
        if error.errno in _OBSTRUCTED:
            what = f"cannot write '{path}': a folder stands in its place, or a file in the place of a folder"
            raise DamagedStore(what, "move it out of the way, or see what 'embedctl verify .' says of it") from error
        raise


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def flush_folder(folder: Path) -> None:
    """Have what was made, renamed and removed in ``folder`` on the disk."""
    if isinstance(folder, RemotePath) or os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSH:  # some network file systems flush no folders
            raise
    finally:
        os.close(handle)
