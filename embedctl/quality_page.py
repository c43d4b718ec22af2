"""One picture per subject of how good its epochs are, beside the store: ``epochs-quality/DATASET/sub-01.png``.

The numbers are `pipelines.preprocess.quality`'s. The pictures lie outside of the store: nothing in it depends on them,
and `verify` has nothing to say about them.
"""

import io
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedctl.drawing import COLOURS, HEAD, flat
from stores.commits import put_bytes
from stores.names import counted, subject_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.preprocess.quality import Quality
    from pipelines.preprocess.request import PreprocessReport
    from pipelines.progress import Progress

__all__ = ["draw_pages", "page_path", "quality_figure"]

_MAPS = (0.1, 0.15, 0.2, 0.3, 0.5)  # s: when topographies are drawn
_OCCIPITAL = re.compile(r"(P?O\w*\d|P?Oz|I\d+|Iz|M[LRZ]O\w*).*")  # electrodes, and CTF's sensors
_EDGE = 0.135  # m, half the width of a topography, at least
_GRID = 60  # its pixels across
_MOST_LINES = 12  # of what was left out and noted


def page_path(store: Path, dataset: str, subject: int) -> Path:
    """Return where the picture of a subject lies."""
    return store.with_name(f"{store.stem}-quality") / dataset / f"{subject_name(subject)}.png"


def draw_pages(report: "PreprocessReport", progress: "Progress") -> list[Path]:
    """Draw every subject that was written, and those that were there already without a picture; return where."""
    from pipelines.preprocess.quality import measure
    from stores.epochs import EpochStore

    todo = [
        line.subject
        for line in report.subjects
        if line.state == "written"
        or (line.state == "already there" and not page_path(report.store, report.dataset, line.subject).exists())
    ]
    if not todo:
        return []
    if find_spec("matplotlib") is None:
        progress.say('no pictures of quality: matplotlib is not installed; pip install "embedctl[brain]"')
        return []
    store, paths = EpochStore.open(report.store), []
    progress.start("quality", len(todo), "subjects")
    for subject in todo:
        paths.append(page_path(report.store, report.dataset, subject))
        put_bytes(paths[-1], _png(quality_figure(measure(store[report.dataset, subject]))))
        progress.advance()
    return paths


def quality_figure(quality: "Quality") -> "Figure":
    """Draw the epochs of one subject: evoked, topographies, reliability, whitening, and what was left out."""
    from matplotlib.figure import Figure

    has_times = quality.evoked is not None
    figure = Figure(
        figsize=(13, 8.5 if has_times else 5.5), dpi=100
    )  # places by hand: matplotlib's own layout takes a second
    occipital = [i for i, name in enumerate(quality.ch_names) if _OCCIPITAL.fullmatch(name)]
    height = (0.67, 0.25) if has_times else (0.5, 0.38)
    left, right = (figure.add_axes((x, height[0], 0.42, height[1])) for x in (0.06, 0.55))
    if has_times:
        _draw_evoked(left, quality, occipital)
        _draw_course(right, quality, occipital)
        _draw_maps(figure, (0.04, 0.42, 0.92, 0.17), quality)
        _draw_matrix(figure.add_axes((0.06, 0.07, 0.2, 0.28)), quality, occipital)
        if quality.before is None:
            why = "covariances: the recipe does not whiten,\nor the store keeps the mean alone"
            _nothing(figure.add_axes((0.32, 0.07, 0.35, 0.28)), why)
    elif quality.halves:
        _draw_histogram(left, quality.halves.reliability, "reliability of the mean over repetitions")
        _draw_histogram(right, quality.halves.ncsnr, "ncsnr")
    for x, matrix, title, units in (
        (0.32, quality.before, "covariance before whitening", quality.units_before),
        (0.52, quality.after, "after: 1 on the diagonal", quality.units),
    ):
        _draw_covariance(figure, (x, 0.07, 0.15, 0.28), matrix, title, units)
    figure.text(*((0.73, 0.35) if has_times else (0.06, 0.36)), "\n".join(_said(quality)), va="top", fontsize=8)
    what = f"{quality.dataset} {subject_name(quality.subject)}: {quality.n_images:,} {quality.split} images"
    figure.text(0.5, 0.97, f"{what}, up to {counted(quality.n_repetitions, 'repetition')}", ha="center", fontsize=12)
    return figure


