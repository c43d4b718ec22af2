"""How much room there is on a disk, for a folder that may have to be made yet."""

import shutil
from pathlib import Path

__all__ = ["bytes_free"]


def bytes_free(path: Path) -> int:
    """Return the bytes that are free where ``path`` is, or will be.

    Examples
    --------
    >>> bytes_free(Path("nowhere/yet")) > 0
    True
    """
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
