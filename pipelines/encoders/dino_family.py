"""DINO and DINOv2 from Meta's own files: ``model = { name = "vit_base_patch14_dinov2.lvd142m", img_size = 224 }``.

The same networks are in timm, but timm resamples the position embedding of DINOv2 in another way than the torch.hub
code that gLocal and DreamSim were fitted on; see `interpolate_position_embedding`. The layers are timm's. Random
weights are those of ``torch.manual_seed(SEED)`` followed by ``timm.create_model(name, pretrained=False,
num_classes=0, ...)``.
"""

# isort: off
from collections.abc import Mapping
from typing import Any

import pipelines.encoders.torchvision_import  # noqa: F401  (before timm, which imports torchvision)
import timm

# isort: on
import torch
from torch import Tensor, nn

from pipelines.encoders.network import Network, construction, load_strictly
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.timm_family import describe
from pipelines.encoders.weights import Weights, read_tensors

__all__ = ["from_meta", "interpolate_position_embedding", "network"]


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``dino`` table."""
    with construction(weights, device if weights.seed is not None else "meta"):
        module = timm.create_model(**{"pretrained": False, "num_classes": 0, **_arguments(spec.model)})
    if weights.seed is None:
        file = weights.files[0]
        load_strictly(module, from_meta(read_tensors(file), module), file.name)
    return describe(module)


def _arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_name" if key == "name" else key: value for key, value in model.items()}


def from_meta(checkpoint: Mapping[str, Any], module: Any) -> dict[str, Tensor]:
    """Turn the tensors of a hub checkpoint into those of the timm network, whose names come from there.

    ``mask_token`` is used in training only.
    """
    tensors = {name: tensor for name, tensor in checkpoint.items() if name != "mask_token"}
    wanted = module.pos_embed.shape[1]
    if "pos_embed" in tensors and tensors["pos_embed"].shape[1] != wanted:
        tensors["pos_embed"] = interpolate_position_embedding(tensors["pos_embed"], grid=round((wanted - 1) ** 0.5))
    return tensors


def interpolate_position_embedding(pos_embed: Tensor, grid: int) -> Tensor:
    """Resample a learned position embedding as Meta's hub code for DINOv2 does.

    timm resamples with antialiasing and by size. The hub uses plain bicubic interpolation and a scale factor of
    ``(grid + 0.1) / old``, whose 0.1 shifts every sampling point: the two differ by 5 to 80 % of the embedding,
    depending on how smooth it is.

    Parameters
    ----------
    pos_embed : (1, 1 + old * old, width)
        Class token first.
    grid : int
        Number of patches per side wanted.

    Returns
    -------
    (1, 1 + grid * grid, width)

    Examples
    --------
    >>> interpolate_position_embedding(torch.ones(1, 1 + 37 * 37, 8), grid=16).shape
    torch.Size([1, 257, 8])
    """
    token, patches = pos_embed[:, :1].float(), pos_embed[:, 1:].float()
    old = round(patches.shape[1] ** 0.5)
    plane = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    scale = (grid + 0.1) / old
    plane = nn.functional.interpolate(plane, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([token, plane.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], dim=1)
