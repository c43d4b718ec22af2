"""Pictures of stores and results: dissimilarities, a map with thumbnails, likeness, spread of recordings, the ranking.

As in `embedctl.interpretation_figures`, each function returns a matplotlib figure and writes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedctl.drawing import COLOURS, legible, new_figure
from embedctl.html import small_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.train.compare import RankRow

__all__ = ["curve_figure", "spread_figure", "map_figure", "ranking_figure", "rdm_figure", "similarity_figure"]

_MOST_TICKS = 12


def rdm_figure(distances: np.ndarray, image_ids: Sequence[str], name: str) -> "Figure":
    """Draw the dissimilarities of images, in the order given; folders are named at their first image.

    Parameters
    ----------
    distances : (n_images, n_images)
        One minus the correlation of two rows.
    image_ids : sequence of str
        What the rows are.
    name : str
        Of the embedding.
    """
    figure, axes = new_figure(6.4, 5.6)
    drawn = axes.imshow(distances, cmap="viridis", vmin=0, interpolation="nearest")
    folders = [image.rpartition("/")[0] for image in image_ids]
    firsts = [row for row, folder in enumerate(folders) if not row or folder != folders[row - 1]]
    ticks = firsts[:: -(-len(firsts) // _MOST_TICKS)]
    axes.set_yticks(ticks, [_end(folders[row] or image_ids[row]) for row in ticks], fontsize=7)
    axes.set_xticks([])
    axes.set_title(f"{legible(name)}: how unlike {len(image_ids)} images are")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="1 - correlation")
    return figure


def map_figure(
    places: np.ndarray, explained: Sequence[float], image_ids: Sequence[str], images: Path, name: str
) -> "Figure":
    """Draw images where an embedding puts them; those that cannot be read are dots.

    Parameters
    ----------
    places : (n_images, 2)
        Their places.
    explained : sequence of float
        Share of the variance along both axes.
    image_ids : sequence of str
        The images.
    images : Path
        Where they lie; need not exist.
    name : str
        Of the embedding.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure, axes = new_figure(7.5, 6.5)
    axes.plot(*places.T, ".", color=COLOURS[0], ms=5)
    for place, image in zip(places.tolist(), image_ids, strict=True):
        small = small_image(images, image, 48)
        if small is not None:
            axes.add_artist(AnnotationBbox(OffsetImage(np.asarray(small), zoom=0.6), place, frameon=False, pad=0))
    first, second = (f"{100 * share:.0f} % of the variance" for share in explained)
    axes.set(xlabel=first, ylabel=second, title=f"{legible(name)}: {len(image_ids)} images, near where they are alike")
    axes.margins(0.08)
    return figure


def similarity_figure(table: np.ndarray, names: Sequence[str], measure: str, n_images: int) -> "Figure":
    """Draw how alike embeddings are, with the numbers where there is room.

    Parameters
    ----------
    table : (n, n)
        CKA or RSA; NaN where it is not defined.
    names : sequence of str
        The embeddings.
    measure : str
        What the numbers are.
    n_images : int
        Over how many images.
    """
    side = max(3.6, 0.42 * len(names) + 2.2)
    figure, axes = new_figure(side + 0.8, side)
    drawn = axes.imshow(table, cmap="viridis", vmin=min(0.0, float(np.nanmin(table))), vmax=1)
    told = [legible(name) for name in names]
    axes.set_xticks(range(len(names)), told, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), told, fontsize=7)
    if len(names) <= 15:
        for row, column in np.argwhere(np.isfinite(table)).tolist():
            ink = "black" if table[row, column] > 0.6 else "white"
            axes.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_title(f"How alike embeddings are: {measure} over {n_images:,} images", fontsize=10)
    figure.colorbar(drawn, ax=axes, shrink=0.7)
    return figure


