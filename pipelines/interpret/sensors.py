"""Which sensors belong together: regions of a cap or helmet by name or position; of voxels, regions of interest."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["sensor_groups"]

REGIONS = {
    "frontal": ("FP", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O", "I"),
}
"""Of the 10-20 system, by the letters of the name."""

_LETTERS = {letters: region for region, many in REGIONS.items() for letters in many}
_CTF = {"F": "frontal", "C": "central", "T": "temporal", "P": "parietal", "O": "occipital"}


def sensor_groups(
    names: Sequence[str], positions: Sequence[Any] | None = None, rois: Mapping[str, Sequence[int]] | None = None
) -> dict[str, np.ndarray]:
    """Return groups of sensors as rows of ``names``; none where neither names nor positions say anything.

    Parameters
    ----------
    names : sequence of str
        Channels: of the 10-20 system, of a CTF helmet (``MLO11``), or others.
    positions : sequence of (x, y, z) or None, optional
        In metres, y to the front. Used where the names say nothing.
    rois : mapping of str to sequence of int, optional
        Regions of interest: rows of the voxels. Used where given.

    Examples
    --------
    >>> {region: rows.tolist() for region, rows in sensor_groups(["Fz", "O1", "Oz", "PO7"]).items()}
    {'frontal': [0], 'occipital': [1, 2, 3]}
    >>> list(sensor_groups(["MLO11-1609", "MRT21-1609"]))
    ['temporal', 'occipital']
    """
    if rois:
        return {name: np.asarray(rows, dtype=np.intp) for name, rows in rois.items() if len(rows)}
    region = [_region(name) for name in names]
    if region.count("") > len(names) / 2:
        region = _by_position(positions) if positions and all(at is not None for at in positions) else []
    found = {name: np.flatnonzero([r == name for r in region]) for name in (*REGIONS, "front", "middle", "back")}
    return {name: rows for name, rows in found.items() if len(rows)}


def _region(name: str) -> str:
    ctf = re.match(r"M[LRZ]([CFOPT])\d", name)
    if ctf:
        return _CTF[ctf[1]]
    letters = re.match(r"([A-Za-z]+?)(?:\d+|[zZ])?$", name)
    return _LETTERS.get(letters[1].upper(), "") if letters else ""


def _by_position(positions: Sequence[Any]) -> list[str]:
    """Divide sensors into thirds from front to back."""
    y = np.array([at[1] for at in positions], dtype=float)
    low, high = np.quantile(y, [1 / 3, 2 / 3])
    return ["front" if at > high else "back" if at < low else "middle" for at in y]
