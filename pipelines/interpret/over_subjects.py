"""Subjects put together: sensors by their names, and whether there is anything in what all of them show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.interpret.clusters import LEVEL
from pipelines.train.statistics import holm, sign_flip

__all__ = ["FEWEST_SUBJECTS", "is_found", "over_sensors"]

FEWEST_SUBJECTS = 6  # 2 / 2**6 = 0.03

OneSubject = tuple[Mapping[str, float], Sequence[Any]]


def over_sensors(named: Mapping[str, Sequence[OneSubject]]) -> tuple[list[str], list[Any], dict[str, np.ndarray]]:
    """Return mean shares over subjects of the sensors that all of them have, in whatever order each has them.

    Parameters
    ----------
    named : mapping of str to sequence of (mapping of str to float, sequence)
        By embedding, for each subject: the share of each sensor, and the places in the same order, or none.

    Returns
    -------
    names : list of str
        The sensors, in the first subject's order.
    places : list
        Where they are, for whom that is known first; empty where a sensor's place is not known.
    shares : dict of str to (n_sensors,)
        By embedding.

    Examples
    --------
    >>> one, other = {"T8": 0.8, "Oz": 0.2}, {"Oz": 0.4, "T8": 0.6, "Pz": 0.0}
    >>> names, places, shares = over_sensors({"hog": [(one, [[1, 0, 0], [0, -1, 0]]), (other, [])]})
    >>> names, places, shares["hog"].round(2).tolist()
    (['T8', 'Oz'], [[1, 0, 0], [0, -1, 0]], [0.7, 0.3])
    """
    everyone = [one for mine in named.values() for one in mine]
    names = [name for name in everyone[0][0] if all(name in shares for shares, _ in everyone)]
    place: dict[str, Any] = {}
    for shares, positions in everyone:
        for name, at in zip(shares, positions, strict=False):
            if at is not None:
                place.setdefault(name, at)
    places = [place[name] for name in names] if all(name in place for name in names) else []
    means = {
        label: np.mean([[shares[name] for name in names] for shares, _ in mine], axis=0)
        for label, mine in named.items()
    }
    return names, places, means


def is_found(evidence: Sequence[float], p: Sequence[float | None]) -> bool:
    """Say whether the evidence of an embedding is shown to be above zero: one answer, at 5 %.

    With six subjects or more by a one-sided sign-flip test over them; with fewer in any of them over its images,
    Holm-corrected. What is not tested counts as found.

    Parameters
    ----------
    evidence, p : sequence of float
        Each subject's mean evidence, and p that it is above zero over images; None where maps are never negative.

    Examples
    --------
    >>> is_found([0.1, 0.2], [0.03, 0.4]), is_found([0.1, 0.2], [0.02, 0.4]), is_found([0.1] * 6, [0.4] * 6)
    (False, True, True)
    """
    tested = [value for value in p if value is not None]
    if len(tested) < len(p):
        return True
    if len(evidence) >= FEWEST_SUBJECTS:
        return float(np.mean(evidence)) > 0 and sign_flip(evidence).p / 2 <= LEVEL
    return min(holm(tested)) <= LEVEL
