"""Locks: one writer at a time, and a dead one does not hold up the living.

A lock is a file that names host and process and is touched every few seconds. Whether its owner lives, our process list
tells where the owner is in it; of another host, or another container, the age of the last touch does, by the clock of
the file system. An owner that finds its lock taken over writes nothing more there (`stores.lost`).

Why only one process ever wins, however many find the same dead owner at once:

1. A lock file comes into being only where there is none (``link`` and ``open(..., "x")`` fail otherwise), so taking
   a free lock has one winner. It does not change, and holds a token: no two locks ever taken are equal.
2. A lock file is removed only by who holds the *claim* on it: a lock of its own, named after what the lock file says,
   so at most one process holds it (by 1). An owner that gives its lock back needs the claim, too.
3. Who holds the claim looks once more whether the file is still the one it claimed, and the owner still dead. Nobody
   else may remove that file now, so no other can take its place before it is removed, however long that takes: what
   goes is the dead lock and never a live one.
4. A claim whose holder died is taken over like any lock (by a claim on the claim). Who comes late, with a claim on a
   file that was removed long ago, finds another file or none (by the token) and removes nothing.

No step needs more of a file system than that making a name is exclusive; ``flock`` does, and is missing on some. From
host to host "dead" means silent for a minute, so there all this holds for processes that are not held up that long.
"""

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stores.commits import cannot_write, digest, draft_name, flush_folder, make_folder, sweep
from stores.disk import flush_disk
from stores.errors import CannotWrite, EmbedctlError, StoreLocked
from stores.files import NotAFile, read_file
from stores.lost import may_write, may_write_no_more, refuse_lost
from stores.owners import HOST, PROCESSES, is_running, process_started
from stores.remote import RemotePath

__all__ = ["clear_dead", "lock", "of_dead", "of_living"]

HEARTBEAT = 5.0
"""Seconds between two touches."""
DEAD_AFTER = 60.0
"""Seconds without a touch after which an owner on another host counts as dead."""
AHEAD = 3600.0
"""Seconds that a clock may be ahead: what was touched in a farther future, nobody will touch again."""


@contextmanager
def lock(folder: Path, what: str, wait: float = 0.0, shown: Path | None = None) -> Iterator[None]:
    """Hold the lock called ``what`` in ``folder``.

    Parameters
    ----------
    folder : Path
        Where the lock file lies; made when missing.
    what : str
        Name of the thing to write, usable as a file name.
    wait : float
        Seconds to try again while a live process holds it.
    shown : Path, optional
        What to call the place in the message, if not ``folder``.

    Raises
    ------
    StoreLocked
        If a live process holds it, named with its host; or, at the end, if another has taken it over in between.
    CannotWrite
        If the folder is on a full or read-only disk.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> with lock(folder, "store"):
    ...     (folder / "store.lock").exists()
    True
    """
    path = folder / f"{what}.lock"
    make_folder(folder)
    sweep(folder)
    ours = _acquire(path, f"'{shown or folder}' ({what})", time.monotonic() + wait)
    stop = threading.Event()
    place = shown or (folder.parents[1] if folder.parent.name == ".embedctl" else folder)
    may_write(path)
    beat = threading.Thread(target=_beat, args=(path, ours, place, stop), daemon=True, name=f"heartbeat of {path.name}")
    beat.start()
    try:
        with cannot_write(path):  # after a power cut the lock is what tells work that was cut short from damage
            flush_folder(folder)
        _clear_claims(path, ours)
        yield
    finally:
        stop.set()
        beat.join()
        _give_back(path, ours)
    refuse_lost(place / "anything")  # what was written since is beside what another wrote


def of_dead(folder: Path) -> list[Path]:
    """Return the locks in ``folder`` whose owners are dead: each is the sign of a writer that was killed.

    Examples
    --------
    >>> of_dead(Path("nowhere"))
    []
    """
    # Claims as well: a writer that was killed while it gave its lock back leaves nothing but that.
    held = ((path, _content(path)) for path in sorted(folder.glob("*.lock*")))
    try:
        return [path for path, content in held if content is not None and not _lives(path, _owner(content))]
    except CannotWrite:  # what a disk that cannot be written to holds will not be put right either
        return []


def of_living(folder: Path, pattern: str) -> dict[str, str]:
    """Return the locks in ``folder`` that live processes hold and whose names fit ``pattern``, and who holds each.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> with lock(folder, "part-0-of-2"):
    ...     list(of_living(folder, "part-*"))
    ['part-0-of-2']
    """
    found = {}
    for path in sorted(folder.glob(f"{pattern}.lock")):
        content = _content(path)
        if content is not None and _lives(path, owner := _owner(content)):
            found[path.name.removesuffix(".lock")] = _whom(owner)
    return found


def clear_dead(folder: Path) -> None:
    """Remove what dead processes left in a folder of locks."""
    sweep(folder)
    for path in of_dead(folder):
        content = _content(path)
        if content is not None:
            _remove(path, content)


