"""What the program shows: tables and JSON on stdout, the two-line problem and every remark on stderr.

The only module that prints. Nothing here reads rich's markup out of text it is given: a folder
called ``[red]`` is shown as it is called.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from stores.disk import size
from stores.errors import EmbedctlError
from stores.names import counted

__all__ = [
    "SCHEMA_VERSION",
    "as_json",
    "bug",
    "is_terminal",
    "line",
    "note",
    "percent",
    "plain",
    "problem",
    "size",
    "skipped",
    "table",
    "weights",
]

SCHEMA_VERSION = 1
"""Of every object `as_json` prints; it grows when a field is renamed or removed."""

_SHOWN_SKIPS = 50


def plain(text: object) -> str:
    r"""Replace control characters, so that a name cannot drive the terminal.

    Examples
    --------
    >>> plain("a\x1b[31mb")
    'a\ufffd[31mb'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def _console(stderr: bool = False, wide: bool = False) -> Any:
    from rich.console import Console  # 0.1 s: only when something is drawn

    # A pipe has no width: give it room, so that no cell is folded or cut.
    width = 4096 if wide and not (sys.stderr if stderr else sys.stdout).isatty() else None
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=not wide)


def _styled(label: str, style: str, text: str) -> None:
    from rich.text import Text

    _console(stderr=True).print(Text.assemble((label, style), plain(text)))


def problem(error: EmbedctlError) -> None:
    """Print an expected problem and, when there is one, the way out of it."""
    _styled("error: ", "bold red", error.what)
    if error.hint:
        _styled("hint:  ", "dim", error.hint)


def bug(error: BaseException) -> None:
    """Print a programming mistake on one line: the traceback is one option away."""
    _styled("bug: ", "bold red", f"{type(error).__name__}: {error} (run it again with --debug for the traceback)")


def note(text: str) -> None:
    """Print one remark on stderr."""
    sys.stderr.write(plain(text) + "\n")


def line(text: str = "") -> None:
    """Print one line of result on stdout, at once: it stands before whatever stderr says next."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def as_json(**fields: Any) -> None:
    """Print one JSON object on stdout, ``schema_version`` first."""
    sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION, **fields}, indent=2, default=str) + "\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = (), best: Sequence[int] = ()
) -> None:
    """Print a table on stdout.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : (n_rows, n_columns)
        Cells; ``None`` is an empty one.
    right : sequence of str
        Headings of the columns that hold numbers.
    best : sequence of int
        Rows to set in bold.
    """
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for index, row in enumerate(rows):
        cells = [Text("" if cell is None else plain(cell)) for cell in row]
        drawn.add_row(*cells, style="bold" if index in best else None)
    console = _console(wide=True)
    with console.capture() as captured:
        console.print(drawn)
    for text in captured.get().splitlines():
        sys.stdout.write(text.rstrip() + "\n")


def skipped(items: Mapping[str, str], total: int, unit: str, how: str = "skipped") -> None:
    """List on stderr what was skipped, or failed, and why."""
    if not items:
        return
    note(f"{how} {len(items):,} of {counted(total, unit)}:")
    for name, reason in list(items.items())[:_SHOWN_SKIPS]:
        note(f"  {name}: {reason}")
    if len(items) > _SHOWN_SKIPS:
        note(f"  and {len(items) - _SHOWN_SKIPS:,} more (--json lists them all)")


def percent(fraction: float | None, digits: int = 1) -> str:
    """Show a fraction as a percentage.

    Examples
    --------
    >>> percent(0.525), percent(None)
    ('52.5 %', '')
    """
    return "" if fraction is None else f"{100 * fraction:.{digits}f} %"


def weights(label: str) -> str:
    """Show what weights made an embedding: of a digest the first digits, anything else in full.

    Examples
    --------
    >>> weights("sha256:0123456789abcdef0123"), weights("imported, unverified")
    ('sha256:0123456789ab', 'imported, unverified')
    """
    return label[:19] if label.startswith("sha256:") else label


def is_terminal() -> bool:
    """Say whether a person is watching stderr: bars are for people, lines for logs."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
