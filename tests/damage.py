"""Damage done to files of stores and runs, and what ``verify`` finds of it."""

import random
from pathlib import Path

from stores.checks import Damage
from stores.verify import find_places, judged, plan


def damages(place: Path, quick: bool = False) -> list[Damage]:
    """Return what ``verify`` finds in a store, in runs, or in a workspace."""
    return [damage for path, kind in find_places(place) for damage in judged(plan(path, kind), lambda check: quick)]


def flip(file: Path, draw: random.Random | None = None) -> None:
    """Flip a bit: one that is drawn, or always the same."""
    data = bytearray(file.read_bytes())
    place, bit = (draw.randrange(len(data)), draw.randrange(8)) if draw else (len(data) * 2 // 3, 3)
    data[place] ^= 1 << bit
    file.write_bytes(data)


def truncate(file: Path, draw: random.Random | None = None) -> None:
    """Cut a file short: somewhere, or by its last byte."""
    data = file.read_bytes()
    file.write_bytes(data[: draw.randrange(len(data)) if draw else -1])


def delete(file: Path, draw: random.Random | None = None) -> None:
    """Remove a file."""
    file.unlink()


DAMAGE = {"flip": flip, "truncate": truncate, "delete": delete}
