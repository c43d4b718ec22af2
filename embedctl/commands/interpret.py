"""``embedctl interpret``: when, at which frequencies and where the evidence for the right image lies."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import config, options, render
from embedctl.captions import said
from embedctl.commands.compare import PAIRING
from embedctl.options import option, path, place
from stores.names import counted

if TYPE_CHECKING:
    from pipelines.interpret.request import InterpretReport

__all__ = ["interpret"]

METHOD = option("interpret.method", "--method", metavar="M")
MODEL = option("interpret.model", "--model", "-m", metavar="E[,E...]")
SUBJECT = option("interpret.subject", "--subject", "-s", metavar="S[,S...]")
SEED = option("interpret.seed", "--seed", metavar="N[,N...]")
JOIN = option("train.join", "--join", metavar="J")


def interpret(
    method: Annotated[str | None, METHOD] = None,
    model: Annotated[list[str] | None, MODEL] = None,
    subject: Annotated[list[str] | None, SUBJECT] = None,
    seed: Annotated[list[str] | None, SEED] = None,
    pairing: Annotated[str, PAIRING] = "matched_base",
    join: Annotated[str | None, JOIN] = None,
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    trust: options.Trust = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Show when, at which frequencies and where the evidence lies.

    Each run's evidence for the right image is divided over times, bands and sensors, checked against random weights,
    and taken away part by part. Aligned encoders are compared with their bases. Pictures go to RUNS/interpret.

    \b
      embedctl interpret
      embedctl interpret --model gabor-pyramid,hog --subject 1
      embedctl interpret --method paper-gradcam
    """
    from stores.disk import check_writable

    chosen = config.load()
    options.use_code(trust)
    kept_in = path(chosen.value("runs", runs))
    if not dry_run and kept_in.exists():
        check_writable(kept_in)
    from embedctl.progress import shown
    from pipelines.interpret.interpret import interpret as run  # PyTorch, two seconds
    from pipelines.interpret.kept import keep_found, plain
    from pipelines.interpret.request import InterpretRequest

    request = InterpretRequest(
        method=chosen.value("interpret.method", method),
        models=chosen.value("interpret.model", model),
        subjects=chosen.value("interpret.subject", subject),
        seeds=chosen.value("interpret.seed", seed),
        pairing=pairing,
        embeddings=place(chosen.value("embeddings", embeddings)),
        epochs=path(chosen.value("epochs", epochs)),
        runs=kept_in,
        join=chosen.value("train.join", join),
        dry_run=dry_run,
    )
    with shown() as progress:
        report = run(request, progress)
    asked = [*request.models, *(f"subject-{s}" for s in request.subjects), *(f"seed-{s}" for s in request.seeds)]
    pictures = [] if dry_run else _draw(report, asked)
    if not dry_run:
        keep_found(report)
    if json:
        render.as_json(**plain(report), pictures=[str(picture) for picture in pictures])
    else:
        _tell(report, pictures)
    render.skipped(report.skipped, len(report.to_do) + len(report.already) + len(report.skipped), "run")
    raise typer.Exit(3 if report.skipped else 0)


def _tell(report: "InterpretReport", pictures: Sequence[Path]) -> None:
    from embedctl.interpretation_tables import show_pairs, show_profiles

    n = len(report.to_do) + len(report.already)
    if report.dry_run:
        render.line(f"{_runs(n)}: {len(report.already):,} interpreted already, {len(report.to_do):,} to do")
        return
    for condition, profiles in groupby(report.profiles, key=lambda profile: profile.condition):
        render.line(said(condition))
        show_profiles(list(profiles), report.method)
        show_pairs([pair for pair in report.pairs if pair.condition == condition])
    for text in report.notes:
        render.note(f"note: {text}")
    render.note(f"{report.runs}: {_runs(n)}, {len(report.to_do):,} interpreted now, in {report.seconds:.1f} s")
    if pictures:
        render.note(f"pictures are in {pictures[0].parent}")


def _runs(n: int) -> str:
    """Say how many.

    Examples
    --------
    >>> _runs(1), _runs(1200)
    ('1 run', '1,200 runs')
    """
    return counted(n, "run")


def _draw(report: "InterpretReport", asked: Sequence[str]) -> list[Path]:
    """Write the pictures of every condition, and return where they are: those of a narrower call beside the whole's."""
    from embedctl.drawing import png
    from embedctl.interpretation_figures import bands_figure, pair_figure, sensors_figure, time_figure
    from stores.commits import digest, put_bytes

    only, written, ranked = "_".join(asked), [], _ranked(report.runs)
    if len(only) > 60:
        only = f"{only[:40]}-{digest(only.encode())[:8]}"
    for condition, same in groupby(report.profiles, key=lambda profile: profile.condition):
        profiles = list(same)
        name = "_".join(str(condition[part]) for part in ("dataset", "brain_encoder", "recipe", "config_key"))
        folder = report.runs / "interpret" / report.method / name.replace("/", "-")
        folder = folder / f"only-{only}".replace("/", "-").replace(":", "~") if only else folder
        timed, placed = bool(len(profiles[0].times)), bool(profiles[0].sensors)
        best = [name for of, name in ranked if of == condition]
        drawn = {"time.png": time_figure(profiles, best), "bands.png": bands_figure(profiles, best)} if timed else {}
        drawn |= {"sensors.png": sensors_figure(profiles, best)} if placed else {}
        for pair in report.pairs:
            if pair.condition == condition and timed:
                drawn[f"{pair.embedding}-minus-{pair.base}.png".replace(":", "~")] = pair_figure(pair)
        for file, figure in drawn.items():
            put_bytes(folder / file, png(figure))
            written.append(folder / file)
    return written


def _ranked(runs: Path) -> list[tuple[dict[str, Any], str]]:
    """Return condition and name of every embedding, best first: their colours go by that, as in the report."""
    from pipelines.train.compare import ranking
    from pipelines.train.origin import marked
    from stores.results import read_results

    return [(row.condition, marked(row.embedding, row.weights)) for row in ranking(read_results(runs))]
