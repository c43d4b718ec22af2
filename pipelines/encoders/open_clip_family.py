"""Image towers of open_clip: ``model = { name = "ViT-B-32-quickgelu" }``.

Random weights are those of ``torch.manual_seed(SEED)`` followed by ``open_clip.create_model(name)``, of which the
image tower ``.visual`` is kept; its ``output`` is the projected image embedding. Layers carry timm's names:
``blocks.7`` is ``transformer.resblocks.7`` of open_clip's own towers and ``trunk.blocks.7`` of timm towers.
``image_tower_alone = true`` marks weights of the image tower without its text tower.

The activation belongs to the name of the architecture: weights trained with QuickGELU under a name without
``-quickgelu`` give plausible, wrong embeddings, and open_clip only warns. Here its warning is an error; and because
`network` never passes a tag to open_clip, which then cannot warn, it compares the activation with open_clip's own
table of published weights itself.
"""

# isort: off
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pipelines.encoders.torchvision_import  # noqa: F401  (before open_clip, which imports torchvision)
import open_clip
from open_clip.factory import convert_state_dict, convert_to_custom_text_state_dict

# isort: on
from torch import Tensor, nn

from pipelines.encoders.network import Network, construction, load_strictly, state_dict
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.timm_family import describe
from pipelines.encoders.weights import Weights, read_tensors
from stores.errors import EmbedctlError

__all__ = ["network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the image tower of an ``open_clip`` table."""
    _refuse_another_activation(spec, weights.label.removeprefix("sha256:"))
    arguments = {key: value for key, value in spec.model.items() if key not in ("name", "image_tower_alone")}
    with _silent_but_strict(), construction(weights, device):
        model = open_clip.create_model(
            spec.model["name"], pretrained=None, load_weights=False, device=device, **arguments
        )
    if weights.seed is None:
        file = weights.files[0]
        if spec.model.get("image_tower_alone"):
            load_strictly(model.visual, state_dict(read_tensors(file)), file.name)
        else:
            load_strictly(model, _in_todays_names(model, read_tensors(file)), file.name)
    return _describe(model.visual)


def _refuse_another_activation(spec: EncoderSpec, digest: str) -> None:
    """Refuse a table, a third party's perhaps, whose weights open_clip knows to be trained with another activation.

    Its addresses hold the digest, or the first eight digits of it: so a file given by hand is known as well.
    """
    name = spec.model["name"]
    here = bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))
    published = {(file.url or file.hub) for file in spec.weights}
    trained = {
        bool(config.get("quick_gelu"))
        for tags in open_clip.pretrained._PRETRAINED.values()
        for config in tags.values()
        if {config.get("url"), config.get("hf_hub", "").rstrip("/")} & (published - {""})
        or (len(digest) == 64 and digest[:8] in (config.get("url") or ""))
    }
    if trained and here not in trained:
        activation = "QuickGELU" if not here else "exact GELU"
        rename = f"{name}-quickgelu" if not here else name.removesuffix("-quickgelu")
        raise EmbedctlError(
            f"the weights of '{spec.id}' were trained with {activation}, and '{name}' computes another activation",
            f'write model = {{ name = "{rename}" }} in its table',
        )


def _in_todays_names(model: Any, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Rename the tensors of older checkpoints, as ``open_clip.factory.load_checkpoint`` does."""
    tensors = {name: x for name, x in state_dict(checkpoint).items() if name not in _NOT_TENSORS}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = state_dict(tensors, "module.")
    tensors = dict(convert_state_dict(model, tensors))
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    tensors.pop("text.transformer.embeddings.position_ids", None)  # stored by old versions of transformers
    for name in ("logit_scale", "logit_bias"):
        if name in tensors and getattr(model, name, None) is not None:
            tensors[name] = tensors[name].reshape(getattr(model, name).shape)
    return tensors


_NOT_TENSORS = {"input_resolution", "context_length", "vocab_size"}  # numbers OpenAI stored beside its weights


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


def _describe(visual: Any) -> Network:
    if hasattr(visual, "trunk"):  # TimmModel: SigLIP, ConvNeXt, EVA, PE, MobileCLIP
        return describe(visual, "trunk.")
    if hasattr(visual, "layer1"):  # ModifiedResNet
        stages = ("layer1", "layer2", "layer3", "layer4")
        return Network(visual, layers=(*stages, "attnpool", "output"), blocks=stages)
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
