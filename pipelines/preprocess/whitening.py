"""Multivariate noise normalisation (MVNN): a shrunk covariance per epoch, averaged, inverted.

Guggenmos et al. 2018 (NeuroImage 173) with the Ledoit-Wolf shrinkage of scikit-learn's
``_cov(X, 'auto')``, which the public THINGS-EEG2 pipelines use: standardise, shrink, scale back.
For one epoch with channels standardised to ``Z`` (population statistics over its ``n`` samples, ``p``
channels), ``S = Z'Z/n`` and ``m = tr(S)/p``::

    beta  = min((sum_t (sum_i Z[t,i]^2)^2 / n - |S|^2) / (p n), delta)
    delta = (|S|^2 - 2 m tr(S) + p m^2) / p
    C     = diag(sd) [(1 - beta/delta) S + (beta/delta) m I] diag(sd)

`shrunk_over_repetitions` is the same with the repetitions of an image at one time in place of the samples of an epoch.
No loop over epochs, no eigen-decomposition but the last one: batched matrix products, and sums
over epochs in float64. Checked against scikit-learn to 1e-10.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["CovarianceSum", "inverse_square_root", "shrunk_covariances", "shrunk_over_repetitions"]

_DOUBLE = float(np.finfo(np.float64).eps)


def shrunk_covariances(epochs: np.ndarray, good: np.ndarray | None = None) -> np.ndarray:
    """Return the shrunk covariance of each epoch over its samples.

    Parameters
    ----------
    epochs : (n_epochs, n_chans, n_times)
        Baseline-corrected activity, any unit.
    good : (n_epochs, n_chans) of bool, optional
        Channels to use in each epoch; the rows and columns of the others come out as zero.
        Without it all are used and a constant channel is treated as scikit-learn does: its
        scale becomes 1, so it receives the shrinkage ``m`` in *squared data units*.

    Returns
    -------
    (n_epochs, n_chans, n_chans)
        In the squared unit and the number type of ``epochs``.

    Examples
    --------
    >>> epochs = np.random.default_rng(0).normal(size=(2, 3, 500))
    >>> bool(np.allclose(shrunk_covariances(epochs), np.eye(3), atol=0.2))
    True
    """
    n = epochs.shape[-1]
    if good is not None:
        epochs = np.where(good[:, :, None], epochs, 0)  # what is excluded may be NaN
    mean = epochs.mean(axis=-1, keepdims=True)
    centred = epochs - mean
    covariance = centred @ centred.swapaxes(1, 2) / n
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    constant = variance <= n * _DOUBLE * variance + (n * mean[..., 0] * _DOUBLE) ** 2
    scale = np.sqrt(np.where(constant, 1, variance))  # sklearn's StandardScaler
    if good is None:
        p = np.full(len(epochs), epochs.shape[1])
        kept_scale = scale
    else:
        p = good.sum(axis=1)
        kept_scale = np.where(good, scale, 0)

    standard = centred / scale[:, :, None]
    correlation = covariance / (scale[:, :, None] * scale[:, None, :])
    trace = np.einsum("ecc->e", correlation, dtype=np.float64)
    square = np.einsum("ecd,ecd->e", correlation, correlation, dtype=np.float64)
    power = np.einsum("ect,ect->et", standard, standard)
    fourth = np.einsum("et,et->e", power, power, dtype=np.float64)

    with np.errstate(invalid="ignore", divide="ignore"):  # an epoch without one good channel
        m = trace / p
        delta = (square - 2 * m * trace + p * m**2) / p
        beta = np.clip((fourth / n - square) / (p * n), 0, np.maximum(delta, 0))
        weight = np.where(delta > 0, beta / delta, 0)
    target = np.where(p > 0, weight * m, 0)
    shrunk = covariance * (1 - weight)[:, None, None].astype(epochs.dtype)
    diagonal = np.arange(epochs.shape[1])
    shrunk[:, diagonal, diagonal] += (target[:, None] * kept_scale**2).astype(epochs.dtype)
    return shrunk


def shrunk_over_repetitions(epochs: np.ndarray) -> np.ndarray:
    """Return the shrunk covariance of each image over its repetitions, averaged over time.

    What is common to the repetitions, the evoked response, does not enter: this is noise alone. Two repetitions leave
    nothing to estimate the shrinkage from, and it is zero.

    Parameters
    ----------
    epochs : (n_images, n_repetitions, n_chans, n_times)
        Baseline-corrected activity, any unit; all repetitions usable.

    Returns
    -------
    (n_images, n_chans, n_chans)
        In the squared unit and the number type of ``epochs``.

    Examples
    --------
    >>> epochs = 100 + np.random.default_rng(0).normal(size=(1, 40, 3, 50))
    >>> bool(np.allclose(shrunk_over_repetitions(epochs), np.eye(3), atol=0.1))
    True
    """
    n, p = epochs.shape[1:3]
    mean = epochs.mean(axis=1, keepdims=True)
    centred = epochs - mean
    variance = np.einsum("irct,irct->ict", centred, centred) / n
    constant = variance <= n * _DOUBLE * variance + (n * mean[:, 0] * _DOUBLE) ** 2
    scale = np.sqrt(np.where(constant, 1, variance))  # sklearn's StandardScaler
    at_time = np.ascontiguousarray((centred / scale[:, None]).transpose(0, 3, 1, 2))
    # |Z'Z| = |ZZ'|, and there are fewer repetitions than channels.
    gram = at_time @ at_time.swapaxes(2, 3)
    power = np.einsum("itrr->itr", gram).astype(np.float64)
    trace = power.sum(axis=2) / n
    square = np.einsum("itrs,itrs->it", gram, gram, dtype=np.float64) / n**2
    fourth = np.einsum("itr,itr->it", power, power)
    m = trace / p
    delta = (square - 2 * m * trace + p * m**2) / p
    beta = np.clip((fourth / n - square) / (p * n), 0, np.maximum(delta, 0))
    weight = np.divide(beta, delta, out=np.zeros_like(beta), where=delta > 0)

    n_times = epochs.shape[3]
    share = np.sqrt((1 - weight) / (n * n_times)).astype(epochs.dtype)
    parts = (centred * share[:, None, None]).transpose(0, 2, 1, 3).reshape(len(epochs), p, n * n_times)
    found: np.ndarray = parts @ parts.swapaxes(1, 2)
    diagonal = np.arange(p)
    found[:, diagonal, diagonal] += np.einsum("it,ict->ic", weight * m, scale**2) / n_times
    return found


@dataclass
class CovarianceSum:
    """Adds up weighted epoch covariances, pair of channels by pair of channels.

    A pair is averaged over the epochs in which both channels are good.

    Parameters
    ----------
    n_chans : int
        How many channels.

    Examples
    --------
    >>> total = CovarianceSum(2)
    >>> total.add(np.random.default_rng(0).normal(size=(50, 2, 200)), np.ones(50))
    >>> bool(np.allclose(total.mean(), np.eye(2), atol=0.05))
    True
    """

    n_chans: int

    def __post_init__(self) -> None:
        self._sum = np.zeros((self.n_chans, self.n_chans))
        self._weight = np.zeros((self.n_chans, self.n_chans))

    def add(self, epochs: np.ndarray, weights: np.ndarray, good: np.ndarray | None = None) -> None:
        """Add epochs ``(n, n_chans, n_times)`` with ``weights`` ``(n,)``, using the ``good`` channels of each."""
        self._sum += np.tensordot(weights.astype(epochs.dtype), shrunk_covariances(epochs, good), axes=1)
        if good is None:
            self._weight += weights.sum()
        else:
            self._weight += (good * weights[:, None]).T @ good.astype(float)

    def add_repetitions(self, epochs: np.ndarray) -> None:
        """Add the covariances over repetitions of images ``(n_images, n_repetitions, n_chans, n_times)``."""
        self._sum += shrunk_over_repetitions(epochs).sum(axis=0, dtype=np.float64)
        self._weight += len(epochs)

    def add_filled(self, epochs: np.ndarray, weights: np.ndarray, good: np.ndarray, lost: np.ndarray) -> None:
        """Add epochs whose channels outside ``good`` are filled in, where samples are ``lost``, from what is known.

        Leaving such a channel out pair by pair changes the whitening of *all* epochs by more than the epoch weighs,
        because the pairs no longer belong together. So its lost samples get what the good channels predict, and on
        top a straight line between what it had of its own before and after: one step of expectation-maximisation.
        What a line cannot know of noise that wanders goes with the square of the share that is lost; that much of the
        channel's own variance is added. Channels that are zero in the mean so far stay out.

        Parameters
        ----------
        epochs : (n, n_chans, n_times)
            Any unit.
        weights : (n,)
            Of each.
        good : (n, n_chans) of bool
            Channels without a lost sample.
        lost : (n, n_chans, n_times) of bool
            Samples that are not to be used.
        """
        expected = self.mean()
        alive = np.diagonal(expected) > 0
        times = np.arange(epochs.shape[2])
        for epoch, weight, usable, gone in zip(epochs, weights.tolist(), good, lost, strict=True):
            known, missing = alive & usable, alive & ~usable
            if not known.any():
                continue
            between = expected[np.ix_(missing, known)]
            regression = np.linalg.lstsq(expected[np.ix_(known, known)], between.T, rcond=None)[0].T
            filled = epoch.copy()
            filled[missing] = regression @ epoch[known]
            for channel in np.flatnonzero(missing & ~gone.all(axis=1)):
                there = np.flatnonzero(~gone[channel])
                own = epoch[channel, there] - filled[channel, there]
                filled[channel] += np.interp(times, there, own).astype(epoch.dtype)
            self.add(filled[None], np.array([weight]), alive[None])
            share = gone[missing].mean(axis=1)
            unknown = expected[np.ix_(missing, missing)] - regression @ between.T
            self._sum[np.ix_(missing, missing)] += weight * np.outer(share, share) * unknown

    @property
    def is_estimated(self) -> bool:
        """Whether any epoch was added."""
        return bool(self._weight.any())

    def mean(self) -> np.ndarray:
        """Return the weighted mean covariance ``(n_chans, n_chans)``; a channel that was never good is zero."""
        return np.divide(self._sum, self._weight, out=np.zeros_like(self._sum), where=self._weight > 0)


def inverse_square_root(covariance: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ``covariance ** -1/2`` and its rank.

    Parameters
    ----------
    covariance : (n_chans, n_chans)
        Symmetric. Channels whose row is zero get a zero row; so do directions without variance.

    Returns
    -------
    whitener : (n_chans, n_chans)
        Symmetric; apply it as ``whitener @ epoch``. Equals
        ``scipy.linalg.fractional_matrix_power(covariance, -0.5)`` where that exists.
    rank : int
        How many directions were kept.

    Examples
    --------
    >>> whitener, rank = inverse_square_root(np.diag([4.0, 25.0, 0.0]))
    >>> np.round(whitener, 6).tolist(), rank
    ([[0.5, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.0]], 2)
    """
    alive = np.flatnonzero(np.diagonal(covariance) > 0)
    whitener = np.zeros_like(covariance, dtype=np.float64)
    if not len(alive):
        return whitener, 0
    values, vectors = np.linalg.eigh(covariance[np.ix_(alive, alive)])
    kept = values > values[-1] * len(alive) * _DOUBLE
    vectors = vectors[:, kept] / values[kept] ** 0.25
    whitener[np.ix_(alive, alive)] = vectors @ vectors.T
    return whitener, int(kept.sum())
