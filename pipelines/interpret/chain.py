"""The way from the sensors to what a brain encoder sees, kept so that it can be gone again with parts taken out.

Stored epochs are whitened, each session by its own matrix, so that a stored channel is a mixture of sensors. Here
they are unmixed. What differs between images is the difference from the session's average over images; a contribution
is that difference times a gradient, and passing the gradient back through a session's whitening gives the
contribution of every sensor, the sum of each time sample unchanged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipelines.train.data import pick_channels, pick_window
from pipelines.train.recipes import Recipe
from pipelines.train.repetitions import normalise
from stores.epochs import SplitEpochs, SubjectEpochs
from stores.errors import StoreMismatch

__all__ = ["Chain", "chain_of"]

BLOCK = 8_000_000  # numbers at once: single repetitions of a test set are a gigabyte


@dataclass
class Chain:
    """Test recordings at the sensors, and how they become the input of a brain encoder.

    A *unit* is what is whitened as one: the mean of an image's repetitions in one session, or a single
    repetition where the recipe normalises those.

    Parameters
    ----------
    sensors : (n_units, n_sensors, n_times)
        Activity before whitening.
    image, session : (n_units,)
        Which image a unit shows, in ascending order, and which whitener made it.
    weight : (n_units,)
        Its part in the image's mean; they add up to one for each image.
    whiteners : list of (n_sensors, n_sensors) or None
        None where nothing was whitened.
    chans : (n_chans,)
        Whitened channels that the brain encoder sees.
    trial_norm : str
        As in the recipe.
    scale : float
        What recordings were divided by.
    notes : list of str
        What had to be assumed.
    """

    sensors: np.ndarray
    image: np.ndarray
    session: np.ndarray
    weight: np.ndarray
    whiteners: list[np.ndarray | None]
    chans: np.ndarray
    trial_norm: str
    scale: float
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_images = int(self.image.max()) + 1
        n_sensors, n_times = self.sensors.shape[1:]
        self._at_once = max(1, BLOCK // (n_sensors * n_times))
        self._average = np.zeros((len(self.whiteners), n_sensors, n_times), np.float32)
        for session in np.unique(self.session).tolist():
            mine = np.flatnonzero(self.session == session)
            blocks = (self.sensors[mine[at : at + self._at_once]] for at in range(0, len(mine), self._at_once))
            self._average[session] = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / len(mine)

    def change(self, units: slice = slice(None)) -> np.ndarray:
        """Return how units differ from the average of their session, ``(n, n_sensors, n_times)``."""
        change: np.ndarray = self.sensors[units] - self._average[self.session[units]]
        return change

    def input(self, take: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """Return what the brain encoder sees, ``(n_images, n_chans, n_times)``.

        Parameters
        ----------
        take : callable, optional
            From what `change` returns, of some units, to the part of it that is subtracted at the sensors.
        """

        def seen(units: slice) -> np.ndarray:
            sensors = self.sensors[units] if take is None else self.sensors[units] - take(self.change(units))
            whitened = self._whiten(sensors, units)
            return normalise(whitened) if self.trial_norm == "norm-then-mean" else whitened

        mean = self._mean(seen)
        if self.trial_norm == "mean-then-norm":
            mean = normalise(mean)
        return (mean / self.scale).astype(np.float32)

    def input_change(self) -> np.ndarray:
        """Return how that differs from the average recording, ``(n_images, n_chans, n_times)``, norms held fixed."""
        changes = self._mean(lambda at: self._gain[at] * self._centre(self._whiten(self.change(at), at)))
        return changes.astype(np.float32)

    def contributions(self, gradient: np.ndarray) -> np.ndarray:
        """Return what every sensor contributes, ``(n_images, n_sensors, n_times)``.

        Parameters
        ----------
        gradient : (n_images, n_chans, n_times)
            With respect to the input.
        """
        centred = self._centre(gradient)

        def contributed(units: slice) -> np.ndarray:
            back = self._gain[units] * centred[self.image[units]]
            at_sensors = np.zeros((len(back), *self.sensors.shape[1:]), back.dtype)
            for whitener, mine in self._by_session(units):
                if whitener is None:
                    at_sensors[np.ix_(mine, self.chans)] = back[mine]
                else:
                    at_sensors[mine] = whitener[self.chans].T.astype(back.dtype) @ back[mine]
            return at_sensors * self.change(units)

        return self._mean(contributed)

    def _by_session(self, units: slice) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
        """Yield each whitener and the places, among these units, of those that it whitened."""
        session = self.session[units]
        for number in np.unique(session).tolist():
            yield self.whiteners[number], np.flatnonzero(session == number)

    def _whiten(self, sensors: np.ndarray, units: slice) -> np.ndarray:
        whitened = np.empty((len(sensors), len(self.chans), sensors.shape[2]), np.float32)
        for whitener, mine in self._by_session(units):
            if whitener is None:
                whitened[mine] = sensors[mine][:, self.chans]
            else:
                whitened[mine] = whitener[self.chans].astype(np.float32) @ sensors[mine]
        return whitened

    def _mean(self, of: Callable[[slice], np.ndarray]) -> np.ndarray:
        """Return the weighted sums over the units of each image, a block of units after the other."""
        total: np.ndarray | None = None
        for start in range(0, len(self.sensors), self._at_once):
            units = slice(start, start + self._at_once)
            image, values = self.image[units], of(units)
            total = np.zeros((self.n_images, *values.shape[1:])) if total is None else total
            firsts = np.flatnonzero(np.diff(image, prepend=-1))  # units of an image stand together
            weighted = values * self.weight[units, None, None]
            total[image[firsts]] += np.add.reduceat(weighted, firsts, axis=0)
        assert total is not None
        return total

    def _centre(self, x: np.ndarray) -> np.ndarray:
        return x if self.trial_norm == "none" else x - x.mean(axis=-1, keepdims=True)

    @cached_property
    def _gain(self) -> np.ndarray:
        """What each channel of a unit is multiplied by after whitening, ``(n_units, n_chans or 1, 1)``."""
        if self.trial_norm == "none":
            return np.full((len(self.sensors), 1, 1), 1 / self.scale)

        def norm(whitened: np.ndarray) -> np.ndarray:
            length: np.ndarray = np.linalg.norm(whitened, axis=-1, keepdims=True)
            return length

        if self.trial_norm == "mean-then-norm":
            length = norm(self._mean(lambda at: self._whiten(self.sensors[at], at)))[self.image]
        else:
            starts = range(0, len(self.sensors), self._at_once)
            blocks = (slice(start, start + self._at_once) for start in starts)
            length = np.concatenate([norm(self._whiten(self.sensors[at], at)) for at in blocks])
        return 1 / (np.where(length > 0, length, 1) * self.scale)


def chain_of(epochs: SubjectEpochs, recipe: Recipe, scale: float) -> Chain:
    """Unmix a subject's test recordings; images without a valid repetition are left out.

    Parameters
    ----------
    epochs : SubjectEpochs
        The subject in the epoch store.
    recipe : Recipe
        How they were trained on.
    scale : float
        `Recordings.scale` of the training recordings.

    Raises
    ------
    StoreMismatch
        If a session was whitened and its whitener is not kept.
    """
    split, window = epochs.test, pick_window(epochs, recipe)
    chans = pick_channels(epochs, recipe)[0]
    kept = np.flatnonzero(split.valid.any(axis=1))
    whiteners, row_of, notes = _whiteners(epochs)
    if split.keep != "all":
        return _of_means(split, window, kept, chans, recipe, scale, whiteners, notes)
    singly = recipe.trial_norm == "norm-then-mean"
    n_units = int(split.valid.sum()) if singly else sum(len(np.unique(split.session[r][split.valid[r]])) for r in kept)
    units = np.empty((n_units, split.mean_shape[1], 1 if window is None else len(window)), np.float32)
    parts: list[tuple[int, int, float]] = []
    for place, row in enumerate(kept.tolist()):
        trials = _timed(split.take([row])[0], window)
        valid, session = split.valid[row], split.session[row]
        for number in np.unique(session[valid]).tolist():
            mine = np.flatnonzero(valid & (session == number))
            if number not in row_of:
                raise StoreMismatch(
                    f"subject {epochs.subject} of '{epochs.dataset}' has repetitions of session {number}, "
                    "and no whitener of it",
                    "embedctl preprocess makes them anew",
                )
            whitener = row_of[number]
            start, mean_of = len(parts), np.split(mine, len(mine)) if singly else [mine]
            for place_of, some in enumerate(mean_of, start):
                units[place_of] = trials[some].mean(axis=0)
            parts += [(place, whitener, len(some) / valid.sum()) for some in mean_of]
    image, session, weight = (np.array(column) for column in zip(*parts, strict=True))
    return _unmixed(units, image, session, weight, whiteners, chans, recipe, scale, notes)


def _of_means(
    split: SplitEpochs,
    window: np.ndarray | None,
    kept: np.ndarray,
    chans: np.ndarray,
    recipe: Recipe,
    scale: float,
    whiteners: list[np.ndarray | None],
    notes: list[str],
) -> Chain:
    """Unmix means over all sessions, by the mean of the sessions' whiteners where there are several."""
    known = [matrix for matrix in whiteners if matrix is not None]
    if len(known) > 1:
        average = np.mean(known, axis=0)
        apart = max(np.linalg.norm(matrix - average) for matrix in known) / np.linalg.norm(average)
        notes = [
            *notes,
            "the store keeps means alone: the sessions' average whitener stands for each of them, "
            f"which differ from it by up to {100 * apart:.0f} %",
        ]
    one: list[np.ndarray | None] = [np.mean(known, axis=0)] if known else [None]
    n = len(kept)
    mean = _timed(np.asarray(split.mean)[kept], window)
    return _unmixed(mean, np.arange(n), np.zeros(n, int), np.ones(n), one, chans, recipe, scale, notes)


