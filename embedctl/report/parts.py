"""What a report is made of: sections, figures, and the table behind each figure.

A table holds values, not text: what they look like is decided by the kind of its column, so that a page shows
``88.8 %`` where JSON has ``0.8875``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedctl import render
from embedctl.html import Markup

__all__ = ["Figure", "Report", "Section", "Table", "shown"]

KINDS = ("text", "percent", "points", "spread", "count", "number", "seconds", "link")


@dataclass(frozen=True)
class Table:
    """Columns of one kind each.

    Parameters
    ----------
    columns : sequence of (str, str)
        Heading and kind: one of `KINDS`. A percentage is a fraction, points are a difference of two, a
        spread is a standard deviation of such.
    rows : sequence of sequence
        Values; ``None`` is an empty cell.
    best : int
        Row to set in bold; -1 for none.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]
    best: int = -1


@dataclass(frozen=True)
class Figure:
    """A picture, what it shows, and its numbers.

    Parameters
    ----------
    title : str
        What it shows.
    table : Table
        The numbers behind it.
    picture : Markup
        SVG or HTML; empty where the table says it all.
    note : str
        How to read it.
    """

    title: str
    table: Table
    picture: Markup = Markup("")
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One question: a heading, a few sentences, figures."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Report:
    """A whole report.

    Parameters
    ----------
    title : str
        Of the page.
    verdicts : sequence of str
        The answers, a sentence each.
    notes : sequence of str
        What a reader must know before believing them.
    sections : sequence of Section
        In the order of reading.
    ranking : Table
        Every embedding under every condition.
    command : str
        What builds it again.
    """

    title: str
    verdicts: Sequence[str]
    notes: Sequence[str]
    sections: Sequence[Section]
    ranking: Table
    command: str


def shown(value: Any, kind: str) -> str:
    """Return a value as its column's kind is written.

    Examples
    --------
    >>> shown(0.8875, "percent"), shown(-0.021, "points"), shown(16540, "count"), shown(None, "number")
    ('88.8 %', '-2.1', '16,540', '')
    """
    if value is None:
        return ""
    if kind == "percent":
        return render.percent(value)
    if kind == "points":
        return f"{100 * value:+.1f}"
    if kind == "spread":
        return f"{100 * value:.1f}"
    if kind == "count":
        return f"{value:,}"
    if kind == "number":
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if kind == "seconds":
        return f"{value:,.1f} s"
    return str(value)
