"""The decisive table: aligned against base, each at the depth validation chose; shown, written as CSV and drawn."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from embedctl import render
from embedctl.drawing import COLOURS, new_figure
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.train.depths import AtDepth, DepthRow

__all__ = ["SAID", "as_csv", "depth_figure", "tell"]

_TOGETHER = ("dataset", "preprocessing", "protocol", "gallery", "n_way", "recipe")  # of what is one table
SAID = (*_TOGETHER, "brain_encoder", "image_head")
"""Columns of the results that the table says."""
_POINTS = 100
_ACROSS = 3  # panels beside each other
_NAMED, _LEVEL = 12, 3  # layers whose names have room below a panel, and beside each other


def tell(rows: "Sequence[DepthRow]", differs: Mapping[str, str] = MappingProxyType({})) -> None:
    """Show the table: a line per pair, image head and brain encoder, with the other settings that set lines apart."""
    if not rows:
        render.line("no aligned encoder and its base have both been run: there is no pair to show")
    for about, group in groupby(rows, key=lambda row: [row.pair.condition[name] for name in _TOGETHER]):
        dataset, preprocessing, protocol, gallery, n_way, recipe = about
        epochs = f" on {preprocessing} epochs" if preprocessing else ""
        render.line(
            f"{dataset}{epochs}, {n_way}-way retrieval in {gallery} images (chance {render.percent(1 / n_way)}), "
            f"recipe {recipe}, {protocol} subject"
        )
        _table(list(group), differs)
    if rows:
        render.note(
            "the layer is chosen on validation, where its score is the best of all; other layers' test is not read. "
            "Validation is among the concepts held out: its chance is not the test's, and "
            "'embedctl show RUN --png FILE' draws it"
        )


def _table(rows: "Sequence[DepthRow]", differs: Mapping[str, str]) -> None:
    side = ("of layers", "validation", "test top-1")
    figures = ("subjects", "difference", "95 % interval", "p", "lowest p", "p corrected")
    settings = [differs.get(row.pair.condition["config_key"], "") for row in rows]
    cells = [
        (
            row.pair.condition["brain_encoder"],
            row.pair.condition["image_head"],
            *([other] if any(settings) else []),
            *(word for side in _sides(row) for word in _told(*side)),
            len(row.pair.subjects),
            f"{_POINTS * row.pair.difference:+.1f} points",
            _interval(row),
            f"{row.pair.p:.3g}",
            f"{row.pair.p_floor:.3g}",
            "" if row.pair.p_holm is None else f"{row.pair.p_holm:.3g}",
            row.pair.verdict or row.pair.note,
        )
        for row, other in zip(rows, settings, strict=True)
    ]
    others = ["settings"] if any(settings) else []
    columns = ("brain encoder", "image head", *others, "aligned", *side, "base", *side, *figures, "verdict")
    render.table(columns, cells, right=(*side, *figures))


def _sides(row: "DepthRow") -> "Iterator[tuple[str, str, AtDepth]]":
    """Yield, of the aligned encoder and of its base: the embedding chosen, its weights, and how it was chosen."""
    yield row.pair.embedding, row.pair.weights, row.aligned
    yield row.pair.base, row.pair.base_weights, row.base


def _layer(label: str) -> str:
    name = EmbeddingName.parse(label.partition("#")[0])
    return ".".join(filter(None, (name.layer, name.pooling))) or "last"


def _told(embedding: str, weights: str, one: "AtDepth") -> tuple[str, str, str, str]:
    from pipelines.train.origin import marked

    best = one.validation[embedding]
    return marked(embedding, weights), str(len(one.validation)), render.percent(best), render.percent(one.top1)


def _interval(row: "DepthRow") -> str:
    low, high = row.pair.interval.low, row.pair.interval.high
    if low is None or high is None:
        return "none"
    return f"{_POINTS * low:.1f} to {_POINTS * high:.1f} over {row.pair.interval.over}"


def as_csv(rows: "Sequence[DepthRow]") -> bytes:
    """Return the table as CSV, fractions as they are."""
    sink = io.StringIO()
    side = ("embedding", "weights", "layers", "val_top1", "test_top1")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(
        (*_TOGETHER, "brain_encoder", "image_head", "config_key")
        + tuple(f"{which}_{name}" for which in ("aligned", "base") for name in side)
        + ("subjects", "seeds", "difference", "low", "high", "over", "p", "p_floor", "p_holm", "verdict", "note")
        + ("chance", "noise_ceiling")
    )
    for row in rows:
        condition, pair = row.pair.condition, row.pair
        sides = [
            (embedding, weights, len(one.validation), one.validation[embedding], one.top1)
            for embedding, weights, one in _sides(row)
        ]
        writer.writerow(
            (
                *(condition[name] for name in (*_TOGETHER, "brain_encoder", "image_head", "config_key")),
                *sides[0],
                *sides[1],
                *(len(pair.subjects), pair.n_seeds, pair.difference, pair.interval.low, pair.interval.high),
                *(pair.interval.over, pair.p, pair.p_floor, pair.p_holm, pair.verdict, pair.note),
                *(1 / condition["n_way"], row.noise_ceiling),
            )
        )
    return sink.getvalue().encode()


def depth_figure(rows: "Sequence[DepthRow]", differs: Mapping[str, str] = MappingProxyType({})) -> "Figure":
    """Draw validation over depth, a panel per line of the table; the chosen layer ringed, with its test score.

    Parameters
    ----------
    rows : sequence of DepthRow
        At least one.
    differs : mapping
        By config_key: settings that set lines apart, as for `tell`.
    """
    from pipelines.train.origin import marked

    across = min(_ACROSS, len(rows))
    down = -(-len(rows) // across)
    figure, panels = new_figure(4.2 * across, 3.6 * down, down, across)
    axes = list(panels.flat) if len(rows) > 1 else [panels]
    for panel, row in zip(axes, rows, strict=False):
        aligned, base = _sides(row)
        named = [list(map(_layer, one.validation)) for _, _, one in (aligned, base)]
        for (embedding, weights, one), colour, kind in (
            (base, COLOURS[0], "base"),
            (aligned, COLOURS[1], "aligned"),
        ):
            names, values = list(one.validation), [_POINTS * value for value in one.validation.values()]
            at = [place / (len(names) - 1) if len(names) > 1 else 1.0 for place in range(len(names))]
            chosen = names.index(embedding)
            encoder = EmbeddingName.parse(embedding.partition("#")[0]).encoder
            label = f"{kind}: {marked(encoder, weights)}, ringed {_layer(embedding)}"
            panel.plot(at, values, ".-", color=colour, label=label)
            panel.plot([at[chosen]], [values[chosen]], "o", color=colour, markerfacecolor="none", ms=10)
            panel.plot([at[chosen]], [_POINTS * one.top1], "D", color=colour, ms=6)
        panel.axhline(_POINTS / row.pair.condition["n_way"], color="black", ls=":", lw=1.2)
        panel.set(xlabel="layers", ylabel="top-1, %", xlim=(-0.05, 1.05), ylim=(0, None))
        if named[0] == named[1] and 1 < len(named[0]) <= _NAMED:
            places = [place / (len(named[0]) - 1) for place in range(len(named[0]))]
            panel.set_xticks(places, named[0], fontsize=7, rotation=0 if len(named[0]) <= _LEVEL else 30)
        else:
            panel.set_xticks([0, 1], ["first", "last"], fontsize=7)
        condition = row.pair.condition
        told = (
            condition["brain_encoder"],
            f"image head {condition['image_head']}",
            differs.get(condition["config_key"]),
        )
        panel.set_title(", ".join(filter(None, told)), fontsize=9)
        panel.legend(fontsize=6, frameon=False)
    for panel in axes[len(rows) :]:
        panel.set_visible(False)
    figure.suptitle(
        "Validation over depth, ringed where it is best\ndiamond: its test score; dotted: chance of the test",
        fontsize=9,
    )
    return figure
