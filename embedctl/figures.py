"""Pictures of an interpretation: courses over time, bands, sensors, and aligned minus base.

Each function returns a matplotlib figure and writes nothing. Colours are Okabe and Ito's, which people with
colour-blind eyes tell apart; a title says what is shown. What is not shown to be there is drawn pale.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import NotHere

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.interpret.pairs import PairedProfile
    from pipelines.interpret.profile import Profile

__all__ = [
    "COLOURS",
    "bands_figure",
    "flat",
    "legible",
    "new_figure",
    "pair_figure",
    "png",
    "sensors_figure",
    "time_figure",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MOST_MAPS = 12  # topographies in one picture
MOST_BARS = 20
_HEAD = 0.095  # m: radius of the head that MNE draws
_CENTRE = np.array([0.0, 0.0, 0.04])  # m: middle of the head in head coordinates, whose origin lies between the ears


def png(figure: "Figure", dpi: int = 150) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=dpi, bbox_inches="tight")
    return sink.getvalue()


def time_figure(profiles: "Sequence[Profile]") -> "Figure":
    """Draw when the evidence comes: a line per embedding, mean over subjects; bars below where it is above zero.

    Parameters
    ----------
    profiles : sequence of Profile
        Of one condition.
    """
    figure, axes = new_figure(8.0, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    named = _by_embedding(profiles)
    for number, (name, mine) in enumerate(named.items()):
        colour = COLOURS[number % len(COLOURS)]
        course = 100 * _mean([p.time for p in mine])
        axes.plot(1000 * mine[0].times, course, color=colour, alpha=_strength(mine), label=_label(name, mine))
    low, high = axes.get_ylim()
    step = 0.03 * (high - low)
    for number, mine in enumerate(named.values()):
        for profile in mine:
            for window in profile.windows:
                at = low - step * (number + 1)
                span = [1000 * window.first, 1000 * window.last]
                axes.plot(span, [at, at], color=COLOURS[number % len(COLOURS)], lw=3, alpha=0.6)
    axes.set(
        xlabel="ms from image onset (bars: clusters above zero, per subject; their edges are not tested)",
        ylabel="% of the evidence",
        title=_title("When the evidence for the right image comes", profiles),
    )
    _legend(axes, named)
    return figure


def bands_figure(profiles: "Sequence[Profile]") -> "Figure":
    """Draw at which frequencies the evidence lies: a group of bars per band, a bar per embedding, a dot per subject."""
    figure, axes = new_figure(8.0, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    named = _by_embedding(profiles)
    bands = list(profiles[0].bands)
    width = 0.8 / len(named)
    for number, (name, mine) in enumerate(named.items()):
        shares = 100 * np.array([[p.bands.get(band, 0.0) for band in bands] for p in mine])
        at = np.arange(len(bands)) + (number - (len(named) - 1) / 2) * width
        axes.bar(
            at,
            shares.mean(axis=0),
            width,
            color=COLOURS[number % len(COLOURS)],
            alpha=_strength(mine),
            label=_label(name, mine),
        )
        axes.plot(np.tile(at, len(mine)), shares.ravel(), ".", color="0.3", ms=4)
    axes.set_xticks(range(len(bands)), bands)
    axes.set(ylabel="% of the evidence", title=_title("At which frequencies the evidence lies", profiles))
    _legend(axes, named)
    return figure


def sensors_figure(profiles: "Sequence[Profile]") -> "Figure":
    """Draw where the evidence lies: a topography per embedding; bars of groups where sensors have no known place."""
    from pipelines.interpret.over_subjects import over_sensors

    named = dict(list(_by_embedding(profiles).items())[:MOST_MAPS])
    sensors, positions, means = over_sensors({n: [(p.sensors, p.positions) for p in mine] for n, mine in named.items()})
    if len(sensors) < 4 or not positions:
        return _groups_figure(named, profiles)
    from mne.viz import plot_topomap

    figure, grid = new_figure(
        2.6 * min(4, len(named)), 2.9 * -(-len(named) // 4) + 0.4, -(-len(named) // 4), min(4, len(named))
    )
    places = flat(np.array(positions, dtype=float))
    shares = {name: 100 * values for name, values in means.items()}
    most = max(float(np.abs(values).max()) for values in shares.values()) or 1.0
    drawn: Any = None
    for axes, (name, values) in zip(np.ravel(grid), shares.items(), strict=False):
        with np.errstate(invalid="ignore"):  # two gradiometers at one place have no slope between them
            drawn, _ = plot_topomap(
                values,
                places,
                axes=axes,
                show=False,
                vlim=(-most, most),
                cmap="RdBu_r",
                sphere=_HEAD,
                contours=0,
                extrapolate="local",
            )
        axes.set_title(_label(name, named[name]), fontsize=8)
    for axes in np.ravel(grid)[len(named) :]:
        axes.set_visible(False)
    figure.colorbar(drawn, ax=np.ravel(grid).tolist(), shrink=0.6, label="% of the evidence")
    which = (
        "which sensors" if len(sensors) == max(len(p.sensors) for p in profiles) else "which sensors of all subjects"
    )
    figure.suptitle(_title(f"Over {which} the evidence lies", profiles), fontsize=10)
    return figure


def pair_figure(pair: "PairedProfile") -> "Figure":
    """Draw aligned minus base over time, over all images and over those that both found; shaded where they differ."""
    figure, axes = new_figure(8.0, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    for matched, colour, label in ((False, COLOURS[0], "all images"), (True, COLOURS[1], "images that both found")):
        tests = [test for test in pair.tests if test.matched == matched]
        if tests:
            axes.plot(1000 * pair.times, 100 * _mean([t.time for t in tests]), color=colour, label=label)
        for test in tests:
            for window in test.windows:
                axes.axvspan(1000 * window.first, 1000 * window.last, color=colour, alpha=0.15, lw=0)
    over = sorted({test.over.split(" of ")[0] for test in pair.tests})
    axes.set(
        xlabel="ms from image onset",
        ylabel="difference, % of the evidence",
        title=f"{pair.embedding} minus {pair.base}: when the evidence comes\n"
        f"{_subjects(len(pair.subjects))}; shaded: clusters over {' and '.join(over) or 'nothing'}, p < 0.05",
    )
    axes.legend(fontsize=8)
    return figure


def flat(positions: np.ndarray) -> np.ndarray:
    """Return sensors on a plane seen from above, nose up: distance from the middle is the angle from the vertex.

    Parameters
    ----------
    positions : (n, 3)
        In metres, x to the right, y to the front, z up.

    Examples
    --------
    >>> flat(np.array([[0.0, 0.0, 0.14], [0.1, 0.0, 0.04]])).round(3).tolist()
    [[0.0, 0.0], [0.095, 0.0]]
    """
    from_centre = positions - _CENTRE
    sideways = np.linalg.norm(from_centre[:, :2], axis=1)
    angle = np.arctan2(sideways, from_centre[:, 2])
    plane: np.ndarray = from_centre[:, :2] / np.where(sideways > 0, sideways, 1)[:, None]
    return plane * (angle / (np.pi / 2) * _HEAD)[:, None]


def _groups_figure(named: "dict[str, list[Profile]]", profiles: "Sequence[Profile]") -> "Figure":
    """Draw bars of regions, or of the strongest sensors where there are no regions."""
    figure, axes = new_figure(8.0, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    parts = list(profiles[0].groups)
    if not parts:
        parts = sorted(profiles[0].sensors, key=lambda name: -abs(profiles[0].sensors[name]))[:MOST_BARS]
    width = 0.8 / len(named)
    for number, (name, mine) in enumerate(named.items()):
        shares = 100 * _mean([np.array([(p.groups or p.sensors).get(part, 0.0) for part in parts]) for p in mine])
        at = np.arange(len(parts)) + (number - (len(named) - 1) / 2) * width
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(at, shares, width, color=colour, alpha=_strength(mine), label=_label(name, mine))
    axes.set_xticks(range(len(parts)), parts, rotation=30, ha="right")
    axes.set(ylabel="% of the evidence", title=_title("Where the evidence lies", profiles))
    _legend(axes, named)
    return figure


def new_figure(width: float, height: float, n_rows: int = 1, n_columns: int = 1) -> tuple["Figure", Any]:
    """Return an empty figure that a notebook shows as it is, and its axes; sizes are in inches.

    Raises
    ------
    NotHere
        If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure  # no window, and none of pyplot's memory
        from matplotlib.text import Text
    except ModuleNotFoundError:
        raise NotHere("matplotlib is not installed", 'pip install "embedctl[brain]"') from None

    class Drawn(Figure):
        def _repr_png_(self) -> bytes:
            return png(self, dpi=80)  # a page's worth

        def draw(self, renderer: Any) -> None:  # names of files may hold dollars, and are no formulas
            for text in self.findobj(Text):
                text.set_parse_math(False)
            with rc_context({"text.parse_math": False}):
                super().draw(renderer)

    figure = Drawn(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns)


