"""How much room there is on a disk, for a folder that may have to be made yet."""

import shutil
import sys
from pathlib import Path

from stores.remote import is_remote

__all__ = ["bytes_free"]


def bytes_free(path: Path) -> int:
    """Return the bytes that are free where ``path`` is, or will be: in an object store more than can be counted.

    Examples
    --------
    >>> bytes_free(Path("nowhere/yet")) > 0
    True
    """
    if is_remote(path):
        return sys.maxsize
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
