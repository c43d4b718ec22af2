"""Where everything comes from: encoders and datasets with licences and citations, recordings, versions."""

from collections.abc import Mapping
from typing import Any

from embedctl import render
from embedctl.report.gather import Material
from embedctl.report.parts import Figure, Section, Table
from pipelines.encoders.registry import registry
from pipelines.known_datasets import known_datasets
from pipelines.train.origin import mark

__all__ = ["provenance"]

PAPER = (
    "Rajabi, Ribeiro, Vasco, Taleb, Björkman and Kragic: Human-Aligned Image Models Improve Visual Decoding from the "
    "Brain. ICML 2025. https://arxiv.org/abs/2502.03081"
)


def provenance(material: Material) -> Section:
    """Return the section."""
    rows = material.results.to_pylist()
    figures = [_encoders(rows), _recordings(rows, material.simulated), _settings(rows)]
    text = [f"The comparison follows {PAPER}", "Weights and recordings have licences of their own."]
    return Section("Where everything comes from", text, figures)


def _encoders(rows: list[dict[str, Any]]) -> Figure:
    found = {(row["embedding"], row["embedding_key"]): row for row in rows}
    specs = registry()
    cells = []
    for (embedding, key), row in sorted(found.items()):
        names = [row["encoder"]] if row["encoder"] in specs else row["encoder"].split("+")  # several in one target
        known = [specs[name] for name in names if name in specs]
        fitted_on = ", ".join(dict.fromkeys(on for spec in known for on in spec.fitted_on))
        told = ("", "not in the registry", "")
        if row["weights"].startswith("random:"):
            told = ("", "nothing: random weights", known[0].reference if known else "")
        elif len(known) == len(names):
            told = ("; ".join(dict.fromkeys(spec.licence for spec in known)), fitted_on, known[0].reference)
        cells.append((embedding, key, mark(row["weights"]) or render.weights(row["weights"]), *told))
    columns = (
        ("embedding", "text"), ("key", "text"), ("weights", "text"), ("licence", "text"), ("fitted on", "text"),
        ("cite", "link"),
    )  # fmt: skip
    return Figure("Encoders: weights, licences, citations", Table(columns, cells))


def _recordings(rows: list[dict[str, Any]], simulated: set[tuple[str, int, str]]) -> Figure:
    datasets: Mapping[str, Mapping[str, Any]] = known_datasets()
    found: dict[tuple[str, int, str], int] = {}
    for row in rows:
        at = (row["dataset"], row["subject"], row["epochs_key"])
        found[at] = found.get(at, 0) + 1
    cells = []
    for at, n in sorted(found.items()):
        told = [str(datasets.get(at[0], {}).get(name, "")) for name in ("licence", "reference")]
        cells.append((*at, n, *(("", "simulated, in the form of this dataset") if at in simulated else told)))
    columns = (
        ("dataset", "text"), ("subject", "count"), ("recordings", "text"), ("runs", "count"), ("licence", "text"),
        ("cite", "link"),
    )  # fmt: skip
    return Figure("Recordings: licences, citations", Table(columns, cells))


def _settings(rows: list[dict[str, Any]]) -> Figure:
    names = (
        "brain_encoder",
        "recipe",
        "config_key",
        "image_head",
        "split",
        "trial_norm",
        "train_on",
        "window",
        "version",
    )
    found: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] or "" for name in names), []).append(str(row["started"] or "")[:10])
    columns = (
        *((name.replace("_", " "), "text") for name in names),
        ("runs", "count"),
        ("first", "text"),
        ("last", "text"),
    )
    cells = [(*values, len(when), min(when), max(when)) for values, when in sorted(found.items())]
    return Figure("Settings: how the runs were trained", Table(columns, cells))
