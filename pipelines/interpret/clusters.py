"""Where a course over time differs from zero, corrected for having looked at every time (MNE's cluster permutation)."""

from dataclasses import dataclass

import numpy as np

from pipelines.preprocess.resampling import import_mne

__all__ = ["LEVEL", "Cluster", "clusters"]

LEVEL = 0.05
PERMUTATIONS = 1023  # and the one observed


@dataclass(frozen=True, slots=True)
class Cluster:
    """Adjacent times at which the mean is on one side of zero.

    Parameters
    ----------
    first, last : float
        First and last time, s.
    sign : int
        1 or -1.
    p : float
        Of the cluster's summed t values, against the largest cluster under random signs.
    """

    first: float
    last: float
    sign: int
    p: float


def clusters(values: np.ndarray, times: np.ndarray, *, above_zero: bool = False) -> list[Cluster]:
    """Return the significant clusters of a one-sample cluster permutation test, in order of time.

    Samples are images or subjects; each keeps or changes its sign as a whole. Clusters are formed at the t value of
    p = 0.05 (Maris and Oostenveld, 2007).

    Parameters
    ----------
    values : (n_samples, n_times)
        One course each.
    times : (n_times,)
        In s.
    above_zero : bool
        Whether only clusters above zero are looked for.

    Raises
    ------
    NotHere
        If mne is not installed.

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=(30, 50)) + np.r_[np.zeros(20), np.ones(10), np.zeros(20)]
    >>> [found] = clusters(values, np.arange(50) / 50)
    >>> found.sign, abs(found.first - 0.4) < 0.05, abs(found.last - 0.58) < 0.05
    (1, True, True)
    """
    if len(values) < 2 or len(times) < 2 or not values.any():
        return []
    mne = import_mne()
    from mne.stats import permutation_cluster_1samp_test
    from scipy.stats import t as student

    tail = 1 if above_zero else 0
    threshold = student.isf(LEVEL if above_zero else LEVEL / 2, len(values) - 1)
    # A time that a brain encoder does not see is zero in every sample: its t value is none, and no cluster holds it.
    with mne.utils.use_log_level("error"), np.errstate(divide="ignore", invalid="ignore"):
        _, found, p, _ = permutation_cluster_1samp_test(
            np.ascontiguousarray(values, dtype=np.float64),
            threshold=threshold,
            n_permutations=PERMUTATIONS + 1,
            tail=tail,
            out_type="mask",
            seed=0,
            buffer_size=None,
        )
    kept = []
    for mask, value in zip(found, p.tolist(), strict=True):
        inside = np.flatnonzero(_as_mask(mask, len(times)))
        if value <= LEVEL:
            sign = 1 if values[:, inside].mean() > 0 else -1
            kept.append(Cluster(float(times[inside[0]]), float(times[inside[-1]]), sign, float(value)))
    return sorted(kept, key=lambda cluster: cluster.first)


def _as_mask(cluster: tuple[slice] | np.ndarray, n: int) -> np.ndarray:
    """MNE gives a slice where there is one dimension."""
    if isinstance(cluster, tuple):
        mask = np.zeros(n, bool)
        mask[cluster] = True
        return mask
    return cluster
