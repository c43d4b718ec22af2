"""Which presentation becomes which repetition of which image, decided from events alone.

Pure: tables in, tables out. So missing and surplus repetitions are known, and reported, before a
single sample of the recording is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Presentations", "Slots", "assign"]


@dataclass(frozen=True, slots=True)
class Presentations:
    """The image onsets of one split of one session, in order of time.

    Parameters
    ----------
    onsets : (n,) of int
        Sample of the recording at which each image appeared.
    codes : (n,) of int
        Its 1-based number in the image list; never a target alone.
    with_target : (n,) of bool, optional
        Whether the participant's target came with the image; never, if not given.
    """

    onsets: np.ndarray
    codes: np.ndarray
    with_target: np.ndarray | None = None

    def select(self, keep: np.ndarray) -> "Presentations":
        """Return the presentations where ``keep`` is true."""
        with_target = None if self.with_target is None else self.with_target[keep]
        return Presentations(self.onsets[keep], self.codes[keep], with_target)

    @property
    def kinds(self) -> np.ndarray:
        """What each was, ``image`` or ``target``, as the table of trials says it."""
        targets = np.zeros(len(self.onsets), bool) if self.with_target is None else self.with_target
        return np.where(targets, "target", "image")


@dataclass(frozen=True, slots=True)
class Slots:
    """Where every kept presentation goes.

    Parameters
    ----------
    codes : (n_images,) of int
        The images shown, in the order of the image list.
    session : (n_images, n_repetitions) of int
        Session of each repetition, -1 where there is none.
    presentation : (n_images, n_repetitions) of int
        Its index among the presentations of that session and split, -1 where there is none.
    surplus : int
        Presentations that were left out, as the recipe asks.
    """

    codes: np.ndarray
    session: np.ndarray
    presentation: np.ndarray
    surplus: int

    @property
    def n_repetitions(self) -> int:
        """How many repetitions the image shown most often has."""
        return self.session.shape[1]

    @property
    def filled(self) -> np.ndarray:
        """Where there is a repetition, ``(n_images, n_repetitions)`` of bool."""
        return self.session >= 0


def assign(sessions: Mapping[int, Presentations], per_session: int | None, seed: int) -> Slots:
    """Give every presentation its image and repetition.

    With ``per_session``, the choice of the public pipelines: in each session ``per_session``
    presentations of each image, drawn by shuffling under ``seed`` anew for every image, then sessions
    one after the other, then one shuffle of the repetitions under ``seed``. Without it, all
    presentations in the order in which they were seen.

    Parameters
    ----------
    sessions : mapping of session number to Presentations
        One split of one subject.
    per_session : int or None
        How many repetitions to draw from each session.
    seed : int
        Seed of the shuffles.

    Examples
    --------
    >>> seen = {1: Presentations(np.array([10, 20, 30, 40]), np.array([2, 1, 2, 2]))}
    >>> slots = assign(seen, None, 0)
    >>> slots.codes.tolist(), slots.presentation.tolist()
    ([1, 2], [[1, -1, -1], [0, 2, 3]])
    >>> assign(seen, 2, 20200220).presentation.tolist()  # 2 of 3 are [1, 2], then [1, 0] of those
    [[-1, 1], [3, 2]]
    """
    chosen: dict[int, list[tuple[int, int]]] = {}
    total = 0
    for number in sorted(sessions):
        codes = sessions[number].codes
        total += len(codes)
        order = np.argsort(codes, kind="stable")
        shown, starts = np.unique(codes[order], return_index=True)
        for code, where in zip(shown.tolist(), np.split(order, starts[1:]), strict=True):
            if per_session is not None:
                where = where[_shuffled(len(where), seed)[:per_session]]
            chosen.setdefault(code, []).extend((number, index) for index in where.tolist())

    images = np.array(sorted(chosen), dtype=np.int64)
    depth = max((len(found) for found in chosen.values()), default=0)
    session = np.full((len(images), depth), -1, dtype=np.int16)
    presentation = np.full((len(images), depth), -1, dtype=np.int64)
    for row, code in enumerate(images.tolist()):
        found = np.array(chosen[code])
        session[row, : len(found)] = found[:, 0]
        presentation[row, : len(found)] = found[:, 1]
    if per_session is not None:
        final = _shuffled(depth, seed)
        session, presentation = session[:, final], presentation[:, final]
    return Slots(images, session, presentation, total - int((session >= 0).sum()))


def _shuffled(n: int, seed: int) -> np.ndarray:
    """Return ``sklearn.utils.shuffle(arange(n), random_state=seed)``: a fresh generator every time."""
    order = np.arange(n)
    np.random.RandomState(seed).shuffle(order)
    return order
