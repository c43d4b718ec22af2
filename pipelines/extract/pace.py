"""How fast an extraction is, and what its time goes into: the figures beside its progress."""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from time import perf_counter

__all__ = ["Pace", "add", "memory"]

_STAGES = ("read", "decode", "preprocess", "forward", "write")


class Pace:
    """Counts images and the seconds of every stage, summed over threads.

    Examples
    --------
    >>> pace = Pace()
    >>> figures = pace.figures(32, {"decode": 1.0, "forward": 3.0})
    >>> list(figures), figures["forward"]
    (['images/s', 'decode', 'forward'], '75 %')
    """

    def __init__(self) -> None:
        self._began, self._n_images = perf_counter(), 0
        self._seconds = defaultdict[str, float](float)

    def figures(self, n_images: int, seconds: Mapping[str, float]) -> dict[str, str | float]:
        """Count on, and return images per second and the share of each stage."""
        self._n_images += n_images
        add(self._seconds, seconds)
        total = sum(self._seconds.values()) or 1.0
        shares = {stage: f"{100 * self._seconds[stage] / total:.0f} %" for stage in _STAGES if stage in self._seconds}
        return {"images/s": self._n_images / (perf_counter() - self._began), **shares}


def add(seconds: MutableMapping[str, float], more: Mapping[str, float]) -> None:
    """Add the seconds of every stage."""
    for stage, spent in more.items():
        seconds[stage] = seconds.get(stage, 0.0) + spent


def memory(gpu_bytes: int) -> dict[str, str | float]:
    """Return the figure that shows what was taken of the memory of a GPU, where there is one.

    Examples
    --------
    >>> memory(1_500_000_000), memory(0)
    ({'GPU': '1.5 GB'}, {})
    """
    return {"GPU": f"{gpu_bytes / 1e9:.1f} GB"} if gpu_bytes else {}
