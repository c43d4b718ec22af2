"""Recordings that MNE reads, as something epochs can be cut out of: one or more runs on one axis of samples."""

import gzip
import zlib
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from pipelines.preprocess.bids import RECORDINGS
from pipelines.preprocess.channels import canonical_names
from pipelines.preprocess.impostors import read_head
from pipelines.preprocess.resampling import import_mne
from pipelines.unpack import refuse_bomb
from stores.errors import BadRecording

__all__ = ["MneRecording", "files_of", "open_with_mne"]

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
        If it is a pointer or a web page, an EDF or BDF that was cut, or MNE cannot read it.
    """
    if path.name.endswith(".gz") and path.is_file():
        _refuse_bomb(path)
    mne = import_mne()
    if not path.is_dir():
        _refuse_short(path, read_head(path))
    how = mne.io.read_raw if read == "read_raw" else mne.read_epochs
    try:
        inst = how(path, preload=False, verbose="error")
        inst.rename_channels(dict(zip(inst.ch_names, canonical_names(inst.ch_names), strict=True)), verbose="error")
        # Epochs apply the projections of a file, so recordings do: then both give MNE's own epochs.
        return inst.apply_proj(verbose="error") if inst.info["projs"] else inst
    except Exception as problem:  # every reader of MNE has errors of its own
        first = next(iter(str(problem).splitlines()), type(problem).__name__)
        fix = "is it whole, with its further parts (-1.fif, .eeg, .fdt), and what its name says?"
        raise BadRecording(f"{path}: MNE cannot read it: {first}", fix) from None


def _refuse_short(path: Path, head: bytes) -> None:
    """Raise `BadRecording` if an EDF or BDF is shorter than its header says: MNE reads what there is."""
    width = {".edf": 2, ".bdf": 3}.get(path.suffix.lower())
    if not width:
        return
    try:
        start, n_records, n_signals = (int(head[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
        with open(path, "rb") as file:
            file.seek(256 + 216 * n_signals)
            per_record = sum(int(file.read(8)) for _ in range(n_signals))
    except ValueError:  # no such header
        return
    if n_records > 0 and path.stat().st_size < start + n_records * per_record * width:
        need = start + n_records * per_record * width
        raise BadRecording(f"{path} is truncated: have {path.stat().st_size:,} of {need:,} bytes", "download it again")


def files_of(path: Path, inst: Any = None) -> list[Path]:
    """Return the files (or folders) that hold a recording's or epochs' samples, whatever the format calls them.

    Parameters
    ----------
    path : Path
        What MNE was asked to read.
    inst : mne object, optional
        What it made of it, if that knows its files.
    """
    end = next((end for end in RECORDINGS if path.name.lower().endswith(end)), path.suffix)
    stem = escape(path.name[: len(path.name) - len(end)])
    beside = [*path.parent.glob(f"{stem}.*"), *path.parent.glob(f"{stem}-[0-9]*")]
    known = [Path(file) for file in getattr(inst, "filenames", []) if file]
    return sorted({path, *known, *(file for file in beside if file.suffix not in (".tsv", ".json", ".txt", ".csv"))})


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
    paths : sequence of Path
        Where the runs lie.
    runs : sequence of mne.io.BaseRaw
        Opened, not loaded; all at one sampling frequency.
    channels : sequence of str
        Which channels, by name, in every run.
    modality : {"eeg", "meg"}
        Tesla are returned times 1e9, so that "microvolts" are femtotesla.
    """

    def __init__(self, paths: Sequence[Path], runs: Sequence[Any], channels: Sequence[str], modality: str) -> None:
        self.path, self._runs = paths[0], list(runs)
        self.files = {path: files_of(path, run) for path, run in zip(paths, self._runs, strict=True)}
        self._reading = Lock()  # MNE moves about in a file
        self.sfreq = float(runs[0].info["sfreq"])
        self.rows = {name: row for row, name in enumerate(channels)}
        self._volts = _TO_VOLTS[modality]
        pause = int(10 * self.sfreq)  # longer than any epoch and the tails of its low-pass
        lengths = np.array([run.n_times for run in self._runs])
        self.starts = np.concatenate([[0], np.cumsum(lengths[:-1] + pause)])
        self._stops = self.starts + lengths
        self._bad = np.concatenate(
            [_bad_stretches(run) + start for run, start in zip(self._runs, self.starts, strict=True)]
        )

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

    def is_marked(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which stretches from sample ``first`` to sample ``last`` meet one that somebody marked as bad."""
        found = np.zeros(len(first), bool)
        for start, end in self._bad:
            found |= (start < last + 1) & (end > first)
        return found

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


def _bad_stretches(raw: Any) -> np.ndarray:
    """Return where annotations that begin with ``bad`` or ``edge`` start and end, in samples, ``(n, 2)``.

    They mark artefacts, and seams between recordings that were joined, which are stretches without length.
    """
    noted = [k for k, text in enumerate(raw.annotations.description) if str(text).lower().startswith(("bad", "edge"))]
    if not noted:
        return np.zeros((0, 2))
    # Counted from the first sample: to the sample by MNE, which knows what onsets count from.
    starts = raw.time_as_index(raw.annotations.onset[noted], use_rounding=True, origin=raw.annotations.orig_time)
    return np.stack([starts, starts + raw.annotations.duration[noted] * raw.info["sfreq"]], axis=1)
