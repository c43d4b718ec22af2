"""Receipts: which files a store vouches for, and what they are.

A receipt lies in the ``.embedctl`` folder of an array and speaks of files of the group that holds the array. It
lists them with size, last four bytes (of a chunk: its checksum) and digest, and for a chunk of embeddings the rows
in it. Files come first, then the receipt; a reader trusts only what a receipt vouches for. Files that are *replaced*
are announced: the receipt first holds the old and, under ``next``, the new vouchers, and whoever reads it finds
out from the digests which ones are on the disk. A receipt carries its own digest.
"""

import errno
import json
import platform
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stores.commits import digest, json_bytes, put_bytes, remove_file
from stores.errors import DamagedStore, EmbedctlError
from stores.files import read_file
from stores.owners import HOST
from stores.versions import installed_version

__all__ = [
    "Vouchers",
    "change",
    "check_vouched",
    "finish",
    "is_announced",
    "is_of_a_block",
    "read_receipt",
    "read_vouched",
    "settle",
    "settled",
    "vouch",
    "write_receipt",
]

Vouchers = dict[str, dict[str, Any]]
"""From the path of a file, below the folder the receipt speaks of, to what is vouched for."""

_HEAD = b'{"blake2b": "%s",\n"receipt": '
_HEAD_BYTES = len(_HEAD % bytes(32))


def vouch(data: bytes, **facts: Any) -> dict[str, Any]:
    """Return what a receipt says about one file.

    Examples
    --------
    >>> vouch(b"1234", rows=[[0, 1]])["bytes"], vouch(b"1234")["tail"]
    (4, '31323334')
    """
    return {"bytes": len(data), "tail": data[-4:].hex(), "blake2b": digest(data), **facts}


def change(
    receipt: Path,
    base: Path,
    files: Mapping[str, bytes],
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    drafts: Path | None = None,
    gone: Collection[str] = (),
    announce: bool = False,
) -> Vouchers:
    """Write files and the receipt that vouches for them, so that a crash at any point leaves old or new.

    Parameters
    ----------
    receipt : Path
        The receipt; files it already vouches for stay vouched for.
    base : Path
        The folder the names in ``files`` are below.
    files : mapping of str to bytes
        What to write, in this order. What is vouched for already, byte for byte, is not written again.
    facts : mapping of str to mapping, optional
        What else the receipt says about a file.
    drafts : Path, optional
        Folder for the temporary files, where ``base`` must stay clean.
    gone : collection of str
        Files that are no longer vouched for: they are about to be removed.
    announce : bool
        Whether new files are announced, too: where one without a receipt would be taken for damage.

    Returns
    -------
    dict
        What the receipt vouches for now.

    Raises
    ------
    DamagedStore
        If a file that is to be replaced is not the one that was written: what is known of it cannot be trusted.
    """
    before = settled(base, receipt)
    new = {name: vouch(data, **(facts or {}).get(name, {})) for name, data in files.items()}
    for name in set(new) & set(before):
        old = before[name]["blake2b"]
        if old != new[name]["blake2b"] and _found(base / name) != old:
            raise DamagedStore(f"'{base / name}' is not what its receipt says")
    after = {name: voucher for name, voucher in {**before, **new}.items() if name not in gone}
    if after != before and (announce or any(name in before for name in new)):
        write_receipt(receipt, before, after, drafts)
    try:
        for name, data in files.items():
            if before.get(name, {}).get("blake2b") != new[name]["blake2b"]:
                put_bytes(base / name, data, drafts)
        write_receipt(receipt, after, drafts=drafts)
    except BaseException:  # this process goes on, and gives its lock back: what nobody vouches for would look damaged
        _take_back(receipt, base, files)
        raise
    return after


def _found(file: Path) -> str:
    return digest(file) if file.is_file() else ""


def _take_back(receipt: Path, base: Path, files: Collection[str]) -> None:
    """Remove new files that the receipt, as it lies there, does not speak of."""
    with suppress(OSError, EmbedctlError):
        content = read_receipt(receipt)
        for name in set(files) - set(content["files"]) - set(content.get("next", ())):
            remove_file(base / name)


def is_of_a_block(name: str) -> bool:
    """Say whether a file among receipts is one, and nothing that a file manager or another program left there.

    Examples
    --------
    >>> [name for name in ("000012.json", "._000012.json", "000012 (1).json") if is_of_a_block(name)]
    ['000012.json']
    """
    return bool(re.fullmatch(r"\d{6,9}\.json", name, re.ASCII))


def is_announced(receipt: Path | str) -> bool:
    """Say whether a receipt announces a change whose end nobody has written down: its writer was cut short."""
    return "next" in read_receipt(receipt)


def finish(receipt: Path, base: Path, drafts: Path | None = None) -> None:
    """Write down how an announced change that was cut short ended, if there is one."""
    content = read_receipt(receipt)
    if "next" in content:
        write_receipt(receipt, settle(base, content), drafts=drafts)


