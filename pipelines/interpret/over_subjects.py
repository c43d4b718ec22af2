"""Subjects put together: sensors by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["over_sensors"]

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
