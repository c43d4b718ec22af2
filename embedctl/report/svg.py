"""Drawing by hand: a picture is a list of SVG elements with numbers in their attributes.

No element has a ``style``: the page's policy allows none. A picture is about 400 wide, which fits the
narrowest screens. Every mark that stands for a number says it on hovering.

>>> picture = Picture(100, 50)
>>> picture.dot(10, 20, "#000", "hog: 40 %")
>>> str(picture.svg("top-1"))[-81:]
'<circle cx="10" cy="20" r="3" fill="#000"><title>hog: 40 %</title></circle></svg>'
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from embedctl.drawing import COLOURS, GREY
from embedctl.html import Markup, escaped

__all__ = [
    "ALIGNED", "BASE", "GREY", "INK", "LABELS", "WIDTH", "Picture", "Scale", "axis_left", "chance_line",
    "diverging", "labels", "legend", "nice", "rows", "sequential", "shortened", "span", "whole",
]  # fmt: skip

WIDTH, LABELS = 400, 160  # of a picture, and of the names on its left
BASE, ALIGNED = COLOURS[:2]
_FOR, _AGAINST = (
    "#5e3c99",
    "#8c510a",
)  # purple and brown: the ends of two of ColorBrewer's scales that all eyes tell apart
_ROW = 18
_HEADS = (0.75, 0.25, 0.9, 0.1)  # where else a gap may be
LINE, INK = "#d9dde3", "#20242a"
_WIDTHS = (
    (0.34, "iljI.,:;'|! "),
    (0.42, "ftr-()[]/"),
    (0.61, "acekosvxyz"),
    (0.84, "wABCDGHKNOQRUVXY&"),
    (1.02, "mMW@%…"),
)
_VIRIDIS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from values to places.

    Examples
    --------
    >>> Scale(0.0, 0.5, 100, 200)(0.25)
    150.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        width = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / width if width else 0.5)


class Picture:
    """An SVG picture that grows mark by mark.

    Parameters
    ----------
    width, height : float
        Of the drawing, in its own units.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._marks: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = LINE, width: float = 1, *, dash: str = "",
             title: str = "") -> None:  # fmt: skip
        """Draw a straight line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        at = f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
        self._add("line", f'{at} stroke="{colour}" stroke-width="{width:g}"{dashed}', title)

    def curve(self, points: Sequence[tuple[float, float]], colour: str, width: float = 2, title: str = "") -> None:
        """Draw a line through points."""
        at = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._add("polyline", f'points="{at}" fill="none" stroke="{colour}" stroke-width="{width:g}"', title)

    def dot(self, x: float, y: float, colour: str, title: str = "", r: float = 3, *, hollow: bool = False) -> None:
        """Draw a circle, filled or as a ring."""
        fill = f'fill="#fff" stroke="{colour}" stroke-width="1.5"' if hollow else f'fill="{colour}"'
        self._add("circle", f'cx="{_n(x)}" cy="{_n(y)}" r="{r:g}" {fill}', title)

    def box(self, x: float, y: float, width: float, height: float, colour: str, title: str = "") -> None:
        """Draw a filled rectangle."""
        at = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
        self._add("rect", f'{at} fill="{colour}"', title)

    def text(self, x: float, y: float, text: object, anchor: str = "start", kind: str = "", title: str = "",
             colour: str = "") -> None:  # fmt: skip
        """Write text; ``kind`` is a class of the page: ``small``, ``strong``."""
        said = f' class="{kind}"' if kind else ""
        said += f' text-anchor="{anchor}"' if anchor != "start" else ""
        said += f' fill="{colour}"' if colour else ""
        inner = f"<title>{escaped(title)}</title>" if title else ""
        self._marks.append(f'<text x="{_n(x)}" y="{_n(y)}"{said}>{escaped(text)}{inner}</text>')

    def svg(self, label: str) -> Markup:
        """Return the picture; ``label`` is what a screen reader says."""
        box = f"0 0 {_n(self.width)} {_n(self.height)}"
        return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escaped(label)}">{"".join(self._marks)}</svg>')

    def _add(self, element: str, attributes: str, title: str) -> None:
        inside = f"><title>{escaped(title)}</title></{element}>" if title else "/>"
        self._marks.append(f"<{element} {attributes}{inside}")


def nice(low: float, high: float, n: int = 5) -> list[float]:
    """Return about ``n`` round numbers between two.

    Examples
    --------
    >>> nice(0.0, 0.47)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    raw = (high - low) / n or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def span(values: Sequence[float], *, zero: bool = True, room: float = 0.04) -> tuple[float, float]:
    """Return the ends of an axis that holds all values, and zero.

    Examples
    --------
    >>> span([0.2, 0.5], room=0)
    (0.0, 0.5)
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    reach = room * (high - low) or 0.5 * abs(high) or 1.0
    return (low if zero and low == 0 else low - reach * (room > 0)), high + reach * (room > 0)


def rows(
    names: Sequence[str], ends: tuple[float, float], unit: str, factor: float = 1.0, right: float = 14, strong: int = -1
) -> tuple[Picture, Scale, list[float]]:
    """Return a picture with a name to the left of every row and an axis below, its scale, and the rows' places.

    Parameters
    ----------
    names : sequence of str
        Of the rows.
    ends : (float, float)
        Of the axis.
    unit : str
        What stands at its end.
    factor : float
        What its numbers are multiplied by.
    right : float
        Room to the right.
    strong : int
        The row whose name is bold; -1 for none.
    """
    bottom = 10 + _ROW * len(names)
    picture, scale = Picture(WIDTH, bottom + 32), Scale(*ends, LABELS, WIDTH - right)
    for number in nice(scale.low * factor, scale.high * factor):
        x = scale(number / factor)
        picture.line(x, 6, x, bottom)
        picture.text(x, bottom + 13, f"{number:g}", "middle", "small")
    picture.text(scale.end, bottom + 26, unit, "end", "small")
    places = [10 + _ROW * (number + 0.5) for number in range(len(names))]
    for number, (name, told, y) in enumerate(zip(names, labels(names), places, strict=True)):
        told, kind = (shortened(name, size=12.5), "strong") if number == strong else (told, "")
        picture.text(LABELS - 8, y + 4, told, "end", kind, name)
    return picture, scale, places


def axis_left(picture: Picture, scale: Scale, left: float, right: float, factor: float = 1.0) -> None:
    """Draw grid lines at round numbers, and the numbers to the left."""
    for number in nice(scale.low * factor, scale.high * factor, 4):
        y = scale(number / factor)
        picture.line(left, y, right, y)
        picture.text(left - 5, y + 4, f"{number:g}", "end", "small")


def chance_line(picture: Picture, scale: Scale, chance: float, left: float = 40, right: float = WIDTH - 16) -> None:
    """Draw chance across a picture, dotted as everywhere."""
    picture.line(
        left, scale(chance), right, scale(chance), "#000", 1.5, dash="2 3", title=f"chance {100 * chance:.1f} %"
    )


def legend(entries: Sequence[tuple[str, str]], rest: int = 0) -> Markup:
    """Return names beside their colours, to stand below a picture; of those not named, how many."""
    keys = [
        '<span class="key"><svg viewBox="0 0 10 10" aria-hidden="true">'
        f'<circle cx="5" cy="5" r="5" fill="{colour}"/></svg>{escaped(name)}</span>'
        for name, colour in entries
    ]
    if rest:
        keys.append(f'<span class="key">grey: {rest} more</span>')
    return Markup(f'<p class="legend">{"".join(keys)}</p>')


def sequential(share: float) -> tuple[str, str]:
    """Return the colour of a number between 0 and 1, and that of text upon it: viridis, which all eyes read.

    Examples
    --------
    >>> sequential(0.0), sequential(1.0)
    (('#440154', '#fff'), ('#fde725', '#20242a'))
    """
    at = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    below = min(int(at), len(_VIRIDIS) - 2)
    return _mixed(_VIRIDIS[below], _VIRIDIS[below + 1], at - below), "#fff" if share < 0.55 else INK


def diverging(share: float) -> tuple[str, str]:
    """Return the colour of a number between -1 (brown) and 1 (purple), and that of text upon it; 0 is nearly white."""
    strength = min(abs(share), 1.0)
    return _mixed("#f4f4f4", _FOR if share > 0 else _AGAINST, strength), "#fff" if strength > 0.55 else INK


def shortened(name: str, room: float = LABELS - 10, size: float = 11, head: float = 0.5) -> str:
    """Return a name with a part left out where it is wider than its place.

    Parameters
    ----------
    name : str
        The whole of it.
    room : float
        How wide its place is.
    size : float
        Of the font.
    head : float
        Share of what is kept that stands before the gap.

    Examples
    --------
    >>> shortened("dreamsim-dinov2-vitb14-base:blocks.10.mean")
    'dreamsim-d…ks.10.mean'
    """
    short, kept = name, len(name)
    while kept > 2 and size * sum(map(_em, short)) > room:
        kept -= 1
        front = round(head * kept + 0.01)
        short = f"{name[:front]}…{name[len(name) - (kept - front) :]}"
    return short


def labels(names: Sequence[str], room: float = LABELS - 10) -> list[str]:
    """Return names shortened so that different ones stay different, where any place of the gap does that.

    Examples
    --------
    >>> labels(["alignet-siglip-b-untransformed", "alignet-siglip2-b-untransformed"])
    ['alignet-siglip-b-…formed', 'alignet-siglip2-b…formed']
    """
    told = [shortened(name, room) for name in names]
    for head in _HEADS:
        alike = [place for place, text in enumerate(told) if told.count(text) > 1]
        again = {place: shortened(names[place], room, head=head) for place in alike}
        if len({again.get(place, text) for place, text in enumerate(told)}) > len(set(told)):
            told = [again.get(place, text) for place, text in enumerate(told)]
    return told


def _em(character: str) -> float:
    """Return how wide a character is at most, as a share of the font's size: measured on DejaVu Sans, a wide one."""
    for width, characters in _WIDTHS:
        if character in characters:
            return width
    return 0.65 if character.isascii() else 1.02


def whole(number: float) -> str:
    """Return a number without its fraction; halves go away from zero, as people round.

    Examples
    --------
    >>> whole(2.5), whole(-2.5), whole(37.5), whole(-0.2)
    ('3', '-3', '38', '0')
    """
    return f"{math.copysign(math.floor(abs(number) + 0.5), number) + 0:.0f}".replace("-0", "0", number > -0.5)


def _mixed(one: str, other: str, share: float) -> str:
    pairs = zip(_rgb(one), _rgb(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
