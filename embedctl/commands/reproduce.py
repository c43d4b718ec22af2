"""``embedctl reproduce``: the tables of a paper, from what is in this workspace."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.again import note_runs
from embedctl.commands.compare import beside
from embedctl.options import path
from embedctl.seen import say_seen, say_simulated
from stores.errors import UnknownName, suggest

if TYPE_CHECKING:
    from pipelines.paper.beside import PaperRow
    from pipelines.paper.chain import Chain, Step
    from pipelines.paper.reproduce import Planned
    from stores.screens import Seen

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
    """Do all that a paper's tables need, and compare.

    Says what is missing, what to type for it and what all of it costs; extracts, preprocesses and trains what can be
    with what is there; and shows published and measured numbers side by side. Images are taken where recordings or
    epochs of their dataset are. Where something was missing the exit code is 3; --dry-run lists it and ends with 0.

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
    from pipelines.paper.chain import Workspace, follow, steps
    from pipelines.paper.reproduce import look
    from pipelines.paper.reproduce import reproduce as run
    from pipelines.train.origin import simulated_in
    from stores.results import any_results
    from stores.screens import seen

    folder = path(chosen.value("runs", runs))
    place = Workspace(
        images=path(chosen.value("images")),
        raw=path(chosen.value("raw")),
        embeddings=options.place(chosen.value("embeddings", embeddings)),
        epochs=path(chosen.value("epochs", epochs)),
        device=chosen.value("device", device),
        offline=chosen.value("extract.offline"),
    )

    def planned() -> "list[Planned]":
        return look(place.embeddings, place.epochs, folder, device=place.device, join=chosen.value("train.join"))

    plan, chain = planned(), steps(place)
    if not json:
        tell(plan, chain)
    lacking = chain.missing
    if not dry_run:
        with shown() as progress:
            lacking = lacking + follow(chain, progress)
            plan = planned() if chain.steps else plan
            run(plan, progress, note_runs)
            for text in lacking:
                progress.say(f"missing: {text}")
    results = any_results(folder)
    rows = beside_paper(results, folder) if results is not None else []
    tested = seen(folder, results) if results is not None else {}
    fake = simulated_in(results) if results is not None else {}
    if json:
        _as_json(plan, chain, lacking, rows, tested, fake)
    elif rows:
        beside(rows)
        say_seen(tested)
        say_simulated(fake)
    if not dry_run and (lacking or any(one.missing for one in plan)):
        raise typer.Exit(SKIPPED)


def tell(plan: "Sequence[Planned]", chain: "Chain") -> None:
    """Show what each sweep of the paper needs, what is missing, and what is done before."""
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
    for text in dict.fromkeys([*(text for one in plan for text in one.missing), *chain.missing]):
        render.line(f"missing: {text}")
    for step in chain.steps:
        render.line(f"first: {step.what}: {_cost(step)}")
    for text in dict.fromkeys(text for one in plan for text in one.notes):
        render.note(text)


def _cost(step: "Step") -> str:
    fetched = ""
    if step.fetch:
        sizes = list(step.fetch.values())
        unknown = f" and {sizes.count(0)} of unknown size" if 0 in sizes else ""
        fetched = f", weights of {len(sizes)} encoders to fetch ({render.size(sum(sizes))}{unknown})"
    time = "time unknown" if step.seconds is None else f"about {step.seconds / 3600:.1f} hours"
    return f"{render.size(step.bytes)}{fetched}, {time}"


def _as_json(
    plan: "Sequence[Planned]",
    chain: "Chain",
    lacking: "Sequence[str]",
    rows: "Sequence[PaperRow]",
    tested: "dict[str, Seen]",
    simulated: dict[str, list[int]],
) -> None:
    sweeps = [
        asdict(one.sweep)
        | {"n_runs": one.sweep.n_runs, "train": one.sweep.words}
        | {name: getattr(one, name) for name in ("missing", "notes", "n_finished", "n_ready", "bytes", "seconds")}
        for one in plan
    ]
    first = [{name: getattr(step, name) for name in ("what", "bytes", "fetch", "seconds")} for step in chain.steps]
    render.as_json(
        sweeps=sweeps,
        first=first,
        missing=list(lacking),
        paper=[asdict(row) for row in rows],
        tested={dataset: asdict(counts) for dataset, counts in tested.items()},
        simulated=simulated,
    )
