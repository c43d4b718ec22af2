"""Pictures of an interpretation: courses over time, bands, sensors, and aligned minus base.

Each function returns a matplotlib figure and writes nothing. A title says what is shown. What is not shown to be there
is drawn pale. Of more embeddings than there are colours, the best are drawn; the tables have all.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedctl.captions import ms
from embedctl.drawing import CURVES, GREY, HEAD, colours_of, flat, legible, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.interpret.pairs import PairedProfile
    from pipelines.interpret.profile import Profile

__all__ = ["bands_figure", "pair_figure", "sensors_figure", "time_figure"]

MOST_MAPS = 12  # topographies in one picture
MOST_BARS = 20
_LETTERS_OF_A_MAP = 30

Named = Mapping[str, "Sequence[Profile]"]


def time_figure(profiles: "Sequence[Profile]", ranked: Sequence[str] = ()) -> "Figure":
    """Draw when the evidence comes: a line per embedding, mean over subjects; bars below where it is above zero.

    Parameters
    ----------
    profiles : sequence of Profile
        Of one condition.
    ranked : sequence of str
        All embeddings of the condition, best first: they have the colours of the report.
    """
    figure, axes = new_figure(9.5, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    named = _best(profiles, len(CURVES))
    colours = colours_of(list(named), ranked)
    for name, mine in named.items():
        course = 100 * _mean([p.time for p in mine])
        axes.plot(1000 * mine[0].times, course, color=colours[name], alpha=_strength(mine), label=_label(name, mine))
    low, high = axes.get_ylim()
    step = 0.03 * (high - low)
    for number, (name, mine) in enumerate(named.items()):
        for profile in mine:
            for window in profile.windows:
                at = low - step * (number + 1)
                span = [1000 * window.first, 1000 * window.last]
                axes.plot(span, [at, at], color=colours[name], lw=3, alpha=0.6 * _strength(mine))
    below = "ms from image onset (bars: clusters above zero, per subject; their edges are not tested)"
    if _is_of_the_paper(profiles):
        one = profiles[0]
        truly = f"{legible(one.name)} peaks at {ms(one.peak)}, in the recording at {ms(one.corrected_peak)}"
        below = f"ms as the paper draws it, which is wrong: {truly}"
    axes.set(
        xlabel=below,
        ylabel="% of the evidence per sample",
        title=_title("When the evidence for the right image comes", profiles, named),
    )
    _legend(axes)
    return figure


def bands_figure(profiles: "Sequence[Profile]", ranked: Sequence[str] = ()) -> "Figure":
    """Draw at which frequencies the evidence lies: a group of bars per band, a bar per embedding, a dot per subject."""
    named = _best(profiles, len(CURVES))
    figure = _bars_figure(
        {name: [p.bands for p in mine] for name, mine in named.items()},
        list(profiles[0].bands),
        _title("At which frequencies the evidence lies", profiles, named),
        named,
        ranked,
    )
    if _is_of_the_paper(profiles):
        figure.axes[0].set_xlabel("of the paper's maps: a few stretched points, no spectrum of the recording")
    return figure


def sensors_figure(profiles: "Sequence[Profile]", ranked: Sequence[str] = ()) -> "Figure":
    """Draw where the evidence lies: a topography per embedding; bars of groups where sensors have no known place."""
    from pipelines.interpret.over_subjects import over_sensors

    named = _best(profiles, MOST_MAPS)
    sensors, positions, means = over_sensors({n: [(p.sensors, p.positions) for p in mine] for n, mine in named.items()})
    if len(sensors) < 4 or not positions:
        return _groups_figure(profiles, ranked)
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from mne.viz import plot_topomap

    n_columns, n_rows = min(4, len(named)), -(-len(named) // 4)
    figure, grid = new_figure(2.6 * n_columns, 2.9 * n_rows + 0.4, n_rows, n_columns)
    places = flat(np.array(positions, dtype=float))
    shares = {name: 100 * values for name, values in means.items()}
    found = [values for name, values in shares.items() if named[name][0].is_found] or list(shares.values())
    most = max(float(np.abs(values).max()) for values in found) or 1.0
    for axes, (name, values) in zip(np.ravel(grid), shares.items(), strict=False):
        with np.errstate(invalid="ignore"):  # two gradiometers at one place have no slope between them
            drawn, _ = plot_topomap(
                values,
                places,
                axes=axes,
                show=False,
                vlim=(-most, most),
                cmap="RdBu_r",
                sphere=HEAD,
                contours=0,
                extrapolate="local",
            )
        drawn.set_alpha(_strength(named[name]))
        nothing = "" if named[name][0].is_found else "\n(nothing found)"
        axes.set_title(legible(name, _LETTERS_OF_A_MAP) + nothing, fontsize=8)
    for axes in np.ravel(grid)[len(named) :]:
        axes.set_visible(False)
    scale = ScalarMappable(Normalize(-most, most), "RdBu_r")
    figure.colorbar(scale, ax=np.ravel(grid).tolist(), shrink=0.6, label="% of the evidence")
    which = (
        "which sensors" if len(sensors) == max(len(p.sensors) for p in profiles) else "which sensors of all subjects"
    )
    figure.suptitle(_title(f"Over {which} the evidence lies", profiles, named), fontsize=10)
    return figure


def pair_figure(pair: "PairedProfile") -> "Figure":
    """Draw aligned minus base over time, over all images and over those that both found; shaded where they differ."""
    figure, axes = new_figure(8.0, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    for matched, colour, label in ((False, "black", "all images"), (True, GREY, "images that both found")):
        tests = [test for test in pair.tests if test.matched == matched]
        if tests:
            axes.plot(1000 * pair.times, 100 * _mean([t.time for t in tests]), color=colour, label=label)
        for test in tests:
            for window in test.windows:
                axes.axvspan(1000 * window.first, 1000 * window.last, color=colour, alpha=0.15, lw=0)
    over = sorted({test.over.split(" of ")[0] for test in pair.tests})
    axes.set(
        xlabel="ms from image onset",
        ylabel="difference, % of the evidence per sample",
        title=f"{' minus '.join(map(legible, pair.names))}: when the evidence comes\n"
        f"{_subjects(len(pair.subjects))}; shaded: clusters over {' and '.join(over) or 'nothing'}, p < 0.05",
    )
    axes.legend(fontsize=8)
    return figure


def _groups_figure(profiles: "Sequence[Profile]", ranked: Sequence[str]) -> "Figure":
    """Draw bars of regions, or of the strongest sensors where there are no regions."""
    named = _best(profiles, len(CURVES))
    parts = list(profiles[0].groups)
    if not parts:
        parts = sorted(profiles[0].sensors, key=lambda name: -abs(profiles[0].sensors[name]))[:MOST_BARS]
    figure = _bars_figure(
        {name: [p.groups or p.sensors for p in mine] for name, mine in named.items()},
        parts,
        _title("Where the evidence lies", profiles, named),
        named,
        ranked,
    )
    figure.axes[0].tick_params(axis="x", rotation=30)
    return figure


def _bars_figure(
    shares: Mapping[str, Sequence[Mapping[str, float]]],
    parts: Sequence[str],
    title: str,
    named: Named,
    ranked: Sequence[str],
) -> "Figure":
    """Draw a group of bars per part, a bar per embedding, a dot per subject."""
    figure, axes = new_figure(9.5, 4.5)
    axes.axhline(0, color="0.7", lw=0.8)
    width, colours = 0.8 / len(shares), colours_of(list(shares), ranked)
    for number, (name, each) in enumerate(shares.items()):
        table = 100 * np.array([[one.get(part, 0.0) for part in parts] for one in each])
        at = np.arange(len(parts)) + (number - (len(shares) - 1) / 2) * width
        strength, label = _strength(named[name]), _label(name, named[name])
        axes.bar(at, table.mean(axis=0), width, color=colours[name], alpha=strength, label=label)
        axes.plot(np.tile(at, len(table)), table.ravel(), ".", color="0.3", ms=4)
    axes.set_xticks(range(len(parts)), parts)
    axes.set(ylabel="% of the evidence (dots: subjects)", title=title)
    _legend(axes)
    return figure


def _best(profiles: "Sequence[Profile]", most: int) -> "dict[str, list[Profile]]":
    """Return the profiles by embedding: all in their order, or, of more than ``most``, those found most often."""
    found: dict[str, list[Profile]] = {}
    for profile in profiles:
        found.setdefault(profile.name, []).append(profile)
    if len(found) <= most:
        return found
    top1 = {name: float(np.mean([profile.top1 for profile in mine])) for name, mine in found.items()}
    return {name: found[name] for name in sorted(top1, key=lambda name: -top1[name])[:most]}


def _label(name: str, mine: "Sequence[Profile]") -> str:
    return legible(name) if mine[0].is_found else f"{legible(name)} (nothing found)"


def _strength(mine: "Sequence[Profile]") -> float:
    """Return how strongly to draw: shares of nothing look like shares of something."""
    return 1.0 if mine[0].is_found else 0.25


def _is_of_the_paper(profiles: "Sequence[Profile]") -> bool:
    """Whether these are the paper's maps, whose times are wrong and which have no spectrum."""
    return profiles[0].corrected_peak is not None


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    mean: np.ndarray = np.mean(values, axis=0)
    return mean


def _subjects(n: int) -> str:
    return f"{n} subject{'s' if n != 1 else ''}"


def _title(what: str, profiles: "Sequence[Profile]", named: Named) -> str:
    of = profiles[0].condition
    n, n_embeddings = len({profile.subject for profile in profiles}), len({profile.embedding for profile in profiles})
    some = f", the {len(named)} best of {n_embeddings} embeddings" if len(named) < n_embeddings else ""
    return f"{what}\n{of['dataset']}, {of['brain_encoder']}, {_subjects(n)}{some}"


def _legend(axes: "Axes") -> None:
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside, over no curve
