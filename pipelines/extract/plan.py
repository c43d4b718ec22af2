"""Deciding what to compute: tables in, tables out; touches no file.

One task is one block of rows across all embeddings of a pass. Within a block a row's place in a forward pass
is fixed by its index alone: row ``r`` of block ``b`` sits in batch ``(r - b * R) // B`` at position
``(r - b * R) % B``, and places of rows that are absent, already there or of another block stay empty. Every
batch has the same shape, and for one shape a row does not depend on its neighbours; so a row has the same bits
whatever was there before, in whatever order blocks are done, by however many processes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Batch", "BlockTask", "batches", "bytes_needed", "plan_blocks", "rows_to_do"]


@dataclass(frozen=True)
class BlockTask:
    """The rows of one block that some embedding lacks.

    Parameters
    ----------
    block : int
        Which block.
    rows : dict of str to (n,) int array
        Store rows to compute, ascending, by the group of the embedding; embeddings that lack nothing are left out.
    """

    block: int
    rows: Mapping[str, np.ndarray]

    def union(self) -> np.ndarray:
        """Rows that at least one embedding lacks: the images to read."""
        return np.unique(np.concatenate(list(self.rows.values())))


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Parameters
    ----------
    rows : (n,) int array
        Store rows.
    places : (n,) int array
        Their places in the batch.
    groups : frozenset of str
        The embeddings that lack at least one of these rows.
    """

    rows: np.ndarray
    places: np.ndarray
    groups: frozenset[str]


def rows_to_do(
    here: np.ndarray, committed: np.ndarray, absent: Iterable[int] = (), again: Iterable[int] = ()
) -> np.ndarray:
    """Return which rows of one embedding are to be computed.

    Parameters
    ----------
    here : (n_images,) bool
        Rows whose image is in the folder; those that disappeared from it stay as they are.
    committed : (n_stored,) bool
        Rows that are complete; images behind the last one are new.
    absent : iterable of int
        Rows known to have no numbers.
    again : iterable of int
        Rows to compute although they are complete or absent: their image is another one now.

    Returns
    -------
    (n_images,) bool

    Examples
    --------
    >>> rows_to_do(np.array([True, True, True, False]), np.array([True, False]), absent=[1], again=[]).tolist()
    [False, False, True, False]
    """
    to_do = here.copy()
    to_do[: len(committed)] &= ~committed
    to_do[list(absent)] = False
    again = list(again)
    to_do[again] = here[again]
    return to_do


def plan_blocks(to_do: Mapping[str, np.ndarray], block_rows: int) -> list[BlockTask]:
    """Return one task for every block in which something is to do, in order.

    Examples
    --------
    >>> to_do = {"a": np.array([True, False, False, False, True]), "b": np.array([False] * 4 + [True])}
    >>> [(task.block, sorted(task.rows)) for task in plan_blocks(to_do, block_rows=2)]
    [(0, ['a']), (2, ['a', 'b'])]
    """
    by_block: dict[int, dict[str, np.ndarray]] = {}
    for group, wanted in to_do.items():
        rows = np.flatnonzero(wanted)
        of_block = rows // block_rows
        for block in np.unique(of_block).tolist():
            low, high = np.searchsorted(of_block, [block, block + 1])
            by_block.setdefault(block, {})[group] = rows[low:high]
    return [BlockTask(block, by_block[block]) for block in sorted(by_block)]


def batches(task: BlockTask, block_rows: int, batch_size: int) -> list[Batch]:
    """Return the forward passes of one block; those without a row to compute are left out.

    Examples
    --------
    >>> task = BlockTask(1, {"a": np.array([64, 65]), "b": np.array([65, 100])})
    >>> for batch in batches(task, block_rows=64, batch_size=32):
    ...     print(batch.rows.tolist(), batch.places.tolist(), sorted(batch.groups))
    [64, 65] [0, 1] ['a', 'b']
    [100] [4] ['b']
    """
    rows = task.union()
    within = rows % block_rows
    _, starts = np.unique(within // batch_size, return_index=True)
    found = []
    for part in np.split(np.arange(len(rows)), starts[1:]):
        lacking = frozenset(group for group, wanted in task.rows.items() if np.isin(rows[part], wanted).any())
        found.append(Batch(rows[part], within[part] % batch_size, lacking))
    return found


def bytes_needed(
    tasks: Sequence[BlockTask], sizes: Mapping[str, int], started: Mapping[str, set[int]], block_rows: int
) -> int:
    """Return what the chunk files of some tasks will take on disk, beside those that are there.

    Parameters
    ----------
    tasks : sequence of BlockTask
        What is to do.
    sizes : mapping of str to int
        Bytes of one row, by group.
    started : mapping of str to set of int
        Blocks whose chunk files exist, by group: a chunk file has its full size from the first row on.
    block_rows : int
        Rows of a block.

    Examples
    --------
    >>> bytes_needed([BlockTask(0, {"a": np.array([3])})], {"a": 1024}, {"a": set()}, block_rows=64)
    65536
    """
    new = [group for task in tasks for group in task.rows if task.block not in started[group]]
    return sum(sizes[group] * block_rows for group in new)
