"""What the file systems below a workspace can do, found out by doing it: a store stands and falls with it."""

import mmap
import os
import time
from pathlib import Path

from embedctl.findings import Finding
from stores.commits import cannot_write, draft_name, drop, make_folder, put_bytes, sweep
from stores.disk import bytes_free
from stores.errors import CannotWrite, EmbedctlError
from stores.locks import lock
from stores.remote import is_remote

__all__ = ["folders"]

NETWORK = ("nfs", "nfs4", "lustre", "cifs", "smb3", "fuse.sshfs", "beegfs", "gpfs", "9p")
_ON_NETWORK = "a network file system: a lock of a computer that went down is free after a minute; --shard works"
_FULL = 1e9


def folders(places: dict[str, Path]) -> list[Finding]:
    """Return, for each place in use, its file system, the room there, and whether a store can be kept there.

    It is tried in the folder that holds the place, or will hold it. Files written for this are gone afterwards.
    """
    found = []
    for what, place in places.items():
        if is_remote(place):
            found.append(Finding(f"{what}: {place}", "in an object store, which is not tried out"))
            continue
        folder = _nearest(place.absolute().parent)
        kind, free = _file_system(folder), bytes_free(folder)
        told = [kind, f"{free / 1e9:.1f} GB free"]
        hint = _ON_NETWORK if kind in NETWORK else ""
        if free < _FULL:
            hint = "nearly full: free some space, or name another folder"
        try:
            told.append(_try(folder))
        except CannotWrite as problem:
            told, hint = [*told, "cannot be written"], hint or problem.hint
        except (OSError, EmbedctlError, AssertionError) as problem:
            told.append(f"cannot hold a store: {problem}")
            hint = "name a folder on a local disk"
        found.append(Finding(f"{what}: {place}", ", ".join(filter(None, told)), hint))
    return found


def _try(folder: Path) -> str:
    """Write, flush, rename, lock and map in a draft of ours, and say how long a flushed write took."""
    draft = folder / draft_name("doctor")
    sweep(folder, of="doctor")
    with cannot_write(folder):
        make_folder(draft)
    try:
        file, began = draft / "a", time.monotonic()
        for content in (b"old", b"new"):
            put_bytes(file, content)
        took = (time.monotonic() - began) / 2
        with lock(draft / "locks", "doctor"), open(file, "rb") as opened:
            if mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)[:] != b"new":
                raise OSError("a file that replaced another reads as the other")
        if (draft / "A").exists():
            return f"rename, flush ({1000 * took:.0f} ms), locks and mapping work; capitals make no difference"
        return f"rename, flush ({1000 * took:.0f} ms), locks and mapping work"
    finally:
        drop(draft)


def _nearest(place: Path) -> Path:
    while not place.is_dir():
        place = place.parent
    return place


def _file_system(folder: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    real = Path(os.path.realpath(folder))
    rows = [row.split()[1:3] for row in mounts.read_text().splitlines()]
    over = [(where, kind) for where, kind in rows if real.is_relative_to(where.replace("\\040", " "))]
    return max(over, key=lambda row: len(row[0]))[1] if over else ""
