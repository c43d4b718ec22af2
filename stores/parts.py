"""Several writers of one store, each the only one of its part.

Part ``I/N`` is every N-th block from block I on: that stays so when images are added, and parts of different N overlap
just when they share a block number. Who holds a part writes its blocks without asking anybody. What the parts share
(the image table, the groups, the root) is written under the store's own lock, which then is held for a moment; whoever
wants the whole store holds that lock throughout, and gets it only while no part is taken.
"""

import re
from dataclasses import dataclass
from math import gcd

from stores.errors import EmbedctlError, StoreLocked
from stores.locks import of_living
from stores.roots import Root

__all__ = ["WHOLE", "Part", "refuse_beside"]


@dataclass(frozen=True, slots=True)
class Part:
    """Every ``of``-th block of a store, from block ``number`` on.

    Examples
    --------
    >>> [block for block in range(8) if block in Part(1, 3)]
    [1, 4, 7]
    >>> Part(0, 2).overlaps(Part(1, 2)), Part(0, 2).overlaps(Part(1, 3)), Part(1, 2).overlaps(Part(2, 4))
    (False, True, False)
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read ``I/N``.

        Raises
        ------
        EmbedctlError
            If it is not that, or I is not below N.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
        part = cls(*map(int, found.groups())) if found else None
        if part is None or part.number >= part.of:
            raise EmbedctlError(f"no shard called '{text}'", "I/N with I from 0 to N - 1: embedctl extract --shard 0/4")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def __contains__(self, block: int) -> bool:
        return block % self.of == self.number

    def overlaps(self, other: "Part") -> bool:
        """Say whether there is a block in both."""
        return (self.number - other.number) % gcd(self.of, other.of) == 0

    @property
    def lock(self) -> str:
        """Name of its lock."""
        return f"part-{self.number}-of-{self.of}"


WHOLE = Part(0, 1)
"""All blocks: a part that overlaps with every other."""


def refuse_beside(root: Root, part: Part) -> None:
    """Refuse ``part`` while a live process holds one that shares blocks with it.

    Raises
    ------
    StoreLocked
        Naming the process.
    """
    for name, whom in of_living(root.locks, "part-*-of-*").items():
        named = re.fullmatch(r"part-(\d{1,9})-of-(\d{1,9})", name, re.ASCII)
        if named is None or not int(named[2]):
            continue
        other = Part(int(named[1]), int(named[2]))
        if part.overlaps(other):
            hint = f"wait until it is done; if it is gone for good, delete '{root.locks / name}.lock'"
            raise StoreLocked(f"{whom} is writing '{root.path}' (shard {other})", hint)
