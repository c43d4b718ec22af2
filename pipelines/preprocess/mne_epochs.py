"""Read epochs that MNE saved, a few at a time."""

from threading import Lock
from typing import Any

import numpy as np

from pipelines.preprocess.recorded import positions

__all__ = ["channel_positions", "read_epochs"]

_READING = Lock()  # MNE moves about in a file


def read_epochs(
    opened: list[Any], keep: list[tuple[int, int]], rows: np.ndarray, channels: list[str], factor: float
) -> np.ndarray:
    """Return some trials of open MNE epochs, ``(n, n_chans, n_times)`` float32, times ``factor``.

    Parameters
    ----------
    opened : list of mne.Epochs
        Not loaded.
    keep : list of (int, int)
        File and row of every trial.
    rows : (n,) of int
        Which trials.
    channels : list of str
        Which channels.
    factor : float
        From SI to the unit that is stored.
    """
    places = np.array([keep[row] for row in rows.tolist()])
    out = np.empty((len(rows), len(channels), len(opened[0].times)), np.float32)
    for file in np.unique(places[:, 0]).tolist():
        here = np.flatnonzero(places[:, 0] == file)
        with _READING:
            read = opened[file].get_data(picks=channels, item=places[here, 1], verbose="error")
        out[here] = read * factor
    return out


def channel_positions(inst: Any, channels: list[str]) -> list[list[float] | None]:
    """Return where the channels of an MNE object are in its head or device frame, m; the 10-20 place of EEG without."""
    chs = {channel["ch_name"]: channel["loc"][:3] for channel in inst.info["chs"]}
    if not any(np.isfinite(chs[name]).all() and chs[name].any() for name in channels):
        return positions(tuple(channels))
    return [[round(float(x), 6) for x in chs[name]] if np.isfinite(chs[name]).all() else None for name in channels]
