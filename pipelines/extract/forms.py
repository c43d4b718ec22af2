"""In which form a network is computed: as its library makes it, or in another where that pays and changes nothing.

A probe decides, once per network and process: a few noisy images through all forms in turn. It looks at what the
network puts out in the end, so that no layer depends on which others are asked for. What a store recorded of a network
holds for all that is computed with it later, since the last bits depend on it. Not tried, because they never were
within the tolerance or never paid: bfloat16 (its rounding alone moves a row more than float16's) and `torch.compile`
(half a minute per network before the first image).
"""

from collections import defaultdict
from collections.abc import Sequence
from operator import truediv
from statistics import median
from time import perf_counter, thread_time

import torch

from pipelines.allocator import kept_memory
from pipelines.encoders.build import Encoder
from pipelines.progress import Progress
from stores.errors import StoreMismatch

__all__ = ["choose_form", "settle_form"]

_LEAST_GAIN = 1.08
"""Of speed, over the form before it: between what gains nothing (0.95 to 1.07 on a busy computer) and what gains the
least of all that do (1.10), so that stores hardly ever come to different forms."""
_TOLERANCE = 1e-4
"""Of the length of what is put out; rounding a row to float16 changes it by up to five times as much."""
_IMAGES, _FEW = 4, 2
"""Of a pass at most, and where two tell as much."""
_TURNS, _MOST, _ENOUGH = 3, 15, 0.5
"""Passes of every form in turn, so that what else the computer does slows all: so many at least, and more of a small
network, whose passes are as short as what gets in their way, until it has computed for half a second."""
_SAID = {
    "folded": "norms folded and channels last",
    "winograd": "norms folded, channels last and wide 3 x 3 convolutions in Winograd's way",
}
_found: dict[tuple[str, str, str, int], tuple[str, str]] = {}
"""What this process found out already: the form of a network at a number of images, and why."""


def settle_form(encoder: Encoder, recorded: str, is_exact: bool, batch_size: int, progress: Progress) -> None:
    """Bring an encoder into the form that a store recorded, else the one that pays; tell which and why."""
    if recorded and recorded not in encoder.forms:
        raise StoreMismatch(
            f"the store records '{recorded}' of '{encoder.spec.id}', which has no such form on {encoder.device}",
            "--overwrite computes every row again",
        )
    if recorded:
        encoder.take(recorded)
    elif not is_exact:
        what = encoder.spec.id, encoder.weights, encoder.device, min(_IMAGES, batch_size)
        if what not in _found:
            _found[what] = choose_form(encoder, what[-1])
        form, reason = _found[what]
        encoder.take(form)
        if reason:
            progress.say(f"{encoder.spec.id}: {reason}")
    encoder.keep_form()


def choose_form(encoder: Encoder, n_images: int) -> tuple[str, str]:
    """Return the fastest form of an encoder for passes of some images or more, and in a few words why."""
    if encoder.weights == "none":  # no network
        return "plain", ""
    if not encoder.convolves:
        return "plain", "computed as its library does, it has next to no convolutions"
    size = encoder.spec.preprocessing.size
    images = torch.rand(n_images, 3, size, size, generator=torch.Generator().manual_seed(0)).to(encoder.device)
    changes = _changes(encoder, images[:_FEW])
    close = [form for form in encoder.forms if form == "plain" or changes[form] <= _TOLERANCE]  # nan is not
    gains = _gains(encoder, images, close)
    best = "plain"
    for form in close:
        if gains[form] >= _LEAST_GAIN * gains[best]:
            best = form
    if best != "plain":
        return best, f"{_SAID[best]}, {gains[best]:.2f} times as fast and {changes[best]:.0e} from its library"
    if "folded" not in close:
        return best, f"computed as its library does, folded it is off by {changes['folded']:.0e}"
    return best, f"computed as its library does, folded it is only {gains['folded']:.2f} times as fast"


def _changes(encoder: Encoder, images: torch.Tensor) -> dict[str, float]:
    """Return how far every form moves what is put out, as a share of its length."""
    out = {}
    for form in encoder.forms:
        encoder.take(form)
        out[form] = encoder.output(images)
    length = out["plain"].norm().clamp(min=1e-30)
    return {form: float((rows - out["plain"]).norm() / length) for form, rows in out.items()}


def _gains(encoder: Encoder, images: torch.Tensor, forms: Sequence[str]) -> dict[str, float]:
    """Return how many times as fast as the library's each form is: the median of passes in turn, on one thread."""
    threads, taken = torch.get_num_threads(), defaultdict[str, list[float]](list)
    torch.set_num_threads(1)
    try:
        with kept_memory():
            while len(taken["plain"]) < _TURNS or (sum(taken["plain"]) < _ENOUGH and len(taken["plain"]) < _MOST):
                for form in forms:
                    encoder.take(form)
                    taken[form].append(_seconds(encoder, images))
    finally:
        torch.set_num_threads(threads)
    return {form: median(map(truediv, taken["plain"], taken[form])) for form in forms}


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
