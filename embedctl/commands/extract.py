"""``embedctl extract``: images to embeddings."""

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.again import note_embeddings
from embedctl.options import option, path, place, switch
from stores.errors import EmbedctlError
from stores.names import counted
from stores.remote import is_remote

if TYPE_CHECKING:
    from pipelines.extract.request import ExtractReport

__all__ = ["extract", "tell"]

MODEL = option("extract.model", "--model", "-m", metavar="E[,E...]")
WEIGHTS = option("extract.weights", "--weights", metavar="W")
BATCH_SIZE = option("extract.batch-size", "--batch-size", metavar="N|auto")
DTYPE = option("extract.dtype", "--dtype", metavar="T")
LAYERS = typer.Option("--layers", metavar="L[,L...]", help="layers of every model that names none", show_default=False)
VIEWS = typer.Option(
    "--view", metavar="V[,V...]", help="views of the image for every model that names none", show_default=False
)
REFRESH = typer.Option("--refresh", help="hash every image again and redo the changed ones", show_default=False)
SHARD = typer.Option("--shard", metavar="I/N", help="only the I-th of N parts, 0/N first", show_default=False)
WORKERS = typer.Option(
    "--workers",
    metavar="N",
    help="compute in N processes, as a dask cluster on this computer",
    show_default=False,
)
SCHEDULER = typer.Option(
    "--scheduler", metavar="ADDRESS", help="compute on this dask cluster, tcp://host:8786", show_default=False
)
BUDGET = typer.Option(
    "--memory-budget",
    metavar="B",
    help="memory that the networks of one pass may take, as 8GB; beyond it, several passes",
    show_default=False,
)
OVERWRITE = typer.Option("--overwrite", help="drop the named embeddings first", show_default=False)


