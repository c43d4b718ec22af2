"""What stands where a file belongs and is none: a folder, a link that leads to no file, a pipe, a device."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from stores.commits import discard, remove_file
from stores.remote import is_remote

__all__ = ["clear_away", "obstacles"]


def obstacles(store: Path, files: Iterable[Path]) -> list[Path]:
    """Return what stands in the place of these files of a store, or of a folder above one, and cannot be one.

    A link to a file may be one, as git-annex makes them; and a link to a folder above a file is refused elsewhere
    (`stores.inside.refuse_links`), since what it leads to is not ours.

    Examples
    --------
    >>> obstacles(Path("/"), [Path("/dev/null"), Path("/nowhere/at/all")])
    [PosixPath('/dev/null')]
    """
    found: dict[Path, None] = {}
    for file in files if not is_remote(store) else ():
        above = [folder for folder in file.parents if store in folder.parents]
        wrong = next((folder for folder in reversed(above) if os.path.lexists(folder) and not folder.is_dir()), None)
        if wrong is None and not any(folder.is_symlink() for folder in above) and _is_no_file(file):
            wrong = file
        if wrong is not None:
            found[wrong] = None
    return list(found)


def clear_away(found: Iterable[Path], drafts: Path) -> None:
    """Remove obstacles: of a folder all that is in it, of a link the link alone.

    Raises
    ------
    CannotWrite
        If one of them cannot be removed.
    """
    for path in found:
        if path.is_dir() and not path.is_symlink():
            discard(path, drafts)
        else:
            remove_file(path)


def _is_no_file(file: Path) -> bool:
    try:
        kind = os.stat(file).st_mode
    except FileNotFoundError:
        return file.is_symlink()
    except OSError:  # a link in a circle
        return True
    return not stat.S_ISREG(kind)