def _by_embedding(profiles: "Sequence[Profile]") -> "dict[str, list[Profile]]":
    found: dict[str, list[Profile]] = {}
    for profile in profiles:
        found.setdefault(profile.embedding, []).append(profile)
    return found


def _label(name: str, mine: "Sequence[Profile]") -> str:
    return legible(name) if mine[0].is_found else f"{legible(name)} (nothing found)"


def legible(name: str) -> str:
    """Return a name as a legend shows it: matplotlib hides those that begin with a low line."""
    return f" {name}" if name.startswith("_") else name


def _strength(mine: "Sequence[Profile]") -> float:
    """Return how strongly to draw: shares of nothing look like shares of something."""
    return 1.0 if mine[0].is_found else 0.25


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    mean: np.ndarray = np.mean(values, axis=0)
    return mean


def _subjects(n: int) -> str:
    return f"{n} subject{'s' if n != 1 else ''}"


def _title(what: str, profiles: "Sequence[Profile]") -> str:
    of = profiles[0].condition
    n = len({profile.subject for profile in profiles})
    return f"{what}\n{of['dataset']}, {of['brain_encoder']}, {_subjects(n)}"


def _legend(axes: "Axes", named: "dict[str, list[Profile]]") -> None:
    axes.legend(fontsize=7, ncols=1 + len(named) // 12, frameon=False)
