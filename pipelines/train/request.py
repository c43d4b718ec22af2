"""What is asked of a training sweep, and what it tells when it is done."""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Job", "TrainReport", "TrainRequest"]

STARTING = 5.0  # core-seconds until the first run is under way: torch is imported, a subject read; measured


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """Which embeddings, subjects and seeds become runs, and how.

    Parameters
    ----------
    brain : str
        Kind of recording: ``eeg``, ``meg`` or ``fmri``.
    models : tuple of str, optional
        Embeddings as in the store, ``NAME`` or ``NAME#KEY``; None or empty for all of them.
    subjects : tuple of int, optional
        None or empty for all subjects of the dataset.
    seeds : tuple of int
        One run each; empty for the recipe's.
    brain_encoder : str
        Name, ``FILE.py:Class`` or ``braindecode:NAME``; empty for the recipe's.
    recipe : str
        Name of a recipe, or path of a TOML file.
    protocol : str
        ``within``, each subject by itself; or ``cross``, trained on the others (`pipelines.train.cross`).
    gallery : str
        What the image shown is told apart from: ``test`` images, or ``train+test``.
    split, train_on, image_head, loss : str
        Change these settings of the recipe; empty to leave them.
    dataset : str
        Needed only when the epoch store holds several of this kind.
    embeddings, epochs, runs : Path
        The stores read, and the folder of runs written.
    join : str
        How epochs find their images: ``suffix`` or ``stem``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    workers : int
        Processes to train in on this computer; 0 for as many as are worth starting.
    scheduler : str
        Address of a dask cluster to train on.
    dry_run : bool
        Only tell what is to do.
    """

    brain: str
    models: tuple[str, ...] | None = None
    subjects: tuple[int, ...] | None = None
    seeds: tuple[int, ...] = ()
    brain_encoder: str = ""
    recipe: str = "modern"
    protocol: str = "within"
    gallery: str = "test"
    split: str = ""
    train_on: str = ""
    image_head: str = ""
    loss: str = ""
    dataset: str = ""
    embeddings: Path = Path("embeddings.zarr")
    epochs: Path = Path("epochs.zarr")
    runs: Path = Path("runs")
    join: str = "suffix"
    device: str = "auto"
    workers: int = 0
    scheduler: str = ""
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the plan.

    ``images_key`` tells its images' content, ``bytes`` is what it takes on disk, and ``seconds``, of a dry run alone,
    about what it takes on one core if it makes all its passes.
    """

    run_id: str
    subject: int
    embedding: str
    embedding_key: str
    seed: int
    finished: bool
    images_key: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class TrainReport:
    """What a sweep did, or with ``dry_run`` would do.

    Attributes
    ----------
    jobs : list of Job
        The plan, grouped by subject; ``finished`` says which runs were there before, or were finished meanwhile by
        another process.
    runs : Path
        Folder of the runs; ``runs / "results.parquet"`` is their table.
    recipe : dict
        The settings that were used.
    dataset, brain_encoder, device : str
        What was chosen where the request left it open.
    notes : list of str
        What was chosen or left out, a line each.
    skipped : dict of str to str
        Runs that were left to another process, and which.
    failed : dict of str to str
        Runs that left the finite numbers, or in which a file of the user's own raised, and when; the others went on.
    bytes_free : int
        What is free where the runs go.
    seconds : float
        Wall time.
    dry_run : bool
        Whether nothing was run.
    """

    jobs: list[Job]
    runs: Path
    recipe: dict[str, object] = field(default_factory=dict)
    dataset: str = ""
    brain_encoder: str = ""
    device: str = ""
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bytes_free: int = 0
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def n_already(self) -> int:
        """Runs that others had finished, before or meanwhile."""
        return sum(job.finished for job in self.jobs)

    @property
    def n_to_do(self) -> int:
        """Runs that were not."""
        return len(self.jobs) - self.n_already

    @property
    def n_trained(self) -> int:
        """Runs that were trained now, or with ``dry_run`` none."""
        return 0 if self.dry_run else self.n_to_do - len(self.skipped) - len(self.failed)

    @property
    def core_seconds(self) -> float:
        """What the others take on one core, about and at most, and the start before them; of a dry run alone."""
        return sum(job.seconds for job in self.jobs if not job.finished) + STARTING * bool(self.n_to_do)

    @property
    def bytes_needed(self) -> int:
        """What these take on disk, checkpoints above all."""
        return sum(job.bytes for job in self.jobs if not job.finished)
