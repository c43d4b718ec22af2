"""Places where this process held a lock that another has taken over: it writes nothing more there."""

from pathlib import Path

from stores.errors import StoreLocked

__all__ = ["may_write", "may_write_no_more", "refuse_lost"]

_lost: dict[Path, Path] = {}


def may_write_no_more(lock: Path, place: Path) -> None:
    """Have every write below ``place`` fail from now on: the lock this process held on it is another's by now."""
    _lost[lock] = place


def may_write(lock: Path) -> None:
    """Take that back: this process has the lock anew."""
    _lost.pop(lock, None)


def refuse_lost(path: Path) -> None:
    """Refuse to write below a place whose lock was lost (see `may_write_no_more`).

    Raises
    ------
    StoreLocked
        If it was.
    """
    for place in list(_lost.values()):
        if place in path.parents:
            what = f"another process has taken over '{place}', because this one gave no sign of life for a minute"
            raise StoreLocked(what, "run the same command again: it goes on after what is committed")
