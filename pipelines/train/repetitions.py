"""The repetitions of each image: averaged, normalised, taken singly, or split into halves."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.train.metrics import retrieve, to_length_one
from stores.epochs import SplitEpochs
from stores.errors import BadRecording, EmbedctlError

__all__ = ["BLOCK_BYTES", "Pick", "fewer", "means", "normalise", "split_half", "trials", "usual_number"]

BLOCK_BYTES = 2**25  # of recordings on their way: averaging and normalising them takes several times as much

Pick = tuple[np.ndarray, np.ndarray | None]  # channels and samples in use; voxels have no samples


def means(split: SplitEpochs, trial_norm: str, pick: Pick) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over each image's repetitions, and the images that have any.

    Parameters
    ----------
    split : SplitEpochs
        Where they are stored.
    trial_norm : str
        ``none``, ``norm-then-mean`` or ``mean-then-norm``.
    pick : Pick
        Channels and samples.

    Returns
    -------
    mean : (n_images, n_chans, n_times) float32
        One row per image with a valid repetition.
    kept : (n_images,)
        Which images these are.

    Raises
    ------
    BadRecording
        If there are none, or one holds a number that is not finite.
    """
    kept = np.flatnonzero(np.asarray(split.valid).any(axis=1))
    if not len(kept):
        raise BadRecording("no image has a valid recording", "look at what preprocess dropped: embedctl show")
    mean = _collected(_averaged(split, trial_norm, pick), len(kept))
    _require_finite(mean, split, kept)
    return mean, kept


def _averaged(split: SplitEpochs, trial_norm: str, pick: Pick) -> Iterator[np.ndarray]:
    """Yield the means of images that have any repetition, some at a time."""
    there = np.atleast_1d(np.asarray(split.valid).any(axis=1))
    if trial_norm == "norm-then-mean":
        for images, block, valid in _blocks(split, pick):
            yield _mean_over(normalise(block), valid)[there[images]]
        return
    for images in _some(split, split.read_mean(0, 1).nbytes):
        part = _picked(split.read_mean(images[0], images[-1] + 1), pick)[there[images]]
        yield normalise(part) if trial_norm == "mean-then-norm" else part


def _collected(parts: Iterator[np.ndarray], n_rows: int) -> np.ndarray:
    """Return parts as one array, which is in memory once."""
    part = next(parts)
    found = np.empty((n_rows, *part.shape[1:]), np.float32)
    found[: len(part)], n = part, len(part)
    for part in parts:
        found[n : n + len(part)] = part
        n += len(part)
    return found


def usual_number(split: SplitEpochs) -> int:
    """Return the number of valid repetitions of most images: the median over those that have one."""
    counts = np.asarray(split.valid).sum(axis=1)
    return int(np.median(counts[counts > 0])) if counts.any() else 0


def fewer(split: SplitEpochs, trial_norm: str, pick: Pick) -> dict[int, np.ndarray]:
    """Return means over fewer repetitions of each image than there are: 1, 2, 4, ... of them.

    They are taken in a random order of each image's own, drawn once, so that the larger numbers contain the smaller. An
    image with fewer repetitions gives all it has.

    Returns
    -------
    dict of int to (n_images, n_chans, n_times) float32
        By number, below the usual one; rows as of `means`. Empty where the store keeps the mean alone.
    """
    numbers = [2**k for k in range(usual_number(split).bit_length()) if 2**k < usual_number(split)]
    if split.keep != "all" or not numbers:
        return {}
    valid_of = np.asarray(split.valid)
    lots = np.where(valid_of, np.random.default_rng(0).random(valid_of.shape), 2.0)
    place = lots.argsort(axis=1).argsort(axis=1)
    found: dict[int, list[np.ndarray]] = {n: [] for n in numbers}
    for images, block, valid in _blocks(split, pick):
        block = normalise(block) if trial_norm == "norm-then-mean" else block
        for n, parts in found.items():
            parts.append(_mean_over(block, valid & (place[images] < n)))
    kept = np.flatnonzero(valid_of.any(axis=1))
    averaged = {n: np.concatenate(parts)[kept] for n, parts in found.items()}
    return {n: normalise(mean) for n, mean in averaged.items()} if trial_norm == "mean-then-norm" else averaged


