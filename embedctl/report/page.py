"""The page: one HTML file without a script, which the browser is told to let ask for nothing.

Whatever comes from a name, a file or a store is escaped by `embedctl.html`; the policy allows one style sheet, by its
digest, and pictures that lie in the page.
"""

import base64
import hashlib
from importlib.resources import files

from embedctl.html import Markup, escaped, joined
from embedctl.report.parts import Figure, Report, Section, Table, shown
from stores.names import counted

__all__ = ["page"]

_NUMBERS = ("percent", "points", "spread", "count", "number", "seconds")
_MOST_ROWS = 500


def page(report: Report) -> str:
    """Return a report as an HTML page."""
    style = files("embedctl.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    body = joined(
        [
            Markup(f"<header><h1>{escaped(report.title)}</h1>"),
            joined(Markup(f'<p class="verdict">{escaped(text)}</p>') for text in report.verdicts),
            joined(Markup(f'<p class="note">{escaped(text)}</p>') for text in report.notes),
            _contents(report),
            Markup("</header><main>"),
            joined(_section(number, section) for number, section in enumerate(report.sections)),
            Markup(f"<section><h2>How to build this again</h2><pre>{escaped(report.command)}</pre></section></main>"),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escaped(report.title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def _contents(report: Report) -> Markup:
    links = (
        Markup(f'<a href="#s{number}">{escaped(section.title)}</a>') for number, section in enumerate(report.sections)
    )
    return Markup(f"<nav>{joined(links)}</nav>")


def _section(number: int, section: Section) -> Markup:
    text = joined(Markup(f"<p>{escaped(sentence)}</p>") for sentence in section.text)
    figures = joined(map(_figure, section.figures))
    return Markup(
        f'<section id="s{number}"><h2>{escaped(section.title)}</h2>{text}<div class="figures">{figures}</div></section>'
    )


def _figure(figure: Figure) -> Markup:
    note = f"<p>{escaped(figure.note)}</p>" if figure.note else ""
    table = _table(figure.table)
    behind = f"<details><summary>the numbers</summary>{table}</details>" if figure.picture else table
    wide = "" if figure.picture else ' class="wide"'
    return Markup(
        f"<figure{wide}><figcaption>{escaped(figure.title)}</figcaption>{note}{figure.picture}{behind}</figure>"
    )


def _table(table: Table) -> Markup:
    kinds = [kind for _, kind in table.columns]
    classes = [' class="n"' if kind in _NUMBERS else ' class="cite"' if kind == "link" else "" for kind in kinds]
    head = "".join(f"<th{c}>{escaped(heading)}</th>" for (heading, _), c in zip(table.columns, classes, strict=True))
    body = "".join(
        ('<tr class="best">' if row == table.best else "<tr>")
        + "".join(f"<td{c}>{_cell(value, kind)}</td>" for value, kind, c in zip(cells, kinds, classes, strict=True))
        + "</tr>"
        for row, cells in enumerate(table.rows[:_MOST_ROWS])
    )
    left = len(table.rows) - _MOST_ROWS
    rest = f"<p>and {counted(left, 'row')} more: --format json has all</p>" if left > 0 else ""
    return Markup(f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{rest}')


def _cell(value: object, kind: str) -> str:
    text = escaped(shown(value, kind))
    # Only an address that can do nothing but be followed: a store may hold "javascript:...".
    if kind == "link" and str(value).startswith("https://"):
        return f'<a href="{text}" rel="noreferrer">{text}</a>'
    return text
