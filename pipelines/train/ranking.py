"""A ranking of embeddings by top-1: seeds are averaged first, within subject, and the subject is the unit."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.train.cells import conditions, hits_in, hits_interval
from pipelines.train.origin import is_contaminated
from pipelines.train.statistics import Interval

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RankRow", "ranking"]

FIGURES = (
    *("top3", "top5", "median_rank", "mrr", "val_top1", "concept_top1", "last_top1"),
    *("csls_top1", "sinkhorn_top1", "noise_ceiling", "chance"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """One embedding under one condition.

    Parameters
    ----------
    condition : dict
        What is the same for all rows it is ranked among.
    rank : int
        Place by top-1 within the condition; 1 is best.
    embedding, weights, aligned_by : str
        The embedding, with its key where one name has several; `origin.mark` says what stands beside it.
    subjects : tuple of int
        Who was averaged over.
    n_seeds, most_seeds : int
        Fewest and most seeds of a subject: its top-1 is the mean over all it has.
    top1 : float
        Mean over subjects of the mean over seeds, a fraction.
    interval : Interval
        Of top-1.
    figures : dict
        The same means of the other figures; None where a run has none.
    per_subject : dict
        Top-1 of each subject.
    contaminated : bool
        Whether the encoder was fitted to THINGS or brain data: it never leads a headline.
    """

    condition: dict[str, Any]
    rank: int
    embedding: str
    weights: str
    aligned_by: str
    subjects: tuple[int, ...]
    n_seeds: int
    most_seeds: int
    top1: float
    interval: Interval
    figures: dict[str, float | None]
    per_subject: dict[int, float]
    contaminated: bool


def ranking(results: "pa.Table", runs: Path | None = None) -> list[RankRow]:
    """Rank the embeddings by top-1, condition by condition.

    Parameters
    ----------
    results : Table
        The results, one row per run.
    runs : Path, optional
        Folder of the runs. With it intervals are over subjects and images, from the hits that each run kept, or with
        few subjects over images; without it over subjects alone.

    Returns
    -------
    list of RankRow
        By condition, then best first.
    """
    rows = []
    for condition, cells in conditions(results):
        placed = sorted(cells, key=lambda cell: -cell.top1)
        for place, cell in enumerate(placed, start=1):
            rows.append(
                RankRow(
                    condition=condition,
                    rank=place,
                    embedding=cell.label,
                    weights=cell.first["weights"],
                    aligned_by=cell.first["aligned_by"],
                    subjects=tuple(cell.runs),
                    n_seeds=min(len(seeds) for seeds in cell.runs.values()),
                    most_seeds=max(len(seeds) for seeds in cell.runs.values()),
                    top1=cell.top1,
                    interval=_fraction(
                        hits_interval(
                            [(cell.runs, 1)], hits_in(runs) if runs else None, list(cell.per_subject.values())
                        )
                    ),
                    figures={name: cell.mean(name) for name in FIGURES},
                    per_subject=cell.per_subject,
                    contaminated=is_contaminated(cell.first["encoder"]),
                )
            )
    return rows


def _fraction(found: Interval) -> Interval:
    """Cut an interval to what an accuracy can be."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))
