"""Networks built after the ventral stream: ``model = { name = "cornet-s" }`` or ``"vonenet-resnet50"``.

There is no library for them, so random weights are those of ``torch.manual_seed(SEED)`` followed by the constructors
here, in which torch's and torchvision's own layers draw (V1's filters, too, are then no Gabors).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pipelines.encoders.cornet import CORnetS
from pipelines.encoders.network import Network, construction, load_strictly, state_dict
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.vonenet import VOneResNet50
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["network"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to construct a network, and which of its modules are areas or stages of equal rank."""

    construct: Callable[[], nn.Module]
    areas: tuple[str, ...]
    prefix: str = ""


ARCHITECTURES = {
    "cornet-s": Architecture(CORnetS, ("V1", "V2", "V4", "IT")),
    "vonenet-resnet50": Architecture(
        VOneResNet50, ("vone_block", "layer1", "layer2", "layer3", "layer4"), prefix="model."
    ),
}


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``brain_like`` table."""
    architecture = ARCHITECTURES[spec.model["name"]]
    with construction(weights, device if weights.seed is not None else "meta"):
        module = architecture.construct()
    if weights.seed is None:
        file = weights.files[0]
        tensors = state_dict(read_tensors(file), "module.")
        # Batch norms of before PyTorch 0.4.1 do not count their batches, and nobody reads the count.
        counts = {name: torch.tensor(0) for name in module.state_dict() if name.endswith("num_batches_tracked")}
        load_strictly(module, {**counts, **tensors}, file.name)
    return Network(
        module,
        layers=(*architecture.areas, "output"),
        blocks=architecture.areas,
        path=lambda layer: architecture.prefix + layer if layer.startswith("layer") else layer,
    )
