"""The way from the sensors to what a brain encoder sees, kept so that it can be gone again with parts taken out.

Stored epochs are whitened, each session by its own matrix, so that a stored channel is a mixture of sensors. Here
they are unmixed. What differs between images is the difference from the session's average over images; a contribution
is that difference times a gradient, and passing the gradient back through a session's whitening gives the
contribution of every sensor, the sum of each time sample unchanged.
"""

from dataclasses import dataclass, field

import numpy as np

from pipelines.train.data import pick_channels, pick_window
from pipelines.train.recipes import Recipe
from pipelines.train.repetitions import normalise
from stores.epochs import SplitEpochs, SubjectEpochs
from stores.errors import StoreMismatch

__all__ = ["Chain", "chain_of"]


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
        Which image a unit shows, and which whitener made it.
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
        self.change = self.sensors.copy()
        for session in np.unique(self.session):
            mine = self.session == session
            self.change[mine] -= self.sensors[mine].mean(axis=0)

    def input(self, taken_out: np.ndarray | None = None) -> np.ndarray:
        """Return what the brain encoder sees, ``(n_images, n_chans, n_times)``.

        Parameters
        ----------
        taken_out : (n_units, n_sensors, n_times), optional
            What to subtract at the sensors.
        """
        whitened = self._whiten(self.sensors if taken_out is None else self.sensors - taken_out)
        if self.trial_norm == "norm-then-mean":
            whitened = normalise(whitened)
        mean = self._mean(whitened)
        if self.trial_norm == "mean-then-norm":
            mean = normalise(mean)
        return (mean / self.scale).astype(np.float32)

    def input_change(self) -> np.ndarray:
        """Return how that differs from the average recording, ``(n_images, n_chans, n_times)``, norms held fixed."""
        return self._mean(self._gain() * self._centre(self._whiten(self.change))).astype(np.float32)

    def contributions(self, gradient: np.ndarray) -> np.ndarray:
        """Return what every sensor contributes, ``(n_images, n_sensors, n_times)``.

        Parameters
        ----------
        gradient : (n_images, n_chans, n_times)
            With respect to the input.
        """
        back = self._gain() * self._centre(gradient)[self.image] * self.weight[:, None, None]
        found = np.zeros((self.n_images, *self.sensors.shape[1:]))
        for session, whitener in enumerate(self.whiteners):
            mine = np.flatnonzero(self.session == session)
            if whitener is None:
                at_sensors = np.zeros((len(mine), *self.sensors.shape[1:]), back.dtype)
                at_sensors[:, self.chans] = back[mine]
            else:
                at_sensors = whitener[self.chans].T.astype(back.dtype) @ back[mine]
            np.add.at(found, self.image[mine], at_sensors * self.change[mine])
        return found

    def _whiten(self, sensors: np.ndarray) -> np.ndarray:
        whitened = np.empty((len(sensors), len(self.chans), sensors.shape[2]), np.float32)
        for session, whitener in enumerate(self.whiteners):
            mine = self.session == session
            if whitener is None:
                whitened[mine] = sensors[mine][:, self.chans]
            else:
                whitened[mine] = whitener[self.chans].astype(np.float32) @ sensors[mine]
        return whitened

    def _mean(self, units: np.ndarray) -> np.ndarray:
        total = np.zeros((self.n_images, *units.shape[1:]))
        np.add.at(total, self.image, units * self.weight[:, None, None])
        return total

    def _centre(self, x: np.ndarray) -> np.ndarray:
        return x if self.trial_norm == "none" else x - x.mean(axis=-1, keepdims=True)

    def _gain(self) -> np.ndarray:
        """Return what each channel of a unit is multiplied by after whitening."""
        if self.trial_norm == "none":
            return np.array(1 / self.scale)
        whitened = self._whiten(self.sensors)
        if self.trial_norm == "mean-then-norm":
            whitened = self._mean(whitened)[self.image]
        norm = np.linalg.norm(whitened, axis=-1, keepdims=True)
        return 1 / (np.where(norm > 0, norm, 1) * self.scale)


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
    parts: list[tuple[np.ndarray, int, int, float]] = []
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
            if singly:
                parts += [(trials[i], place, whitener, 1 / valid.sum()) for i in mine]
            else:
                parts.append((trials[mine].mean(axis=0), place, whitener, len(mine) / valid.sum()))
    units, image, session, weight = (np.array(column) for column in zip(*parts, strict=True))
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
    sensors = whitened.astype(np.float32)
    for number, whitener in enumerate(whiteners):
        if whitener is not None:
            mine = session == number
            sensors[mine] = np.linalg.pinv(whitener).astype(np.float32) @ sensors[mine]
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