def _png(figure: "Figure") -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def _draw_evoked(axes: "Axes", quality: "Quality", occipital: Sequence[int]) -> None:
    assert quality.evoked is not None
    times = 1000 * quality.times
    axes.plot(times, quality.evoked.T, color="0.85", lw=0.5)
    chosen = list(occipital) or list(range(len(quality.evoked)))
    if occipital:
        axes.plot(times, quality.evoked[chosen].T, color=COLOURS[0], lw=0.6, alpha=0.5)
    axes.plot(times, quality.evoked[chosen].mean(axis=0), color=COLOURS[0], lw=2)
    what = f"mean of {len(chosen)} occipital channels" if occipital else "mean of all channels (each grey)"
    others = " (others grey)" if occipital and len(chosen) < len(quality.evoked) else ""
    axes.set(xlabel="ms from image onset", ylabel=quality.units, title=f"evoked response, {what}{others}")
    axes.axhline(0, color="0.7", lw=0.8)


def _draw_course(axes: "Axes", quality: "Quality", occipital: Sequence[int]) -> None:
    """Draw the reliability over time."""
    if not quality.halves:
        return _nothing(axes, "reliability: an image has one repetition,\nor the store keeps the mean alone")
    reliability, times = quality.halves.reliability, 1000 * quality.times
    axes.plot(times, reliability.mean(axis=0), color="0.4", label="mean of all channels")
    if occipital:
        axes.plot(times, reliability[list(occipital)].mean(axis=0), color=COLOURS[0], lw=2, label="of occipital ones")
    axes.plot(
        times, reliability.max(axis=0), color=COLOURS[1], lw=0.8, label="highest of any channel, above 0 by chance too"
    )
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set(xlabel="ms from image onset", title=f"noise ceiling: reliability across {quality.halves.between}")
    axes.legend(fontsize=7, frameon=False)


def _draw_maps(figure: "Figure", place: tuple[float, float, float, float], quality: "Quality") -> None:
    """Draw the evoked response over the head at a few latencies, side by side in one picture."""
    known = [i for i, at in enumerate(quality.positions) if at is not None]
    moments = [t for t in _MAPS if quality.times[0] <= t <= quality.times[-1]]
    if quality.evoked is None or len(known) < 4 or not moments:
        return
    places = flat(np.array([quality.positions[i] for i in known], dtype=float))
    values = [quality.evoked[known, int(np.argmin(np.abs(quality.times - t)))] for t in moments]
    edge = max(_EDGE, 1.05 * float(np.linalg.norm(places, axis=1).max()))  # helmets go on below the equator
    maps = [topography(value, places, edge) for value in values]
    most = max(float(np.abs(value).max()) for value in values) or 1.0
    axes = figure.add_axes(place)
    drawn = axes.imshow(np.hstack(maps), cmap="RdBu_r", vmin=-most, vmax=most, origin="lower")
    around = np.linspace(0, 2 * np.pi, 60)
    per_m = _GRID / (2 * edge)
    for number, t in enumerate(moments):
        x, y = (number + 0.5) * _GRID - 0.5, _GRID / 2 - 0.5
        head = HEAD * per_m
        axes.plot(x + head * np.cos(around), y + head * np.sin(around), color="0.3", lw=0.8)
        axes.plot([x - 0.1 * head, x, x + 0.1 * head], [y + head, y + 1.12 * head, y + head], color="0.3", lw=0.8)
        axes.plot(x + places[:, 0] * per_m, y + places[:, 1] * per_m, ".", color="0.2", ms=1.5)
        axes.text(x, _GRID + 1, f"{1000 * t:.0f} ms", ha="center", fontsize=9)
    axes.axis("off")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=quality.units)


