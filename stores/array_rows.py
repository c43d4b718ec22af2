"""What readers of the rows of one array have in common, however its chunks lie there."""

from pathlib import Path
from typing import Any

import numpy as np

from stores.layout import read_array

__all__ = ["ArrayRows"]


class ArrayRows:
    """The rows of one array.

    Parameters
    ----------
    folder : Path
        The array's folder.
    n_rows : int, optional
        How many rows the reader knows of; by now there may be more.
    """

    def __init__(self, folder: Path, n_rows: int | None = None) -> None:
        self.folder = folder
        self._node = read_array(folder)
        self._n_rows = self._node.shape[0] if n_rows is None else min(n_rows, self._node.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, rows first."""
        return (self._n_rows, *self._node.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Number type of the array."""
        return np.dtype(self._node.dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows per chunk file."""
        return self._node.chunks[0]

    def __len__(self) -> int:
        return self._n_rows

    def _counted(self, rows: Any) -> np.ndarray:
        """Return row numbers counted from the first row, however they were counted.

        Raises
        ------
        IndexError
            If an index is out of range.
        """
        rows = np.asarray(rows, dtype=np.intp)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"row {rows.max()} or {rows.min()} is out of range: there are {len(self)} rows")
        return np.where(rows < 0, rows + len(self), rows)
