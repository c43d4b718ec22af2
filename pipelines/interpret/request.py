"""What is asked of an interpretation, and what it tells when it is done."""

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.interpret.pairs import PairedProfile
from pipelines.interpret.profile import Profile

__all__ = ["InterpretReport", "InterpretRequest"]


@dataclass(frozen=True, kw_only=True)
class InterpretRequest:
    """Which runs are interpreted, and how.

    Parameters
    ----------
    method : str
        One of `pipelines.interpret.methods.METHODS`.
    models : tuple of str
        Embeddings as the results name them; empty for all.
    subjects, seeds : tuple of int
        Empty for all.
    pairing : str
        Which base an aligned encoder is compared with: ``matched_base`` or ``paper``.
    embeddings, epochs, runs : Path
        The stores read, and the folder of runs.
    join : str
        How epochs find their images, as in training.
    dry_run : bool
        Only tell what is to do.
    """

    method: str = "integrated-gradients"
    models: tuple[str, ...] = ()
    subjects: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    pairing: str = "matched_base"
    embeddings: Path = Path("embeddings.zarr")
    epochs: Path = Path("epochs.zarr")
    runs: Path = Path("runs")
    join: str = "suffix"
    dry_run: bool = False


@dataclass(kw_only=True)
class InterpretReport:
    """What was found.

    Attributes
    ----------
    method : str
        How.
    runs : Path
        Folder of the runs; beside each lies what was computed from it.
    profiles : list of Profile
        One per embedding and subject, seeds averaged.
    pairs : list of PairedProfile
        Aligned minus base.
    notes : list of str
        What limits the reading, a line each.
    skipped : dict of str to str
        Runs that were left out, and why.
    to_do, already : list of str
        Runs that were interpreted now (with ``dry_run``: would be), and that had been before.
    seconds : float
        Wall time.
    dry_run : bool
        Whether nothing was computed.
    """

    method: str
    runs: Path
    profiles: list[Profile] = field(default_factory=list)
    pairs: list[PairedProfile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    to_do: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    seconds: float = 0.0
    dry_run: bool = False
