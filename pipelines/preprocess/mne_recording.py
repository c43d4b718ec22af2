"""Recordings that MNE reads, as something epochs can be cut out of: one or more runs on one axis of samples."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from pipelines.preprocess.channels import canonical_names
from pipelines.preprocess.resampling import import_mne
from pipelines.unpack import refuse_bomb
from stores.errors import BadRecording

__all__ = ["MneRecording", "open_with_mne"]

_TO_VOLTS = {"eeg": 1.0, "meg": 1e9}  # so that a recipe's microvolts are femtotesla


def open_with_mne(path: Path, read: str) -> Any:
    """Return what ``mne.READ`` makes of a file, reading no sample; electrodes are named as the 10-20 system does.

    Parameters
    ----------
    path : Path
        The file, or folder where the format is one.
    read : {"read_raw", "read_epochs"}
        Which.

    Raises
    ------
    BadRecording
        If MNE cannot read it.
    """
    if path.name.endswith(".gz") and path.is_file():
        _refuse_bomb(path)
    mne = import_mne()
    how = mne.io.read_raw if read == "read_raw" else mne.read_epochs
    try:
        inst = how(path, preload=False, verbose="error")
        inst.rename_channels(dict(zip(inst.ch_names, canonical_names(inst.ch_names), strict=True)), verbose="error")
        # Epochs apply the projections of a file, so recordings do: then both give MNE's own epochs.
        return inst.apply_proj(verbose="error") if inst.info["projs"] else inst
    except Exception as problem:  # every reader of MNE has errors of its own
        first = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise BadRecording(f"{path}: MNE cannot read it: {first}", "is it whole, and what its name says?") from None


def _refuse_bomb(path: Path) -> None:
    """Unpack a file piece by piece and keep nothing: MNE takes any number of bytes a tag of it claims."""
    unpacked = 0
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(1 << 20):
                unpacked += len(piece)
                refuse_bomb(path.stat().st_size, unpacked)
    except (ValueError, OSError, EOFError, zlib.error) as problem:
        raise BadRecording(f"{path}: {problem}", "is it whole? Download it again, or write it again") from None


class MneRecording:
    """The runs of one session, one after the other with a pause in between in which nothing was recorded.

    Parameters
    ----------
    path : Path
        Where the first run lies.
    runs : sequence of mne.io.BaseRaw
        Opened, not loaded; all at one sampling frequency.
    channels : sequence of str
        Which channels, by name, in every run.
    modality : {"eeg", "meg"}
        Tesla are returned times 1e9, so that "microvolts" are femtotesla.
    """

    def __init__(self, path: Path, runs: Sequence[Any], channels: Sequence[str], modality: str) -> None:
        self.path, self._runs = path, list(runs)
        self._reading = Lock()  # MNE moves about in a file
        self.sfreq = float(runs[0].info["sfreq"])
        self.rows = {name: row for row, name in enumerate(channels)}
        self._volts = _TO_VOLTS[modality]
        pause = int(10 * self.sfreq)  # longer than any epoch and the tails of its low-pass
        lengths = np.array([run.n_times for run in self._runs])
        self.starts = np.concatenate([[0], np.cumsum(lengths[:-1] + pause)])
        self._stops = self.starts + lengths

    @property
    def n_samples(self) -> int:
        """Length of the axis, pauses included."""
        return int(self._stops[-1])

    def place(self, onsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return in which run onsets are, counted from 0, and at which of its samples."""
        run = np.searchsorted(self.starts, onsets, side="right") - 1
        return run, onsets - self.starts[run]

    def fits(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which stretches from sample ``first`` to sample ``last`` lie inside one run."""
        run = np.searchsorted(self.starts, np.maximum(first, 0), side="right") - 1
        return (first >= self.starts[run]) & (last < self._stops[run])

    def read(self, first: int, stop: int, channels: Sequence[str], scale: float = 1.0) -> np.ndarray:
        """Return samples ``first`` to ``stop``; outside of runs their outermost value, for the tails of a low-pass."""
        out = np.empty((len(channels), stop - first))
        edge = first
        for run, start, end in zip(self._runs, self.starts.tolist(), self._stops.tolist(), strict=True):
            low, high = max(first, start), min(stop, end)
            if low >= high:
                continue
            picks = [run.ch_names.index(name) for name in channels]
            with self._reading:
                out[:, low - first : high - first] = run.get_data(picks, low - start, high - start, verbose="error")
            out[:, edge - first : low - first] = out[:, low - first : low - first + 1]
            out[:, high - first :] = out[:, high - first - 1 : high - first]
            edge = high
        return out * (scale * self._volts)

    def sample(self, places: np.ndarray) -> np.ndarray:
        """Return every channel at some samples, ``(n_rows, n)``."""
        found = []
        run, at = self.place(places)
        for where, sample in zip(run.tolist(), at.tolist(), strict=True):
            raw = self._runs[where]
            sample = min(sample, raw.n_times - 1)
            picks = [raw.ch_names.index(name) for name in self.rows]
            found.append(raw.get_data(picks, sample, sample + 1, verbose="error")[:, 0])
        return np.stack(found, axis=1)
