"""How well brain embeddings find their image: n-way retrieval from a matrix of scores.

Everything here is NumPy in float64 and touches no file. A tie counts as what it is worth under a
random order of the tied images, so a predictor that always says the same scores exactly chance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Retrieval", "centre_scores", "csls", "retrieve", "sinkhorn", "to_length_one"]

Floats = NDArray[np.float64]


class Retrieval:
    """Retrieval of one target image per query, from its scores against a gallery.

    With ``b`` gallery images scoring higher than the target and ``t`` scoring the same (the target among
    them), the target's rank under a random order of ties is uniform on ``b + 1 ... b + t``. Hits, ranks and
    reciprocal ranks are the expectations under that distribution.

    Parameters
    ----------
    better : (n_queries,)
        Number of gallery images that score strictly higher than the target.
    tied : (n_queries,)
        Number of gallery images that score the same as the target, itself included.
    n_way : int
        Size of the gallery.
    """

    def __init__(self, better: NDArray[np.int64], tied: NDArray[np.int64], n_way: int) -> None:
        self.better, self.tied, self.n_way = better, tied, n_way

    def hits(self, k: int) -> Floats:
        """Return, for each query, the expected share of orders with the target among the first ``k``."""
        share: Floats = np.clip(k - self.better, 0, self.tied) / self.tied
        return share

    def top(self, k: int) -> float:
        """Return top-``k`` accuracy, a fraction in [0, 1]."""
        return float(self.hits(k).mean())

    @property
    def ranks(self) -> Floats:
        """The expected rank of each query's target; 1 is best."""
        return self.better + (self.tied + 1) / 2

    @property
    def median_rank(self) -> float:
        """The median over queries of the expected rank."""
        return float(np.median(self.ranks))

    @property
    def reciprocal_ranks(self) -> Floats:
        """The expected reciprocal rank of each query's target."""
        harmonic = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, self.n_way + 1))))
        mean: Floats = (harmonic[self.better + self.tied] - harmonic[self.better]) / self.tied
        return mean

    @property
    def mrr(self) -> float:
        """The mean over queries of the expected reciprocal rank."""
        return float(self.reciprocal_ranks.mean())


