"""One file against what its receipt says of it, and what is known of a file that is not that."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores.commits import digest
from stores.errors import DamagedStore
from stores.files import open_file
from stores.receipts import read_receipt

__all__ = ["Check", "Damage", "accepted", "fits", "judge"]

Accepted = tuple[Mapping[str, Any] | None, ...]
"""What a file may be by its receipt: one voucher, or of an announced change two. None: it may not be there."""


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written, and what was in it.

    Parameters
    ----------
    file : Path
        The file, or the folder that is gone.
    problem : str
        What is wrong with it.
    kind : {"embeddings", "epochs", "runs"}
        What the store holds.
    store : Path
        The store, or the folder of runs.
    part : str
        ``NAME#KEY`` of an embedding, ``DATASET/sub-NN/SPLIT``, or a run; empty for what belongs to all of them.
    rows : tuple of (int, int)
        Ranges of rows it holds, the end not included; empty where it holds none or all.
    images : tuple of str
        The images of these rows, where their ids can still be read.
    """

    file: Path
    problem: str
    kind: str
    store: Path
    part: str
    rows: tuple[tuple[int, int], ...] = ()
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One file that a receipt vouches for.

    Parameters
    ----------
    file : Path
        The file.
    accepted : tuple
        What it may be.
    receipt : Path
        Who says so.
    name : str
        What the receipt calls it.
    part : str
        As of `Damage`.
    rows : tuple of (int, int)
        As of `Damage`.
    ids : Path, optional
        Array of the ids of these rows.
    """

    file: Path
    accepted: Accepted
    receipt: Path
    name: str
    part: str
    rows: tuple[tuple[int, int], ...] = ()
    ids: Path | None = None


def accepted(receipt: Mapping[str, Any]) -> dict[str, Accepted]:
    """Return, by file, what a receipt accepts, also of a change that was announced and may have been cut short.

    Examples
    --------
    >>> accepted({"files": {"a": {"bytes": 1}}, "next": {"b": {"bytes": 2}}})
    {'a': ({'bytes': 1}, None), 'b': (None, {'bytes': 2})}
    """
    old = receipt["files"]
    new = receipt.get("next", old)
    both = {name: (old.get(name), new.get(name)) for name in {**old, **new}}
    return {name: pair[:1] if pair[0] == pair[1] else pair for name, pair in both.items()}


def judge(check: Check, quick: bool = False) -> str:
    """Return what is wrong with a file, or nothing.

    Parameters
    ----------
    check : Check
        The file and what it must be.
    quick : bool
        Look at its size and its last four bytes alone: finds what is missing, cut short or swapped.
    """
    problem = _problem(check.file, check.accepted, quick)
    if problem:
        try:  # a writer may have put another file in its place since the receipt was read
            now = accepted(read_receipt(check.receipt)).get(check.name, (None,))
        except DamagedStore:
            return problem
        if now != check.accepted:
            return _problem(check.file, now, quick)
    return problem


def fits(file: Path, voucher: Mapping[str, Any]) -> bool:
    """Say whether a file is the one of this very voucher, whatever else its receipt accepts."""
    return not _problem(file, (voucher,), quick=False)


def _problem(file: Path, may_be: Accepted, quick: bool) -> str:
    vouchers = [voucher for voucher in may_be if voucher is not None]
    try:
        with open_file(file) as opened:
            size = opened.seek(0, os.SEEK_END)
            fitting = [voucher for voucher in vouchers if voucher["bytes"] == size]
            opened.seek(-min(size, 4), os.SEEK_END)
            tail = opened.read(4).hex()
        found = "" if quick or not fitting else digest(file)
    except (FileNotFoundError, NotADirectoryError):
        return "" if None in may_be else "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not fitting:
        return f"has {size:,} bytes, not {vouchers[0]['bytes']:,}" if vouchers else "should not be there"
    if all(voucher["tail"] != tail if quick else voucher["blake2b"] != found for voucher in fitting):
        return "is not the file that was written"
    return ""