def _acquire(path: Path, place: str, deadline: float) -> bytes:
    """Take the lock, and return what its file says."""
    while (ours := _create(path)) is None:
        found = _content(path)
        if found is None:  # gone in the meantime
            continue
        owner = _owner(found)
        if not _lives(path, owner):
            if not _remove(path, found):
                time.sleep(0.001)  # another process is about to
        elif time.monotonic() >= deadline:
            hint = f"wait until it is done; if it is gone for good, delete '{path}'"
            raise StoreLocked(f"{_whom(owner)} is writing {place}", hint)
        else:
            time.sleep(0.05)
    return ours


def _create(path: Path) -> bytes | None:
    """Make the lock file, whole, and return its content; None if there is one."""
    draft = path.with_name(draft_name(path.name))
    process = {"pid": os.getpid(), "started": process_started(os.getpid())}
    content = json.dumps({"host": HOST, "processes": PROCESSES, **process, "token": uuid.uuid4().hex}).encode()
    if isinstance(path, RemotePath):
        try:
            path.create(content)
        except FileExistsError:
            return content if _is_ours(path, content) else None
        return content
    with cannot_write(path):
        try:
            draft.write_bytes(content)
            try:
                os.link(draft, path)  # unlike a rename, this fails where there is a file already
            except FileExistsError:
                return content if _is_ours(path, content) else None
            except OSError:  # a file system without hard links: the file is empty for a moment
                return content if _create_without_link(path, content) else None
        finally:
            with suppress(OSError):  # else the lock would be there, and nobody know that it is ours
                draft.unlink(missing_ok=True)
    return content


def _remove(path: Path, content: bytes, is_ours: bool = False) -> bool:
    """Remove the lock file that says ``content``, unless it is another one by now or its owner lives after all.

    Returns
    -------
    bool
        False if another process holds the claim on it.
    """
    claim = path.with_name(f"{path.name}.{digest(content)}")
    while _create(claim) is None:
        holder = _content(claim)
        if holder is not None and _lives(claim, _owner(holder)):
            return False
        if holder is not None:
            _remove(claim, holder)
    with cannot_write(path):
        try:
            if _content(path) == content and (is_ours or not _lives(path, _owner(content))):
                if not is_ours and not isinstance(path, RemotePath):  # its owner may have died before it could
                    flush_disk(path.parent)
                path.unlink(missing_ok=True)
        finally:
            claim.unlink(missing_ok=True)
    return True


def _give_back(path: Path, ours: bytes) -> None:
    try:
        _remove(path, ours, is_ours=True)
    except CannotWrite:  # a full disk has no room for a claim, and must not leave the lock behind
        if _content(path) == ours:
            path.unlink(missing_ok=True)


def _clear_claims(path: Path, ours: bytes) -> None:
    """Remove claims on locks of before, whose holders died: while ``path`` is ours they are claims on nothing."""
    for claim in path.parent.glob(f"{path.name}.*"):
        if digest(ours) not in claim.name:
            claim.unlink(missing_ok=True)


def _create_without_link(path: Path, content: bytes) -> bool:
    try:
        file = open(path, "xb", buffering=0)
    except FileExistsError:
        return _is_ours(path, content)
    with file:
        try:
            file.write(content)
        except OSError:  # no room: what nobody can read would be in everybody's way
            path.unlink(missing_ok=True)
            raise
    return True


def _is_ours(path: Path, content: bytes) -> bool:
    """Say whether a name that is taken already is taken by us.

    A request that is sent again because its answer was lost, over NFS or to an object store, finds what it made the
    first time. No two locks are equal.
    """
    return _content(path) == content


def _content(path: Path) -> bytes | None:
    """Return what the lock file says; None where there is none.

    What is no file says nothing, and is somebody's who does not live.

    Raises
    ------
    StoreLocked
        If it is a folder.
    """
    try:
        return read_file(path, at_most=1 << 16)
    except FileNotFoundError:
        return b"" if path.is_symlink() else None
    except IsADirectoryError as error:
        raise StoreLocked(f"'{path}' is a folder, and no lock", "remove it") from error
    except OSError as error:
        if isinstance(error, NotAFile) or error.errno in (errno.EFBIG, errno.ELOOP):
            return b""
        raise


def _owner(content: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) and type(owner.get("pid")) is int and 0 < owner["pid"] < 1 << 31 else {}


def _whom(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"


def _lives(path: Path, owner: dict[str, Any]) -> bool:
    if owner.get("processes") == PROCESSES and os.name != "nt":
        return is_running(owner["pid"], str(owner.get("started", "")))
    try:
        last_touch = path.lstat().st_mtime
    except FileNotFoundError:
        return False
    return -AHEAD < _file_system_time(path.parent) - last_touch < DEAD_AFTER


def _file_system_time(folder: Path) -> float:
    """Return the time as the file server sees it: the clocks of two hosts may differ by minutes."""
    probe = folder / draft_name("clock")
    with cannot_write(probe):
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
    return now


def _beat(path: Path, ours: bytes, place: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            if isinstance(path, RemotePath):
                is_ours = path.renew(ours)  # its time is when it was put
            elif is_ours := _content(path) == ours:
                os.utime(path)
        except (OSError, EmbedctlError):  # the disk filled up, a request failed: the next may not
            continue
        if not is_ours:
            may_write_no_more(path, place)
            return
