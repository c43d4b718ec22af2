"""What all pictures are drawn with: an empty figure, its PNG, colours, names, and where sensors lie seen from above."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import NotHere

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "CURVES", "GREY", "HEAD", "colours_of", "flat", "legible", "new_figure", "png"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which people with colour-blind eyes tell apart; without their yellow, which white paper hides."""
CURVES = COLOURS[2:]  # of embeddings beside one another: the first two say base and aligned, everywhere
GREY = "#8a8f98"

HEAD = 0.095  # m: radius of the head that MNE draws
_HEAD_MIDDLE = np.array([0.0, 0.0, 0.04])  # m: in head coordinates, whose origin lies between the ears
_FEWEST_TO_FIT = 12  # sensors
_ABOUT = (
    0.08  # how much distances from it may differ: those of posterior electrodes do by 0.05, a helmet's off it by 0.1
)


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


def png(figure: "Figure", dpi: int = 150) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=dpi, bbox_inches="tight")
    return sink.getvalue()


def colours_of(names: Sequence[str], ranked: Sequence[str]) -> dict[str, str]:
    """Return colours of curves: the best embeddings have theirs everywhere; what these leave over goes to others.

    Parameters
    ----------
    names : sequence of str
        What is drawn; where colours run out, the later ones are left out.
    ranked : sequence of str
        All embeddings of the answer, best first.

    Examples
    --------
    >>> colours_of(["hog", "pixels"], ["pixels", "clip-rn50"]) == {"hog": CURVES[1], "pixels": CURVES[0]}
    True
    """
    own = dict(zip(ranked, CURVES, strict=False))
    spare = iter([colour for name, colour in own.items() if name not in names] + list(CURVES[len(own) :]))
    found = {name: own.get(name) or next(spare, "") for name in sorted(names, key=lambda name: name not in own)}
    return {name: found[name] for name in names if found[name]}


def legible(name: str, most: int = 40) -> str:
    """Return a name as a picture shows it: of so many letters at most, and with what matplotlib would hide.

    Examples
    --------
    >>> legible("_low"), legible("dreamsim-dinov2-vitb14-base:blocks.10.mean@blur-9")
    (' _low', 'dreamsim-dinov2-vitb…ocks.10.mean@blur-9')
    """
    if len(name) > most:
        name = f"{name[: most // 2]}…{name[1 - most // 2 :]}"
    return f" {name}" if name.startswith("_") else name  # a legend leaves out labels that begin so


def flat(positions: np.ndarray) -> np.ndarray:
    """Return sensors on a plane seen from above, nose up: distance from the middle is the angle from the vertex.

    A right angle is `HEAD` from the middle; sensors below the equator of a helmet lie beyond.

    Parameters
    ----------
    positions : (n, 3)
        In metres, x to the right, y to the front, z up; of a head or of a device, wherever its origin is.

    Examples
    --------
    >>> flat(np.array([[0.0, 0.0, 0.14], [0.1, 0.0, 0.04]])).round(3).tolist()
    [[0.0, 0.0], [0.095, 0.0]]
    """
    from_centre = positions - _middle(positions)
    sideways = np.linalg.norm(from_centre[:, :2], axis=1)
    angle = np.arctan2(sideways, from_centre[:, 2])
    plane: np.ndarray = from_centre[:, :2] / np.where(sideways > 0, sideways, 1)[:, None]
    return plane * (angle / (np.pi / 2) * HEAD)[:, None]


def _middle(positions: np.ndarray) -> np.ndarray:
    """Return the middle of a head where sensors lie about that, or are few; else that of the sphere nearest to them."""
    n, away = len(positions), np.linalg.norm(positions - _HEAD_MIDDLE, axis=1)
    if n < _FEWEST_TO_FIT or away.std() < _ABOUT * away.mean():
        return _HEAD_MIDDLE
    # |p|^2 = 2 c p + (r^2 - |c|^2)
    unknown = np.column_stack([2 * positions, np.ones(n)])
    middle: np.ndarray = np.linalg.lstsq(unknown, (positions**2).sum(axis=1), rcond=None)[0][:3]
    return middle
