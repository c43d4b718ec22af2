"""Networks of timm: ``model = { name = "vit_base_patch16_224.augreg_in1k", ... }``, the rest are its arguments.

Random weights are those of ``torch.manual_seed(SEED)`` followed by
``timm.create_model(name, pretrained=False, num_classes=0, ...)``: the classifier is never drawn. Published weights
are loaded strictly, with their classifier, by timm itself (which renames and resamples tensors as each architecture
needs), and the classifier is dropped afterwards.
"""

import pipelines.encoders.torchvision_import  # noqa: F401, I001  (before timm, which imports torchvision)
import timm
from torch import Tensor, nn

from pipelines.encoders.network import Network, construction
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.weights import Weights, read_tensors
from stores.errors import EmbedctlError

__all__ = ["describe", "network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``timm`` table."""
    arguments = {key: value for key, value in spec.model.items() if key != "name"}
    name = spec.model["name"]
    with construction(weights, device):
        if weights.seed is not None:
            module = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
        else:
            module = _published(name, arguments, weights)
    return describe(module)


def _published(name: str, arguments: dict, weights: Weights) -> nn.Module:
    tensors = read_tensors(weights.files[0])
    try:
        module = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors, "custom_load": False}, **arguments
        )
    except (RuntimeError, KeyError) as wrong:  # load_state_dict lists every tensor over many lines
        raise EmbedctlError(
            f"{weights.files[0].name} does not fit {name}: {' '.join(str(wrong).split())[:300]}",
            "these weights belong to another network; check the file",
        ) from wrong
    module.reset_classifier(0)
    return module


def describe(module: nn.Module, prefix: str = "") -> Network:
    """Name the layers of a timm network; ``prefix`` is where it sits inside the module that is run."""
    trunk = module.get_submodule(prefix.rstrip("."))
    names = dict(trunk.named_children())
    blocks: tuple[str, ...] = ()
    for group in ("blocks", "stages", "layers"):
        if isinstance(names.get(group), (nn.Sequential, nn.ModuleList)):
            blocks = tuple(f"{group}.{index}" for index in range(len(names[group])))
            break
    else:
        blocks = tuple(name for name in names if name.startswith("layer"))
    layers = (*blocks, *(name for name in ("norm", "fc_norm") if name in names), "output")
    return Network(
        module,
        layers=layers,
        blocks=blocks,
        n_prefix=int(getattr(trunk, "num_prefix_tokens", 0)) if getattr(trunk, "cls_token", None) is not None else 0,
        path=lambda layer: prefix + layer,
        to_rows=_channels_first if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else _as_is,
    )


def _as_is(module: nn.Module, x: Tensor) -> Tensor:
    return x


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    """Swin keeps maps as (n, row, column, dim)."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x