def retrieve(scores: ArrayLike, target: ArrayLike | None = None) -> Retrieval:
    """Rank each query's own image among the gallery.

    Parameters
    ----------
    scores : (n_queries, n_gallery)
        Similarity of every query with every gallery image; higher is more alike.
    target : (n_queries,)
        Column of each query's own image. By default query ``i`` shows gallery image ``i``.

    Returns
    -------
    Retrieval
        Accuracies and ranks, ties counted in expectation.

    Raises
    ------
    ValueError
        If a score is not a number, the matrix is empty, or a target is not one column per query.

    Examples
    --------
    >>> found = retrieve([[0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.3, 0.4, 0.2]])
    >>> found.hits(1).round(2).tolist(), found.ranks.tolist()
    ([1.0, 0.33, 0.0], [1.0, 2.0, 3.0])
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"scores must be a matrix of queries by gallery images, got shape {matrix.shape}")
    # Infinities rank as well as any number, only NaN has no place in an order.
    if np.isnan(matrix).any():
        raise ValueError(f"{int(np.isnan(matrix).sum())} scores are not numbers")
    column = np.arange(len(matrix)) if target is None else np.asarray(target)
    if column.shape != (len(matrix),) or column.min() < 0 or column.max() >= matrix.shape[1]:
        raise ValueError(f"targets must be one of {matrix.shape[1]} columns for each of {len(matrix)} queries")
    own = np.take_along_axis(matrix, column[:, None], axis=1)
    return Retrieval((matrix > own).sum(axis=1), (matrix == own).sum(axis=1), matrix.shape[1])


def csls(scores: ArrayLike, k: int = 10) -> Floats:
    """Correct scores for hubs, images near to everything: cross-domain similarity local scaling.

    ``2 s[i, j] - mean of the k highest in row i - mean of the k highest in column j`` (Conneau et al.,
    2018, https://arxiv.org/abs/1710.04087). It looks at all test queries at once, so what is measured
    on it is transductive and never the headline.

    Parameters
    ----------
    scores : (n_queries, n_gallery)
        Cosine similarities.
    k : int
        Neighbours on either side; at most what there are.

    Returns
    -------
    (n_queries, n_gallery)
        Corrected scores.

    Examples
    --------
    >>> csls([[0.9, 0.8], [0.9, 0.1]], k=1).round(1).tolist()
    [[0.0, -0.1], [0.0, -1.5]]
    """
    matrix = np.asarray(scores, dtype=np.float64)
    n_queries, n_gallery = matrix.shape
    near_query = np.sort(matrix, axis=1)[:, -min(k, n_gallery) :].mean(axis=1, keepdims=True)
    near_image = np.sort(matrix, axis=0)[-min(k, n_queries) :].mean(axis=0, keepdims=True)
    corrected: Floats = 2 * matrix - near_query - near_image
    return corrected


def sinkhorn(scores: ArrayLike, temperature: float = 0.05, n_iterations: int = 50) -> Floats:
    """Share queries out over images so that every image is asked for equally often.

    ``exp(s / temperature)``, its rows and columns scaled in turns to equal sums (Cuturi, 2013,
    https://arxiv.org/abs/1306.0895), as logarithms. It uses that each test image is shown in just one query, which no
    single decision could know: what is measured on it is transductive and never the headline.

    Parameters
    ----------
    scores : (n_queries, n_gallery)
        Cosine similarities.
    temperature : float
        The lower, the nearer to an assignment of one to one.
    n_iterations : int
        Times that rows and columns are scaled.

    Returns
    -------
    (n_queries, n_gallery)
        Logarithms of the shares, up to a constant.

    Examples
    --------
    >>> shared = sinkhorn([[0.9, 0.8], [0.9, 0.1]])
    >>> shared.argmax(axis=1).tolist()  # the first query leaves image 0 to the second
    [1, 0]
    """
    shares = np.asarray(scores, dtype=np.float64) / temperature
    for _ in range(n_iterations):
        for axis in (1, 0):
            highest = shares.max(axis=axis, keepdims=True)
            shares = shares - highest - np.log(np.exp(shares - highest).sum(axis=axis, keepdims=True))
    return shares


def centre_scores(
    brain: ArrayLike, images: ArrayLike, concepts: Sequence[str], shown: Sequence[str]
) -> tuple[Floats, NDArray[np.int64]]:
    """Score queries against concepts instead of images: the centre of other images of each concept.

    What NICE was tested with (https://arxiv.org/abs/2308.13234): images that no query shows.

    Parameters
    ----------
    brain : (n_queries, dim)
        Brain embeddings, centred and of length one.
    images : (n_images, dim)
        Image embeddings, centred and of length one.
    concepts : sequence of str
        Concept of every image.
    shown : sequence of str
        Concept of every query, one of these.

    Returns
    -------
    scores : (n_queries, n_concepts)
        Cosine similarity of each query with each concept's centre, concepts in order of name.
    target : (n_queries,)
        Column of each query's own concept.

    Examples
    --------
    >>> scores, own = centre_scores([[1, 0]], [[1, 0], [0, 1], [0.6, 0.8]], ["cat", "ant", "ant"], ["cat"])
    >>> scores.round(2).tolist(), own.tolist()
    ([[0.32, 1.0]], [1])
    """
    vectors = np.asarray(images, dtype=np.float64)
    names, concept = np.unique(np.asarray(concepts), return_inverse=True)
    centres = np.zeros((len(names), vectors.shape[1]))
    np.add.at(centres, concept, vectors)
    to_length_one(centres)
    return np.asarray(brain, dtype=np.float64) @ centres.T, np.searchsorted(names, np.asarray(shown))


def to_length_one(rows: NDArray[Any]) -> None:
    """Scale every row to length one, in place; a row of zeros stays.

    Examples
    --------
    >>> rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> to_length_one(rows)
    >>> rows.tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    rows /= np.where(length > 0, length, 1)