def extract(
    model: Annotated[list[str] | None, MODEL] = None,
    images: options.Images = None,
    store: options.EmbeddingStorePath = None,
    layers: Annotated[list[str] | None, LAYERS] = None,
    view: Annotated[list[str] | None, VIEWS] = None,
    weights: Annotated[str | None, WEIGHTS] = None,
    batch_size: Annotated[str | None, BATCH_SIZE] = None,
    device: options.Device = None,
    dtype: Annotated[str | None, DTYPE] = None,
    exact: Annotated[bool | None, switch("extract.exact", "--exact")] = None,
    shard: Annotated[str | None, SHARD] = None,
    memory_budget: Annotated[str | None, BUDGET] = None,
    workers: Annotated[int | None, WORKERS] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    refresh: Annotated[bool, REFRESH] = False,
    overwrite: Annotated[bool, OVERWRITE] = False,
    offline: Annotated[bool | None, switch("extract.offline", "--offline")] = None,
    cards: options.Cards = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Turn images into embeddings, all models in one pass.

    It goes on where it was interrupted, and computes only what is missing.

    \b
      embedctl extract --model pixels,gabor-pyramid
      embedctl extract --model resnet50-tv:layer3.gap --images photos --dry-run
      embedctl extract --model clip-rn50 --layers depth:0.25,0.5,0.75 --view blur-9,grey
    """
    chosen = config.load()
    options.use_cards(chosen, cards)
    models = chosen.value("extract.model", model)
    if not models:
        raise EmbedctlError(
            "extract needs to know which encoders", "for example --model pixels,hog; 'embedctl models' lists them"
        )
    batch = chosen.value("extract.batch-size", batch_size)
    from embedctl.progress import shown
    from pipelines.extract.extract import extract as run
    from pipelines.extract.request import ExtractRequest
    from stores.parts import Part

    request = ExtractRequest(
        models=models,
        images=path(chosen.value("images", images)),
        store=place(chosen.value("embeddings", store)),
        weights=chosen.value("extract.weights", weights),
        batch_size=None if batch == "auto" else batch,
        device=chosen.value("device", device),
        dtype=chosen.value("extract.dtype", dtype),
        exact=chosen.value("extract.exact", exact),
        layers=options.listed("--layers", layers),
        views=options.listed("--view", view),
        shard=Part.parse(shard) if shard is not None else None,
        memory_budget=_bytes(memory_budget) if memory_budget is not None else None,
        workers=options.one_or_more("--workers", workers),
        scheduler=scheduler or "",
        refresh=refresh,
        overwrite=overwrite,
        offline=chosen.value("extract.offline", offline),
        dry_run=dry_run,
    )
    with shown() as progress:
        report = run(request, progress)
    if not dry_run and any(line.written for line in report.embeddings):
        new = [(line.name, f"{line.name}#{line.key}") for line in report.embeddings if line.written]
        sizes = {line.name: line.batch_size for line in report.embeddings}
        note_embeddings("extract", request, new, chosen.value("cards", cards), sizes)
    if json:
        render.as_json(**asdict(report), written=report.written, already=report.already, to_do=report.to_do)
    else:
        tell(report)
    raise typer.Exit(3 if report.skipped else 0)


def _bytes(text: str) -> int:
    """Read a size as people write it.

    Examples
    --------
    >>> _bytes("8GB"), _bytes("1.5 GiB"), _bytes("300000000")
    (8000000000, 1610612736, 300000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:([KMGT])(I)?)?B?", text.strip().upper(), re.ASCII)
    if not found or not (size := float(found[1])):
        raise EmbedctlError(f"no amount of memory called '{text}'", "for example --memory-budget 8GB")
    power = "KMGT".index(found[2]) + 1 if found[2] else 0
    return int(size * (1024 if found[3] else 1000) ** power)


def _duration(seconds: float | None) -> str:
    """Say how long something will take.

    Examples
    --------
    >>> [_duration(seconds) for seconds in (None, 0, 42, 3000, 100_000)]
    ['unknown', 'none', 'about 42 s', 'about 50 min', 'about 28 h']
    """
    if seconds is None:
        return "unknown"
    if not seconds:
        return "none"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 6000 else f"about {seconds / 3600:.0f} h"


def tell(report: "ExtractReport") -> None:
    """Show what an extraction did, or would do."""
    columns = (
        "embedding",
        "dim",
        "dtype",
        "weights",
        "written",
        "already there",
        "to do" if report.dry_run else "skipped",
    )
    rows = [
        (
            e.name,
            e.dim,
            e.dtype,
            render.weights(e.weights),
            e.written,
            e.already,
            e.to_do if report.dry_run else e.absent,
        )
        for e in report.embeddings
    ]
    render.table(columns, rows, right=("dim", *columns[4:]))
    if report.dry_run:
        needed = f"{render.size(report.bytes_needed)} needed"
        if report.to_do and not report.bytes_needed:
            needed = "no room needed beside what blocks that are begun have taken"
        if not is_remote(report.store):
            needed += f", {render.size(report.bytes_free)} free"
        render.line(f"{counted(report.n_images, 'image')}; {needed}; time: {_duration(report.seconds_expected)}")
        for encoder, n_bytes in report.to_fetch.items():
            render.line(f"weights to fetch: {encoder}, {render.size(n_bytes) if n_bytes else 'size unknown'}")
    elif report.written:
        speed = f" ({report.n_read / report.seconds:.3g} images/s, start included)" if report.n_read else ""
        render.line(f"{report.store}: wrote {render.size(report.bytes)} in {report.seconds:.1f} s{speed}")
    elif report.n_read:
        read = f"read {report.n_read:,} of {counted(report.n_images, 'image')} in {report.seconds:.1f} s"
        render.line(f"{report.store}: wrote no row, {read}")
    else:
        others = "every other row" if any(line.absent for line in report.embeddings) else "every row"
        render.line(f"{report.store}: nothing to do, {others} is there already")
    render.skipped(report.skipped, report.n_images, "image")
