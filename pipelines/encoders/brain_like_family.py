"""Networks built after the ventral stream: ``model = { name = "cornet-s" }``, ``"vonenet-resnet50"``, others below.

There is no library for them, so random weights are those of ``torch.manual_seed(SEED)`` followed by the constructors
here, in which torch's and torchvision's own layers draw (V1's filters, too, are then no Gabors).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pipelines.encoders.cornet import CORnetR, CORnetS, CORnetZ
from pipelines.encoders.network import Network, construction, load_strictly, state_dict
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.vonenet import VOneNet, alexnet_behind_v1, cornet_s_behind_v1, resnet50_behind_v1
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["network"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to construct a network, and which of its modules, by their paths, are areas or stages of equal rank."""

    construct: Callable[[], nn.Module]
    areas: tuple[str, ...]


AREAS = ("V1", "V2", "V4", "IT")
ARCHITECTURES = {
    "cornet-z": Architecture(CORnetZ, AREAS),
    "cornet-r": Architecture(partial(CORnetR, delayed=False), AREAS),
    "cornet-rt": Architecture(partial(CORnetR, delayed=True), AREAS),
    "cornet-s": Architecture(CORnetS, AREAS),
    "vonenet-resnet50": Architecture(
        partial(VOneNet, resnet50_behind_v1), ("vone_block", *(f"model.layer{number}" for number in (1, 2, 3, 4)))
    ),
    "vonenet-alexnet": Architecture(partial(VOneNet, alexnet_behind_v1), ("vone_block", "model.features")),
    "vonenet-cornets": Architecture(
        partial(VOneNet, cornet_s_behind_v1), ("vone_block", "model.V2", "model.V4", "model.IT")
    ),
}
# Buffers of the attack that one VOneNet was trained against, kept in its file.
LEFT_BEHIND = {"vone_block.div_u.weight", "vone_block.div_t.weight"}


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``brain_like`` table."""
    architecture = ARCHITECTURES[spec.model["name"]]
    with construction(weights, device if weights.seed is not None else "meta"):
        module = architecture.construct()
    if weights.seed is None:
        file = weights.files[0]
        tensors = state_dict(read_tensors(file))
        if all(name.startswith("module.") for name in tensors):  # DataParallel's, in all files but one
            tensors = state_dict(tensors, "module.")
        tensors = {name: tensor for name, tensor in tensors.items() if name not in LEFT_BEHIND}
        # Batch norms of before PyTorch 0.4.1 do not count their batches, and nobody reads the count.
        counts = {name: torch.tensor(0) for name in module.state_dict() if name.endswith("num_batches_tracked")}
        load_strictly(module, {**counts, **tensors}, file.name)
    by_layer = {area.removeprefix("model."): area for area in architecture.areas}
    return Network(
        module, layers=(*by_layer, "output"), blocks=tuple(by_layer), path=lambda layer: by_layer.get(layer, layer)
    )
