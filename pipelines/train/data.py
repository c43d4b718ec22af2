"""One subject's recordings in memory, as the recipe wants them: channels, window, normalisation.

They are read once per subject and shared by all its runs; there is no data loader. What belongs to the test set is kept
apart in `Test`, which training never opens.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from pipelines.train.brain_encoders import prepare
from pipelines.train.metrics import retrieve
from pipelines.train.recipes import Recipe
from stores.epochs import SplitEpochs, SubjectEpochs
from stores.errors import BadRecording, EmbedctlError

__all__ = ["Recordings", "Test", "load_subject"]

BLOCK = 128  # images whose repetitions are in memory at a time

Pick = tuple[np.ndarray, np.ndarray | None]  # channels and samples in use; voxels have no samples


@dataclass(frozen=True, slots=True)
class Test:
    """The test recordings and their gallery, read once per run, after training.

    Parameters
    ----------
    epochs : (n_queries, n_chans, n_times)
        Mean over the repetitions of each image.
    target : (n_queries,)
        Gallery row of the image each query shows.
    image_ids, concepts : list of str
        The gallery: all test images, also one whose recordings were all lost.
    n_repetitions : int
        Most repetitions of an image.
    noise_ceiling : float or None
        See `split_half`.
    """

    epochs: torch.Tensor
    target: np.ndarray
    image_ids: list[str]
    concepts: list[str]
    n_repetitions: int
    noise_ceiling: float | None


@dataclass(frozen=True, slots=True)
class Recordings:
    """One subject, ready to train on.

    Parameters
    ----------
    image_ids, concepts : list of str
        The training images that have recordings.
    mean : (n_images, n_chans, n_times)
        Mean over the repetitions of each training image.
    rows : (n_rows, n_chans, n_times)
        What is trained on: the means, or the single trials.
    shown : (n_rows,)
        Training image that each row shows.
    n_times : int
        Samples per epoch, before a brain encoder's fixed first step.
    test : Test
        The test set.
    ch_names : list of str
        The channels in use.
    notes : list of str
        What was chosen or left out, a line each.
    """

    image_ids: list[str]
    concepts: list[str]
    mean: torch.Tensor
    rows: torch.Tensor
    shown: torch.Tensor
    n_times: int
    test: Test
    ch_names: list[str]
    notes: list[str] = field(default_factory=list)

    def ready(self, kind: type[nn.Module], device: str) -> "Recordings":
        """Return the same recordings on a device, after a brain encoder's fixed first step."""
        mean = prepare(kind, self.mean).to(device)
        alike = self.rows is self.mean
        return dataclasses.replace(
            self,
            mean=mean,
            rows=mean if alike else prepare(kind, self.rows).to(device),
            shown=self.shown.to(device),
            test=dataclasses.replace(self.test, epochs=prepare(kind, self.test.epochs).to(device)),
        )


def load_subject(epochs: SubjectEpochs, recipe: Recipe) -> Recordings:
    """Read one subject from the epoch store, once, as a recipe wants it.

    Parameters
    ----------
    epochs : SubjectEpochs
        The subject in the epoch store.
    recipe : Recipe
        Channels, window, normalisation, and whether to train on means or trials.

    Returns
    -------
    Recordings
        Float32 tensors on the CPU.

    Raises
    ------
    BadRecording
        If a repetition that is marked valid holds a number that is not finite.
    EmbedctlError
        If the window holds no sample, or the recipe needs repetitions and the store holds means alone.
    """
    notes: list[str] = []
    names = list(epochs.ch_names) or [f"voxel {i}" for i in range(epochs.train.mean.shape[1])]
    chans, times = _channels(names, recipe, notes), _window(epochs, recipe)
    pick = (chans, times)
    mean, kept = _means(epochs.train, recipe, pick)
    _note_lost(len(epochs.train.image_ids) - len(kept), "training", notes)
    image_ids = [epochs.train.image_ids[i] for i in kept]
    rows, shown = mean, np.arange(len(mean))
    if recipe.train_on == "trials":
        rows, shown = _trials(epochs.train, recipe, pick)
        position = np.full(len(epochs.train.image_ids), -1)
        position[kept] = np.arange(len(kept))
        shown = position[shown]
    test, seen = _means(epochs.test, recipe, pick)
    _note_lost(len(epochs.test.image_ids) - len(seen), "test", notes)
    # One number, from what is trained on alone, so that the test set moves nothing.
    scale = np.float32(rows.std(dtype=np.float64) or 1.0) if recipe.unit_scale else np.float32(1)
    mean_tensor = torch.from_numpy(mean / scale)
    return Recordings(
        image_ids=image_ids,
        concepts=[epochs.train.concepts[i] for i in kept],
        mean=mean_tensor,
        rows=mean_tensor if rows is mean else torch.from_numpy(rows / scale),
        shown=torch.from_numpy(shown),
        n_times=mean.shape[-1],
        test=Test(
            torch.from_numpy(test / scale),
            seen,
            list(epochs.test.image_ids),
            list(epochs.test.concepts),
            int(epochs.test.n_repetitions),
            split_half(epochs.test, pick),
        ),
        ch_names=[names[c] for c in chans],
        notes=notes,
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
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)


