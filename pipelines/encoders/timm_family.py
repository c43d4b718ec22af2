"""Networks of timm: ``model = { name = "vit_base_patch16_224.augreg_in1k", ... }``, the rest are its arguments.

Random weights are those of ``torch.manual_seed(SEED)`` followed by
``timm.create_model(name, pretrained=False, num_classes=0, ...)``: the classifier is never drawn. Published weights
are loaded strictly by timm itself, which renames and resamples tensors as each architecture needs; the classifier
(``num_classes``, where it is not the published one) is loaded too and dropped afterwards. A checkpoint from elsewhere
in timm's own names is marked by ``tensors_under = "module.visual."``: the tensors under that prefix must be exactly
those of the network.
"""

# isort: off
from typing import Any

import pipelines.encoders.torchvision_import  # noqa: F401  (before timm, which imports torchvision)
import timm

# isort: on
from torch import Tensor, nn

from pipelines.encoders.network import Network, construction, load_strictly, state_dict
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.weights import Weights, read_tensors
from stores.errors import EmbedctlError

__all__ = ["describe", "network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``timm`` table."""
    arguments = dict(spec.model)
    name, prefix = arguments.pop("name"), arguments.pop("tensors_under", None)
    if weights.seed is None and prefix is None:
        return describe(_published(name, arguments, weights))
    with construction(weights, device):
        module = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0})
    if weights.seed is None:
        file = weights.files[0]
        load_strictly(module, state_dict(read_tensors(file), prefix), file.name)
    return describe(module)


def _published(name: str, arguments: dict[str, Any], weights: Weights) -> nn.Module:
    module: nn.Module
    file = weights.files[0]
    overlay = {"state_dict": read_tensors(file), "custom_load": False}
    if "num_classes" in arguments:  # timm loads without strictness what it thinks has another classifier
        overlay["num_classes"] = arguments["num_classes"]
    try:
        with construction(weights):
            module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (RuntimeError, KeyError, AttributeError, AssertionError) as wrong:  # load_state_dict lists every tensor
        raise EmbedctlError(
            f"{file.name} does not fit {name}: {' '.join(str(wrong).split())[:300]}",
            "these weights belong to another network; check the file",
        ) from wrong
    module.reset_classifier(0)  # type: ignore[operator]
    return module


def describe(module: nn.Module, prefix: str = "") -> Network:
    """Name the layers of a timm network; ``prefix`` is where it sits inside the module that is run."""
    trunk: Any = module.get_submodule(prefix.rstrip("."))
    children = dict(trunk.named_children())
    blocks = tuple(name for name in children if name.startswith("layer") and name != "layers")  # ResNets
    for group in ("blocks", "stages", "layers", "features"):
        if isinstance(children.get(group), (nn.Sequential, nn.ModuleList)):
            blocks = tuple(f"{group}.{index}" for index in range(len(children[group])))
    after = [name for name in ("norm", "fc_norm", "pre_logits", "attn_pool") if name in children]
    return Network(
        module,
        layers=(*blocks, *(name for name in after if not isinstance(children[name], nn.Identity)), "output"),
        blocks=blocks,
        n_prefix=int(getattr(trunk, "num_prefix_tokens", 0)),
        has_cls=getattr(trunk, "cls_token", None) is not None,
        path=lambda layer: prefix + layer,
        to_rows=_channels_first if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else _as_is,
    )


def _as_is(module: nn.Module, x: Tensor) -> Tensor:
    return x


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    """Swin keeps maps as (n, row, column, dim)."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x
