"""Doing the runs of a sweep: one subject is loaded, and all its runs that are asked for are trained and written.

The same in this process and in any other that sees the stores: a run is a function of what `Common` and its `Job` say.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from safetensors.torch import save

from pipelines.allocator import kept_memory
from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.company import Cast, Company
from pipelines.train.data import Recordings
from pipelines.train.learner import Diverged
from pipelines.train.origin import weights_of
from pipelines.train.recipes import Recipe
from pipelines.train.repetitions import usual_number
from pipelines.train.request import Job, TrainRequest
from pipelines.train.several import Target
from pipelines.train.stacking import pays
from pipelines.train.targets import Targets
from pipelines.train.train import Against, RunConfig, RunOutcome, train_together
from pipelines.train.trial import OwnCodeError, watched
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import EmbedctlError, NotHere, StoreLocked
from stores.locks import lock
from stores.results import finished, write_run
from stores.versions import installed_version

__all__ = ["Common", "Done", "Runner", "device_for"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all runs of a sweep have in common, every question answered.

    Parameters
    ----------
    request : TrainRequest
        What was asked.
    dataset : str
        Which recordings.
    recipe : Recipe
        Every setting, the brain encoder too.
    casts : dict of int to Cast
        Who takes part where a subject is tested.
    embeddings : dict
        What is trained against, by name and key.
    config_key : str
        See `pipelines.train.plan.config_key`.
    own : dict of str to str
        Digests of files of the user's own.
    """

    request: TrainRequest
    dataset: str
    recipe: Recipe
    casts: dict[int, Cast]
    embeddings: dict[tuple[str, str], Target]
    config_key: str
    own: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a run.

    Parameters
    ----------
    run_id : str
        Which.
    state : str
        ``trained``; ``failed``; ``finished`` by another process meanwhile; or ``held`` by one.
    top1 : float
        Of a run that was trained.
    seconds : float
        It took.
    why : str
        It failed, or who holds it.
    notes : list of str
        What there is to know about its subject, or how it was trained, a line each.
    """

    run_id: str
    state: str = "trained"
    top1: float = 0.0
    seconds: float = 0.0
    why: str = ""
    notes: list[str] = field(default_factory=list)


class Runner:
    """Does runs, and holds the subject of the last one.

    Parameters
    ----------
    common : Common
        What they have in common.
    device : str
        Where to train.
    targets : Targets, optional
        The embeddings, where they are open already.

    Attributes
    ----------
    n_bytes : int
        What the recordings at hand take in memory.
    """

    def __init__(self, common: Common, device: str, targets: Targets | None = None) -> None:
        self._common, self._device = common, device
        self._targets = targets or Targets(EmbeddingStore.open(common.request.embeddings), common.request.join)
        self._subject: int | None = None
        self._company: Company
        self._data: Recordings
        self._pays: dict[tuple[int, ...], tuple[bool, str]] = {}

    def do(self, jobs: Sequence[Job], wait: float = 0.0) -> Iterator[Done]:
        """Do runs of one subject, and yield what became of each; several are of one seed, and can be one pass.

        Parameters
        ----------
        jobs : sequence of Job
            Which.
        wait : float
            Seconds to wait for a run that another process holds.
        """
        self._load(jobs[0].subject)
        notes, together = list(self._data.notes), False
        if len(jobs) > 1:
            together, why = self._together(jobs)
            notes.append(why)
        for some in [list(jobs)] if together else [[job] for job in jobs]:
            yield from self._do(some, wait, notes)

    @property
    def n_bytes(self) -> int:
        """What the recordings at hand take in memory."""
        held = {x.data_ptr(): x for x in (self._data.mean, self._data.rows)}
        return sum(x.nbytes for x in held.values())

    def _load(self, subject: int) -> None:
        if subject == self._subject:
            return
        common = self._common
        if self._subject is not None:  # what was read of the subject before goes first, or there would be two
            self._subject = None
            del self._company, self._data
        self._company = self._opened(subject)
        kind = brain_encoder(common.recipe.brain_encoder)
        with watched(*common.own):
            self._data = self._company.load(common.recipe, kind, common.request.gallery).ready(kind, self._device)
        self._subject = subject

    def _opened(self, subject: int) -> Company:
        common = self._common
        return Company(EpochStore.open(common.request.epochs), common.dataset, common.casts[subject])

    def _together(self, jobs: Sequence[Job]) -> tuple[bool, str]:
        """Say whether to train runs in one pass; tried out once for every width."""
        widths = self._target(jobs[0]).widths
        if widths not in self._pays:
            try:
                with watched(*self._common.own):
                    found = pays(self._config(jobs[0]), self._data, [self._against(job) for job in jobs])
            except OwnCodeError as problem:
                found = False, f"runs one by one: {problem.what}"
            self._pays[widths] = found
        return self._pays[widths]

    def _do(self, jobs: Sequence[Job], wait: float, notes: list[str]) -> Iterator[Done]:
        """Do runs in one pass."""
        runs, ours = self._common.request.runs, []
        with ExitStack() as locks:
            for job in jobs:
                try:
                    locks.enter_context(lock(runs / ".embedctl" / "locks", job.run_id, wait))
                except StoreLocked as held:
                    yield Done(run_id=job.run_id, state="held", why=held.what)
                    continue
                if finished(runs, job.run_id):  # by another process, since the plan was made
                    yield Done(run_id=job.run_id, state="finished")
                else:
                    ours.append(job)
            if not ours:
                return
            yield from self._train(ours, notes)

    def _train(self, jobs: Sequence[Job], notes: list[str]) -> Iterator[Done]:
        """Train and write runs in one pass; each by itself where one of them fails."""
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with kept_memory(), watched(*self._common.own):
                outcomes = train_together(self._config(jobs[0]), self._data, [self._against(job) for job in jobs])
        except (Diverged, OwnCodeError) as problem:
            if len(jobs) == 1:
                yield Done(run_id=jobs[0].run_id, state="failed", why=problem.what, notes=notes)
            for job in jobs if len(jobs) > 1 else ():
                yield from self._train([job], notes)
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._write(job, outcome, begun, len(jobs))
            figures = outcome.figures
            yield Done(run_id=job.run_id, top1=figures["top1"], seconds=figures["seconds"], notes=notes)

    def _target(self, job: Job) -> Target:
        return self._common.embeddings[job.embedding, job.embedding_key]

    def _config(self, job: Job) -> RunConfig:
        return RunConfig(self._common.recipe, job.seed)

    def _against(self, job: Job) -> Against:
        target, data = self._target(job), self._data
        test = data.test
        rows, gallery = (self._targets.rows(target, ids) for ids in (data.image_ids, test.image_ids))
        others, concepts = self._targets.others(target, test.image_ids, test.concepts, test.target.tolist())
        return Against(rows, gallery, target.widths, others, concepts)

    def _write(self, job: Job, outcome: RunOutcome, begun: str, n_together: int) -> None:
        common, company, data = self._common, self._company, self._data
        recordings, target, decided = company.tested, self._target(job), self._decided(job)
        write_run(
            common.request.runs,
            job.run_id,
            config={
                **decided,
                "settings": common.recipe.settings(),
                "join": common.request.join,
                "embeddings": str(common.request.embeddings.absolute()),
                "epochs": str(common.request.epochs.absolute()),
                "ch_names": data.ch_names,
                "scale": data.scale,
                "rows_dtype": str(data.rows.dtype).removeprefix("torch."),
                "validation_subject": company.cast.validation,
                "times": recordings.times.tolist(),
                "gallery_ids": data.test.image_ids,
                "gallery_concepts": data.test.concepts,
                "parts": target.texts,
                "provenance": target.parts[0].provenance,
                "provenance_of_others": [part.provenance for part in target.parts[1:]],
                "preprocessing": recordings.recipe,
                "device": self._device,
                "runs_in_one_pass": n_together,
                "own": common.own,
            },
            summary=decided | outcome.figures | {"started": begun, "last": outcome.last},
            arrays=outcome.arrays,
            checkpoint=save({key: value.cpu().contiguous() for key, value in outcome.state.items()}),
            metrics=outcome.metrics,
        )

    def _decided(self, job: Job) -> dict[str, Any]:
        """Return the columns of the results that were settled before training."""
        common, recipe, target = self._common, self._common.recipe, self._target(job)
        company, recordings, ch_names = self._company, self._company.tested, self._data.ch_names
        return {
            "run_id": job.run_id,
            "dataset": common.dataset,
            "modality": recordings.modality,
            "subject": job.subject,
            "protocol": common.request.protocol,
            "train_subjects": ",".join(map(str, company.cast.training)),
            "embedding": job.embedding,
            "encoder": target.encoder,
            **target.said_of(),
            "weights": weights_of(target),
            "brain_encoder": recipe.brain_encoder,
            "image_head": recipe.image_head,
            "recipe": recipe.name,
            "seed": job.seed,
            "split": recipe.split,
            "channels": _channels(ch_names, recordings.ch_names),
            "window": f"{recipe.window[0]:g}..{recipe.window[1]:g} s"
            if recipe.window and len(recordings.times)
            else "all",
            "trial_norm": recipe.trial_norm,
            "train_on": recipe.train_on,
            "test_repetitions": usual_number(recordings.test),
            "gallery": common.request.gallery,
            "embedding_key": job.embedding_key,
            "epochs_key": company.key,
            "images_key": job.images_key,
            "config_key": common.config_key,
            "version": installed_version("embedctl") or "unknown",
            "preprocessing": str((recordings.recipe or {}).get("name", "")),
            "simulated": company.is_simulated,
        }


def _channels(used: Sequence[str], stored: Sequence[str]) -> str:
    return f"all {len(used)}" if len(used) == len(stored) else f"{len(used)}: {' '.join(used)}"


def device_for(asked: str) -> str:
    """Return where to train; the CPU when nothing faster is there and nothing was asked for.

    Raises
    ------
    EmbedctlError
        If there is no such device.
    NotHere
        If this computer has none.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    if asked == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if asked not in there:
        raise EmbedctlError(f"no device called '{asked}'", "there are: auto, cpu, cuda")
    if not there[asked]:
        raise NotHere(f"this computer has no {asked} device that torch can use", "use --device cpu")
    return asked
