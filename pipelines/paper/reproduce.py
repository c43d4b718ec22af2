"""The paper's tables again: what there is, what is missing, what it costs, and the training of what can be trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pipelines.paper.sweeps import PREPROCESSING, PaperSweep, paper_sweeps
from pipelines.progress import SILENT, Progress
from pipelines.train.cost import seconds_per_row
from pipelines.train.request import TrainReport, TrainRequest
from pipelines.train.sweep import train
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import EmbedctlError

__all__ = ["Planned", "look", "reproduce"]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One sweep of the paper, and how far this workspace is from it.

    Parameters
    ----------
    sweep : PaperSweep
        The sweep.
    missing : list of str
        What to type first, or what stands in the way, a line each.
    notes : list of str
        What differs from the paper's.
    request : TrainRequest or None
        What can be trained with what is there; None where nothing can.
    n_finished, n_ready : int
        Runs that are there, and that could be trained now.
    bytes : int
        What these take on disk.
    seconds : float
        Of all runs that are not there, at most: all passes, on one core as it is now.
    """

    sweep: PaperSweep
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    request: TrainRequest | None = None
    n_finished: int = 0
    n_ready: int = 0
    bytes: int = 0
    seconds: float = 0.0


def look(embeddings: Path, epochs: Path, runs: Path, *, device: str = "auto", join: str = "suffix") -> list[Planned]:
    """Find out what there is for each sweep of the paper; nothing is written.

    Parameters
    ----------
    embeddings, epochs, runs : Path
        The stores, there or not, and the folder of the runs.
    device, join : str
        As for `embedctl train`.

    Returns
    -------
    list of Planned
        In the order of the tables.
    """
    speed: dict[tuple[object, ...], float] = {}  # several sweeps have the same network on the same recordings
    return [_planned(sweep, embeddings, epochs, runs, device, join, speed) for sweep in paper_sweeps()]


def reproduce(
    plan: Sequence[Planned],
    progress: Progress = SILENT,
    planned_runs: Callable[[TrainRequest, TrainReport], None] | None = None,
) -> int:
    """Train whatever can be trained, sweep by sweep, and return the number of runs.

    Parameters
    ----------
    plan : sequence of Planned
        What `look` found.
    progress : Progress
        Who listens.
    planned_runs : callable, optional
        Called with every sweep's request and plan before its first run.
    """
    done = 0
    for planned in plan:
        if planned.request is not None and planned.n_ready:
            progress.say(f"{', '.join(planned.sweep.tables)}: {planned.sweep.brain_encoder}, {planned.sweep.protocol}")
            note = partial(planned_runs, planned.request) if planned_runs else None
            report = train(planned.request, progress, note)
            done += report.n_trained
            for run_id, why in report.failed.items():
                progress.say(f"{run_id}: {why}")
    return done


def _planned(
    sweep: PaperSweep,
    embeddings: Path,
    epochs: Path,
    runs: Path,
    device: str,
    join: str,
    speed: dict[tuple[object, ...], float],
) -> Planned:
    there, missing = _embeddings(sweep, embeddings)
    subjects, lacking, notes = _subjects(sweep, epochs)
    missing += lacking
    if sweep.protocol == "cross":
        notes.append("validation is on another subject and concepts removed from all; the paper's was a random tenth")
    planned = Planned(sweep=sweep, missing=missing, notes=notes)
    if there and subjects:
        request = TrainRequest(
            brain=sweep.modality,
            dataset=sweep.dataset,
            models=tuple(there),
            subjects=tuple(subjects),
            brain_encoder=sweep.brain_encoder,
            recipe="paper",
            protocol=sweep.protocol,
            gallery=sweep.gallery,
            embeddings=embeddings,
            epochs=epochs,
            runs=runs,
            device=device,
            join=join,
        )
        try:
            found = train(replace(request, dry_run=True))
        except EmbedctlError as problem:
            missing.append(f"{problem.what}: {problem.hint}" if problem.hint else problem.what)
        else:
            n_finished, n_ready = found.n_already, found.n_to_do
            planned = replace(
                planned, request=request, n_finished=n_finished, n_ready=n_ready, bytes=found.bytes_needed
            )
    to_do = sweep.n_runs - planned.n_finished
    network = (sweep.brain_encoder, *sweep.shape)
    if to_do and network not in speed:
        speed[network] = seconds_per_row(*network)
    return replace(planned, seconds=to_do * sweep.rows_per_run * speed.get(network, 0.0))


def _embeddings(sweep: PaperSweep, path: Path) -> tuple[list[str], list[str]]:
    """Return the embeddings of published weights that are stored, and what to type for the others."""
    stored = EmbeddingStore.open(path).entries() if path.exists() else []
    published = {str(entry.name) for entry in stored if entry.published and entry.n_committed}
    there = [name for name in sweep.embeddings if name in published]
    others = [name for name in sweep.embeddings if name not in published]
    return there, [f"embedctl extract --model {','.join(others)}"] if others else []


def _subjects(sweep: PaperSweep, path: Path) -> tuple[list[int], list[str], list[str]]:
    """Return the subjects whose epochs are stored, what to type for the others, and what differs from the paper's."""
    wanted, store = PREPROCESSING[sweep.dataset], EpochStore.open(path) if path.exists() else None
    stored = store.subjects(sweep.dataset) if store is not None else []
    missing, notes = [], []
    if not set(sweep.subjects) <= set(stored):
        # One command for all sweeps of a dataset, though one of them may test a single subject.
        of_all = {subject for one in paper_sweeps() if one.dataset == sweep.dataset for subject in one.subjects}
        whom = ",".join(map(str, sorted(of_all - set(stored))))
        missing.append(f"embedctl preprocess --dataset {sweep.dataset} --recipe {wanted} --subject {whom}")
    recipe = (store.recipe(sweep.dataset) or {}).get("name", "") if store is not None and stored else ""
    if recipe and recipe != wanted:
        notes.append(f"{sweep.dataset} was preprocessed with {recipe}; the paper's is {wanted}")
    return [subject for subject in sweep.subjects if subject in stored], missing, notes
