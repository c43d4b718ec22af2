"""What comes before the paper's training: its images to embeddings and its recordings to epochs, where they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.paper.sweeps import PREPROCESSING, PaperSweep, paper_sweeps
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.progress import SILENT, Progress
from stores.epochs import EpochStore
from stores.errors import EmbedctlError, NotHere

__all__ = ["Chain", "Step", "Workspace", "follow", "steps"]

STIMULI = {"nsd": "nsd_stimuli.hdf5"}  # of a dataset that brings its images along, in its folder of recordings


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where everything is, there or not, and how embeddings are computed."""

    images: Path
    raw: Path
    embeddings: Path
    epochs: Path
    device: str = "auto"
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to do, what it costs, and what does it.

    Parameters
    ----------
    what : str
        A line.
    bytes : int
        What it writes.
    fetch : dict of str to int
        Encoders whose weights are fetched, and their size; 0 where nobody knows.
    seconds : float or None
        What it takes; None where nobody knows.
    run : callable
        Does it.
    """

    what: str
    bytes: int
    run: Callable[[Progress], Any]
    fetch: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The steps that can be taken, in order, and what stands in the way of others, a line each."""

    steps: list[Step] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def steps(place: Workspace) -> Chain:
    """Find out what can be extracted and preprocessed for the paper's tables; nothing is written.

    Images are looked at where recordings or epochs of their dataset are: others may be of anything.
    """
    found = Chain()
    of_dataset: dict[str, list[PaperSweep]] = {}
    for sweep in paper_sweeps():
        of_dataset.setdefault(sweep.dataset, []).append(sweep)
    sources: dict[Path, list[str]] = {}
    for dataset, sweeps in of_dataset.items():
        stored = EpochStore.open(place.epochs) if place.epochs.exists() else None
        if _has_files(place.raw / dataset):
            _preprocess(place, dataset, sweeps, stored, found)
        elif stored is None or dataset not in stored.datasets():
            continue
        stimuli = place.raw / dataset / STIMULI[dataset] if dataset in STIMULI else place.images
        if stimuli.is_file() or _has_files(stimuli):
            sources.setdefault(stimuli, []).extend(name for sweep in sweeps for name in sweep.embeddings)
        else:
            found.missing.append(f"the images of {dataset} in '{stimuli}': embedctl datasets show {dataset}")
    for images, names in sources.items():
        _extract(place, images, list(dict.fromkeys(names)), found)
    return found


def follow(chain: Chain, progress: Progress = SILENT) -> list[str]:
    """Take all steps, and return what was missing for one of them after all, a line each.

    Raises
    ------
    EmbedctlError
        If a store is damaged or locked, or a disk is full: nothing to go on after.
    """
    failed = []
    for step in chain.steps:
        progress.say(step.what)
        try:
            step.run(progress)
        except EmbedctlError as problem:
            if problem.exit_code not in (EmbedctlError.exit_code, NotHere.exit_code):
                raise
            failed.append(_said(problem))
    return failed


def _preprocess(
    place: Workspace, dataset: str, sweeps: Sequence[PaperSweep], stored: EpochStore | None, found: Chain
) -> None:
    wanted = PREPROCESSING[dataset]
    subjects = {subject for sweep in sweeps for subject in sweep.subjects}
    if stored is not None and dataset in stored.datasets():
        if (stored.recipe(dataset) or {}).get("name") != wanted:
            return  # `look` says so; one store holds one recipe of a dataset
        subjects -= set(stored.subjects(dataset))
    request = PreprocessRequest(dataset=dataset, raw=place.raw / dataset, store=place.epochs, recipe=wanted)
    try:
        here = preprocess(replace(request, dry_run=True)) if subjects else None
    except EmbedctlError as problem:
        found.missing.append(_said(problem))
        return
    to_do = [one for one in here.subjects if one.subject in subjects and one.state == "to do"] if here else []
    if to_do:
        request = replace(request, subjects=tuple(one.subject for one in to_do))
        whom = ", ".join(str(one.subject) for one in to_do)
        what = f"preprocess {dataset}, recipe {wanted}, subjects {whom}"
        size = sum(one.bytes for one in to_do)
        found.steps.append(Step(what=what, bytes=size, run=lambda progress: preprocess(request, progress)))


def _extract(place: Workspace, images: Path, names: list[str], found: Chain) -> None:
    def request(**how: Any) -> ExtractRequest:
        return ExtractRequest(images=images, store=place.embeddings, device=place.device, offline=place.offline, **how)

    try:
        plan = extract(request(models=tuple(names), dry_run=True))
    except EmbedctlError as problem:
        found.missing.append(_said(problem))
        if len(names) > 1:  # one by one: what stands in the way of one encoder is nothing to the others
            for name in names:
                _extract(place, images, [name], found)
        return
    if plan.to_do:
        models = tuple(line.name for line in plan.embeddings if line.to_do)
        found.steps.append(
            Step(
                what=f"extract {', '.join(models)} of the {plan.n_images:,} images in '{images}'",
                bytes=plan.bytes_needed,
                fetch=plan.to_fetch,
                seconds=plan.seconds_expected,
                run=lambda progress: extract(request(models=models), progress),
            )
        )


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _said(problem: EmbedctlError) -> str:
    return f"{problem.what}: {problem.hint}" if problem.hint else problem.what
