"""``embedctl train``: epochs and embeddings to runs."""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.again import note_runs
from embedctl.options import option, path, place
from stores.errors import EmbedctlError
from stores.names import counted

if TYPE_CHECKING:
    from pipelines.train.request import TrainReport

__all__ = ["tell", "train"]

SOON = 30.0  # seconds: an estimate of so many is not worth its digits

SEED = option("train.seed", "--seed", metavar="N[,N...]")
BRAIN_ENCODER = option("train.brain-encoder", "--brain-encoder", metavar="E")
PROTOCOL = option("train.protocol", "--protocol", metavar="P")
GALLERY = option("train.gallery", "--gallery", metavar="G")
LOSS = option("train.loss", "--loss", metavar="L")
IMAGE_HEAD = option("train.image-head", "--image-head", metavar="H")
SPLIT = option("train.split", "--split", metavar="S")
TRAIN_ON = option("train.train-on", "--train-on", metavar="T")
WORKERS = typer.Option(
    "--workers",
    metavar="N",
    help="train in N processes on this computer [default: as many as are worth starting]",
    show_default=False,
)
SCHEDULER = typer.Option(
    "--scheduler", metavar="ADDRESS", help="train on this dask cluster, tcp://host:8786", show_default=False
)


def train(
    brain: options.Brain = None,
    dataset: options.Dataset = None,
    model: options.Model = None,
    subject: options.Subject = None,
    seed: Annotated[list[str] | None, SEED] = None,
    brain_encoder: Annotated[str | None, BRAIN_ENCODER] = None,
    recipe: options.Recipe = None,
    protocol: Annotated[str | None, PROTOCOL] = None,
    gallery: Annotated[str | None, GALLERY] = None,
    loss: Annotated[str | None, LOSS] = None,
    image_head: Annotated[str | None, IMAGE_HEAD] = None,
    split: Annotated[str | None, SPLIT] = None,
    train_on: Annotated[str | None, TRAIN_ON] = None,
    join: options.Join = None,
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    device: options.Device = None,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train a brain encoder per embedding, subject and seed.

    Each is scored once on the test images. Runs that are finished are left alone, and so are those that another
    process is at; where some of these were not finished in the end, or runs diverged, they are listed, and the exit
    code is 3.

    \b
      embedctl train --brain eeg
      embedctl train --brain eeg --model pixels,hog --subject 1..4 --seed 0..4
      embedctl train --brain eeg --model pixels+hog
    """
    chosen = config.load()
    kind = chosen.value("train.brain", brain)
    if not kind:
        raise EmbedctlError("train needs to know the kind of recording", "--brain eeg, --brain meg or --brain fmri")
    from embedctl.progress import shown
    from pipelines.train.brain_encoders.elsewhere import trust
    from pipelines.train.request import TrainRequest
    from pipelines.train.sweep import train as run

    trust(brain_encoder or "", loss or "")  # not what a setting, a recipe or a run names
    request = TrainRequest(
        brain=kind,
        models=chosen.value("train.model", model) or None,
        subjects=chosen.value("train.subject", subject) or None,
        seeds=chosen.value("train.seed", seed),
        brain_encoder=chosen.value("train.brain-encoder", brain_encoder),
        recipe=chosen.value("train.recipe", recipe),
        protocol=chosen.value("train.protocol", protocol),
        gallery=chosen.value("train.gallery", gallery),
        loss=chosen.value("train.loss", loss),
        image_head=chosen.value("train.image-head", image_head),
        split=chosen.value("train.split", split),
        train_on=chosen.value("train.train-on", train_on),
        dataset=chosen.value("train.dataset", dataset),
        embeddings=place(chosen.value("embeddings", embeddings)),
        epochs=path(chosen.value("epochs", epochs)),
        runs=path(chosen.value("runs", runs)),
        join=chosen.value("train.join", join),
        device=chosen.value("device", device),
        workers=options.one_or_more("--workers", workers),
        scheduler=scheduler or "",
        dry_run=dry_run,
    )
    with shown() as progress:
        report = run(request, progress, partial(note_runs, request))
    if json:
        render.as_json(**asdict(report))
    else:
        tell(report)
    if report.skipped or report.failed:
        raise typer.Exit(3)


def tell(report: "TrainReport") -> None:
    """Show what a sweep did, or would do."""
    n = len(report.jobs)
    plan = f"{counted(n, 'run')}: {report.n_already:,} there already"
    if report.dry_run:
        columns = ("run", "subject", "embedding", "seed", "state")
        rows = [(j.run_id, j.subject, j.embedding, j.seed, "finished" if j.finished else "to do") for j in report.jobs]
        render.table(columns, rows, right=("subject", "seed"))
        needed, free = render.size(report.bytes_needed), render.size(report.bytes_free)
        hours = report.core_seconds / 3600
        time = f"about {hours:,.1f} core-hours" if hours >= 1 else f"about {report.core_seconds:,.0f} core-seconds"
        time = time if report.core_seconds >= SOON else "under a minute"
        time += " on this computer's cores, all passes made"
        render.line(f"{needed} needed, {free} free; time: {time if report.n_to_do else 'none'}")
        render.line(f"{plan}, {report.n_to_do:,} to do")
        return
    render.line(f"{report.runs}: {plan}, {report.n_trained:,} trained in {report.seconds:.1f} s on {report.device}")
    render.skipped(report.skipped, len(report.jobs), "run")
    render.skipped(report.failed, len(report.jobs), "run", "failed")
    if report.n_already or report.n_trained:
        render.note("'embedctl results' lists them, 'embedctl compare' ranks the encoders")
