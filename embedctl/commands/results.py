"""``embedctl results``: every finished run, a line each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from embedctl import config, options, render
from embedctl.commands.show import picture
from embedctl.options import path
from embedctl.seen import say_seen, say_simulated
from stores.names import counted

__all__ = ["results"]

_SHOWN = ("dataset", "subject", "embedding", "weights", "brain_encoder", "recipe", "seed")
_ALIKE = ("dataset", "subject", "protocol", "gallery")  # of runs whose figures can be held side by side
_FIGURES = ("top-1", "95 % over images", "last step", "top-5", "chance", "reliability", "way", "median rank", "seconds")


def results(
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", show_default=False, help="write the ranking as a picture (PNG), too"),
    ] = None,
    runs: options.Runs = None,
    json: options.Json = False,
) -> None:
    """List every finished run, its accuracy, chance and name.

    Of every dataset, subject, protocol and gallery the best run is bold; an encoder fitted to THINGS or to brain data
    never is.

    \b
      embedctl results
      embedctl results --plot ranking.png
      embedctl results --json
    """
    from pipelines.train.origin import mark, simulated_in
    from pipelines.train.settings import what_differs
    from stores.results import read_results
    from stores.screens import seen

    folder = path(config.load().value("runs", runs))
    found = read_results(folder)
    table, tested = found.to_pylist(), seen(folder, found)
    if plot:
        picture(folder, "runs", path(plot))
    if json:
        render.as_json(results=table, tested={dataset: asdict(counts) for dataset, counts in tested.items()})
        return
    across = any(row["protocol"] == "cross" for row in table)
    shown = (*_SHOWN, *(["protocol"] if across else []))
    differs = what_differs(found, folder)
    settings = ["settings"] if any(differs.values()) else []
    columns = (*(name.replace("_", " ") for name in shown), *settings, *_FIGURES, "run")
    ordered = sorted(table, key=lambda row: (*(row[name] for name in _ALIKE), -row["top1"]))
    rows = [
        (
            *(mark(row[name]) or render.weights(row[name]) if name == "weights" else row[name] for name in shown),
            *(differs.get(row["config_key"], "") for _ in settings),
            render.percent(row["top1"]),
            _interval(row),
            *(render.percent(row[name]) for name in ("last_top1", "top5", "chance", "noise_ceiling")),
            row["n_way"],
            f"{row['median_rank']:g}",
            f"{row['seconds']:.1f}",
            row["run_id"],
        )
        for row in ordered
    ]
    render.table(columns, rows, right=("subject", "seed", *_FIGURES), best=_best(ordered))
    say_seen(tested)
    say_simulated(simulated_in(found))
    render.note("reliability: how often half of an image's repetitions find the other half; no bound (noise_ceiling)")
    render.note(f"{counted(len(rows), 'run')}; 'embedctl compare' ranks the encoders, with intervals over subjects")


def _interval(row: Mapping[str, Any]) -> str:
    """Return the interval of a run's top-1 for other images like these: of its hits, an image each, ties gathered."""
    from pipelines.train.statistics import image_interval

    n, top1 = row["n_queries"] or 0, row["top1"]
    found = image_interval([min(1.0, max(0.0, n * top1 - place)) for place in range(n)], differences=False)
    if found.low is None or found.high is None:
        return ""
    return f"{100 * max(0.0, found.low):.1f} to {100 * min(1.0, found.high):.1f}"


def _best(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the first row of each dataset, subject, protocol and gallery whose encoder has not seen the answer."""
    from pipelines.train.origin import is_contaminated

    found = dict[tuple[Any, ...], int]()
    for place, row in enumerate(rows):
        if not is_contaminated(row["encoder"]):
            found.setdefault(tuple(row[name] for name in _ALIKE), place)
    return list(found.values())
