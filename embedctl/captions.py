"""What tables and pictures call things: the condition of their rows, an embedding, times."""

from collections.abc import Iterable
from typing import Any

__all__ = ["ms", "said", "windows"]


def said(condition: dict[str, Any], differs: str = "") -> str:
    """Say in a line what all rows of a table have in common; with the settings that set it apart from other tables."""
    settings = ", ".join(filter(None, (differs, condition["config_key"])))
    epochs = f" on {condition['preprocessing']} epochs" if condition["preprocessing"] else ""
    return (
        f"{condition['dataset']}{epochs}, {condition['n_way']}-way retrieval with {condition['brain_encoder']}, "
        f"recipe {condition['recipe']} ({settings}), {condition['protocol']} subject"
    )


def windows(spans: Iterable[tuple[float, float]]) -> str:
    """Return first and last times, in s, as people read them.

    Examples
    --------
    >>> windows([(0.1, 0.18), (0.4, 0.5)]), windows([])
    ('100 to 180 ms, 400 to 500 ms', 'nowhere')
    """
    return ", ".join(f"{1000 * first:.0f} to {1000 * last:.0f} ms" for first, last in spans) or "nowhere"


def ms(seconds: float | None) -> str:
    """Return a time in ms; empty where there is none.

    Examples
    --------
    >>> ms(0.1481), ms(None)
    ('148 ms', '')
    """
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"
