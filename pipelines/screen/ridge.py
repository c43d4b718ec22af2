"""Ridge regression of any target from the same recordings: they are factorised once, for all targets and penalties."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ridge"]

Floats = NDArray[np.floating]


class Ridge:
    """Recordings, factorised.

    Ridge regression minimises ``||x w + b - y||² + penalty ||w||²``. What it predicts for a query ``q`` is a weighted
    sum of the targets it was fitted to, ``mean(y) + s (y - mean(y))``, whose weights ``s`` do not depend on them:
    with ``x`` centred and ``x.T x = v diag(e) v.T``, ``s = q v diag(1 / (e + penalty)) v.T x.T``. So nothing is fitted
    per target. Where there are fewer epochs than features ``x x.T`` is factorised instead.

    Parameters
    ----------
    x : (n_epochs, n_features)
        Recordings. All sums are in their precision, the factorisation is in float64.

    Attributes
    ----------
    scale : float
        Mean of the variances of the features, times ``n_epochs``: the unit of a penalty that suits any recording.

    Examples
    --------
    >>> ridge = Ridge(np.array([[1.0], [-1.0]]))
    >>> smoother, = ridge.smoothers(np.array([[3.0]]), [2.0])
    >>> smoother @ np.array([[2.0], [-2.0]])  # w = 4 / (2 + 2)
    array([[3.]])
    """

    def __init__(self, x: Floats) -> None:
        self._mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype)
        x = x - self._mean
        tall = len(x) >= x.shape[1]
        values, vectors = np.linalg.eigh((x.T @ x if tall else x @ x.T).astype(np.float64))
        self._values = np.clip(values, 0, None).astype(x.dtype)
        self.scale = float(self._values.sum(dtype=np.float64) / x.shape[1])
        turn = vectors.astype(x.dtype)
        self._to_axes = turn if tall else x.T @ turn
        self._from_axes = (x @ turn if tall else turn).T

    def smoothers(self, queries: Floats, penalties: Sequence[float]) -> Iterator[Floats]:
        """Yield, per penalty, how much each epoch's target, centred, counts for each query, ``(n_queries, n_epochs)``.

        Parameters
        ----------
        queries : (n_queries, n_features)
            Other recordings.
        penalties : sequence of float
            Above zero, in units of ``x`` squared.
        """
        turned = (queries - self._mean) @ self._to_axes
        for penalty in penalties:
            yield (turned / (self._values + np.asarray(penalty, turned.dtype))) @ self._from_axes
