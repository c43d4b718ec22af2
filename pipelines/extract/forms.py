"""In which form a network is computed: as its library makes it, or folded where that pays and changes nothing.

A probe decides, once per network and process: a few noisy images through both forms in turn. It looks at what the
network puts out in the end, so that no layer depends on which others are asked for. What a store recorded of a network
holds for all that is computed with it later, since the last bits depend on it. Not tried, because they never were
within the tolerance or never paid: bfloat16 (its rounding alone moves a row more than float16's) and `torch.compile`
(half a minute per network before the first image).
"""

from statistics import median
from time import perf_counter, thread_time

import torch

from pipelines.encoders.build import Encoder
from pipelines.progress import Progress

__all__ = ["choose_form", "settle_form"]

_LEAST_GAIN = 1.05
"""Of speed. What gains nothing was measured between 0.99 and 1.01, also on a busy computer."""
_TOLERANCE = 1e-4
"""Of the length of what is put out; rounding a row to float16 changes it by up to five times as much."""
_IMAGES, _TURNS = 2, 5
"""Images of a pass; passes of either form, in turn: what else the computer does then slows both."""
_found: dict[tuple[str, str, str], tuple[str, str]] = {}
"""What this process found out already: the form of a network, and why."""


def settle_form(encoder: Encoder, recorded: str, is_exact: bool, progress: Progress) -> None:
    """Bring an encoder into the form that a store recorded, else the one that pays; tell which and why."""
    if recorded == "folded":
        encoder.fold()
    elif not recorded and not is_exact:
        what = encoder.spec.id, encoder.weights, encoder.device
        if what not in _found:
            _found[what] = choose_form(encoder)
        elif _found[what][0] == "folded":
            encoder.fold()
        if reason := _found[what][1]:
            progress.say(f"{encoder.spec.id}: {reason}")
    encoder.keep_form()


def choose_form(encoder: Encoder) -> tuple[str, str]:
    """Leave an encoder in the faster form; return which one that is, and in a few words why."""
    if not encoder.convolves:
        return "plain", "computed as its library does, it has next to no convolutions"
    size = encoder.spec.preprocessing.size
    images = torch.rand(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0)).to(encoder.device)
    plain = encoder.output(images)
    encoder.fold()
    change = float((encoder.output(images) - plain).norm() / plain.norm().clamp(min=1e-30))
    if not change <= _TOLERANCE:  # nan as well
        encoder.unfold()
        return "plain", f"computed as its library does, folded it is off by {change:.0e}"
    gain = _gain(encoder, images)
    if gain < _LEAST_GAIN:
        encoder.unfold()
        return "plain", f"computed as its library does, folded it is only {gain:.2f} times as fast"
    encoder.fold()
    return "folded", f"norms folded and channels last, {gain:.2f} times as fast and {change:.0e} from its library"


def _gain(encoder: Encoder, images: torch.Tensor) -> float:
    """Return how many times as fast the folded form is: the median of passes in turn, on one thread."""
    threads, gains = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(_TURNS):
            encoder.unfold()
            plain = _seconds(encoder, images)
            encoder.fold()
            gains.append(plain / _seconds(encoder, images))
    finally:
        torch.set_num_threads(threads)
    return median(gains)


def _seconds(encoder: Encoder, images: torch.Tensor) -> float:
    """Return what a pass takes: of a CPU the time it was at work, so that who else is there counts little."""
    if encoder.device == "cpu":
        begun = thread_time()
        encoder.output(images)
        return thread_time() - begun
    encoder.output(images)  # weights that just came into another layout are moved by the first pass
    torch.cuda.synchronize()
    begun = perf_counter()
    encoder.output(images)
    torch.cuda.synchronize()
    return perf_counter() - begun
