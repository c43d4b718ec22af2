"""AligNet: networks post-trained on the odd-one-out choices of a teacher that was aligned with human judgements.

DeepMind publishes eight networks as TensorFlow SavedModels, each before, after and after post-training on choices of a
teacher that was not aligned (``untransformed``, a control). For SigLIP 2 B/16 there is a public port to safetensors as
well (ViCCo-Group). This family reads both forms of SigLIP and SigLIP 2, whose code AligNet publishes.

The trunk is timm's ``vit_base_patch16_siglip_224`` with the tanh GELU of big_vision (the exact one would change the
embedding by up to 0.02). ``output`` is what AligNet calls ``pre_logits``: the attention-pooled vector; ``triplet_head``
is the 1024-d space the odd one out is chosen in. ``blocks.7`` is the stream after a block, as everywhere; the
SavedModel's own ``layer_7`` is the attention's share of it alone.

Random weights are those of ``torch.manual_seed(SEED)``, timm's constructor with ``pretrained=False, num_classes=0,
act_layer="gelu_tanh"``, then torch's own ``Linear(768, 1024)``, ``LayerNorm(768)`` and ``Linear(768, 1000)``.
"""

# isort: off
from dataclasses import replace
from typing import Any

import pipelines.encoders.torchvision_import  # noqa: F401  (before timm, which imports torchvision)
import timm

# isort: on
from torch import Tensor, nn

from pipelines.encoders.alignet_saved_model import from_saved_model, is_saved_model, read_variables
from pipelines.encoders.network import Network, construction, load_strictly
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.timm_family import describe
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["AligNet", "network"]


class AligNet(nn.Module):
    """The trunk and the heads it was post-trained with, under the names of the published file."""

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__()
        encoder: Any = timm.create_model(name, pretrained=False, num_classes=0, act_layer="gelu_tanh", **arguments)
        self.encoder, width = encoder, encoder.num_features
        self.triplet_head = nn.Linear(width, 1024)
        # The ImageNet head is never run: it is here so that every tensor of the file has its place.
        self.i1k_norm = nn.LayerNorm(width, eps=1e-6)
        self.i1k_head = nn.Linear(width, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) in [0, 1] into (n, dim)."""
        pooled: Tensor = self.encoder(images)
        self.triplet_head(pooled)  # 0.01 % of the work, and a layer that can be tapped
        return pooled


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of an ``alignet`` table."""
    arguments = dict(spec.model)
    with construction(weights, device if weights.seed is not None else "meta"):
        module = AligNet(arguments.pop("name"), **arguments)
    if weights.seed is None:
        file = weights.files[0]
        tensors = (
            from_saved_model(read_variables(file), module, file.name) if is_saved_model(file) else read_tensors(file)
        )
        load_strictly(module, tensors, file.name)
    trunk = describe(module, "encoder.")
    return replace(
        trunk,
        layers=(*trunk.layers[:-1], "triplet_head", "output"),
        path=lambda layer: layer if layer == "triplet_head" else f"encoder.{layer}",
    )
