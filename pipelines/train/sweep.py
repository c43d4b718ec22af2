"""A sweep: image embeddings x subjects x seeds, planned, then run, each subject loaded once.

Finished runs are skipped and every run is committed on its own, so a sweep that was killed goes on where it was, and
several can share a folder: a run that another process is at is left to it. Which runs there are is known, and the disk
looked at, before torch is loaded: that takes two seconds.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.cluster import check_cluster
from pipelines.progress import SILENT, Progress
from pipelines.train.brain_encoders import check_reads
from pipelines.train.brain_encoders.elsewhere import content
from pipelines.train.company import Company, cast, for_cross
from pipelines.train.plan import (
    choose_dataset,
    choose_embeddings,
    choose_subjects,
    config_key,
    run_id,
    width_of,
)
from pipelines.train.recipes import read_recipe
from pipelines.train.request import Job, TrainReport, TrainRequest
from pipelines.train.targets import Targets
from stores.disk import bytes_free, check_writable, require_room
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.inside import refuse_links
from stores.results import assemble, finished
from stores.runs import check_place

if TYPE_CHECKING:
    from pipelines.train.runner import Common

__all__ = ["train"]


def train(
    request: TrainRequest, progress: Progress = SILENT, planned: Callable[[TrainReport], None] | None = None
) -> TrainReport:
    """Train a brain encoder per embedding, subject and seed, and put the results into one table.

    Parameters
    ----------
    request : TrainRequest
        What to do.
    progress : Progress
        Who listens.
    planned : callable, optional
        Called with the plan before the first run, where there is anything to do.

    Returns
    -------
    TrainReport
        The plan, what was left to other processes, and what was chosen where the request left it open.

    Raises
    ------
    EmbedctlError
        If the request cannot be carried out: nothing is run then, and finished runs stay as they are.
    """
    started = time.perf_counter()
    check_cluster(request.scheduler, request.workers)
    check_place(request.runs)
    sweep = _decide(request)
    report = TrainReport(
        jobs=sweep.jobs,
        runs=request.runs,
        recipe=sweep.common.recipe.settings(),
        dataset=sweep.common.dataset,
        brain_encoder=sweep.common.recipe.brain_encoder,
        device=sweep.device,
        notes=sweep.notes,
        bytes_free=bytes_free(request.runs),
        dry_run=request.dry_run,
    )
    for note in sweep.notes:
        progress.say(note)
    if not request.dry_run:
        hint = "free some space, or name a folder on another disk"
        require_room(request.runs, report.bytes_needed, report.bytes_free, hint)
        if report.n_to_do:
            if sweep.n_bytes and not request.scheduler:  # workers elsewhere have memory of their own
                from pipelines.train.cross import require_memory

                require_memory(sweep.n_bytes, max(1, min(request.workers, report.n_to_do)))
            if planned:
                planned(report)
        _run(sweep, report, progress)
    report.seconds = time.perf_counter() - started
    return report


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sweep:
    """A request with every question answered: what its runs have in common, which they are, and the most memory."""

    common: "Common"
    device: str
    targets: Targets
    jobs: list[Job]
    notes: list[str]
    n_bytes: int


def _decide(request: TrainRequest) -> _Sweep:
    """Open the stores and settle what to run; whatever can go wrong for want of data goes wrong here."""
    epochs, embeddings = EpochStore.open(request.epochs), EmbeddingStore.open(request.embeddings)
    modalities = {name: epochs[name, epochs.subjects(name)[0]].modality for name in epochs.datasets()}
    dataset = choose_dataset(modalities, request.brain, request.dataset)
    changes = {
        "split": request.split,
        "train_on": request.train_on,
        "image_head": request.image_head,
        "loss": request.loss,
    }
    recipe = read_recipe(request.recipe, request.brain, request.brain_encoder, request.protocol)
    recipe = recipe.with_(**{key: value for key, value in changes.items() if value})
    if request.protocol == "cross":
        recipe = for_cross(recipe, request.brain, request.split)
    kind = recipe.brain_encoder
    chosen, notes = choose_embeddings(embeddings.entries(), request.models or (), embeddings.resolve)
    stored = epochs.subjects(dataset)
    tested = choose_subjects(stored, request.subjects or ())
    casts = {subject: cast(request.protocol, stored, subject) for subject in tested}
    targets = Targets(embeddings, request.join)
    check_reads(kind, request.brain)
    own = {name: found for name in (kind, recipe.loss) if (found := content(name))}
    config = config_key(recipe, request.protocol, epochs.recipe(dataset) or {}, own, request.gallery)
    companies = {subject: Company(epochs, dataset, casts[subject]) for subject in tested}
    jobs = []
    for subject, company in companies.items():
        for target in chosen:
            images = targets.check(target, company.train_ids, company.tested.test.image_ids)
            for seed in dict.fromkeys(request.seeds or recipe.seeds):
                by = {"epochs": company.key, "embedding": target.key, "images": images, "config": config}
                name = run_id(dataset, subject, target.name, kind, recipe.name, seed, by)
                jobs.append(
                    Job(
                        run_id=name,
                        subject=subject,
                        embedding=target.name,
                        embedding_key=target.key,
                        seed=seed,
                        finished=finished(request.runs, name),
                        images_key=images,
                    )
                )
    if not request.dry_run and not all(job.finished for job in jobs):
        check_writable(request.runs)
    from pipelines.train.cost import epoch_shape, run_bytes
    from pipelines.train.losses import loss_function
    from pipelines.train.runner import Common, device_for
    from pipelines.train.trial import try_own

    loss_function(recipe.loss)
    most, tried, takes = 0, set[tuple[int, int, int]](), dict[tuple[int, str, str], tuple[int, float]]()
    for subject, company in companies.items():
        n_bytes, note = company.memory(recipe)
        most = max(most, n_bytes)
        notes += [text for text in (*filter(None, [note]), *company.repetitions(recipe)) if text not in notes]
        n_gallery = len(company.gallery(request.gallery)[0])
        for target in chosen if own else ():
            width = width_of(target, recipe)
            shape = (*epoch_shape(company.tested, recipe), min(recipe.dim or width, width))
            if shape not in tried:
                try_own(recipe, kind, *shape)
                tried.add(shape)
        seconds = company.seconds(recipe, kind, width_of(chosen[0], recipe)) if request.dry_run else 0.0
        for target in chosen:
            size = run_bytes(company.tested, recipe, kind, width_of(target, recipe), n_gallery)
            takes[subject, target.name, target.key] = size, seconds
    for at, job in enumerate(jobs):
        size, seconds = takes[job.subject, job.embedding, job.embedding_key]
        jobs[at] = dataclasses.replace(job, bytes=size, seconds=seconds)
    return _Sweep(
        common=Common(
            request=request,
            dataset=dataset,
            recipe=recipe,
            casts=casts,
            embeddings={(target.name, target.key): target for target in chosen},
            config_key=config,
            own=own,
        ),
        device=device_for(request.device),
        targets=targets,
        jobs=jobs,
        notes=notes + targets.notes,
        n_bytes=most,
    )


def _run(sweep: _Sweep, report: TrainReport, progress: Progress) -> None:
    """Run what is not finished, and assemble the table even when interrupted."""
    from pipelines.train.engine import do_runs

    runs = sweep.common.request.runs
    refuse_links(runs)
    progress.start("training", report.n_to_do, "runs")
    try:
        for done in do_runs(sweep.common, sweep.device, sweep.targets, sweep.jobs, progress.say):
            for note in done.notes:
                if note not in report.notes:
                    report.notes.append(note)
                    progress.say(note)
            if done.state == "trained":
                progress.advance(1, **{"top-1": f"{100 * done.top1:.1f} %"})
                continue
            progress.advance()
            if done.state == "held":
                report.skipped[done.run_id] = done.why
            elif done.state == "failed":
                report.failed[done.run_id] = done.why
            else:
                _count_as_finished(sweep, done.run_id)
        for run_id in [name for name in report.skipped if finished(runs, name)]:  # by its process, in the meantime
            del report.skipped[run_id]
            _count_as_finished(sweep, run_id)
    finally:
        if any(finished(runs, job.run_id) for job in sweep.jobs):
            assemble(runs)


def _count_as_finished(sweep: _Sweep, run_id: str) -> None:
    (at,) = (k for k, job in enumerate(sweep.jobs) if job.run_id == run_id)
    sweep.jobs[at] = dataclasses.replace(sweep.jobs[at], finished=True)
