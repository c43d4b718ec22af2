"""Locks: one writer at a time, and a dead one does not hold up the living.

A lock is a file that names host and process and is touched every few seconds. On the same host the process list
tells whether the owner lives; on another host the age of the last touch does, by the clock of the file system.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stores.commits import cannot_write, draft_name, make_folder, sweep
from stores.errors import StoreLocked
from stores.owners import HOST, is_running, process_started

__all__ = ["lock"]

HEARTBEAT = 5.0
"""Seconds between two touches."""
DEAD_AFTER = 60.0
"""Seconds without a touch after which an owner on another host counts as dead."""


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
        If a live process holds it; names host and process.
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
    _acquire(path, f"'{shown or folder}' ({what})", time.monotonic() + wait)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True, name=f"heartbeat of {path.name}")
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if (_read(path).get("host"), _read(path).get("pid")) == (HOST, os.getpid()):
            path.unlink(missing_ok=True)


def _acquire(path: Path, place: str, deadline: float) -> None:
    while not _create(path):
        owner = _read(path)
        if not _lives(path, owner):
            _bury(path, owner)
        elif time.monotonic() >= deadline:
            where = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
            hint = f"wait until it is done; if it is gone for good, delete '{path}'"
            raise StoreLocked(f"{where} is writing {place}", hint)
        else:
            time.sleep(0.05)


def _create(path: Path) -> bool:
    """Make the lock file, whole, unless there is one."""
    draft = path.with_name(draft_name(path.name))
    owner = {"host": HOST, "pid": os.getpid(), "started": process_started(os.getpid())}
    with cannot_write(path):
        try:
            draft.write_text(json.dumps(owner), encoding="utf-8")
            try:
                os.link(draft, path)  # unlike a rename, this fails where there is a file already
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links: the file is empty for a moment
                return _create_without_link(path, owner)
        finally:
            draft.unlink(missing_ok=True)
    return True


def _create_without_link(path: Path, owner: dict[str, Any]) -> bool:
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(owner, file)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _lives(path: Path, owner: dict[str, Any]) -> bool:
    if owner.get("host") == HOST and os.name != "nt":
        return is_running(int(owner.get("pid", 0)), str(owner.get("started", "")))
    try:
        last_touch = path.stat().st_mtime
    except FileNotFoundError:
        return False
    return _file_system_time(path.parent) - last_touch < DEAD_AFTER


def _file_system_time(folder: Path) -> float:
    """Return the time as the file server sees it: the clocks of two hosts may differ by minutes."""
    probe = folder / draft_name("clock")
    with cannot_write(probe):
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
    return now


def _bury(path: Path, owner: dict[str, Any]) -> None:
    """Take a dead owner's lock away; if another process was faster, give its live lock back."""
    grave = path.with_name(draft_name(path.name))
    with cannot_write(path):
        try:
            os.rename(path, grave)
        except FileNotFoundError:
            return
        if _read(grave) != owner and not path.exists():
            os.rename(grave, path)
        else:
            grave.unlink()


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            os.utime(path)
        except OSError:  # the disk filled up or went away: the writer will find out by itself
            continue
