"""What is asked of a screen, and what it tells when it is done."""

from dataclasses import dataclass, field
from pathlib import Path

from stores.screens import Seen

__all__ = ["ScreenReport", "ScreenRequest", "ScreenRow"]


@dataclass(frozen=True, kw_only=True)
class ScreenRequest:
    """Which embeddings and subjects are screened.

    Parameters
    ----------
    brain : str
        Kind of recording: ``eeg``, ``meg`` or ``fmri``.
    models : tuple of str, optional
        Embeddings as in the store, ``NAME`` or ``NAME#KEY``; None or empty for all of them.
    subjects : tuple of int, optional
        None or empty for all subjects of the dataset.
    recipe : str
        The training recipe whose channels, window and normalisation are used.
    dataset : str
        Needed only when the epoch store holds several of this kind.
    embeddings, epochs : Path
        The stores read.
    runs : Path
        Where it is written down which configurations have seen the test set.
    join : str
        How epochs find their images: ``suffix`` or ``stem``.
    test : bool
        Whether to score on the test images too.
    """

    brain: str
    models: tuple[str, ...] | None = None
    subjects: tuple[int, ...] | None = None
    recipe: str = "modern"
    dataset: str = ""
    embeddings: Path = Path("embeddings.zarr")
    epochs: Path = Path("epochs.zarr")
    runs: Path = Path("runs")
    join: str = "suffix"
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenRow:
    """One embedding, its figures averaged over subjects. Accuracies are fractions.

    Parameters
    ----------
    embedding, embedding_key, aligned_by, weights : str
        Which one, as in the results.
    per_subject : dict
        Top-1 of each subject on the held-out training concepts.
    penalties : dict
        The penalty chosen for each subject, in units of the recordings' mean variance times the number of epochs.
    top1, top5, mrr : float
        On the held-out training concepts, on which the penalty was chosen.
    test_top1, test_top5 : float or None
        On the test images; None where they were not asked for.
    """

    embedding: str
    embedding_key: str
    aligned_by: str
    weights: str
    per_subject: dict[int, float]
    penalties: dict[int, float]
    top1: float
    top5: float
    mrr: float
    test_top1: float | None = None
    test_top5: float | None = None


@dataclass(kw_only=True)
class ScreenReport:
    """What a screen found.

    Attributes
    ----------
    rows : list of ScreenRow
        Best first, by top-1 on the held-out training concepts, then by mean reciprocal rank.
    dataset, recipe : str
        On what, and how it was loaded.
    n_way, n_queries : int
        Held-out concepts that an image is told apart from, its own included, and images that were asked for: the most
        of a round and of a subject.
    chance : float
        Top-1 of a guess, averaged as the scores are: over rounds, then subjects.
    test_chance : float
        The same of the test; 0 where it was not asked for.
    simulated : list of int
        Subjects whose recordings are.
    noise_ceilings : dict of int to float
        Of the test, by subject that has one (`pipelines.train.repetitions.split_half`).
    notes : list of str
        What was chosen or left out, a line each.
    seen : Seen or None
        With ``test``: how many configurations have now seen these test images.
    seconds : float
        Wall time.
    """

    rows: list[ScreenRow] = field(default_factory=list)
    dataset: str = ""
    recipe: str = ""
    n_way: int = 0
    n_queries: int = 0
    chance: float = 0.0
    test_chance: float = 0.0
    simulated: list[int] = field(default_factory=list)
    noise_ceilings: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seen: Seen | None = None
    seconds: float = 0.0