def settled(base: Path, receipt: Path | str) -> Vouchers:
    """Return what the receipt at ``receipt`` vouches for now, also while its writer is at work (see `settle`)."""
    content = read_receipt(receipt)
    while True:
        try:
            return settle(base, content)
        except DamagedStore:
            before, content = content, read_receipt(receipt)
            if content == before:
                raise


def settle(base: Path, receipt: Mapping[str, Any]) -> Vouchers:
    """Return what ``receipt`` vouches for now; for an announced change the digests decide.

    Raises
    ------
    DamagedStore
        If a file is neither the old nor the new one.
    """
    old: Vouchers = receipt["files"]
    if "next" not in receipt:
        return old
    new: Vouchers = receipt["next"]
    now: Vouchers = {}
    for name in {**old, **new}:
        candidates = [vouchers[name] for vouchers in (new, old) if name in vouchers]
        if len(candidates) == 2 and candidates[0] == candidates[1]:
            now[name] = candidates[0]
            continue
        found = _found(base / name)
        matching = [candidate for candidate in candidates if candidate["blake2b"] == found]
        if matching:
            now[name] = matching[0]
        elif name in old:
            raise DamagedStore(f"'{base / name}' is not what its receipt says")
    return now


def read_receipt(path: Path | str) -> dict[str, Any]:
    """Return a receipt, or one that vouches for nothing where there is none.

    A store opens by reading hundreds of them, so this does little (40 microseconds, measured).

    Raises
    ------
    DamagedStore
        If its bytes are not the bytes that were written.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        return {"files": {}}
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EINVAL, errno.EFBIG):
            raise DamagedStore(f"the receipt '{path}' is damaged") from error
        raise
    body = data[_HEAD_BYTES:-2]
    if data[:_HEAD_BYTES] + data[-2:] != _HEAD % digest(body).encode() + b"}\n":
        raise DamagedStore(f"the receipt '{path}' is damaged")
    try:  # anyone can compute a digest: what it seals may still be a stranger's
        receipt: dict[str, Any] = json.loads(body.decode())
        sound = all(_is_sound(name, of) for what in ("files", "next") for name, of in receipt.get(what, {}).items())
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        sound = False
    if not sound or "files" not in receipt:
        raise DamagedStore(f"the receipt '{path}' says what no receipt says")
    return receipt


def read_vouched(base: Path, receipt: Path, name: str) -> bytes:
    """Return a file, if it is the one that its receipt vouches for; raises as `check_vouched`."""
    return check_vouched(base, receipt, name)[0]


def check_vouched(base: Path, receipt: Path, *names: str) -> list[bytes]:
    """Return files, if they are those that their receipt vouches for, also while a writer replaces them.

    Raises
    ------
    DamagedStore
        If one is missing or another one, or nobody vouches for it.
    """
    seen: list[tuple[str, str]] | None = None
    while True:
        vouchers = settled(base, receipt)
        try:
            files = [read_file(base / name) for name in names]
        except OSError as error:
            raise DamagedStore(f"'{error.filename}' cannot be read") from error
        wanted = [vouchers.get(name, {}).get("blake2b", "") for name in names]
        found = list(zip(wanted, map(digest, files), strict=True))
        other = [name for name, (said, there) in zip(names, found, strict=True) if said != there]
        if not other:
            return files
        if found == seen:  # the writer is not between two steps: this is how it stays
            raise DamagedStore(f"'{base / other[0]}' is not what its receipt says")
        seen = found


def _is_sound(name: str, voucher: dict[str, Any]) -> bool:
    """Say whether a receipt speaks of a file below its folder, and of rows, as embedctl does."""
    if not name or name[0] == "/" or "\\" in name or "\0" in name or (".." in name and ".." in name.split("/")):
        return False
    facts = isinstance(voucher["bytes"], int), isinstance(voucher["tail"], str), isinstance(voucher["blake2b"], str)
    ranges, absent = voucher.get("rows", []), voucher.get("absent", {})
    return (
        all(facts)
        and all(type(start) is int and type(stop) is int and 0 <= start < stop for start, stop in ranges)
        and all(row.isdecimal() and len(row) < 16 and isinstance(why, str) for row, why in absent.items())
        and not any(start <= int(row) < stop for row in absent for start, stop in ranges)
    )


def write_receipt(path: Path, files: Vouchers, following: Vouchers | None = None, drafts: Path | None = None) -> None:
    """Write a receipt; with ``following``, one that announces a change. An equal one is not written again."""
    receipt: dict[str, Any] = {"by": _writer(), "files": {name: files[name] for name in sorted(files)}}
    if following is not None:
        receipt["next"] = {name: following[name] for name in sorted(following)}
    body = json_bytes(receipt)
    data = _HEAD % digest(body).encode() + body + b"}\n"
    if not (path.is_file() and path.read_bytes() == data):
        put_bytes(path, data, drafts)


@cache
def _writer() -> dict[str, str]:
    return {
        "host": HOST,
        "embedctl": installed_version("embedctl"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
