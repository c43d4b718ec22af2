"""Whether embeddings are in good health: norms, effective rank, equal rows, constant features.

All of it is measured on the same few hundred images, spread over the store, so that forty embeddings take seconds.
"""

from dataclasses import dataclass

import numpy as np

from stores.embedding import Entry
from stores.embeddings import EmbeddingStore

__all__ = ["MOST_FEATURES", "Health", "effective_rank", "health", "samples"]

MOST_IMAGES = 400
MOST_FEATURES = 16_384  # tokens of a whole layer would cost gigabytes


@dataclass(frozen=True, slots=True)
class Health:
    """One embedding.

    Parameters
    ----------
    name : str
        As the store names it.
    dim, n_images, n_absent : int
        Features, images with a row, and images without.
    norm, norm_spread : float
        Mean length of a row, and its standard deviation over images as a share of that.
    effective_rank : float
        See `effective_rank`.
    equal_rows : int
        Rows that another one equals.
    constant : int
        Features that never vary.
    """

    name: str
    dim: int
    n_images: int
    n_absent: int
    norm: float
    norm_spread: float
    effective_rank: float
    equal_rows: int
    constant: int


def samples(store: EmbeddingStore, most: int = MOST_IMAGES) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return images that all embeddings have, spread evenly over the store, and each embedding's rows of them.

    Embeddings of more than `MOST_FEATURES` features are left out.

    Parameters
    ----------
    store : EmbeddingStore
        The store.
    most : int
        How many images, at most.

    Returns
    -------
    images : list of str
        Their ids.
    values : dict of str to (n_images, dim)
        By the store's name of the embedding, as float64.
    """
    entries = {name: e for name, e in zip(store.names, store.entries(), strict=True) if e.dim <= MOST_FEATURES}
    everywhere = np.ones(len(store.image_ids), dtype=bool)
    for entry in entries.values():
        everywhere &= store.committed(entry)
    rows = np.flatnonzero(everywhere)
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]
    images = [store.image_ids[row] for row in chosen]
    found = {}
    for name, entry in entries.items():
        embedding = store[f"{entry.name}#{entry.key}"]
        row_of = {image: row for row, image in enumerate(embedding.image_ids)}
        found[name] = embedding.take([row_of[image] for image in images]).astype(np.float64)
    return images, found


def health(name: str, entry: Entry, values: np.ndarray) -> Health:
    """Measure one embedding on a sample of its rows.

    Parameters
    ----------
    name : str
        What to call it.
    entry : Entry
        As the store lists it.
    values : (n_images, dim)
        The sample.
    """
    x = values.astype(np.float64)
    norms = np.linalg.norm(x, axis=1)
    mean = float(norms.mean())
    return Health(
        name=name,
        dim=entry.dim,
        n_images=entry.n_committed,
        n_absent=entry.n_absent,
        norm=mean,
        norm_spread=float(norms.std() / mean) if mean else 0.0,
        effective_rank=effective_rank(x),
        equal_rows=len(x) - len(np.unique(x, axis=0)),
        constant=int((np.ptp(x, axis=0) == 0).sum()),
    )


def effective_rank(values: np.ndarray) -> float:
    """Return over how many directions an embedding spreads: the exponential of the entropy of its variances.

    Roy and Vetterli (2007), of the eigenvalues of the covariance over images. It cannot exceed the number of images
    minus one.

    Examples
    --------
    >>> round(effective_rank(np.random.default_rng(0).normal(size=(4000, 5))), 1)
    5.0
    >>> effective_rank(np.ones((9, 3)))
    0.0
    """
    x = values - values.mean(axis=0)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    variances = np.linalg.eigvalsh(gram).clip(min=0)
    total = float(variances.sum())
    if total <= np.finfo(float).eps * max(1.0, float((values**2).sum())):
        return 0.0
    shares = variances[variances > 1e-12 * total] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
