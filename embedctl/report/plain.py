"""The report without pictures: Markdown for people, CSV and JSON for programs."""

import csv
import io
import re
from typing import Any

from embedctl import render
from embedctl.report.parts import Report, Table, shown

__all__ = ["as_csv", "as_markdown", "as_plain"]


def as_csv(report: Report) -> str:
    """Return the ranking, a line per embedding and condition; accuracies are fractions."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(heading for heading, _ in report.ranking.columns)
    writer.writerows([_inert(value) for value in row] for row in report.ranking.rows)
    return sink.getvalue()


def as_markdown(report: Report) -> str:
    """Return every section with its tables."""
    parts = [f"# {_plain(report.title)}", *(_plain(text) for text in (*report.verdicts, *report.notes))]
    for section in report.sections:
        parts += [f"## {_plain(section.title)}", *map(_plain, section.text)]
        for figure in section.figures:
            parts += [f"### {_plain(figure.title)}", *([_plain(figure.note)] if figure.note else [])]
            parts.append(_table(figure.table))
    parts += ["## How to build this again", "\n".join(f"    {line}" for line in report.command.splitlines())]
    return "\n\n".join(parts) + "\n"


def as_plain(report: Report) -> dict[str, Any]:
    """Return everything as plain values, for JSON."""
    return {
        "title": report.title,
        "verdicts": list(report.verdicts),
        "notes": list(report.notes),
        "sections": [
            {
                "title": section.title,
                "text": list(section.text),
                "figures": [
                    {"title": figure.title, "note": figure.note, **_values(figure.table)} for figure in section.figures
                ],
            }
            for section in report.sections
        ],
        "command": report.command,
    }


def _values(table: Table) -> dict[str, Any]:
    columns = [{"name": heading, "kind": kind} for heading, kind in table.columns]
    return {"columns": columns, "rows": [list(row) for row in table.rows]}


def _table(table: Table) -> str:
    kinds = [kind for _, kind in table.columns]
    lines = [[_plain(heading) for heading, _ in table.columns]]
    lines.append(["---:" if kind not in ("text", "link") else "---" for kind in kinds])
    lines += [[_plain(shown(value, kind)) for value, kind in zip(row, kinds, strict=True)] for row in table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(text: object) -> str:
    r"""Return text in which no name is read as Markdown or HTML.

    Examples
    --------
    >>> _plain("a|b<script>_c_")
    'a\\|b\\<script\\>\\_c\\_'
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", render.plain(text))


def _inert(value: object) -> object:
    r"""Return a value that no spreadsheet takes for a formula.

    Examples
    --------
    >>> _inert("=1+1"), _inert("\tx"), _inert(-0.5)
    ("'=1+1", "'\tx", -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
