"""A sweep: image embeddings x subjects x seeds, planned, then run, each subject loaded once.

Finished runs are skipped and every run is committed on its own, so a sweep that was killed goes on where it was, and
several can share a folder: a run that another process is at is left to it.
"""

import dataclasses
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from safetensors.torch import save

from pipelines.progress import SILENT, Progress
from pipelines.train.brain_encoders import brain_encoder, check_reads
from pipelines.train.brain_encoders.elsewhere import content
from pipelines.train.company import Cast, Company, cast, for_cross
from pipelines.train.cost import run_bytes
from pipelines.train.data import Recordings
from pipelines.train.losses import loss_function
from pipelines.train.origin import weights_of
from pipelines.train.plan import (
    choose_dataset,
    choose_embeddings,
    choose_subjects,
    config_key,
    run_id,
    width_of,
)
from pipelines.train.recipes import Recipe, read_recipe
from pipelines.train.repetitions import usual_number
from pipelines.train.request import Job, TrainReport, TrainRequest
from pipelines.train.several import Target
from pipelines.train.targets import Targets
from pipelines.train.train import RunConfig, train_run
from stores.disk import bytes_free, check_writable
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import CannotWrite, EmbedctlError, NotHere, StoreLocked
from stores.inside import refuse_links
from stores.locks import lock
from stores.results import assemble, finished, write_run
from stores.versions import installed_version

__all__ = ["train"]