def trials(split: SplitEpochs, trial_norm: str, pick: Pick) -> tuple[np.ndarray, np.ndarray]:
    """Return every valid repetition, ``(n_trials, n_chans, n_times)``, and the image it shows; see `means`."""
    valid_of = np.asarray(split.valid)
    found = (
        block[valid] if trial_norm == "none" else normalise(block[valid]) for _, block, valid in _blocks(split, pick)
    )
    return _collected(found, int(valid_of.sum())), np.nonzero(valid_of)[0]


def _blocks(split: SplitEpochs, pick: Pick | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield images, their repetitions ``(n, repetition, channel, time)`` and which of these are valid."""
    if split.keep != "all":
        raise EmbedctlError(
            "this store keeps the mean of the repetitions alone",
            "embedctl preprocess --keep all keeps them, in another store; or choose a recipe that trains on the mean",
        )
    valid_all = np.asarray(split.valid)
    for images in _some(split, split.take(np.arange(1)).nbytes):
        block, valid = _picked(split.take(images), pick), valid_all[images]
        image, _ = np.nonzero(valid)
        _require_finite(block[valid], split, images[image])
        yield images, block, valid


def _some(split: SplitEpochs, bytes_each: int) -> Iterator[np.ndarray]:
    """Yield the images in order, as many at a time as take `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // bytes_each)
    for start in range(0, len(split), size):
        yield np.arange(start, min(start + size, len(split)))


def _picked(x: np.ndarray, pick: Pick | None) -> np.ndarray:
    """Take channels and times, the last two axes; a voxel counts as a channel with one time."""
    if pick is None:
        return x
    chans, times = pick
    x = x[..., chans, None] if times is None else x[..., chans, :]
    if times is not None and len(times) < x.shape[-1]:
        x = x[..., times]
    return np.ascontiguousarray(x, dtype=np.float32)


def normalise(x: np.ndarray) -> np.ndarray:
    """Centre each channel over time and divide it by the norm it had before centring, as AlignVis does."""
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    normalised: np.ndarray = (x - x.mean(axis=-1, keepdims=True)) / np.where(norm > 0, norm, 1)
    return normalised


def _mean_over(block: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Average the repetitions in use; images without any become NaN."""
    chosen = np.where(use[..., None, None], block, 0)
    count = use.sum(axis=1)[:, None, None]
    return np.where(count > 0, chosen.sum(axis=1) / np.maximum(count, 1), np.nan).astype(np.float32)


def _require_finite(x: np.ndarray, split: SplitEpochs, images: Sequence[int] | np.ndarray) -> None:
    broken = ~np.concatenate([np.isfinite(x[at : at + 512]).all(axis=(1, 2)) for at in range(0, len(x) or 1, 512)])
    if broken.any():
        first = split.image_ids[int(np.asarray(images)[np.flatnonzero(broken)[0]])]
        raise BadRecording(
            f"{int(broken.sum())} valid recordings hold numbers that are not finite, first of '{first}'",
            "remove this subject from the epoch store, and preprocess it again",
        )


def split_half(split: SplitEpochs, pick: Pick | None = None) -> float | None:
    """Return how often half of an image's repetitions find the other half among all images.

    The mean of the even repetitions is correlated with the mean of the odd ones, over all channels and times, and
    retrieved among all images. It says how far the recordings alone, with half the repetitions and no learned filter,
    tell the images apart. A decoder that suppresses noise may exceed it.

    Returns
    -------
    float or None
        Top-1 accuracy, averaged over both directions; None when an image has fewer than two repetitions.
    """
    if split.n_repetitions < 2 or split.keep != "all" or len(split.image_ids) < 2:
        return None
    halves: list[list[np.ndarray]] = [[], []]
    for _, block, valid in _blocks(split, pick):
        turn = np.cumsum(valid, axis=1) % 2
        for half, found in enumerate(halves):
            use = valid & (turn == half)
            if not use.any(axis=1).all():
                return None
            found.append(_mean_over(block, use))
    even, odd = (_directions(np.concatenate(half)) for half in halves)
    scores = even @ odd.T
    return (retrieve(scores).top(1) + retrieve(scores.T).top(1)) / 2


def _directions(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    to_length_one(flat)
    return flat
