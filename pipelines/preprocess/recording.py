"""A continuous recording, and the images that were shown in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.preprocess.dataset import Preflight
from pipelines.preprocess.slots import Presentations

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ImageList", "RecordedFlight", "Recording"]


@dataclass(frozen=True, slots=True)
class ImageList:
    """The images of one split; code ``k`` is row ``k - 1``.

    Parameters
    ----------
    ids : list of str
        ``training_images/00001_aardvark/aardvark_01b.jpg``.
    concepts : list of str
        ``aardvark``: a local number is dropped, it differs between splits and data sets.
    things_numbers : list of int or None
        Number of the concept in THINGS, 1 to 1854, where the dataset says so.
    """

    ids: list[str]
    concepts: list[str]
    things_numbers: list[int | None]


class Recording(Protocol):
    """What epochs can be cut out of."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def rows(self) -> dict[str, int]:
        """Row of every EEG channel, in the order of the file."""

    @property
    def sfreq(self) -> float:
        """Sampling frequency, Hz."""

    def fits(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which stretches from sample ``first`` to sample ``last`` were recorded without a break."""

    def is_marked(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which stretches from sample ``first`` to sample ``last`` meet one that somebody marked as bad."""

    def read(self, first: int, stop: int, channels: Sequence[str], scale: float = 1.0) -> np.ndarray:
        """Return samples ``first`` to ``stop`` of ``channels`` in volts times ``scale``, float64."""

    def place(self, onsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return in which run onsets are, counted from 0, and at which of its samples."""

    @property
    def files(self) -> Mapping[Path, Sequence[Path]]:
        """The files, or folders of files, of each run, by where the run lies."""

    @property
    def n_samples(self) -> int:
        """Length of the recording."""


@dataclass
class RecordedFlight(Preflight):
    """A subject whose epochs are still to be cut.

    Parameters
    ----------
    recordings : dict
        By ``(session, split)``; the two splits of a session may be in one recording.
    events : dict
        Presentations by ``(session, split)``, targets removed.
    images : dict
        Image list of each split.
    modality : {"eeg", "meg"}
        What was recorded.
    ch_pos : dict
        Where channels are, m, where the recording knows; else it is looked up in the montage.
    runs : bool
        Whether the trial table says in which run of a session an image was shown.
    left_out : list of pyarrow.Table
        Events that are no presentation of an image to be used, from `pipelines.preprocess.left_out.left_out`.
    """

    recordings: dict[tuple[int, str], Recording] = field(default_factory=dict)
    events: dict[tuple[int, str], Presentations] = field(default_factory=dict)
    images: dict[str, ImageList] = field(default_factory=dict)
    modality: str = "eeg"
    ch_pos: dict[str, list[float] | None] = field(default_factory=dict)
    runs: bool = False
    left_out: "list[pa.Table]" = field(default_factory=list)