def topography(values: np.ndarray, places: np.ndarray, edge: float = _EDGE) -> np.ndarray:
    """Return a picture of values over the head, nose up, by a thin-plate spline through the sensors.

    Parameters
    ----------
    values : (n,)
        Of each sensor.
    places : (n, 2)
        Where it is, m from the vertex (`embedctl.drawing.flat`).
    edge : float
        Half the width of the picture, m.

    Returns
    -------
    (60, 60)
        From ``-edge`` to ``edge``, NaN beyond the outermost sensors.

    Examples
    --------
    >>> ring = 0.09 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]])
    >>> picture = topography(ring[:, 0], ring)  # what grows to the right
    >>> bool(np.nanmax(picture[:, 30:]) > 0.08 and np.nanmin(picture[:, :30]) < -0.08)
    True
    """
    side = (np.arange(_GRID) + 0.5) / _GRID * 2 * edge - edge
    x, y = np.meshgrid(side, side)

    def basis(at: np.ndarray) -> np.ndarray:
        square = ((at[:, None] - places[None]) ** 2).sum(axis=2)
        return np.hstack([square * np.log(square + 1e-12), np.ones((len(at), 1)), at])

    n = len(places)
    system = np.zeros((n + 3, n + 3))
    system[:n] = basis(places)
    system[n:, :n] = system[:n, n:].T
    weights = np.linalg.lstsq(system, np.concatenate([values, np.zeros(3)]), rcond=None)[0]
    picture = (basis(np.stack([x.ravel(), y.ravel()], axis=1)) @ weights).reshape(_GRID, _GRID)
    beyond = max(HEAD, 1.05 * float(np.linalg.norm(places, axis=1).max()))
    found: np.ndarray = np.where(np.hypot(x, y) > beyond, np.nan, picture)
    return found


def _draw_matrix(axes: "Axes", quality: "Quality", occipital: Sequence[int]) -> None:
    """Draw the reliability of every channel at every time; a coloured tick marks each occipital one."""
    if not quality.halves:
        axes.axis("off")
        return
    times, n = quality.times, len(quality.ch_names)
    extent = (1000 * times[0], 1000 * times[-1], n - 0.5, -0.5)
    drawn = axes.imshow(quality.halves.reliability, aspect="auto", extent=extent, vmin=0, vmax=1)
    shown = range(0, n, -(-n // 12))
    axes.set_yticks(list(shown), [quality.ch_names[i] for i in shown], fontsize=6)
    axes.set(xlabel="ms from image onset")
    if occipital:
        axes.yaxis.remove_overlapping_locs = False  # some have a name, too
        axes.set_yticks(list(occipital), minor=True)
        axes.tick_params(axis="y", which="minor", color=COLOURS[0], length=6, width=2)
        axes.set_ylabel("channel (coloured ticks: occipital)", fontsize=7)
    axes.set_title("reliability", fontsize=9)
    axes.figure.colorbar(drawn, ax=axes)


def _draw_covariance(
    figure: "Figure", place: tuple[float, float, float, float], matrix: np.ndarray | None, title: str, units: str
) -> None:
    if matrix is None:
        return
    axes = figure.add_axes(place)
    most = float(np.percentile(np.diagonal(matrix), 90))
    power = 0 if 1e-2 < most < 1e4 or most <= 0 else math.floor(math.log10(most))  # of volts squared: 1e-10
    drawn = axes.imshow(matrix / 10.0**power, cmap="RdBu_r", vmin=-most / 10.0**power, vmax=most / 10.0**power)
    axes.set_title(f"{title}, times 1e{power}" if power else title, fontsize=9)
    axes.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, shrink=0.7, label=f"({units})²" if units else "")


def _draw_histogram(axes: "Axes", values: np.ndarray, what: str) -> None:
    axes.hist(values, bins=60, color=COLOURS[0])
    axes.axvline(float(np.median(values)), color=COLOURS[1])
    axes.set(xlabel=what, ylabel="voxels", title=f"median {np.median(values):.2f}, best {values.max():.2f}")


def _nothing(axes: "Axes", why: str) -> None:
    axes.axis("off")
    axes.text(0.5, 0.5, why, ha="center", va="center", color="0.4")


def _said(quality: "Quality") -> list[str]:
    """Return what is told in words: how well halves find each other, and what was left out."""
    said = []
    if found := quality.halves:
        said += [
            f"Half of the repetitions finds the other half (other {found.between})",
            f"among {counted(found.n_images, 'image')}: top-1 {100 * found.top1:.1f} %, top-5 {100 * found.top5:.1f} %",
            f"by chance: {100 / found.n_images:.1f} % and {100 * min(1, 5 / found.n_images):.1f} %",
            f"ncsnr of a trial: median {np.median(found.ncsnr):.3f}, best {found.ncsnr.max():.3f}",
            "",
        ]
    left = [f"  {n:,} {why}" for why, n in quality.counts.items() if n and why != "clipped"]
    said += ["Left out:", *(left or ["  nothing"])]
    if clipped := quality.counts.get("clipped"):
        said += [f"Kept, but clipped to the recipe's limit: {counted(clipped, 'value')}"]
    notes = quality.notes[:_MOST_LINES] + (["..."] if len(quality.notes) > _MOST_LINES else [])
    return [*said, "", *notes]
