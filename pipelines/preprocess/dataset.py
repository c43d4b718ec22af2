"""What a dataset must provide, so that adding one is writing one file.

A dataset is a module of `pipelines.preprocess.datasets` with a function ``open_dataset(raw, recipe)`` that returns a
`Dataset`. It answers three questions, in this order, and never reads more than the question needs::

    subjects()           who is there
    preflight(subject)   what is wrong, all of it; which presentation shows which image, in which session
    plan(flight)         what becomes of every presentation, and a reader of the epochs in blocks of images

Everything else, such as the store, resuming, free space and reports, is `pipelines.preprocess.preprocess`'s. Two plans
exist, and a dataset nearly always uses one of them: `pipelines.preprocess.recorded` cuts epochs out of continuous
recordings and whitens them, `pipelines.preprocess.cut_trials` takes epochs or betas that others have cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.progress import Progress
from stores.errors import BadRecording, UnknownName, suggest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DATASETS",
    "SPLITS",
    "AnyRecipe",
    "Dataset",
    "Examined",
    "Preflight",
    "Problem",
    "SplitPlan",
    "SubjectPlan",
    "open_dataset",
    "raise_first",
]

DATASETS = {
    "arrays": "arrays",
    "mne": "mne_files",
    "nsd": "nsd",
    "things-eeg1": "things_eeg1",
    "things-eeg2": "things_eeg2",
    "things-meg": "things_meg",
}
"""Name on the command line, and module below ``datasets``."""

SPLITS = ("train", "test")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that must be put right first."""

    file: str
    field: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.what}"

    @classmethod
    def of(cls, bad: BadRecording, path: Path, file: str, field: str = "file") -> "Problem":
        """Return what is wrong with the file at ``path``, which is called ``file`` here: its path is not said twice.

        Examples
        --------
        >>> str(Problem.of(BadRecording("/data/a.npy is empty", "download it again"), Path("/data/a.npy"), "a.npy"))
        'a.npy: file: is empty'
        """
        return cls(file, field, bad.what.replace(str(path), "").strip(" :"), bad.hint)


@dataclass
class Preflight:
    """What was found for one subject before any work was done. A dataset adds what its plan needs.

    Parameters
    ----------
    subject : int
        Which one.
    problems : list of Problem
        What must be put right; empty if preprocessing can begin.
    notes : list of str
        What is worth knowing but stops nothing: missing sessions, images never shown.
    counts : dict
        Events, targets, images and repetitions, per file.
    """

    subject: int
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


def raise_first(flights: Sequence[Preflight]) -> None:
    """Raise the first problem of some subjects, saying how many more there are.

    Raises
    ------
    BadRecording
        If there is one.
    """
    problems = [problem for flight in flights for problem in flight.problems]
    if problems:
        others = f" (and {len(problems) - 1} more: see --check)" if len(problems) > 1 else ""
        raise BadRecording(f"{problems[0]}{others}", problems[0].fix)


class AnyRecipe(Protocol):
    """What decides the numbers; each kind of plan has its own."""

    @property
    def name(self) -> str:
        """What it is called."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, the form in which a store keeps it."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The rows of one split.

    Parameters
    ----------
    image_ids, concepts : list of str
        Of each row.
    n_repetitions : int
        The most an image has.
    """

    image_ids: list[str]
    concepts: list[str]
    n_repetitions: int


@dataclass
class Examined:
    """What the first pass over the samples found. A plan adds what its second pass needs.

    Parameters
    ----------
    counts : dict
        What was left out, and why.
    notes : list of str
        Dead channels and the like.
    info : dict
        What a reader must know: ``ch_names``, ``ch_pos``, ``times``, ``sfreq``, ``units``; no date.
    arrays : dict
        Small arrays kept beside the epochs, such as the whitener.
    clipped : int
        Values that the second pass has so far cut to what the stored number type can hold.
    """

    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    clipped: int = 0
    _counting: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add_clipped(self, n: int) -> None:
        """Count values that were cut, from any thread."""
        with self._counting:
            self.clipped += n


class SubjectPlan(Protocol):
    """What becomes of every presentation of a subject; knows all sizes, and has read no epoch yet."""

    counts: dict[str, int]
    notes: list[str]
    packages: tuple[str, ...]

    @property
    def modality(self) -> str:
        """``eeg``, ``meg`` or ``fmri``."""

    @property
    def subject(self) -> int:
        """Which one."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """``(n_chans, n_times)`` of an epoch, or ``(n_voxels,)``."""

    @property
    def ch_names(self) -> list[str]:
        """Name of every channel of an epoch; empty for voxels."""

    @property
    def dtype(self) -> str:
        """Number type of the stored epochs."""

    @property
    def time_offset_ms(self) -> float:
        """The stored value at ``t`` is the signal at ``t`` plus this."""

    @property
    def splits(self) -> Mapping[str, SplitPlan]:
        """The rows of ``train`` and ``test``."""

    @property
    def n_examined(self) -> int:
        """How many epochs the first pass reads."""

    @property
    def n_at_once(self) -> int:
        """How many cores the first pass keeps busy, if there are as many."""

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What its files, and what was understood of them, are known by: see `pipelines.preprocess.identity`."""

    @property
    def left_out(self) -> "Sequence[pa.Table]":
        """Events that became no repetition of an image, and why: see `pipelines.preprocess.left_out`."""

    @property
    def order(self) -> Sequence[str]:
        """The columns of the table of trials that say in which order they were seen."""

    def examine(self, progress: Progress) -> Examined:
        """Read what the recipe's statistics need, and find what cannot be used."""

    def trials(self, found: Any, split: str) -> "pa.Table":
        """Return one row per repetition of an image, which may be one that cannot be used."""

    def block(self, found: Any, split: str, images: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return epochs ``(n, n_repetitions, *row_shape)``, ``valid`` and ``session`` of some rows."""


class Dataset(Protocol):
    """Recordings as they were downloaded, and a recipe to read them by."""

    recipe: AnyRecipe

    def subjects(self) -> list[int]:
        """Return who is there."""

    def preflight(self, subject: int) -> Any:
        """Return a `Preflight` with all that is wrong with a subject."""

    def plan(self, flight: Any) -> SubjectPlan:
        """Return what becomes of the presentations of a subject that has no problem."""


def open_dataset(name: str, raw: Path, recipe: str) -> Dataset:
    """Open the recordings of the dataset ``name`` in ``raw``, to be read as ``recipe`` says.

    Raises
    ------
    UnknownName
        If there is no such dataset or recipe.
    BadRecording
        If the folder is missing, or what concerns all subjects is.
    """
    if name not in DATASETS:
        raise UnknownName(f"no dataset '{name}' can be preprocessed", suggest(name, DATASETS))
    module = import_module(f"pipelines.preprocess.datasets.{DATASETS[name]}")
    return module.open_dataset(raw, recipe)
