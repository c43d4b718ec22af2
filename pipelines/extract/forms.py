"""In which form a network is computed: as its library makes it, or folded where that pays and changes nothing.

A probe decides, once per network and process: a few noisy images through both forms. What a store recorded of its
rows holds for all later ones, since the last bits depend on it. Not tried, because they never were within the
tolerance or never paid: bfloat16 (its rounding alone moves a row more than float16's) and `torch.compile` (half a
minute per network before the first image).
"""

from time import perf_counter, thread_time

import torch

from pipelines.encoders.build import Encoder
from pipelines.progress import Progress
from stores.names import EmbeddingName

__all__ = ["choose_form", "settle_form"]

_LEAST_GAIN = 1.1
"""Of speed; below it a busy computer could decide otherwise tomorrow."""
_TOLERANCE = 1e-4
"""Of the length of a row; rounding it to float16 changes it by up to five times as much."""
_IMAGES, _TIMES, _SECONDS = 2, 3, 0.2
"""A form is timed so many times and so long, whichever is more."""
_found: dict[tuple[str, str, str, tuple[EmbeddingName, ...]], tuple[str, str]] = {}
"""What this process found out already: the form of a network, and why."""


def settle_form(encoder: Encoder, recorded: str, is_exact: bool, progress: Progress) -> None:
    """Bring an encoder into the form that a store recorded, else the one that pays; tell which and why."""
    if recorded == "folded":
        encoder.fold()
    elif not recorded and not is_exact:
        what = encoder.spec.id, encoder.weights, encoder.device, tuple(encoder.taps)
        if what not in _found:
            _found[what] = choose_form(encoder)
        elif _found[what][0] == "folded":
            encoder.fold()
        if reason := _found[what][1]:
            progress.say(f"{encoder.spec.id}: {reason}")


def choose_form(encoder: Encoder) -> tuple[str, str]:
    """Leave an encoder in the faster form; return which one that is, and in a few words why if there was a choice."""
    size = encoder.spec.preprocessing.size
    images = torch.rand(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0)).to(encoder.device)
    if not encoder.convolves:
        return "plain", ""
    plain, slow = _run(encoder, images)
    unfold = encoder.fold()
    folded, fast = _run(encoder, images)
    change = max(float((folded[tap] - rows).norm() / rows.norm().clamp(min=1e-30)) for tap, rows in plain.items())
    if change <= _TOLERANCE and slow >= _LEAST_GAIN * fast:
        gain = f"{slow / fast:.2f} times as fast and {change:.0e} from its library"
        return "folded", f"norms folded and channels last, {gain}"
    unfold()
    why = f"only {slow / fast:.2f} times as fast" if change <= _TOLERANCE else f"off by {change:.0e} of a row"
    return "plain", f"computed as its library does, folded it is {why}"


def _run(encoder: Encoder, images: torch.Tensor) -> tuple[dict[EmbeddingName, torch.Tensor], float]:
    """Return the rows of a pass, and the seconds of the fastest of some."""
    rows = encoder(images)
    seconds: list[float] = []
    on_cpu = encoder.device == "cpu"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while len(seconds) < _TIMES or sum(seconds) < _SECONDS:
            begun = thread_time() if on_cpu else perf_counter()
            encoder(images)
            if not on_cpu:
                torch.cuda.synchronize()
            seconds.append((thread_time() if on_cpu else perf_counter()) - begun)
    finally:
        torch.set_num_threads(threads)
    return rows, min(seconds)
