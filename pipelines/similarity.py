"""How alike two embeddings of the same images are, without ever building an image-by-image matrix.

Both measures compare the two matrices of pairwise similarities between images. Every sum over pairs is
written with ``sum_ij (a a')_ij (b b')_ij = ||a' b||²``, so the cost is ``n_images x dim_a x dim_b``
instead of ``n_images²``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Similarity", "cka_matrix", "debiased_cka", "rsa", "rsa_matrix", "similarity"]


@dataclass(frozen=True, slots=True)
class Similarity:
    """Two embeddings, compared.

    Parameters
    ----------
    cka : float
        Debiased linear CKA, 1 for the same geometry and about 0 for unrelated ones.
    rsa : float
        Correlation of the two dissimilarity matrices, in [-1, 1].
    n_images : int
        Images both have.
    """

    cka: float
    rsa: float
    n_images: int


def similarity(a: np.ndarray, b: np.ndarray) -> Similarity:
    """Compare two embeddings of the same images by both measures.

    Parameters
    ----------
    a, b : (n_images, dim_a), (n_images, dim_b)
        Row ``i`` of both belongs to the same image.

    Raises
    ------
    ValueError
        If they differ in images, have fewer than four, hold values that are not finite, or do not vary.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 8))
    >>> turned = similarity(x, 3 * np.roll(x, 1, axis=1) + 1)
    >>> round(turned.cka, 6), round(turned.rsa, 6)
    (1.0, 1.0)
    """
    return Similarity(debiased_cka(a, b), rsa(a, b), len(a))


def debiased_cka(a: np.ndarray, b: np.ndarray) -> float:
    r"""Return the linear centred kernel alignment, debiased.

    ``HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b))`` with the unbiased estimator of Song et al. (2012,
    J. Mach. Learn. Res. 13, equation 5) for the kernels ``K = a a'`` and ``L = b b'`` without their
    diagonals::

        n (n-3) HSIC = sum(K * L) + sum(K) sum(L) / ((n-1)(n-2)) - 2/(n-2) sum_i K_i. L_i.

    The plain estimator tends to 1 when there are more features than images (Murphy et al. 2024,
    arXiv:2405.01012); this one does not.

    Parameters
    ----------
    a, b : (n_images, dim_a), (n_images, dim_b)
        Row ``i`` of both belongs to the same image.

    Raises
    ------
    ValueError
        As `similarity`.
    """
    a, b = _checked(a, b)
    # Subtracting the mean changes nothing in exact arithmetic and keeps the sums small.
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    within_a, within_b = _hsic(a, a), _hsic(b, b)
    if within_a <= 0 or within_b <= 0:
        raise ValueError("an embedding does not vary over these images beyond chance: CKA is undefined")
    return float(_hsic(a, b) / np.sqrt(within_a * within_b))


def rsa(a: np.ndarray, b: np.ndarray) -> float:
    """Return the representational similarity: Pearson's r between two matrices of correlation distance.

    The dissimilarity of two images is one minus the correlation of their rows over features
    (Kriegeskorte, Mur and Bandettini 2008); each pair of images counts once.

    Parameters
    ----------
    a, b : (n_images, dim_a), (n_images, dim_b)
        Row ``i`` of both belongs to the same image.

    Raises
    ------
    ValueError
        As `similarity`; also if a row is constant over its features.
    """
    a, b = (_z(x) for x in _checked(a, b))
    n, n_pairs = len(a), len(a) * (len(a) - 1)
    sum_a, sum_b = (np.sum(x.sum(axis=0) ** 2) - n for x in (a, b))  # the diagonal is 1
    between, within_a, within_b = (_overlap(x, y) - n for x, y in ((a, b), (a, a), (b, b)))
    covariance = between - sum_a * sum_b / n_pairs
    variance_a, variance_b = within_a - sum_a**2 / n_pairs, within_b - sum_b**2 / n_pairs
    if min(variance_a, variance_b) <= 1e-12 * n_pairs:
        raise ValueError("all images are equally far from each other in an embedding: RSA is undefined")
    return float(covariance / np.sqrt(variance_a * variance_b))


def cka_matrix(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """Return `debiased_cka` between all of several embeddings of the same few images.

    Parameters
    ----------
    embeddings : sequence of (n_images, dim)
        Row ``i`` of all belongs to the same image. Image-by-image matrices are built: for hundreds of images.

    Returns
    -------
    (n, n)
        NaN where an embedding does not vary beyond chance.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 8))
    >>> cka_matrix([x, 3 * np.roll(x, 1, axis=1) + 1]).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    n = len(embeddings[0])
    kernels = np.empty((len(embeddings), n * n))
    for number, values in enumerate(embeddings):
        x = _checked(values, values)[0]
        x = x / (np.sqrt(np.mean(x**2)) or 1.0)  # so that what is left of a constant embedding is small for all alike
        x = x - x.mean(axis=0)
        kernel = x @ x.T
        np.fill_diagonal(kernel, 0.0)
        # The estimator of `debiased_cka` is the inner product of U-centred kernels (Szekely and Rizzo, 2014).
        rows = kernel.sum(axis=1) / (n - 2)
        kernel += rows.sum() / (n - 1) - rows[:, None] - rows[None, :]
        np.fill_diagonal(kernel, 0.0)
        kernels[number] = kernel.ravel()
    return _as_correlation(kernels @ kernels.T)


def rsa_matrix(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """Return `rsa` between all of several embeddings of the same few images, ``(n, n)``; see `cka_matrix`."""
    pairs = np.triu_indices(len(embeddings[0]), 1)
    distances = np.stack([1 - (z @ z.T)[pairs] for z in (_z(_checked(x, x)[0]) for x in embeddings)])
    distances -= distances.mean(axis=1, keepdims=True)
    return _as_correlation(distances @ distances.T)


def _as_correlation(products: np.ndarray) -> np.ndarray:
    """Divide inner products by the lengths; NaN where there is no length."""
    own = np.diag(products).copy()
    own[own <= 1e-18] = np.nan
    found: np.ndarray = products / np.sqrt(own[:, None] * own[None, :])
    return found


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"expected two matrices with the same number of rows, found {a.shape} and {b.shape}")
    if len(a) < 4:
        raise ValueError(f"expected at least 4 images, found {len(a)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("values that are not finite cannot be compared")
    return a, b


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return ``sum_ij (a a')_ij (b b')_ij``, by whichever matrix is smaller."""
    if a.shape[1] * b.shape[1] <= len(a) ** 2:
        return float(np.sum((a.T @ b) ** 2))
    return float(np.sum((a @ a.T) * (b @ b.T)))


def _hsic(a: np.ndarray, b: np.ndarray) -> float:
    n = len(a)
    diagonal_a, diagonal_b = np.sum(a**2, axis=1), np.sum(b**2, axis=1)
    rows_a, rows_b = a @ a.sum(axis=0) - diagonal_a, b @ b.sum(axis=0) - diagonal_b
    products = _overlap(a, b) - diagonal_a @ diagonal_b
    means = rows_a.sum() * rows_b.sum() / ((n - 1) * (n - 2)) - 2 * (rows_a @ rows_b) / (n - 2)
    return float((products + means) / (n * (n - 3)))


def _z(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"row {int(np.flatnonzero(length == 0)[0])} is constant: its correlations are undefined")
    unit: np.ndarray = x / length
    return unit
