"""Occlusion: what a trained run loses when a part of the recording is taken away.

The part is taken away at the sensors, before whitening: what differs between images there is subtracted, so that
the average recording remains. A group of sensors may matter without any response of its own, because whitening and
the brain encoder use it to cancel noise that others share: what is lost here is use, not origin.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipelines.interpret.bands import band_bins, keep_band
from pipelines.interpret.chain import Chain

__all__ = ["WINDOW", "Occluded", "occlude"]

WINDOW = 0.05  # s


@dataclass(frozen=True, slots=True)
class Occluded:
    """One part of the recording, and what was lost without it.

    Parameters
    ----------
    kind : str
        ``time``, ``sensors`` or ``band``.
    part : str
        Which.
    lost : float
        Mean evidence lost, nats; negative where the run is better off without the part.
    share : float
        The same as a share of all evidence; the parts need not add up to one. None where all of it is not above zero.
    top1 : float
        Top-1 accuracy without the part.
    """

    kind: str
    part: str
    lost: float
    share: float | None
    top1: float


def occlude(
    chain: Chain,
    times: np.ndarray,
    sfreq: float,
    groups: Mapping[str, np.ndarray],
    score: Callable[[np.ndarray], tuple[np.ndarray, float]],
    explained: float,
) -> list[Occluded]:
    """Take one part away after the other: windows of 50 ms, groups of sensors, bands of frequencies.

    Parameters
    ----------
    chain : Chain
        The test recordings.
    times : (n_times,)
        Of the brain encoder's input, s; empty for voxels.
    sfreq : float
        Samples per second.
    groups : mapping of str to rows
        Sensors that belong together.
    score : callable
        From the input to the evidence of each image ``(n_images,)``, and top-1.
    explained : float
        All the evidence there is: mean of ``e(x) - e(reference)``.
    """
    given, change = chain.input(), chain.input_change()
    whole, _ = score(given)
    found = []
    for kind, part, take in _parts(times, sfreq, groups):
        # Whitening mixes sensors, never times: what is taken from all sensors alike can be taken from the input.
        alike = kind != "sensors" and chain.trial_norm == "none"
        left, top1 = score(given - take(change) if alike else chain.input(take))
        lost = float((whole - left).mean())
        found.append(Occluded(kind, part, lost, lost / explained if explained > 0 else None, top1))
    return found


def _parts(
    times: np.ndarray, sfreq: float, groups: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:
    """Yield kind and name of every part, and what takes it out of ``(..., n_sensors, n_times)``."""
    if len(times) > 1:
        window = np.floor((times - times[0]) / WINDOW + 1e-6).astype(int)
        for number in np.unique(window).tolist():
            first = times[0] + number * WINDOW
            name = f"{1000 * first:.0f} to {1000 * (first + WINDOW):.0f} ms"
            yield "time", name, partial(_only, where=(window == number,))
    for name, rows in groups.items():
        yield "sensors", name, partial(_only, where=(rows, slice(None)))
    if len(times) > 1:
        for band in band_bins(len(times), sfreq):
            kept = keep_band(np.eye(len(times), dtype=np.float32), band, sfreq)  # linear: a product is soon done
            yield "band", band, partial(_mixed, times=kept)


def _mixed(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = x @ times
    return mixed


def _only(x: np.ndarray, where: tuple[Any, ...]) -> np.ndarray:
    """Return an array that is zero but there."""
    kept = np.zeros_like(x)
    kept[(..., *where)] = x[(..., *where)]
    return kept
