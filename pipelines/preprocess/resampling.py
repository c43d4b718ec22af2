"""An epoch is a window of the recording times a matrix.

Low-pass filtering, resampling and cropping are linear, so for a fixed window around an onset they
are one matrix, made once and applied to every epoch with one product. That is exact at any onset
(an onset need not fall on the output's grid), needs no filtered copy of the recording, and costs the same in blocks
of any size. ``mne.Epochs.resample`` is linear too, and a Fourier transform: it is done as such, after a comparison with
mne's own answer.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from pipelines.preprocess.recipes import Recipe
from stores.errors import NotHere

__all__ = ["HALF_WIDTH", "EpochMatrix", "Fourier", "epoch_matrix", "import_mne", "one_thread"]

HALF_WIDTH = 10
"""Of the low-pass, in output samples: scipy.signal.resample_poly's choice."""
_KAISER_BETA = 5.0  # its window


@dataclass(frozen=True, slots=True)
class EpochMatrix:
    """What turns a window of samples around an onset into an epoch.

    Parameters
    ----------
    first : int
        Where the window starts, in samples from the onset.
    bands : tuple of (slice of samples, slice of times, matrix)
        The matrix ``(n_samples, n_times)`` as blocks: outside them it is zero. None with ``fourier``.
    fourier : Fourier or None
        What there is in place of a matrix.
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
    fourier: "Fourier | None"
    gain: np.ndarray
    baseline: slice
    required: tuple[int, int]
    time_offset_ms: float

    def apply(self, window: np.ndarray, out: np.ndarray) -> None:
        """Write the epoch of ``window`` ``(n_chans, n_samples)`` into ``out`` ``(n_chans, n_times)``."""
        if self.fourier:
            out[:] = self.fourier.resample(window)[:, self.fourier.kept]
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
    fourier = None
    if recipe.resample == "mne-epochs":
        start = first
        fourier, matrix = _as_mne_does(recipe, sfreq, last - first + 1)
    else:
        half = int(np.ceil(HALF_WIDTH * max(1.0, sfreq / recipe.sfreq)))
        start = min(first, int(np.floor(instants[0])) - half)
        stop = max(last, int(np.ceil(instants[-1])) + half)
        matrix = _low_pass(np.arange(start, stop + 1), instants, max(1.0, sfreq / recipe.sfreq))
    baseline = slice(0, 0)
    if recipe.baseline:
        baseline = slice(round(recipe.baseline[0] * sfreq) - start, round(recipe.baseline[1] * sfreq) - start + 1)

    def respond(signal: np.ndarray) -> np.ndarray:
        return fourier.resample(signal)[:, fourier.kept] if fourier else signal @ matrix

    return EpochMatrix(
        first=start,
        n_samples=len(matrix),
        n_times=recipe.n_times,
        bands=() if fourier else _bands(matrix.astype(recipe.compute)),
        fourier=fourier,
        gain=respond(np.ones((1, len(matrix))))[0].astype(recipe.compute),
        baseline=baseline,
        required=(first, last),
        # At a quarter of the new Nyquist frequency or below, 10 Hz at most: far from where a low-pass begins.
        time_offset_ms=_time_offset(
            respond, np.arange(len(matrix)) + start, instants, sfreq, probe=min(10.0, recipe.sfreq / 8)
        ),
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
    inside = np.clip(1 - (distance / HALF_WIDTH) ** 2, 0, None)
    kernel = np.sinc(distance) * np.where(np.abs(distance) <= HALF_WIDTH, np.i0(_KAISER_BETA * np.sqrt(inside)), 0)
    return kernel / kernel.sum(axis=0)  # a constant stays what it is


@dataclass(frozen=True, slots=True)
class Fourier:
    """``mne.Epochs.resample``: pad with the outermost samples to a power of two, cut the spectrum, trim.

    Parameters
    ----------
    pads : (int, int)
        Samples added before and after.
    length : int
        Of what is resampled, padding included.
    trim : int
        Resampled samples that stand for the padding before.
    kept : slice
        What the recipe keeps of the rest.
    """

    pads: tuple[int, int]
    length: int
    trim: int
    kept: slice

    @classmethod
    def of(cls, n_samples: int, ratio: float, kept: slice) -> "Fourier":
        """Return what mne does to ``n_samples``, resampled to ``ratio`` times as many."""
        at_least = n_samples + 2 * min(n_samples // 8, 100)
        padding = 2 ** int(np.ceil(np.log2(at_least))) - n_samples
        before = padding // 2
        # Both are rounded, which is where mne's shift comes from.
        return cls((before, padding - before), round((n_samples + padding) * ratio), round(before * ratio), kept)

    def resample(self, signal: np.ndarray) -> np.ndarray:
        """Return a signal ``(n, n_samples)`` resampled, ``(n, up to length - trim)``."""
        from scipy.fft import irfft, rfft

        before, n = self.pads[0], signal.shape[1]
        padded = np.empty((len(signal), n + sum(self.pads)), signal.dtype)
        padded[:, :before], padded[:, before : before + n] = signal[:, :1], signal
        padded[:, before + n :] = signal[:, -1:]
        spectrum = rfft(padded, overwrite_x=True)[:, : self.length // 2 + 1]
        if self.length % 2 == 0:
            spectrum[:, -1] *= 2  # the Nyquist frequency stands for both of its sides
        found: np.ndarray = irfft(spectrum, self.length, overwrite_x=True)[:, self.trim :]
        found *= self.length / padded.shape[1]
        return found


def _as_mne_does(recipe: Recipe, sfreq: float, n_samples: int) -> tuple[Fourier | None, np.ndarray]:
    """Return what resamples as ``mne.Epochs.resample`` does, once it gave mne's answer to random signals.

    Where this mne has another answer, it is mne's response to a unit impulse at every sample, a full matrix.
    """
    mne = import_mne()

    def ask(signal: np.ndarray) -> np.ndarray:
        resampled = mne.filter.resample(
            signal, up=recipe.sfreq, down=sfreq, npad="auto", pad="edge", window="auto", verbose="error"
        )
        return np.ascontiguousarray(resampled[:, kept])

    skipped = round((recipe.window[0] - recipe.epoch[0]) * recipe.sfreq)
    kept = slice(skipped, skipped + recipe.n_times)
    fourier = Fourier.of(n_samples, recipe.sfreq / sfreq, kept)
    signal = np.random.default_rng(0).standard_normal((4, n_samples)).cumsum(axis=1)
    ours, theirs = fourier.resample(signal)[:, kept], ask(signal)
    if ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max()):
        return fourier, np.zeros((n_samples, 0))
    return None, ask(np.eye(n_samples))


def _bands(matrix: np.ndarray, width: int = 32) -> tuple[tuple[slice, slice, np.ndarray], ...]:
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


def _time_offset(
    respond: Callable[[np.ndarray], np.ndarray],
    samples: np.ndarray,
    instants: np.ndarray,
    sfreq: float,
    probe: float,
) -> float:
    """Measure, with a wave of ``probe`` Hz, how many milliseconds ahead of its label a sample is."""
    shown = np.exp(2j * np.pi * probe * samples / sfreq)
    real, imaginary = respond(np.stack([shown.real, shown.imag]))
    wave = real + 1j * imaginary
    expected = np.exp(2j * np.pi * probe * instants / sfreq)
    inside = slice(len(instants) // 10, len(instants) - len(instants) // 10)
    phase = np.angle(np.vdot(expected[inside], wave[inside]))
    return round(float(1000 * phase / (2 * np.pi * probe)), 3) + 0.0  # no negative zero in a store
