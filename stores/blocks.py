"""Commit rows of one embedding, a block at a time.

A block is a run of ``block_rows`` rows of the store; of each embedding it is one or more whole chunk files and one
receipt, ``values/.embedctl/receipts/BLOCK.json``. What the receipt says of a chunk file is also which of its rows
are committed (``rows``, as ranges) and which are absent for a reason (``absent``).
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from stores.codecs import decode_rows, encode_rows, inner_checksums
from stores.commits import digest
from stores.errors import DamagedStore
from stores.layout import ArrayNode, private, read_array
from stores.receipts import Vouchers, change, finish, is_announced, is_of_a_block, settled
from stores.remote import RemotePath, locate

__all__ = [
    "are_announced",
    "block_rows_for",
    "chunk_rows_for",
    "commit_rows",
    "finish_receipts",
    "ranges_of",
    "read_vouchers",
    "rows_in",
    "rows_of",
]

MAX_CHUNK_BYTES = 16_000_000


def block_rows_for(n_images: int) -> int:
    """Return the rows per block of a store that begins with ``n_images``: near-equal blocks, a multiple of 64.

    A block is what a crash can cost, so small stores have small ones. A multiple of 64 makes a chunk of nearly
    every embedding a multiple of a memory page.

    Examples
    --------
    >>> block_rows_for(10), block_rows_for(300), block_rows_for(16_740), block_rows_for(1_281_167)
    (64, 192, 1024, 8192)
    """
    most = 256 if n_images <= 4096 else 1024 if n_images <= 65_536 else 8192
    n_blocks = max(1, -(-n_images // most))
    return max(64, -(-n_images // n_blocks // 64) * 64)


def chunk_rows_for(block_rows: int, row_bytes: int) -> int:
    """Return the rows per chunk: the block's, halved while a chunk is over 16 MB, so that chunks divide blocks.

    Examples
    --------
    >>> chunk_rows_for(1024, 768 * 2), chunk_rows_for(1024, 197 * 768 * 2)
    (1024, 32)
    """
    rows = block_rows
    while rows % 2 == 0 and rows * row_bytes > MAX_CHUNK_BYTES:
        rows //= 2
    return rows


def commit_rows(
    values: Path,
    block: range,
    rows: np.ndarray,
    numbers: np.ndarray,
    absent: Mapping[int, str],
    drafts: Path,
    forget: Iterable[int] = (),
) -> Vouchers:
    """Write rows of one block of one array and commit them; rows committed before are kept.

    Parameters
    ----------
    values : Path
        The array's folder.
    block : range
        The rows of the store that make up the block.
    rows : (n,)
        Rows of the store, inside ``block``.
    numbers : (n, dim)
        Their values, in the array's number type.
    absent : mapping of int to str
        Rows without numbers, and why.
    drafts : Path
        Folder for temporary files.
    forget : iterable of int
        Rows that are no longer committed: what they were computed from has changed.

    Returns
    -------
    dict
        What the block's receipt vouches for now.

    Raises
    ------
    DamagedStore
        If a chunk that should keep rows is not the one that was committed.
    """
    node, receipt = read_array(values), _receipt(values, block)
    before = settled(values.parent, receipt)
    fate = {row: position for position, row in enumerate(rows.tolist())}
    dropped = {*absent, *forget}
    files, facts = {}, {}
    for chunk in sorted({row // node.chunks[0] for row in (*fate, *dropped)}):
        name, here = f"{values.name}/{node.file(chunk)}", range(chunk * node.chunks[0], (chunk + 1) * node.chunks[0])
        content, kept, reasons = _current(values.parent / name, before.get(name), node)
        for row in dropped & set(here):
            content[row - here.start] = np.nan
            kept.discard(row)
            reasons.pop(row, None)
        new = [row for row in fate if row in here]
        content[[row - here.start for row in new]] = numbers[[fate[row] for row in new]]
        reasons = {row: why for row, why in reasons.items() if row not in fate}
        reasons |= {row: why for row, why in absent.items() if row in here}
        files[name] = encode_rows(content, node.inner)
        facts[name] = inner_checksums(content, node.inner) | {
            "rows": ranges_of(np.fromiter(kept | set(new), int)),
            "absent": {str(row): reasons[row] for row in sorted(reasons)},
        }
    return change(receipt, values.parent, files, facts, drafts)


def read_vouchers(values: Path) -> Vouchers:
    """Return what all receipts of an array vouch for.

    Raises
    ------
    DamagedStore
        If a receipt is damaged, or a chunk is neither of the two its receipt announces.
    """
    vouchers: Vouchers = {}
    for path in _receipts(values):
        vouchers |= settled(values.parent, path)
    if not all("rows" in voucher and "absent" in voucher for voucher in vouchers.values()):
        raise DamagedStore(f"a receipt of '{values}' does not say which rows are committed")
    return vouchers


def finish_receipts(values: Path, drafts: Path, mine: Callable[[int], bool]) -> None:
    """Write down how announced changes of blocks that are ``mine`` and that were cut short ended."""
    for path in map(locate, _receipts(values)):
        if mine(int(path.stem)):
            finish(path, values.parent, drafts)


def are_announced(values: Path) -> bool:
    """Say whether a receipt of an array announces a change that was cut short."""
    return any(map(is_announced, _receipts(values)))


def rows_in(vouchers: Vouchers, n_rows: int) -> np.ndarray:
    """Return which of the first ``n_rows`` rows are committed, ascending.

    Examples
    --------
    >>> rows_in({"values/c/0/0": {"rows": [[0, 2], [5, 10**15]], "absent": {}}}, 7).tolist()
    [0, 1, 5, 6]
    """
    ranges = sorted((start, stop) for voucher in vouchers.values() for start, stop in voucher["rows"])
    return rows_of((start, min(stop, n_rows)) for start, stop in ranges if start < n_rows)


def _current(
    file: Path, voucher: Mapping[str, Any] | None, node: ArrayNode
) -> tuple[np.ndarray, set[int], dict[int, str]]:
    """Return a chunk's numbers, its committed rows and its absent ones, as they are now."""
    if voucher is None:
        return np.full(node.chunks, np.nan, node.dtype), set(), {}
    data = file.read_bytes() if file.is_file() else b""
    if digest(data) != voucher["blake2b"]:
        # Carrying its rows over would give damaged numbers a fresh digest.
        raise DamagedStore(f"'{file}' is not what its receipt says")
    content = decode_rows(data, node.chunks, node.dtype, node.inner)
    kept = {row for start, stop in voucher["rows"] for row in range(start, min(stop, start + len(content)))}
    return content.astype(node.dtype), kept, {int(row): why for row, why in voucher["absent"].items()}


def rows_of(ranges: Iterable[Sequence[int]]) -> np.ndarray:
    """Return the rows of ranges, the end of each not included."""
    return np.concatenate([np.arange(0), *(np.arange(start, stop) for start, stop in ranges)])


def ranges_of(rows: np.ndarray) -> list[list[int]]:
    """Return distinct rows as ranges, the end of each not included.

    Examples
    --------
    >>> ranges_of(np.array([5, 0, 1])), rows_of([[0, 2], [5, 6]]).tolist()
    ([[0, 2], [5, 6]], [0, 1, 5])
    """
    rows = np.sort(rows)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs if len(run)]


def _receipts(values: Path) -> "Sequence[str | Path]":
    folder = private(values) / "receipts"
    if isinstance(folder, RemotePath):
        return sorted(cast(Path, path) for path in folder.glob("*.json") if is_of_a_block(path.name))
    if not folder.is_dir():
        return []
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if is_of_a_block(name)]


def _receipt(values: Path, block: range) -> Path:
    return private(values) / "receipts" / f"{block.start // len(block):06d}.json"
