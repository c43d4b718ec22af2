"""Image towers of open_clip: ``model = { name = "ViT-B-32-quickgelu" }``.

Random weights are those of ``torch.manual_seed(SEED)`` followed by ``open_clip.create_model(name)``, of which the
image tower ``.visual`` is kept; its ``output`` is the projected image embedding. Layers carry timm's names:
``blocks.7`` is ``transformer.resblocks.7`` of open_clip's own towers and ``trunk.blocks.7`` of timm towers.

The activation belongs to the name of the architecture: weights trained with QuickGELU under a name without
``-quickgelu`` give plausible, wrong embeddings, and open_clip only warns. `network` never passes a tag to open_clip;
a test compares the activation of every row with open_clip's own table, and any warning while building is an error.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import open_clip
from torch import Tensor, nn

import pipelines.encoders.torchvision_import  # noqa: F401, I001  (before open_clip, which imports torchvision)
from pipelines.encoders.network import Network, construction, load_strictly
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.timm_family import describe
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the image tower of an ``open_clip`` table."""
    arguments = {key: value for key, value in spec.model.items() if key != "name"}
    with _silent_but_strict(), construction(weights, device):
        model = open_clip.create_model(
            spec.model["name"], pretrained=None, load_weights=False, device=device, **arguments
        )
    if weights.seed is None:
        load_strictly(model, read_tensors(weights.files[0]), weights.files[0].name)
    return _describe(model.visual)


@contextmanager
def _silent_but_strict() -> Iterator[None]:
    """Mute the line that the model is random (it is meant to be); turn warnings into errors."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*QuickGELU.*")
            yield
    finally:
        root.setLevel(level)


def _describe(visual: nn.Module) -> Network:
    if hasattr(visual, "trunk"):  # TimmModel: SigLIP, ConvNeXt, EVA, PE, MobileCLIP
        return describe(visual, "trunk.")
    if hasattr(visual, "layer1"):  # ModifiedResNet
        blocks = ("layer1", "layer2", "layer3", "layer4")
        return Network(visual, layers=(*blocks, "attnpool", "output"), blocks=blocks)
    blocks = tuple(f"blocks.{index}" for index in range(len(visual.transformer.resblocks)))
    return Network(
        visual,
        layers=(*blocks, "ln_post", "output"),
        blocks=blocks,
        n_prefix=1,
        path=lambda layer: (
            layer.replace("blocks.", "transformer.resblocks.", 1) if layer.startswith("blocks.") else layer
        ),
        to_rows=_tokens_second if not visual.transformer.batch_first else lambda module, x: x,
    )


def _tokens_second(module: nn.Module, x: Tensor) -> Tensor:
    """Older towers run blocks on (token, n, dim)."""
    return x.transpose(0, 1) if x.ndim == 3 and "Residual" in type(module).__name__ else x
