"""``embedctl results``: every finished run, a line each."""

from dataclasses import asdict

from embedctl import config, options, render
from embedctl.options import path
from embedctl.seen import say_seen

__all__ = ["results"]

_SHOWN = ("dataset", "subject", "embedding", "weights", "brain_encoder", "recipe", "seed")
_FIGURES = ("top-1", "top-5", "chance", "way", "median rank", "seconds")


def results(runs: options.Runs = None, json: options.Json = False) -> None:
    """List every finished run, its accuracy and chance.

    \b
      embedctl results
      embedctl results --json
    """
    from pipelines.train.origin import mark
    from stores.results import read_results
    from stores.screens import seen

    folder = path(config.load().value("runs", runs))
    found = read_results(folder)
    table, tested = found.to_pylist(), seen(folder, found)
    if json:
        render.as_json(results=table, tested={dataset: asdict(counts) for dataset, counts in tested.items()})
        return
    columns = (*(name.replace("_", " ") for name in _SHOWN), *_FIGURES)
    rows = [
        (
            *(mark(row[name]) or render.weights(row[name]) if name == "weights" else row[name] for name in _SHOWN),
            *(render.percent(row[name]) for name in ("top1", "top5", "chance")),
            row["n_way"],
            f"{row['median_rank']:g}",
            f"{row['seconds']:.1f}",
        )
        for row in sorted(table, key=lambda row: (row["dataset"], row["subject"], -row["top1"]))
    ]
    render.table(columns, rows, right=("subject", "seed", *_FIGURES))
    say_seen(tested)
    render.note(f"{len(rows)} runs; 'embedctl compare' ranks the encoders")