def train(request: TrainRequest, progress: Progress = SILENT) -> TrainReport:
    """Train a brain encoder per embedding, subject and seed, and put the results into one table.

    Parameters
    ----------
    request : TrainRequest
        What to do.
    progress : Progress
        Who listens.

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
    sweep = _decide(request)
    report = TrainReport(
        jobs=sweep.jobs,
        runs=request.runs,
        recipe=sweep.recipe.settings(),
        dataset=sweep.dataset,
        brain_encoder=sweep.brain_encoder,
        device=sweep.device,
        notes=sweep.notes,
        bytes_free=bytes_free(request.runs),
        dry_run=request.dry_run,
    )
    for note in sweep.notes:
        progress.say(note)
    if not request.dry_run:
        if report.bytes_needed > report.bytes_free:
            raise CannotWrite(
                f"'{request.runs}' needs {report.bytes_needed / 1e6:,.1f} MB, "
                f"{report.bytes_free / 1e6:,.1f} MB are free",
                "free some space, or name a folder on another disk",
            )
        if report.n_to_do:
            check_writable(request.runs)
        _run(sweep, report, progress)
    report.seconds = time.perf_counter() - started
    return report


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sweep:
    """A request with every question answered."""

    request: TrainRequest
    dataset: str
    recipe: Recipe
    brain_encoder: str
    device: str
    casts: dict[int, Cast]
    embeddings: dict[tuple[str, str], Target]
    targets: Targets
    jobs: list[Job]
    notes: list[str]
    config_key: str
    own: dict[str, str]


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
    loss_function(recipe.loss)
    own = {name: found for name in (kind, recipe.loss) if (found := content(name))}
    config = config_key(recipe, kind, request.protocol, epochs.recipe(dataset) or {}, own, request.gallery)
    jobs = []
    for subject in tested:
        company = Company(epochs, dataset, casts[subject])
        notes += [note for note in company.memory(recipe) if note not in notes]
        n_gallery = len(company.gallery(request.gallery)[0])
        seconds = company.seconds(recipe, kind) if request.dry_run else 0.0
        for target in chosen:
            images = targets.check(target, company.train_ids, company.tested.test.image_ids)
            size = run_bytes(company.tested, recipe, kind, width_of(target, recipe), n_gallery)
            for seed in dict.fromkeys(request.seeds or recipe.seeds):
                by = {"epochs": company.key, "embedding": target.key, "images": images, "config": config}
                name_of_run = run_id(dataset, subject, target.name, kind, recipe.name, seed, by)
                jobs.append(
                    Job(
                        run_id=name_of_run,
                        subject=subject,
                        embedding=target.name,
                        embedding_key=target.key,
                        seed=seed,
                        finished=finished(request.runs, name_of_run),
                        images_key=images,
                        bytes=size,
                        seconds=seconds,
                    )
                )
    return _Sweep(
        request=request,
        dataset=dataset,
        recipe=recipe,
        brain_encoder=kind,
        device=_device(request.device),
        casts=casts,
        embeddings={(target.name, target.key): target for target in chosen},
        targets=targets,
        jobs=jobs,
        notes=notes + targets.notes,
        config_key=config,
        own=own,
    )


def _run(sweep: _Sweep, report: TrainReport, progress: Progress) -> None:
    """Run what is not finished, subject by subject, and assemble the table even when interrupted."""
    refuse_links(sweep.request.runs)
    progress.start("training", report.n_to_do, "runs")
    try:
        for subject, of in sweep.casts.items():
            to_do = [job for job in sweep.jobs if job.subject == subject and not job.finished]
            if to_do:
                # Opened anew, because what it has read goes when it goes.
                company = Company(EpochStore.open(sweep.request.epochs), sweep.dataset, of)
                _run_subject(sweep, company, to_do, report, progress)
        _settle_skipped(sweep, report)
    finally:
        if any(finished(sweep.request.runs, job.run_id) for job in sweep.jobs):
            assemble(sweep.request.runs)


def _run_subject(sweep: _Sweep, company: Company, jobs: list[Job], report: TrainReport, progress: Progress) -> None:
    """Load a subject once, and do all its runs."""
    loaded = company.load(sweep.recipe, brain_encoder(sweep.brain_encoder), sweep.request.gallery)
    for note in loaded.notes:
        if note not in report.notes:
            report.notes.append(note)
            progress.say(note)
    data = loaded.ready(brain_encoder(sweep.brain_encoder), sweep.device)
    for job in jobs:
        try:
            with lock(sweep.request.runs / ".embedctl" / "locks", job.run_id):
                if finished(sweep.request.runs, job.run_id):  # by another process, since the plan was made
                    _count_as_finished(sweep, job)
                    progress.advance()
                else:
                    top1 = _run_job(sweep, company, loaded, data, job)
                    progress.advance(1, top1=round(100 * top1, 1))
        except StoreLocked as held:
            report.skipped[job.run_id] = held.what
            progress.advance()


def _run_job(sweep: _Sweep, company: Company, loaded: Recordings, data: Recordings, job: Job) -> float:
    """Do one run, write it, and return its top-1."""
    recordings = company.tested
    against = sweep.embeddings[job.embedding, job.embedding_key]
    target = sweep.targets.rows(against, loaded.image_ids)
    gallery = sweep.targets.rows(against, loaded.test.image_ids)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    config = RunConfig(sweep.recipe, sweep.brain_encoder, job.seed)
    outcome = train_run(config, data, target, gallery, against.widths)
    decided = _decided(sweep, job, against, company, loaded.ch_names)
    write_run(
        sweep.request.runs,
        job.run_id,
        config={
            **decided,
            "settings": sweep.recipe.settings(),
            "join": sweep.request.join,
            "embeddings": str(sweep.request.embeddings.absolute()),
            "epochs": str(sweep.request.epochs.absolute()),
            "ch_names": loaded.ch_names,
            "scale": loaded.scale,
            "rows_dtype": str(loaded.rows.dtype).removeprefix("torch."),
            "validation_subject": company.cast.validation,
            "times": recordings.times.tolist(),
            "gallery_ids": loaded.test.image_ids,
            "gallery_concepts": loaded.test.concepts,
            "parts": against.texts,
            "provenance": against.parts[0].provenance,
            "provenance_of_others": [part.provenance for part in against.parts[1:]],
            "preprocessing": recordings.recipe,
            "device": sweep.device,
            "own": sweep.own,
        },
        summary=decided | outcome.figures | {"started": begun, "last": outcome.last},
        arrays=outcome.arrays,
        checkpoint=save({key: value.cpu().contiguous() for key, value in outcome.state.items()}),
        metrics=outcome.metrics,
    )
    return float(outcome.figures["top1"])


def _settle_skipped(sweep: _Sweep, report: TrainReport) -> None:
    """Take off the list of skipped runs those that their process has finished in the meantime."""
    for job in list(sweep.jobs):
        if job.run_id in report.skipped and finished(sweep.request.runs, job.run_id):
            del report.skipped[job.run_id]
            _count_as_finished(sweep, job)


def _count_as_finished(sweep: _Sweep, job: Job) -> None:
    sweep.jobs[sweep.jobs.index(job)] = dataclasses.replace(job, finished=True)


def _decided(sweep: _Sweep, job: Job, against: Target, company: Company, ch_names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of the results that were settled before training."""
    recipe, recordings = sweep.recipe, company.tested
    return {
        "run_id": job.run_id,
        "dataset": sweep.dataset,
        "modality": recordings.modality,
        "subject": job.subject,
        "protocol": sweep.request.protocol,
        "train_subjects": ",".join(map(str, company.cast.training)),
        "embedding": job.embedding,
        "encoder": against.encoder,
        **against.said_of(),
        "weights": weights_of(against),
        "brain_encoder": sweep.brain_encoder,
        "image_head": recipe.image_head,
        "recipe": recipe.name,
        "seed": job.seed,
        "split": recipe.split,
        "channels": _channels(ch_names, recordings.ch_names),
        "window": f"{recipe.window[0]:g}..{recipe.window[1]:g} s" if recipe.window and len(recordings.times) else "all",
        "trial_norm": recipe.trial_norm,
        "train_on": recipe.train_on,
        "test_repetitions": usual_number(recordings.test),
        "gallery": sweep.request.gallery,
        "embedding_key": job.embedding_key,
        "epochs_key": company.key,
        "images_key": job.images_key,
        "config_key": sweep.config_key,
        "version": installed_version("embedctl") or "unknown",
    }


def _channels(used: Sequence[str], stored: Sequence[str]) -> str:
    return f"all {len(used)}" if len(used) == len(stored) else f"{len(used)}: {' '.join(used)}"


def _device(asked: str) -> str:
    """Return where to train; the CPU when nothing faster is there and nothing was asked for."""
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    if asked == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if asked not in there:
        raise EmbedctlError(f"no device called '{asked}'", "there are: auto, cpu, cuda")
    if not there[asked]:
        raise NotHere(f"this computer has no {asked} device that torch can use", "use --device cpu")
    return asked
