"""What a report is about: the runs of a folder, condition by condition, and the stores they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedctl.captions import said
from embedctl.drawing import colours_of
from pipelines.findings.hits import RunHits, read_hits
from pipelines.train.cells import Cell, HitsOf, conditions, hits_interval
from pipelines.train.compare import PairRow, RankRow, left_out, pairs, ranking
from pipelines.train.origin import marked
from pipelines.train.settings import what_differs
from stores.errors import EmbedctlError
from stores.results import read_results

if TYPE_CHECKING:
    import pyarrow as pa

    from stores.embeddings import EmbeddingStore

__all__ = ["Answers", "Material", "ReportRequest", "gather"]


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What is reported on.

    Parameters
    ----------
    runs, embeddings, images : Path
        The folder of runs; the embedding store and the images it was made from, which need not be there.
    pairing : str
        Which base an aligned encoder is compared with: ``matched_base`` or ``paper``.
    cards : Path or None
        The folder whose encoders were added to the registry.
    """

    runs: Path = Path("runs")
    embeddings: Path = Path("embeddings.zarr")
    images: Path = Path("images")
    pairing: str = "matched_base"
    cards: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One condition: what can be compared.

    Parameters
    ----------
    condition : dict
        What all runs have in common.
    ranks, pairs : list
        As `embedctl compare` shows them.
    cells : dict of str to Cell
        The runs, by embedding, best first.
    hits : dict of str to RunHits
        By run id; without the runs that kept none.
    differs : str
        Settings that set it apart from conditions of the same heading.
    """

    condition: dict[str, Any]
    ranks: list[RankRow]
    pairs: list[PairRow]
    cells: dict[str, Cell]
    hits: dict[str, RunHits]
    differs: str = ""

    @property
    def title(self) -> str:
        """The condition in a line."""
        return said(self.condition, self.differs)

    def called(self, embedding: str) -> str:
        """Return an embedding's name, marked where its weights are not the published ones: as every section has it."""
        return marked(embedding, self.cells[embedding].first["weights"]) if embedding in self.cells else embedding

    def colours(self, names: Sequence[str]) -> dict[str, str]:
        """Return colours of what is drawn, by name as `called` (`embedctl.drawing.colours_of`); the others are grey."""
        return colours_of(names, list(map(self.called, self.cells)))

    @property
    def leader(self) -> RankRow | None:
        """The best embedding that was not fitted to THINGS or to brain data."""
        return next((row for row in self.ranks if not row.contaminated), None)


@dataclass(kw_only=True)
class Material:
    """Everything a report is drawn from.

    Parameters
    ----------
    request : ReportRequest
        What was asked for.
    results : Table
        All runs.
    answers : list of Answers
        One per condition.
    store : EmbeddingStore or None
        None where there is none.
    notes : list of str
        What to know first.
    simulated : set of (str, int, str)
        Recordings that are: dataset, subject, key.
    """

    request: ReportRequest
    results: "pa.Table"
    answers: list[Answers]
    store: "EmbeddingStore | None"
    notes: list[str] = field(default_factory=list)
    simulated: set[tuple[str, int, str]] = field(default_factory=set)


def gather(request: ReportRequest) -> Material:
    """Read what all sections of a report need.

    Raises
    ------
    EmbedctlError
        If there are no runs.
    DamagedStore
        If a file of a run is not the one that was written.
    """
    results = read_results(request.runs)
    ranked, paired, differs = ranking(results), pairs(results, request.pairing), what_differs(results, request.runs)
    answers = []
    for condition, found in conditions(results):
        cells = {cell.label: cell for cell in found}
        hits = read_hits(request.runs, found)
        mine = [row for row in ranked if row.condition == condition]
        ranks = [
            replace(
                row, interval=_fraction(hits_interval([(cells[row.embedding].runs, 1)], _looked_up(hits), _values(row)))
            )
            for row in mine
        ]
        tests = [_with_interval(pair, cells, hits) for pair in paired if pair.condition == condition]
        ordered = {row.embedding: cells[row.embedding] for row in ranks}
        apart = differs.get(condition["config_key"], "")
        answers.append(Answers(condition=condition, ranks=ranks, pairs=tests, cells=ordered, hits=hits, differs=apart))
    simulated = _simulated(request, results)
    return Material(
        request=request,
        results=results,
        answers=answers,
        store=_store(request.embeddings),
        notes=[*_simulated_said(simulated, results), *left_out(results)],
        simulated=simulated,
    )


def _with_interval(pair: PairRow, cells: dict[str, Cell], hits: dict[str, RunHits]) -> PairRow:
    shared = {
        subject: sorted(set(seeds) & set(cells[pair.base].runs[subject]))
        for subject, seeds in cells[pair.embedding].runs.items()
        if subject in pair.subjects
    }
    ours, theirs = (
        {subject: {seed: cells[name].runs[subject][seed] for seed in seeds} for subject, seeds in shared.items()}
        for name in (pair.embedding, pair.base)
    )
    return replace(pair, interval=hits_interval([(ours, 1), (theirs, -1)], _looked_up(hits), _values(pair)))


def _looked_up(hits: dict[str, RunHits]) -> HitsOf:
    return lambda run_id: hits[run_id].by_image if run_id in hits else None


def _fraction(interval: Any) -> Any:
    """Cut an interval to what an accuracy can be."""
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))


def _values(row: RankRow | PairRow) -> Sequence[float]:
    return list(row.per_subject.values())


def _store(path: Path) -> "EmbeddingStore | None":
    from stores.embeddings import EmbeddingStore

    try:
        return EmbeddingStore.open(path)
    except EmbedctlError as problem:
        if problem.exit_code != EmbedctlError.exit_code:
            raise
        return None


def _recordings(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["dataset"], row["subject"], row["epochs_key"]


def _simulated(request: ReportRequest, results: "pa.Table") -> set[tuple[str, int, str]]:
    """Return the recordings that are simulated: runs say so, and of runs from before they did, a demo's own file."""
    from embedctl.demo import TRUTH

    rows = results.to_pylist()
    is_demo = any((place.absolute().parent / TRUTH).is_file() for place in (request.runs, request.embeddings))
    return {_recordings(row) for row in rows if is_demo or row["simulated"]}


def _simulated_said(simulated: set[tuple[str, int, str]], results: "pa.Table") -> list[str]:
    """Say so: a report on them must not pass for a finding about people."""
    which = sorted({(dataset, subject) for dataset, subject, _ in simulated})
    if not which:
        return []
    if {_recordings(row) for row in results.to_pylist()} == simulated:
        return ["The recordings are simulated: an encoder's embedding was planted in noise, or nothing was."]
    told = ", ".join(f"{dataset} subject {subject}" for dataset, subject in which)
    return [f"Some recordings are simulated, an encoder's embedding planted in noise, or nothing: {told}."]
