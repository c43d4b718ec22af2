"""What stands where a file belongs and is none: a folder, a link that leads to no file, a pipe, a device."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from stores.commits import discard, is_vacant, remove_file
from stores.errors import DamagedStore
from stores.remote import is_remote

__all__ = ["clear_away", "in_the_way", "obstacles"]


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


def clear_away(found: Iterable[Path], drafts: Path) -> set[Path]:
    """Remove obstacles, of a link the link alone; return the folders with something in them, which may be anybody's.

    Raises
    ------
    CannotWrite
        If one of them cannot be removed.
    """
    paths = list(found)
    folders = {path for path in paths if path.is_dir() and not path.is_symlink()}
    full = {folder for folder in folders if not is_vacant(folder)}
    for path in paths:
        if path not in full:
            discard(path, drafts) if path in folders else remove_file(path)
    return full


def in_the_way(full: Iterable[Path]) -> DamagedStore:
    """Return what to say of folders that hold something, and stand where files belong.

    Examples
    --------
    >>> print(in_the_way([Path("c/0"), Path("c/1")]))
    'c/0' and 1 more are folders with something in them, where files of ours belong
    """
    first, *others = sorted(full)
    hint = "move it away, and repair again"
    if others:
        what = f"'{first}' and {len(others):,} more are folders with something in them, where files of ours belong"
        return DamagedStore(what, hint.replace("it", "them", 1))
    return DamagedStore(f"'{first}' is a folder with something in it, where a file of ours belongs", hint)


def _is_no_file(file: Path) -> bool:
    try:
        kind = os.stat(file).st_mode
    except FileNotFoundError:
        return file.is_symlink()
    except OSError:  # a link in a circle
        return True
    return not stat.S_ISREG(kind)
