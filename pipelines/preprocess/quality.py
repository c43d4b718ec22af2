"""How good a subject's epochs are, from the store alone: reliability, retrieval, signal to noise, covariance, evoked.

Reliability is the correlation over images between two halves of an image's repetitions, halves of different
*sessions* where there are several, stepped up to all of them by Spearman and Brown's formula. With signal of variance
``s``, noise of variance ``n`` and ``R`` repetitions it estimates ``s / (s + n / R)``; what a session adds of its own
counts as noise. ``ncsnr`` is that of NSD (Allen et al. 2022): ``sqrt(s / n)`` of a single trial.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipelines.train.metrics import retrieve
from stores.epochs import SplitEpochs, SubjectEpochs

__all__ = ["Halves", "Quality", "measure"]

_MOST_IMAGES = 1000  # evenly spaced, where there are more
_MOST_GROUPS = 4  # of sessions: the fifth joins the first, and so on
_BLOCK_VALUES = 8_000_000
_COVARIANCE_ROWS = 50  # images whose epochs show what whitening did
_HALVES: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {
    2: [((0,), (1,))],
    3: [((0,), (1,)), ((0,), (2,)), ((1,), (2,))],
    4: [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """What two halves of the repetitions say about each other.

    Parameters
    ----------
    between : {"sessions", "repetitions"}
        What the halves differ in.
    reliability : (n_chans, n_times) or (n_voxels,)
        Of the mean over all repetitions, at most 1.
    ncsnr : same shape
        Ratio of the standard deviations of signal and noise in a single trial.
    top1, top5 : float
        How often half of the repetitions find the other half of the same image among all, by the correlation of what
        differs from the mean over images.
    n_images : int
        How many images there are to be found; chance is one in as many.
    """

    between: str
    reliability: np.ndarray
    ncsnr: np.ndarray
    top1: float
    top5: float
    n_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The quality of one subject's epochs.

    Parameters
    ----------
    dataset, subject, modality, units : str, int, str, str
        Whose, and in what.
    ch_names, times, positions
        The axes; ``times`` in s, ``positions`` in m where they are known.
    split : {"train", "test"}
        The one with more repetitions, which is judged.
    n_images, n_repetitions : int
        Of that split.
    evoked : (n_chans, n_times) or None
        Mean over its images.
    halves : Halves or None
        None where an image has one repetition, or the store keeps the mean alone.
    units_before : str
        What a value was in before it was whitened; empty where the store does not say.
    before, after : (n_chans, n_chans) or None
        Covariance of training epochs before and after whitening, mean over sessions, channels that live in all.
    counts, notes : dict, list of str
        What was left out, and what was worth saying.
    """

    dataset: str
    subject: int
    modality: str
    units: str
    ch_names: list[str]
    times: np.ndarray
    positions: list[list[float] | None]
    split: str
    n_images: int
    n_repetitions: int
    evoked: np.ndarray | None = None
    halves: Halves | None = None
    units_before: str = ""
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(subject: SubjectEpochs) -> Quality:
    """Measure the epochs of a subject."""
    name = max(("test", "train"), key=lambda split: getattr(subject, split).n_repetitions)
    split: SplitEpochs = getattr(subject, name)
    before, after = _covariances(subject)
    return Quality(
        dataset=subject.dataset,
        subject=subject.subject,
        modality=subject.modality,
        units=subject.units,
        ch_names=subject.ch_names,
        times=subject.times,
        positions=subject.info.get("ch_pos") or [],
        split=name,
        n_images=len(split),
        n_repetitions=split.n_repetitions,
        evoked=_evoked(split),
        halves=compare_halves(split),
        units_before=subject.info.get("units_before", ""),
        before=before,
        after=after,
        counts=dict(subject.info.get("counts", {})),
        notes=list(subject.info.get("notes", [])),
    )


def _evoked(split: SplitEpochs) -> np.ndarray | None:
    """Return the mean over the images that were seen, ``(n_chans, n_times)``; None of voxels."""
    seen = split.valid.any(axis=1)
    return split.mean[seen].mean(axis=0, dtype=np.float64) if split.mean.ndim == 3 and seen.any() else None


