"""An epoch is a window of the recording times a matrix.

Low-pass filtering, resampling and cropping are linear, so for a fixed window around an onset they
are one matrix, made once and applied to every epoch with one product. That is exact at any onset
(an onset need not fall on the output's grid), needs no filtered copy of the recording, and costs the same in blocks
of any size. ``mne.Epochs.resample`` is linear too: its matrix is its answer to unit impulses.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from pipelines.preprocess.recipes import Recipe
from stores.errors import NotHere

__all__ = ["EpochMatrix", "epoch_matrix", "import_mne", "one_thread"]

_HALF_WIDTH = 10  # of the low-pass, in output samples: scipy.signal.resample_poly's choice
_KAISER_BETA = 5.0  # its window


@dataclass(frozen=True, slots=True)
class EpochMatrix:
    """What turns a window of samples around an onset into an epoch.

    Parameters
    ----------
    first : int
        Where the window starts, in samples from the onset.
    bands : tuple of (slice of samples, slice of times, matrix)
        The matrix ``(n_samples, n_times)`` as blocks: outside them it is zero.
    baseline : slice
        Samples of the window whose mean is subtracted first; empty for none.
    required : (int, int)
        First and last sample, from the onset, that must exist in the recording.
    time_offset_ms : float
        The stored value at ``t`` is the signal at ``t + time_offset_ms``.
    """

    first: int
    n_samples: int
    n_times: int
    bands: tuple[tuple[slice, slice, np.ndarray], ...]
    gain: np.ndarray
    baseline: slice
    required: tuple[int, int]
    time_offset_ms: float

    def apply(self, window: np.ndarray, out: np.ndarray) -> None:
        """Write the epoch of ``window`` ``(n_chans, n_samples)`` into ``out`` ``(n_chans, n_times)``."""
        for samples, times, matrix in self.bands:
            np.matmul(window[:, samples], matrix, out=out[:, times])
        if self.baseline.stop > self.baseline.start:
            out -= window[:, self.baseline].mean(axis=1, keepdims=True) * self.gain


def epoch_matrix(recipe: Recipe, sfreq: float) -> EpochMatrix:
    """Return the matrix of ``recipe`` for a recording at ``sfreq`` Hz.

    Raises
    ------
    NotHere
        If the recipe resamples as mne does and mne is not installed.

    Examples
    --------
    >>> from pipelines.preprocess.recipes import read_recipe
    >>> matrix = epoch_matrix(read_recipe("clean"), 1000.0)
    >>> matrix.n_times, matrix.required, abs(round(matrix.time_offset_ms, 3))
    (250, (-200, 1000), 0.0)
    """
    first, last = round(recipe.epoch[0] * sfreq), round(recipe.epoch[1] * sfreq)
    instants = np.array(recipe.times) * sfreq  # in samples from the onset
    if recipe.resample == "mne-epochs":
        start, matrix = first, _as_mne_does(recipe, sfreq, first, last)
    else:
        half = int(np.ceil(_HALF_WIDTH * max(1.0, sfreq / recipe.sfreq)))
        start = min(first, int(np.floor(instants[0])) - half)
        stop = max(last, int(np.ceil(instants[-1])) + half)
        matrix = _low_pass(np.arange(start, stop + 1), instants, max(1.0, sfreq / recipe.sfreq))
    baseline = slice(0, 0)
    if recipe.baseline:
        baseline = slice(round(recipe.baseline[0] * sfreq) - start, round(recipe.baseline[1] * sfreq) - start + 1)
    return EpochMatrix(
        first=start,
        n_samples=len(matrix),
        n_times=recipe.n_times,
        bands=_bands(matrix.astype(recipe.compute)),
        gain=matrix.sum(axis=0).astype(recipe.compute),
        baseline=baseline,
        required=(first, last),
        time_offset_ms=_time_offset(matrix, start, instants, sfreq),
    )


def import_mne() -> ModuleType:
    """Return mne, or say how to get it."""
    try:
        import mne
    except ImportError:
        raise NotHere("this needs mne, which is not installed", 'pip install "embedctl[brain]"') from None
    return mne


def one_thread() -> AbstractContextManager[Any]:
    """Keep linear algebra on one thread: products of one epoch are so small that two spend their time waiting.

    Measured on two busy cores: 0.26 ms per epoch on one thread, 1.8 ms of processor time on two. One thread also
    gives the same bytes on every computer with the same library.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise NotHere("this needs threadpoolctl, which is not installed", 'pip install "embedctl[brain]"') from None
    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


def _low_pass(samples: np.ndarray, instants: np.ndarray, ratio: float) -> np.ndarray:
    """Return a windowed sinc around every instant, cut off at the lower of the two Nyquist frequencies."""
    distance = (samples[:, None] - instants[None, :]) / ratio
    inside = np.clip(1 - (distance / _HALF_WIDTH) ** 2, 0, None)
    kernel = np.sinc(distance) * np.where(np.abs(distance) <= _HALF_WIDTH, np.i0(_KAISER_BETA * np.sqrt(inside)), 0)
    return kernel / kernel.sum(axis=0)  # a constant stays what it is


def _as_mne_does(recipe: Recipe, sfreq: float, first: int, last: int) -> np.ndarray:
    """Return the response of ``mne.Epochs.resample`` to a unit impulse at every sample of the epoch."""
    impulses = np.eye(last - first + 1)
    mne = import_mne()
    response = mne.filter.resample(
        impulses, up=recipe.sfreq, down=sfreq, npad="auto", pad="edge", window="auto", verbose="error"
    )
    skipped = round((recipe.window[0] - recipe.epoch[0]) * recipe.sfreq)
    return np.ascontiguousarray(response[:, skipped : skipped + recipe.n_times])


def _bands(matrix: np.ndarray, width: int = 50) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Cut a matrix into blocks of columns without their zero rows: a fifth of the work when it is banded."""
    bands = []
    for column in range(0, matrix.shape[1], width):
        times = slice(column, min(column + width, matrix.shape[1]))
        rows = np.flatnonzero(matrix[:, times].any(axis=1))
        samples = slice(int(rows[0]), int(rows[-1]) + 1)
        bands.append((samples, times, np.ascontiguousarray(matrix[samples, times])))
    if all(samples.stop - samples.start == len(matrix) for samples, _, _ in bands):
        return ((slice(0, len(matrix)), slice(0, matrix.shape[1]), matrix),)
    return tuple(bands)


def _time_offset(matrix: np.ndarray, start: int, instants: np.ndarray, sfreq: float, probe: float = 10.0) -> float:
    """Measure, with a wave of ``probe`` Hz, how many milliseconds ahead of its label a sample is."""
    wave = np.exp(2j * np.pi * probe * (np.arange(len(matrix)) + start) / sfreq) @ matrix
    expected = np.exp(2j * np.pi * probe * instants / sfreq)
    inside = slice(len(instants) // 10, len(instants) - len(instants) // 10)
    phase = np.angle(np.vdot(expected[inside], wave[inside]))
    return round(float(1000 * phase / (2 * np.pi * probe)), 3) + 0.0  # no negative zero in a store
