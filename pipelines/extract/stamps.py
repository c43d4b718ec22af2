"""What every source of images agrees on: which names are images, how large one may be, when one is unchanged."""

import os
from typing import NamedTuple

__all__ = ["MAX_BYTES", "SUFFIXES", "Stamp", "is_image"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MAX_BYTES = 1 << 29  # no picture of 50 million pixels is larger, and one file must not fill the memory


class Stamp(NamedTuple):
    """Size and time of a file: as long as both stay, its content is taken to be the same."""

    bytes: int
    mtime_ns: int


def is_image(name: str) -> bool:
    """Say whether a file of this name counts as an image.

    Examples
    --------
    >>> [is_image(name) for name in ("a.JPG", "._a.jpg", "a.txt")]
    [True, False, False]
    """
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
