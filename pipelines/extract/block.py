"""The rows of one block on their way into the store: rounded, checked, committed together."""

from typing import TYPE_CHECKING

import numpy as np

from pipelines.extract.plan import BlockTask

if TYPE_CHECKING:
    from stores.embedding import Entry
    from stores.embeddings import EmbeddingStore
    from stores.names import EmbeddingName

__all__ = ["MOST_BYTES", "BlockRows", "not_finite", "rounded"]

MOST_BYTES = 256_000_000
"""That rows of a block may take before they are committed; a block of tokens can have gigabytes."""


def rounded(values: np.ndarray, dtype: str) -> tuple[np.ndarray, bool]:
    """Round float32 rows ``(n, dim)`` to the type they are stored in; tell whether that type cannot hold one of them.

    It cannot if a finite number becomes infinite, if more than half of a row's numbers become zero, or if the row
    changes by more than a thousandth of its length: within the range of float16, rounding changes it by half of that
    at most. The answer is about single rows, so it does not depend on which rows are computed together.

    Examples
    --------
    >>> rounded(np.array([[1.0, 65519.0]], "float32"), "float16")
    (array([[1.00e+00, 6.55e+04]], dtype=float16), False)
    >>> [rounded(np.array([[1.0, x, -x]], "float32"), "float16")[1] for x in (65520.0, 3e-5, 1e-8)]
    [True, False, True]
    """
    with np.errstate(over="ignore"):  # looked for below
        stored = values.astype(dtype)
    if dtype == values.dtype:
        return stored, False
    infinite = np.isinf(stored) & np.isfinite(values)
    nonzero, kept = np.count_nonzero(values, axis=1), np.count_nonzero(stored, axis=1)
    with np.errstate(invalid="ignore"):  # what is not finite is refused elsewhere
        change = np.linalg.norm(stored - values.astype(np.float64), axis=1)
    length = np.linalg.norm(values.astype(np.float64), axis=1)
    return stored, bool(infinite.any() or (2 * kept < nonzero).any() or (change > length / 1000).any())


def not_finite(name: "EmbeddingName") -> str:
    """Return why an image has no row although everything else about it is well."""
    return f"'{name}' gives numbers for it that are not finite"


class BlockRows:
    """Collects what the forward passes of one block give, and commits it: at the end, or some of it before.

    Parameters
    ----------
    task : BlockTask
        The block, and the rows that each embedding lacks.
    entries : dict of str to Entry
        The stored embeddings, by group.

    Attributes
    ----------
    n_bytes : int
        Of the rows that wait to be committed.
    unfit : set of str
        Groups that their number type cannot hold.
    """

    def __init__(self, task: BlockTask, entries: dict[str, "Entry"]) -> None:
        self.task = task
        self.unfit: set[str] = set()
        self._entries = entries
        self._begin()

    def _begin(self) -> None:
        self.n_bytes = 0
        self._found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {group: [] for group in self.task.rows}
        self._bad: dict[int, str] = {}
        self._not_finite: dict[str, dict[int, str]] = {group: {} for group in self.task.rows}

    def refuse(self, row: int, reason: str) -> None:
        """Remember that an image is bad: its row is absent from every embedding of the pass."""
        self._bad[row] = reason

    def put(self, group: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Take float32 rows (n, dim) of one embedding; those it does not lack are left as they are in the store."""
        lacking = np.isin(rows, self.task.rows[group])
        finite = np.isfinite(values).all(axis=1)
        for row in rows[lacking & ~finite].tolist():
            self._not_finite[group][row] = not_finite(self._entries[group].name)
        keep = lacking & finite
        stored, unfit = rounded(values[keep], self._entries[group].dtype)
        self._found[group].append((rows[keep], stored))
        self.n_bytes += stored.nbytes
        if unfit:
            self.unfit.add(group)

    def commit(self, store: "EmbeddingStore") -> dict[str, int]:
        """Write what has come since the last time; return the rows written per group, but for those that are unfit."""
        written = {}
        for group in [group for group in self._found if group not in self.unfit]:
            lacking, found = set(self.task.rows[group].tolist()), self._found.pop(group)
            absent = {row: why for row, why in self._bad.items() if row in lacking} | self._not_finite[group]
            rows = np.concatenate([np.arange(0), *(rows for rows, _ in found)])
            written[group] = len(rows)
            if found or absent:
                entry = self._entries[group]
                values = np.concatenate([np.empty((0, entry.dim), entry.dtype), *(values for _, values in found)])
                store.write_block(self.task.block, {group: (rows, values)}, absent)
        self._begin()
        return written