def _channels(names: list[str], recipe: Recipe, notes: list[str]) -> np.ndarray:
    """Return the channels of the recipe that exist; all of them when none does."""
    found = np.array([names.index(name) for name in recipe.channels if name in names], dtype=np.int64)
    if not recipe.channels or len(found) == len(recipe.channels):
        return found if recipe.channels else np.arange(len(names))
    if not len(found):
        notes.append(f"none of the recipe's {len(recipe.channels)} channels exist here: all {len(names)} are used")
        return np.arange(len(names))
    notes.append(f"{len(found)} of the recipe's {len(recipe.channels)} channels exist here and are used")
    return found


def _window(epochs: SubjectEpochs, recipe: Recipe) -> np.ndarray | None:
    """Return the samples inside the recipe's window, both ends included."""
    times = np.asarray(epochs.times, dtype=np.float64)
    if not len(times):
        return None
    if not recipe.window:
        return np.arange(len(times))
    # Half a sample of slack: stored times are multiples of 1 / sfreq only up to rounding.
    slack = 0.5 / epochs.sfreq if epochs.sfreq else 0.0
    first, last = recipe.window
    inside = np.flatnonzero((times >= first - slack) & (times < last + slack))
    if not len(inside):
        raise EmbedctlError(
            f"no sample between {first} and {last} s: these epochs last from {times[0]:g} to {times[-1]:g} s",
            "choose another window in the recipe",
        )
    return inside


def _means(split: SplitEpochs, recipe: Recipe, pick: Pick) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over each image's repetitions and the images that have any."""
    kept = np.flatnonzero(np.asarray(split.valid).any(axis=1))
    if not len(kept):
        raise BadRecording("no image has a valid recording", "look at what preprocess dropped: embedctl show")
    if recipe.trial_norm == "norm-then-mean":
        found = [_mean_over(_normalise(block), valid) for _, block, valid in _blocks(split, pick)]
        mean = np.concatenate(found)[kept]
    else:
        mean = _picked(np.asarray(split.mean), pick)[kept]
        if recipe.trial_norm == "mean-then-norm":
            mean = _normalise(mean)
    _require_finite(mean, split, kept)
    return mean, kept


def _trials(split: SplitEpochs, recipe: Recipe, pick: Pick) -> tuple[np.ndarray, np.ndarray]:
    """Return every valid repetition, and the image it shows."""
    rows, shown = [], []
    for images, block, valid in _blocks(split, pick):
        image, _ = np.nonzero(valid)
        rows.append(block[valid] if recipe.trial_norm == "none" else _normalise(block[valid]))
        shown.append(images[image])
    return np.concatenate(rows), np.concatenate(shown)


def _blocks(split: SplitEpochs, pick: Pick | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield images, their repetitions ``(n, repetition, channel, time)`` and which of these are valid."""
    if split.keep != "all":
        raise EmbedctlError(
            "this store keeps the mean of the repetitions alone",
            "preprocess again with --keep all, or choose a recipe that trains on means as they are",
        )
    valid_all = np.asarray(split.valid)
    for start in range(0, len(split.image_ids), BLOCK):
        images = np.arange(start, min(start + BLOCK, len(split.image_ids)))
        block, valid = _picked(split.take(images), pick), valid_all[images]
        image, _ = np.nonzero(valid)
        _require_finite(block[valid], split, images[image])
        yield images, block, valid


def _picked(x: np.ndarray, pick: Pick | None) -> np.ndarray:
    """Take channels and times, the last two axes; a voxel counts as a channel with one time."""
    if pick is None:
        return x
    chans, times = pick
    x = x[..., chans, None] if times is None else x[..., chans, :][..., times]
    return np.ascontiguousarray(x, dtype=np.float32)


def _normalise(x: np.ndarray) -> np.ndarray:
    """Centre each channel over time and divide it by the norm it had before centring, as AlignVis does."""
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return (x - x.mean(axis=-1, keepdims=True)) / np.where(norm > 0, norm, 1)


def _mean_over(block: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Average the repetitions in use; images without any become NaN."""
    chosen = np.where(use[..., None, None], block, 0)
    count = use.sum(axis=1)[:, None, None]
    return np.where(count > 0, chosen.sum(axis=1) / np.maximum(count, 1), np.nan).astype(np.float32)


def _require_finite(x: np.ndarray, split: SplitEpochs, images: Sequence[int] | np.ndarray) -> None:
    broken = ~np.isfinite(x).all(axis=(1, 2))
    if broken.any():
        first = split.image_ids[int(np.asarray(images)[np.flatnonzero(broken)[0]])]
        raise BadRecording(
            f"{int(broken.sum())} valid recordings hold numbers that are not finite, first of '{first}'",
            "run embedctl verify on the epoch store, and preprocess this subject again",
        )


def _note_lost(n_lost: int, what: str, notes: list[str]) -> None:
    if n_lost > 0:
        notes.append(f"{n_lost} {what} images have no valid recording and are left out")
