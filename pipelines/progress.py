"""How a stage tells what it is doing, without knowing who listens.

The command line draws bars, a notebook may stay silent, a test may record. A stage only ever
calls the three methods of `Progress`.
"""

from typing import Protocol

__all__ = ["SILENT", "Progress"]


class Progress(Protocol):
    """What a stage may say while it works."""

    def start(self, label: str, total: int, unit: str) -> None:
        """Begin a piece of work of ``total`` steps, each one ``unit`` (images, runs, epochs)."""

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Report ``n`` more steps, with figures worth showing beside the bar (``decode=0.4``)."""

    def say(self, text: str) -> None:
        """Report one line worth keeping: a choice that was made and why, a thing that was skipped."""


class _Silent:
    def start(self, label: str, total: int, unit: str) -> None:
        pass

    def advance(self, n: int = 1, **figures: str | float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


SILENT: Progress = _Silent()