def compare_halves(split: SplitEpochs) -> Halves | None:
    """Compare halves of the repetitions of every image; None where there are none to compare."""
    if split.keep != "all" or split.n_repetitions < 2 or len(split) < 2:
        return None
    images = np.unique(np.linspace(0, len(split) - 1, min(len(split), _MOST_IMAGES)).astype(int))
    valid, session = split.valid[images], split.session[images]
    between, groups = group_repetitions(valid, session)
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 2:
        return None
    counts = np.stack([(groups == group).sum(axis=1) for group in range(n_groups)], axis=1)
    sums: np.ndarray | None = None
    within = total = total_square = np.zeros(1)
    for rows in _blocks(len(images), split):
        epochs = split.take(images[rows])
        shape = epochs.shape[2:]
        trials = np.where(valid[rows][:, :, None], epochs.reshape(*epochs.shape[:2], -1), np.float32(0))
        members = (groups[rows][:, None] == np.arange(n_groups)[:, None]).astype(np.float32)
        sums = np.empty((len(images), n_groups, trials.shape[2]), np.float32) if sums is None else sums
        sums[rows] = members @ trials
        trial_sum = (valid[rows].astype(np.float32)[:, None] @ trials)[:, 0].astype(np.float64)
        square = np.einsum("irf,irf->if", trials, trials).astype(np.float64)
        n_valid = valid[rows].sum(axis=1)[:, None]
        within = within + (square - trial_sum**2 / np.maximum(n_valid, 1)).sum(axis=0)
        total, total_square = total + trial_sum.sum(axis=0), total_square + square.sum(axis=0)
    if sums is None:
        return None
    n_trials, n_shown = int(valid.sum()), int(valid.any(axis=1).sum())
    noise = within / max(n_trials - n_shown, 1)
    variance = total_square / n_trials - (total / n_trials) ** 2
    signal = np.maximum(variance - noise, 0)
    ncsnr = np.sqrt(np.divide(signal, noise, out=np.zeros_like(signal), where=noise > 0))

    correlations, tops = [], []
    for first, second in _HALVES[n_groups]:
        usable = (counts[:, first].sum(axis=1) > 0) & (counts[:, second].sum(axis=1) > 0)
        if usable.sum() < 2:
            continue
        a, b = (
            sums[usable][:, half].sum(axis=1) / counts[usable][:, half].sum(axis=1, dtype=np.float32)[:, None]
            for half in (first, second)
        )
        correlations.append(_correlation(a, b))
        scores = _directions(a - a.mean(axis=0)) @ _directions(b - b.mean(axis=0)).T  # what all share tells nothing
        tops += [(found.top(1), found.top(5), len(scores)) for found in (retrieve(scores), retrieve(scores.T))]
    if not correlations:
        return None
    times = n_groups / len(_HALVES[n_groups][0][0])
    top1, top5, n_images = np.mean(tops, axis=0)
    return Halves(
        between=between,
        reliability=step_up(np.mean(correlations, axis=0), times).reshape(shape),
        ncsnr=ncsnr.reshape(shape),
        top1=float(top1),
        top5=float(top5),
        n_images=round(n_images),
    )


def group_repetitions(valid: np.ndarray, session: np.ndarray) -> tuple[str, np.ndarray]:
    """Say which repetitions of each image belong together: those of one session, else every second.

    Returns
    -------
    between : {"sessions", "repetitions"}
        What groups differ in.
    groups : (n_images, n_repetitions) of int
        Counted from 0 in every image, -1 where not valid.

    Examples
    --------
    >>> valid, session = np.array([[True, True, False, True]]), np.array([[2, 7, 7, 2]])
    >>> group_repetitions(valid, session)[1].tolist()
    [[0, 1, -1, 0]]
    >>> group_repetitions(valid, np.zeros((1, 4)))
    ('repetitions', array([[ 0,  1, -1,  0]]))
    """
    of_session = np.full(valid.shape, -1)
    for image, (good, which) in enumerate(zip(valid, session, strict=True)):
        of_session[image, good] = np.unique(which[good], return_inverse=True)[1] % _MOST_GROUPS
    if np.median(of_session.max(axis=1)) > 0:
        return "sessions", of_session
    return "repetitions", np.where(valid, (np.cumsum(valid, axis=1) - 1) % 2, -1)


def step_up(correlation: np.ndarray, times: float) -> np.ndarray:
    """Return the reliability of ``times`` as many repetitions (Spearman and Brown), as it is where it is negative.

    Examples
    --------
    >>> step_up(np.array([0.5, -1.0]), 2).round(3).tolist()
    [0.667, -1.0]
    """
    shared = np.maximum(correlation, 0)
    return np.where(correlation > 0, times * shared / (1 + (times - 1) * shared), correlation)


def _blocks(n: int, split: SplitEpochs) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // max(1, split.n_repetitions * int(np.prod(split.mean.shape[1:]))))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation over images of every feature, 0 where one does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt(np.einsum("if,if->f", a, a) * np.einsum("if,if->f", b, b))
    found: np.ndarray = np.divide(np.einsum("if,if->f", a, b), scale, out=np.zeros_like(scale), where=scale > 0)
    return found


def _directions(x: np.ndarray) -> np.ndarray:
    """Return rows that are centred and of unit length, so that products are correlations."""
    centred = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(length > 0, length, 1)


def _covariances(subject: SubjectEpochs) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the covariance that the whitening was made from, and that of whitened training epochs."""
    whiteners = subject.arrays.get("whitener")
    train = subject.train
    if whiteners is None or train.keep != "all" or subject.units != "sd of noise" or not train.valid.any():
        return None, None
    alive = whiteners.any(axis=2).all(axis=0)
    roots = [np.linalg.pinv(whitener, hermitian=True) for whitener in whiteners.astype(np.float64)]
    before = np.mean([root @ root for root in roots], axis=0)
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), _COVARIANCE_ROWS)).astype(int))
    epochs = train.take(rows)[train.valid[rows]]
    epochs -= epochs.mean(axis=2, keepdims=True)
    flat = epochs.swapaxes(0, 1).reshape(epochs.shape[1], -1)
    after = (flat @ flat.T).astype(np.float64) / flat.shape[1]
    return before[np.ix_(alive, alive)], after[np.ix_(alive, alive)]