def spread_figure(courses: Mapping[str, np.ndarray], times: np.ndarray, units: str) -> "Figure":
    """Draw how far the recordings of test images lie apart over time, root mean square over channels: signal and noise.

    Parameters
    ----------
    courses : mapping of str to (n_times,)
        A course per subject.
    times : (n_times,)
        In s.
    units : str
        Of the recordings.
    """
    figure, axes = new_figure(8.0, 4.0)
    few = len(courses) <= len(COLOURS)
    for number, (name, course) in enumerate(courses.items()):
        label = legible(name) if few else "" if number else f"each of {len(courses)}"
        axes.plot(1000 * times, course, color=COLOURS[number] if few else "0.75", label=label)
    if not few:
        axes.plot(1000 * times, np.mean(list(courses.values()), axis=0), color="black", label="mean")
    axes.set(
        xlabel="ms from image onset",
        ylabel=f"spread over images, {units}",
        title="Spread of recordings over test images: signal and noise",
    )
    axes.legend(fontsize=8, frameon=False)
    return figure


def ranking_figure(ranks: "Sequence[RankRow]", title: str) -> "Figure":
    """Draw the ranking of one condition: top-1 with its interval, a small dot per subject below, chance dotted.

    Parameters
    ----------
    ranks : sequence of RankRow
        Best first.
    title : str
        What they have in common.
    """
    from pipelines.train.origin import marked

    figure, axes = new_figure(8.0, 1.4 + 0.26 * len(ranks))
    for place, row in enumerate(ranks):
        colour = COLOURS[1] if row.aligned_by else COLOURS[0]
        each = [100 * top1 for top1 in row.per_subject.values()]
        axes.plot(each, [place + 0.28] * len(each), ".", color="0.5", ms=4)
        if row.interval.low is not None and row.interval.high is not None:
            axes.plot([100 * row.interval.low, 100 * row.interval.high], [place, place], color=colour, lw=2)
        face = "white" if row.contaminated else colour
        axes.plot([100 * row.top1], [place], "o", color=colour, markerfacecolor=face, ms=6)
    chance = ranks[0].figures["chance"]
    if chance is not None:
        axes.axvline(100 * chance, color="black", ls=":", lw=1.2)
    axes.set_yticks(range(len(ranks)), [legible(marked(row.embedding, row.weights)) for row in ranks], fontsize=8)
    axes.invert_yaxis()
    over = ", ".join(dict.fromkeys(row.interval.over for row in ranks))
    aligned = "; orange: aligned" if any(row.aligned_by for row in ranks) else ""
    axes.set_xlabel(f"top-1, %; line: 95 % over {over}; small dots: subjects; dotted: chance{aligned}", fontsize=8)
    axes.set_title(title, fontsize=9)
    return figure


def curve_figure(metrics: Sequence[Mapping[str, Any]], title: str) -> "Figure":
    """Draw how a run learned: its loss, and validation top-1 with its chance where that was kept, after each pass."""
    figure, (left, right) = new_figure(8.0, 3.4, 1, 2)
    passes = [row["pass"] for row in metrics]
    for name, colour in (("loss", COLOURS[0]), ("val_loss", COLOURS[1])):
        if all(name in row for row in metrics):
            left.plot(passes, [row[name] for row in metrics], color=colour, label=name.replace("val_", "validation "))
    left.set(xlabel="pass", ylabel="loss", title="Loss after each pass")
    left.legend(fontsize=8, frameon=False)
    right.plot(passes, [100 * row["val_top1"] for row in metrics], color=COLOURS[1])
    if all("val_chance" in row for row in metrics):
        chance = 100 * metrics[-1]["val_chance"]
        right.axhline(chance, color="black", ls=":", lw=1.2, label=f"chance {chance:.1f} %")
        right.legend(fontsize=8, frameon=False)
    right.set(xlabel="pass", ylabel="top-1, %", title="Validation after each pass", ylim=(0, None))
    figure.suptitle(title, fontsize=9)
    return figure


def _end(text: str) -> str:
    """Return the last part of a path, or the end of it."""
    name = text.rpartition("/")[2]
    return name if len(name) <= 24 else f"…{name[-23:]}"
