"""How long the rows of a store took: what a dry run tells.

Not part of what is promised, so no receipt vouches for it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from stores.commits import put_json
from stores.files import read_file

__all__ = ["SPEED", "read_speed", "write_speed"]

SPEED = "speed"
"""Name of the file, in the hidden folder of a store's root array."""


def read_speed(hidden: Path) -> dict[str, float]:
    """Return the seconds per image, by group; nothing where nobody knows.

    Examples
    --------
    >>> read_speed(Path("nowhere"))
    {}
    """
    try:
        found = json.loads(read_file(hidden / SPEED))
        return {str(group): float(seconds) for group, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}


def write_speed(hidden: Path, speed: Mapping[str, float], drafts: Path) -> None:
    """Add what a run has measured to what is known."""
    put_json(hidden / SPEED, {**read_speed(hidden), **speed}, drafts)
