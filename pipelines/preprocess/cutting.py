"""Cut epochs out of a mapped recording, and tell which of their channels cannot be used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.preprocess.recipes import Recipe
from pipelines.preprocess.recording import Recording
from pipelines.preprocess.resampling import HALF_WIDTH, EpochMatrix, epoch_matrix

__all__ = ["Cutter", "first_broken", "good_channels", "lost_samples", "n_extreme"]

_BATCH = 64  # epochs at a time: 13 s of recording, 60 MB for 63 channels in float64
_FLAT = 1e-3  # of the typical channel's sd in the same epoch
_PARTS = 10  # of an epoch, each of which must not be flat: electrodes fall off for less than a second, too
_EXTREME = 1e-3  # V from the lowest to the highest value of an epoch: no brain does that


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the epochs of one recipe out of recordings at one sampling frequency.

    Parameters
    ----------
    recipe : Recipe
        What an epoch is.
    channels : tuple of str
        Which channels, in the order of the result.
    matrix : EpochMatrix
        From a window of the recording to an epoch.
    """

    recipe: Recipe
    channels: tuple[str, ...]
    matrix: EpochMatrix

    @classmethod
    def of(cls, recipe: Recipe, recording: Recording) -> "Cutter":
        """Return the cutter of ``recipe`` for ``recording`` and those like it."""
        return cls(recipe, recipe.channels or tuple(recording.rows), epoch_matrix(recipe, recording.sfreq))

    @property
    def epoch_bytes(self) -> int:
        """Bytes of one epoch while it is computed with."""
        return len(self.channels) * self.matrix.n_times * np.dtype(self.recipe.compute).itemsize

    @property
    def batch_bytes(self) -> int:
        """Most bytes of the samples under a batch of epochs, as they are read."""
        return 8 * _BATCH * len(self.channels) * self.matrix.n_samples

    def fits(self, recording: Recording, onsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which onsets leave room for an epoch in the recording, and whose epoch meets what is marked bad."""
        first, last = self.matrix.required
        return recording.fits(onsets + first, onsets + last), recording.is_marked(onsets + first, onsets + last)

    def epochs(self, recording: Recording, onsets: np.ndarray) -> np.ndarray:
        """Return the epochs at ``onsets``, ``(n, n_chans, n_times)``, in the recipe's unit, not whitened."""
        length = self.matrix.n_samples
        out = np.empty((len(onsets), len(self.channels), self.matrix.n_times), self.recipe.compute)
        starts = onsets + self.matrix.first
        with np.errstate(invalid="ignore"):  # a broken sample breaks its channel's epoch, which is found later
            if len(starts) and starts.max() - starts.min() < len(starts) * length:
                low = int(starts.min())  # they overlap: read what they cover once
                block = self._read(recording, low, int(starts.max()) + length)
                for epoch, start in zip(out, (starts - low).tolist(), strict=True):
                    self.matrix.apply(block[:, start : start + length], epoch)
            else:
                for epoch, start in zip(out, starts.tolist(), strict=True):
                    self.matrix.apply(self._read(recording, start, start + length), epoch)
        return out

    def batches(self, recording: Recording, onsets: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield ``(slice, epochs)``, the epochs at ``onsets[slice]``."""
        for start in range(0, len(onsets), _BATCH):
            part = slice(start, min(start + _BATCH, len(onsets)))
            yield part, self.epochs(recording, onsets[part])

    def _read(self, recording: Recording, first: int, stop: int) -> np.ndarray:
        """Return a block in the recipe's unit and number type, its constant removed in float64.

        Amplifier offsets are a hundred times the signal; taking them off before rounding
        to float32 keeps two more digits, and the epoch's baseline makes it irrelevant which constant.
        """
        scale = 1e6 if self.recipe.units == "uV" else 1.0
        block = recording.read(first, stop, self.channels, scale)
        if not self.recipe.baseline:
            return block.astype(self.recipe.compute, copy=False)
        out = np.empty(block.shape, self.recipe.compute)
        np.subtract(block, _level(block), out=out, casting="same_kind")
        return out


def _level(block: np.ndarray) -> np.ndarray:
    """Return the mean of every channel over its finite samples, ``(n_chans, 1)``."""
    with np.errstate(invalid="ignore"):
        level = block.mean(axis=1, keepdims=True)
    for channel in np.flatnonzero(~np.isfinite(level)):
        finite = block[channel][np.isfinite(block[channel])]
        level[channel] = finite.mean() if len(finite) else 0
    return level


def good_channels(epochs: np.ndarray) -> np.ndarray:
    """Return which channels of which epochs are neither flat nor broken, ``(n, n_chans)`` of bool.

    A channel is flat when its sd over the epoch, or over one of its ten parts, is below a thousandth of the median
    channel's over the same; broken when a sample is not finite.

    Examples
    --------
    >>> epochs = np.random.default_rng(0).normal(size=(2, 3, 100))
    >>> epochs[0, 1] = 5.0
    >>> epochs[1, 2, 7] = np.nan
    >>> good_channels(epochs).tolist()
    [[True, False, True], [True, True, False]]
    """
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        sd = epochs.std(axis=2)
    finite = np.isfinite(sd)
    typical = np.median(sd, axis=1)
    for epoch in np.flatnonzero(~finite.all(axis=1)):
        typical[epoch] = np.median(sd[epoch, finite[epoch]]) if finite[epoch].any() else np.inf
    with np.errstate(invalid="ignore"):
        return finite & (sd > _FLAT * typical[:, None]) & ~_flat_for_a_while(epochs)


def _flat_for_a_while(epochs: np.ndarray) -> np.ndarray:
    """Return which channels of which epochs do not move in a tenth of it in which most others do."""
    n = epochs.shape[2] // _PARTS
    if n < _PARTS:  # so few samples that quiet ones may follow each other by chance
        return np.zeros(epochs.shape[:2], bool)
    # A few samples of each part tell, and all would cost as much as the rest of the first pass.
    some = np.stack([epochs[:, :, first : n * _PARTS : n] for first in range(0, n, n // 5)])
    with np.errstate(invalid="ignore"):
        sd = some.std(axis=0)
        flat: np.ndarray = (sd < _FLAT * np.median(sd, axis=1, keepdims=True)).any(axis=2)
    return flat


def lost_samples(epochs: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return which samples of channels that are not good say nothing: flat for a tenth of an epoch, or not finite.

    So are those beside them that the low-pass made of both. Where none is found, the whole channel says nothing.

    Parameters
    ----------
    epochs : (n, n_chans, n_times)
        Any unit.
    good : (n, n_chans) of bool
        What `good_channels` found.

    Examples
    --------
    >>> epochs = np.random.default_rng(0).normal(size=(1, 5, 200))
    >>> epochs[0, 1, 100:140] = 5.0
    >>> lost = lost_samples(epochs, good_channels(epochs))
    >>> np.flatnonzero(lost[0, 1])[[0, -1]].tolist(), int(lost[0].sum())
    ([90, 149], 60)
    """
    lost = np.zeros(epochs.shape, bool)
    n = epochs.shape[2] // _PARTS
    for epoch, usable, gone in zip(epochs, good, lost, strict=True):
        bad = np.flatnonzero(~usable)
        gone[bad] = True
        if n < _PARTS or not usable.any():
            continue
        typical = np.median(_span(epoch[usable], n), axis=0)
        for channel in bad.tolist():
            broken = ~np.isfinite(epoch[channel])
            begins = np.flatnonzero(_span(np.where(broken, 0, epoch[channel])[None], n)[0] < _FLAT * typical)
            broken[np.unique(begins[:, None] + np.arange(n))] = True
            if broken.any():
                gone[channel] = np.convolve(broken, np.ones(2 * HALF_WIDTH + 1), "same") > 0
    return lost


def _span(values: np.ndarray, n: int) -> np.ndarray:
    """Return how far channels ``(n_chans, n_times)`` move within every ``n`` samples that follow each other."""
    windows = np.lib.stride_tricks.sliding_window_view(values, n, axis=1)
    found: np.ndarray = windows.max(axis=2) - windows.min(axis=2)
    return found


def n_extreme(epochs: np.ndarray, units: str) -> int:
    """Return how many epochs ``(n, n_chans, n_times)`` have a channel that spans more than a millivolt.

    Examples
    --------
    >>> epochs = np.zeros((3, 2, 100))
    >>> epochs[1, 0, 50] = 1500
    >>> n_extreme(epochs, "uV")
    1
    """
    limit = _EXTREME * (1e6 if units == "uV" else 1.0)
    with np.errstate(invalid="ignore"):
        span = epochs.max(axis=2) - epochs.min(axis=2)
        return int((span > limit).any(axis=1).sum())


def first_broken(recording: Recording, channels: Sequence[str], first: int, stop: int) -> tuple[str, float] | None:
    """Return channel and time, s, of the first sample between two that is not finite."""
    block = recording.read(first, stop, channels)
    where = np.argwhere(~np.isfinite(block.T))
    return (channels[where[0, 1]], (first + int(where[0, 0])) / recording.sfreq) if len(where) else None
