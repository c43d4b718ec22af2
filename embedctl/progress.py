"""How a stage's progress is shown: bars on a terminal, one line every few seconds in a log.

Both speak `pipelines.progress.Progress`, write to stderr only, and cost nothing to a stage that
runs without them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedctl.render import is_terminal, note, plain
from pipelines.progress import Progress

__all__ = ["Bars", "Lines", "shown"]

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def shown() -> Iterator[Progress]:
    """Yield what fits the stderr there is, and close it whatever happens."""
    listener: Bars | Lines = Bars() if is_terminal() else Lines()
    try:
        yield listener
    finally:
        listener.close()


def _figures(figures: dict[str, str | float]) -> str:
    said = (f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())
    return plain("  ".join(said))


def _unit(units: str, total: int) -> str:
    return units.removesuffix("s") if total == 1 else units


class Bars:
    """One moving bar per piece of work; finished ones stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Rows
        from rich.table import Column

        def whole() -> Column:  # a terminal that is too narrow wraps the figures, and cuts nothing
            return Column(no_wrap=True)

        self._rows = Rows(
            TextColumn("{task.description}", markup=False, table_column=whole()),
            BarColumn(bar_width=20, table_column=whole()),
            MofNCompleteColumn(table_column=whole()),
            TextColumn("{task.fields[unit]}", markup=False, table_column=whole()),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=whole()),
            TextColumn("{task.fields[figures]}", markup=False, style="dim", table_column=Column()),
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        )
        self._task: Any = None
        self._rows.start()

    def start(self, label: str, total: int, unit: str) -> None:
        """Begin a bar; the one before it stays where it got to."""
        self._task = self._rows.add_task(plain(label), total=total, unit=plain(_unit(unit, total)), figures="")

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Move the bar on."""
        if self._task is not None:
            extra: Any = {"figures": _figures(figures)} if figures else {}
            self._rows.update(self._task, advance=n, **extra)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        from rich.text import Text

        self._rows.console.print(Text(plain(text)), soft_wrap=True)

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._rows.stop()


class Lines:
    """One line at the start of a piece of work, one every few seconds, one at its end."""

    def __init__(self) -> None:
        self._label, self._unit, self._total, self._done = "", "", 0, 0
        self._began = self._last = time.monotonic()
        self._figures: dict[str, str | float] = {}

    def start(self, label: str, total: int, unit: str) -> None:
        """Begin a piece of work."""
        self._label, self._unit, self._total, self._done, self._figures = label, _unit(unit, total), total, 0, {}
        self._began = self._last = time.monotonic()
        note(f"{label}: {total:,} {self._unit}")

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Count on; write a line when the last is old enough or the work is done."""
        self._done += n
        self._figures.update(figures)
        now = time.monotonic()
        if self._done >= self._total or now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            spent = now - self._began
            left = spent / self._done * (self._total - self._done) if self._done else 0.0
            when = f"{left:.0f} s left" if self._done < self._total else f"in {spent:.1f} s"
            share = 100 * self._done / self._total if self._total else 100.0
            head = f"{self._label}: {self._done:,} of {self._total:,} {self._unit} ({share:.0f} %), {when}"
            note("  ".join(filter(None, (head, _figures(self._figures)))))

    def say(self, text: str) -> None:
        """Print a line."""
        note(text)

    def close(self) -> None:
        """Nothing to give back: a log needs no cleaning up."""
