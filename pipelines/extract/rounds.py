"""Which encoders share a pass over the images when not all of them fit into the memory there is.

What a round takes is the weights of its encoders, which stay in every process that computes, and the largest step of a
forward pass among them, since they run one after the other: once for every batch that is computed at the same time.
Both are found out without making a weight, on torch's ``meta`` device.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from pipelines.cores import n_cores
from pipelines.encoders.registry import find
from pipelines.extract.request import ExtractRequest
from pipelines.extract.targets import Target, choose_targets, resolve_names
from pipelines.progress import Progress
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError

__all__ = ["Footprint", "into_rounds", "rounds"]


class Footprint(NamedTuple):
    """Bytes of an encoder's weights, and of the largest step of its forward pass."""

    weights: int
    step: int


def rounds(request: ExtractRequest, progress: Progress) -> list[ExtractRequest]:
    """Split a pass over the images into as few as fit into ``request.memory_budget``.

    Raises
    ------
    EmbedctlError
        If one encoder alone is larger.
    """
    if request.memory_budget is None:
        return [request]
    from pipelines.encoders.build import build  # torch: only a network knows its size
    from pipelines.extract.forward import choose_device

    names = resolve_names(request)
    store = EmbeddingStore.find(request.store)
    entries = store.entries() if store else []
    targets: dict[str, list[Target]] = {}
    for encoder in dict.fromkeys(name.encoder for name in names):
        mine = tuple(str(name) for name in names if name.encoder == encoder)
        alone = replace(request, models=mine, layers=(), views=())
        targets[encoder] = choose_targets(alone, entries, progress=progress)
    # What is new may take the size that the store recorded of something else.
    batch_size = max(target.batch_size for mine in targets.values() for target in mine)
    n_processes = max(1, request.workers)
    each = max(1, n_cores() // n_processes) if choose_device(request.device) == "cpu" else 1
    footprints = {}
    for encoder, known in targets.items():
        taps = [target.name for target in known]
        weights, step = build(find(encoder), weights="random:0", taps=taps, device="meta").footprint()
        n_networks = len({target.form for target in known}) * n_processes
        footprints[encoder] = Footprint(weights * n_networks, step * batch_size * each * n_processes)
    found = into_rounds(footprints, request.memory_budget)
    if len(found) > 1:
        progress.say(f"{len(footprints)} encoders in {len(found)} rounds, each a pass over the images")
    return [
        replace(request, models=tuple(str(n) for n in names if n.encoder in encoders), layers=(), views=())
        for encoders in found
    ]


def into_rounds(footprints: Mapping[str, Footprint], budget: int) -> list[list[str]]:
    """Put encoders into rounds of at most ``budget`` bytes, each into the first it fits into, the largest first.

    Examples
    --------
    >>> into_rounds({"a": Footprint(30, 10), "b": Footprint(60, 5), "c": Footprint(20, 30)}, budget=100)
    [['b', 'a'], ['c']]
    """
    found: list[list[str]] = []
    for encoder in sorted(footprints, key=lambda encoder: -sum(footprints[encoder])):
        if sum(footprints[encoder]) > budget:
            raise EmbedctlError(
                f"'{encoder}' alone takes {sum(footprints[encoder]) / 1e6:.0f} MB",
                "raise --memory-budget; a new store may take a lower --batch-size",
            )
        fitting = (together for together in found if _bytes(footprints, [*together, encoder]) <= budget)
        if (together := next(fitting, None)) is None:
            found.append([encoder])
        else:
            together.append(encoder)
    return found


def _bytes(footprints: Mapping[str, Footprint], encoders: list[str]) -> int:
    mine = [footprints[encoder] for encoder in encoders]
    return sum(one.weights for one in mine) + max(one.step for one in mine)
