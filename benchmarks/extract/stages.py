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

N_SAMPLE = 128  # images whose stages are timed

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
        spent = [turn.result() for turn in [threads.submit(_stages, source, networks) for _ in range(n_threads)]]
    return {stage: sum(one[stage] for one in spent) / n_threads for stage in spent[0]}


def _stages(source: ImageSource, networks: "Networks") -> dict[str, float]:
    """Do the work of some batches, one after the other as an extraction does, so that memory is used again; time it."""
    from pipelines.extract.images import DecodedImage, decode

    ids = list(source.stamps)[:: max(1, len(source.stamps) // N_SAMPLE)][:N_SAMPLE]
    transforms = networks.transforms(networks.names)
    places, n_batches = np.arange(BATCH), len(ids) // BATCH
    for number in (0, *range(n_batches)):  # the first batch twice: once to get everything ready
        if number == 0:
            spent = dict.fromkeys(("read", "decode", "preprocess", "forward"), 0.0)
        loaded = []
        for image_id in ids[number * BATCH : (number + 1) * BATCH]:
            data = _timed(spent, "read", lambda image_id=image_id: source.read(image_id))
            decoded = _timed(spent, "decode", lambda data=data: decode(data))  # hashes as well, a tenth of it
            assert isinstance(decoded, DecodedImage)
            see = {n: partial(transform, decoded) for n, (_, transform) in transforms.items()}
            tensors = _timed(spent, "preprocess", lambda see=see: {n: make() for n, make in see.items()})
            loaded.append(LoadedImage(decoded.sha256, tensors=tensors))
        _timed(spent, "forward", lambda loaded=loaded: networks(loaded, places, BATCH, networks.names))
    return {stage: seconds / (n_batches * BATCH) for stage, seconds in spent.items()}


def _timed(spent: dict[str, float], stage: str, work: Callable[[], Made]) -> Made:
    begun = time.thread_time()
    made = work()
    spent[stage] += time.thread_time() - begun
    return made
