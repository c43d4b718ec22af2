"""What is asked of a preprocessing, and what it tells when it is done."""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PreprocessReport", "PreprocessRequest", "SubjectReport"]


@dataclass(frozen=True, kw_only=True)
class PreprocessRequest:
    """Which recordings go into which store, and how.

    Parameters
    ----------
    dataset : str
        One of `pipelines.preprocess.dataset.DATASETS`, such as ``things-eeg2``.
    raw : Path, optional
        Folder of the recordings; ``raw/<dataset>`` if not given.
    store : Path
        Epoch store; made when it is not there.
    subjects : tuple of int, optional
        Which subjects; all there are if not given.
    recipe : str
        A built-in recipe, or the path of a TOML file.
    keep : {"all", "mean"}
        Every repetition, or only their mean.
    check : bool
        Examine headers, events and image lists, and write nothing.
    dry_run : bool
        Only tell what is to do.
    scheduler : str
        Address of a dask scheduler whose workers write the subjects; empty for this computer.
    """

    dataset: str
    raw: Path | None = None
    store: Path = Path("epochs.zarr")
    subjects: tuple[int, ...] | None = None
    recipe: str = "clean"
    keep: str = "all"
    check: bool = False
    dry_run: bool = False
    scheduler: str = ""

    @property
    def raw_folder(self) -> Path:
        """Where the recordings are looked for."""
        return self.raw or Path("raw") / self.dataset


@dataclass(kw_only=True)
class SubjectReport:
    """One line of the final table: what happened to one subject.

    Attributes
    ----------
    subject : int
        Which one.
    state : str
        ``written``, ``already there``, ``to do`` (dry run) or ``checked``.
    n_chans, n_times : int
        Shape of an epoch.
    train, test : tuple of int
        Images, and repetitions of the image that has most.
    counts : dict of str to int
        Everything that was left out, by reason.
    per_file : dict of str to dict
        Events, targets, images and repetitions of every recording, and how they compare with the metadata.
    problems : list of (str, str)
        What must be put right first, and how (``check`` only: otherwise it is raised).
    notes : list of str
        What is worth knowing: missing sessions, images never shown, dead channels.
    """

    subject: int
    state: str = "checked"
    n_chans: int = 0
    n_times: int = 0
    train: tuple[int, int] = (0, 0)
    test: tuple[int, int] = (0, 0)
    counts: dict[str, int] = field(default_factory=dict)
    per_file: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class PreprocessReport:
    """What a preprocessing did, or would do.

    Attributes
    ----------
    dataset, recipe, store : str, str, Path
        As asked.
    time_offset_ms : float
        The stored value at ``t`` is the signal at ``t`` plus this; not zero in recipes that resample as mne does.
    subjects : list of SubjectReport
        One line per subject.
    bytes_free : int
        On the store's disk.
    """

    dataset: str
    recipe: str
    store: Path
    time_offset_ms: float = 0.0
    subjects: list[SubjectReport] = field(default_factory=list)
    bytes_free: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Everything that must be put right first, over all subjects: the caller ends with exit code 2 if any."""
        return [problem for subject in self.subjects for problem in subject.problems]

    @property
    def bytes(self) -> int:
        """Bytes of epochs written, or to be written."""
        return sum(subject.bytes for subject in self.subjects)
