"""``embedctl show``: what is in a store, a folder of runs, or one run."""

from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import options, render
from embedctl.outfile import check_file, put_file
from stores.errors import EmbedctlError
from stores.names import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

__all__ = ["picture", "show"]

_WIDE = 110  # letters of a heading above a picture


def show(
    place: Annotated[str, typer.Argument(metavar="PATH", show_default=False, help="a store, runs, or one run")],
    png: Annotated[
        str | None,
        typer.Option("--png", metavar="FILE", show_default=False, help="write its picture, too"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show what is in a store, in a folder of runs, or in one run.

    Of embeddings, also how alike they are (CKA) and what each finds nearest to an image. The picture is, of embeddings,
    how alike they are; of epochs, how far images lie apart; of runs, the ranking; of a run, how it learned.

    \b
      embedctl show embeddings.zarr
      embedctl show epochs.zarr --png epochs.png
      embedctl show runs
    """
    path = options.place(place)
    kind = _kind(path)
    if png:
        picture(path, kind, options.path(png))
    if kind == "embeddings":
        _embeddings(path, json)
    elif kind == "epochs":
        _epochs(path, json)
    elif kind == "run":
        _run(path, json)
    else:
        _runs(path, json)


def _kind(path: Path) -> str:
    if not path.exists():
        raise EmbedctlError(f"there is nothing at '{path}'", "name a store, a folder of runs, or one run")
    if (path / "zarr.json").is_file():
        from stores.layout import read_node

        attributes = read_node(path).get("attributes")
        ours = attributes.get("embedctl") if isinstance(attributes, dict) else None
        kind = ours.get("kind") if isinstance(ours, dict) else ""
        if kind in ("embeddings", "epochs"):
            return str(kind)
    if (path / "receipt.json").is_file():
        return "run"
    if (path / "results.parquet").is_file():
        return "runs"
    raise EmbedctlError(
        f"'{path}' is neither a store, nor a folder of runs, nor a run",
        "name a folder that extract, preprocess or train wrote",
    )


def _embeddings(path: Path, json: bool) -> None:
    from embedctl.stored import COLUMNS, embedding_rows, show_likeness
    from stores.embeddings import EmbeddingStore

    store = EmbeddingStore.open(path)
    entries = list(zip(store.names, store.entries(), strict=True))
    if json:
        found = [
            {
                "name": name,
                "key": entry.key,
                "dim": entry.dim,
                "dtype": entry.dtype,
                "rows": entry.n_committed,
                "absent": {store.image_ids[row]: why for row, why in store.absent(entry).items()},
                "provenance": entry.provenance,
            }
            for name, entry in entries
        ]
        render.as_json(kind="embeddings", path=str(path), images=len(store.image_ids), embeddings=found)
        return
    render.table(COLUMNS, embedding_rows(store), right=("dim", "images", "without a row"))
    show_likeness(store)
    render.note(f"{path}: {counted(len(store.image_ids), 'image')}")


def _epochs(path: Path, json: bool) -> None:
    from stores.epochs import EpochStore

    store = EpochStore.open(path)
    subjects = [store[dataset, subject] for dataset in store.datasets() for subject in store.subjects(dataset)]
    found: list[dict[str, Any]] = [
        {
            "dataset": s.dataset,
            "subject": s.subject,
            "modality": s.modality,
            "train_images": len(s.train),
            "train_repetitions": s.train.n_repetitions,
            "test_images": len(s.test),
            "test_repetitions": s.test.n_repetitions,
            "channels": len(s.ch_names),
            "times": len(s.times),
            "sfreq": s.sfreq,
            "units": s.units,
            "key": s.key,
            "events": len(s.trials),
            "left_out": _left_out(s.trials),
        }
        for s in subjects
    ]
    if json:
        recipes = {dataset: store.recipe(dataset) for dataset in store.datasets()}
        render.as_json(kind="epochs", path=str(path), subjects=found, recipes=recipes)
        return
    columns = ("dataset", "subject", "train", "test", "channels", "times", "sfreq", "units", "events", "left out")
    rows = [
        (
            s["dataset"],
            s["subject"],
            f"{s['train_images']:,} x {s['train_repetitions']}",
            f"{s['test_images']:,} x {s['test_repetitions']}",
            *(s[field] for field in ("channels", "times", "sfreq", "units")),
            f"{s['events']:,}",
            ", ".join(f"{n:,} {why}" for why, n in s["left_out"].items()) or "nothing",
        )
        for s in found
    ]
    render.table(columns, rows, right=("subject", "train", "test", "channels", "times", "sfreq", "events"))


def _left_out(trials: "pa.Table") -> dict[str, int]:
    """Count the events that have no epoch by what they were left out for; a store of before does not know them."""
    if "left_out" not in trials.column_names:
        return {}
    counted = trials["left_out"].drop_null().value_counts().to_pylist()
    return {one["values"]: one["counts"] for one in sorted(counted, key=lambda one: -one["counts"])}


def _run(path: Path, json: bool) -> None:
    from stores.results import read_config, read_summary

    summary, config = read_summary(path.parent, path.name), read_config(path.parent, path.name)
    if json:
        render.as_json(kind="run", path=str(path), summary=summary, config=config)
        return
    width = max(map(len, summary), default=0)
    for field, value in summary.items():
        if value is not None and value != "":
            render.line(f"{field:{width}}  {value}")


def _runs(path: Path, json: bool) -> None:
    from stores.results import read_results

    table = read_results(path)
    held = {
        field: sorted(set(table[field].to_pylist()) - {None})
        for field in ("dataset", "subject", "embedding", "brain_encoder", "recipe", "seed")
    }
    if json:
        render.as_json(kind="runs", path=str(path), runs=len(table), **held)
        return
    render.line(counted(len(table), "run"))
    for field, values in held.items():
        render.line(f"{field:14}{', '.join(map(str, values))}")
    render.note("'embedctl results' lists them, 'embedctl compare' ranks the encoders")


def picture(path: Path, kind: str, file: Path) -> None:
    """Write the picture of a store, of runs or of a run."""
    from embedctl import notebook, pictures
    from embedctl.captions import said
    from embedctl.drawing import png

    check_file(file, ".png", path, beside=path if kind == "runs" else None)
    if kind == "embeddings":
        drawn = _drawn(notebook.open_embeddings(path).plot_similarity)
    elif kind == "epochs":
        drawn = notebook.open_epochs(path).plot_spread()
    elif kind == "run":
        from stores.results import read_metrics

        drawn = pictures.curve_figure(read_metrics(path.parent, path.name), path.name)
    else:
        from pipelines.train.compare import ranking
        from pipelines.train.settings import what_differs
        from stores.results import read_results

        table = read_results(path)
        ranks, differs = ranking(table, path), what_differs(table, path)
        first = [row for row in ranks if row.condition == ranks[0].condition]
        heading = said(first[0].condition, differs.get(first[0].condition["config_key"], ""))
        drawn = pictures.ranking_figure(
            first, f"Which embeddings are retrieved best, with intervals\n{fill(heading, _WIDE)}"
        )
        if len(first) < len(ranks):
            render.note("the picture shows the first of several settings; 'embedctl report' has them all")
    put_file(file, png(drawn))
    render.note(f"{file}: written")


def _drawn(draw: Callable[[], "Figure"]) -> "Figure":
    """Draw, and say what cannot be drawn as a problem of the data."""
    try:
        return draw()
    except ValueError as problem:
        raise EmbedctlError(f"there is nothing to draw: {problem}", "embedctl verify looks for damage") from problem
