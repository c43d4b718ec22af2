"""``embedctl reproduce``: the tables of a paper, from what is in this workspace."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.commands.compare import beside
from embedctl.options import path, place
from stores.errors import UnknownName, suggest

if TYPE_CHECKING:
    from pipelines.paper.beside import PaperRow
    from pipelines.paper.reproduce import Planned

__all__ = ["reproduce"]

PAPERS = ("icml2025",)
PAPER = typer.Argument(metavar="PAPER", show_default=False, help="icml2025: Rajabi et al., ICML 2025")

SKIPPED = 3


def reproduce(
    paper: Annotated[str, PAPER],
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    device: options.Device = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train what a paper's tables need, and compare.

    Says what is missing, what to type for it and what all of it costs; trains what can be trained with what is there;
    and shows published and measured numbers side by side. Where something was missing the exit code is 3.

    \b
      embedctl reproduce icml2025 --dry-run
      embedctl reproduce icml2025
    """
    if paper not in PAPERS:
        raise UnknownName(f"no paper called '{paper}'", suggest(paper, PAPERS))
    chosen = config.load()
    options.use_cards(chosen)
    from embedctl.progress import shown
    from pipelines.paper.beside import beside_paper
    from pipelines.paper.reproduce import look
    from pipelines.paper.reproduce import reproduce as run
    from stores.results import any_results

    folder = path(chosen.value("runs", runs))
    plan = look(
        place(chosen.value("embeddings", embeddings)),
        path(chosen.value("epochs", epochs)),
        folder,
        device=chosen.value("device", device),
        join=chosen.value("train.join"),
    )
    if not json:
        tell(plan)
    if not dry_run:
        with shown() as progress:
            run(plan, progress)
    results = any_results(folder)
    rows = beside_paper(results) if results is not None else []
    if json:
        _as_json(plan, rows)
    elif rows:
        beside(rows)
    if not dry_run and any(planned.missing for planned in plan):
        raise typer.Exit(SKIPPED)


def tell(plan: "Sequence[Planned]") -> None:
    """Show what each sweep of the paper needs, and what is missing."""
    figures = ("runs", "finished", "can run now", "disk", "core-hours")
    columns = ("tables", "dataset", "protocol", "gallery", "brain encoder", "subjects", *figures)
    rows = [
        (
            ", ".join(one.sweep.tables),
            one.sweep.dataset,
            one.sweep.protocol,
            one.sweep.gallery,
            one.sweep.brain_encoder,
            len(one.sweep.subjects),
            f"{one.sweep.n_runs:,}",
            f"{one.n_finished:,}",
            f"{one.n_ready:,}",
            render.size(one.bytes) if one.n_ready else "",
            f"{one.seconds / 3600:,.0f}",
        )
        for one in plan
    ]
    render.table(columns, rows, right=("subjects", *figures))
    n_runs, hours = sum(one.sweep.n_runs for one in plan), sum(one.seconds for one in plan) / 3600
    render.line(f"{n_runs:,} runs; what is not there takes at most {hours:,.0f} core-hours here, all passes made")
    for text in dict.fromkeys(text for one in plan for text in one.missing):
        render.line(f"missing: {text}")
    for text in dict.fromkeys(text for one in plan for text in one.notes):
        render.note(text)


def _as_json(plan: "Sequence[Planned]", rows: "Sequence[PaperRow]") -> None:
    sweeps = [
        asdict(one.sweep)
        | {"n_runs": one.sweep.n_runs, "train": one.sweep.words}
        | {name: getattr(one, name) for name in ("missing", "notes", "n_finished", "n_ready", "bytes", "seconds")}
        for one in plan
    ]
    render.as_json(sweeps=sweeps, paper=[asdict(row) for row in rows])
