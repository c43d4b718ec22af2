"""What the stages of an extraction cost, each alone on one thread."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from benchmarks.extract.measuring import BATCH
from pipelines.extract.loading import LoadedImage
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import ImageSource, open_images
from pipelines.extract.targets import choose_targets

if TYPE_CHECKING:
    from pipelines.extract.forward import Networks

_STAGES = "read", "decode", "preprocess", "forward"
_LEAST_IMAGES, _LEAST_SECONDS = 256, 8.0
"""That are timed, as far as there are images: neighbours, since copies of a few photographs come in turn and every
fifteenth may be the same few; and many of a fast network, since an extraction finds no file in a processor's cache."""

Made = TypeVar("Made")


def stages(request: ExtractRequest, n_threads: int = 1) -> dict[str, float]:
    """Return the CPU-seconds per image of every stage at the settings of an extraction, on one thread or more at once.

    That is: in threads of their own, on memory that is kept. On memory that is asked for anew in every batch a network
    takes up to a quarter longer, and the stages would allow less than an extraction reaches.
    """
    from pipelines.allocator import kept_memory
    from pipelines.cores import workers
    from pipelines.extract.forward import build_networks

    networks = build_networks(request, choose_targets(request, []))
    with kept_memory(), networks.own_threads() as begin, workers(n_threads, begin) as threads:
        source = open_images(request.images)
        turns = [threads.submit(_stages, source, networks, number / n_threads) for number in range(n_threads)]
        spent = [turn.result() for turn in turns]
    return {stage: sum(one[stage] for one in spent) / n_threads for stage in spent[0]}


def _stages(source: ImageSource, networks: "Networks", begin: float) -> dict[str, float]:
    """Do the work of some batches, one after the other as an extraction does, so that memory is used again; time it.

    ``begin`` is the share of all images that come last: threads do not find each other's files in a cache.
    """
    ids = list(source.stamps)
    batches = [ids[first : first + BATCH] for first in range(0, len(ids) - BATCH + 1, BATCH)]
    batches = batches[int(begin * len(batches)) :] + batches[: int(begin * len(batches))]
    spent, n_images = dict.fromkeys(_STAGES, 0.0), 0
    _compute(batches[-1], source, networks, spent.copy())  # to get everything ready
    for batch in batches:
        if n_images < _LEAST_IMAGES or sum(spent.values()) < _LEAST_SECONDS:
            _compute(batch, source, networks, spent)
            n_images += BATCH
    return {stage: seconds / n_images for stage, seconds in spent.items()}


def _compute(ids: list[str], source: ImageSource, networks: "Networks", spent: dict[str, float]) -> None:
    """Do the work of one batch, and add the seconds of its stages."""
    from pipelines.extract.images import DecodedImage, decode

    transforms = networks.transforms(networks.names)
    loaded = []
    for image_id in ids:
        data = _timed(spent, "read", lambda image_id=image_id: source.read(image_id))
        decoded = _timed(spent, "decode", lambda data=data: decode(data))  # hashes as well, a tenth of it
        assert isinstance(decoded, DecodedImage)
        see = {n: partial(transform, decoded) for n, (_, transform) in transforms.items()}
        tensors = _timed(spent, "preprocess", lambda see=see: {n: make() for n, make in see.items()})
        loaded.append(LoadedImage(decoded.sha256, tensors=tensors))
    _timed(spent, "forward", lambda: networks(loaded, np.arange(BATCH), BATCH, networks.names))


def _timed(spent: dict[str, float], stage: str, work: Callable[[], Made]) -> Made:
    begun = time.thread_time()
    made = work()
    spent[stage] += time.thread_time() - begun
    return made
