"""One thing that `embedctl doctor` has looked at."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    topic : str
        What was looked at.
    found : str
        What is there.
    hint : str
        The way out, where something is wrong; empty where all is well.
    """

    topic: str
    found: str
    hint: str = ""