def _unmixed(
    whitened: np.ndarray,
    image: np.ndarray,
    session: np.ndarray,
    weight: np.ndarray,
    whiteners: list[np.ndarray | None],
    chans: np.ndarray,
    recipe: Recipe,
    scale: float,
    notes: list[str],
) -> Chain:
    sensors, at_once = whitened.astype(np.float32, copy=False), max(1, BLOCK // whitened[0].size)
    for number, whitener in enumerate(whiteners):
        if whitener is not None:
            back, mine = np.linalg.pinv(whitener).astype(np.float32), np.flatnonzero(session == number)
            for at in range(0, len(mine), at_once):
                some = mine[at : at + at_once]
                sensors[some] = back @ sensors[some]
    return Chain(sensors, image, session, weight, whiteners, chans, recipe.trial_norm, scale, notes)


def _whiteners(epochs: SubjectEpochs) -> tuple[list[np.ndarray | None], dict[int, int], list[str]]:
    """Return the whiteners, which session has which, and a note where there is none."""
    there = np.unique(epochs.test.session[epochs.test.valid]).tolist()
    whitener = epochs.arrays.get("whitener")
    if whitener is None:
        row_of = {number: row for row, number in enumerate(there)}
        return [None] * len(there), row_of, ["these recordings are not whitened: each channel is its own sensor"]
    return list(whitener), {int(n): row for row, n in enumerate(epochs.info.get("sessions") or there)}, []


def _timed(x: np.ndarray, window: np.ndarray | None) -> np.ndarray:
    """Return ``(..., n_chans, n_times)`` in the window; a voxel has one time."""
    return x[..., None] if window is None else x[..., window]
