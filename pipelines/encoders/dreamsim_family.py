"""DreamSim without its package: a LoRA adapter merged into timm vision transformers.

``model = { branches = ["dino_vitb16"], adapter = "dino_vitb16_single_lora", rank = 16, alpha = 32.0 }``; without an
adapter it is the base the alignment started from, at the same tap and pixels. Weights are the zip DreamSim
publishes, or the folder it unpacks to. DreamSim (0.2.1) takes DINO and DINOv2 themselves from torch.hub, not from
its zip: their file is the second one of the table, or lies under ``checkpoints/`` where torch.hub leaves it.

``--weights random:SEED``, for every branch in turn: ``torch.manual_seed(SEED)``; timm's constructor
(``pretrained=False``, ``num_classes=512`` for CLIP and 0 else); then, with an adapter, its A and B block by block
(see `random_adapter`). An aligned encoder and its base therefore share their trunk, and a branch of the ensemble is
the network it is on its own. (timm starts DINOv2 with layer scales of 1e-5, so that a random one is hardly more than
its class token, aligned or not.)
"""

# isort: off
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pipelines.encoders.torchvision_import  # noqa: F401  (before timm, which imports torchvision)
import timm

# isort: on
import torch
from torch import Tensor, nn

from pipelines.encoders.checkpoint import Checkpoint
from pipelines.encoders.dino_family import from_meta
from pipelines.encoders.lora import merge, random_adapter, read_adapters
from pipelines.encoders.network import Network, construction, load_strictly
from pipelines.encoders.registry import NORMS, EncoderSpec
from pipelines.encoders.timm_family import describe
from pipelines.encoders.weights import Weights
from stores.errors import EmbedctlError, NotHere

__all__ = ["TRUNKS", "Trunk", "network"]


@dataclass(frozen=True, slots=True)
class Trunk:
    """One of the networks DreamSim is made of.

    Parameters
    ----------
    arch : str
        Architecture in timm.
    file : str
        Where its tensors lie in the checkpoint.
    convert : callable
        From the tensors of that file, and the network, to the state dict of the network.
    norm : str
        Mean and standard deviation of its input.
    options : dict
        Further arguments of `timm.create_model`.
    """

    arch: str
    file: str
    convert: Callable[[Mapping[str, Any], nn.Module], dict[str, Tensor]]
    norm: str = "imagenet"
    options: Mapping[str, Any] = field(default_factory=lambda: {"num_classes": 0})

    def construct(self) -> Any:
        """Build the network with timm's constructor, and the bias DreamSim's port of CLIP has on top of it."""
        module: Any = timm.create_model(self.arch, pretrained=False, **self.options)
        patches = module.patch_embed.proj
        if patches.bias is None:
            patches.bias = nn.Parameter(patches.weight.new_zeros(patches.out_channels))
        return module


def from_synclr(checkpoint: Mapping[str, Any], module: nn.Module) -> dict[str, Tensor]:
    """Take the visual tower out of a training checkpoint of SynCLR."""
    return {name.removeprefix("module.visual."): tensor for name, tensor in checkpoint["model"].items()}


def from_clip(checkpoint: Mapping[str, Any], module: nn.Module) -> dict[str, Tensor]:
    """Undo DreamSim's disguise of CLIP as DINO: the norm before the blocks sits where DINO drops positions out."""
    tensors = {name.replace("pos_drop.", "norm_pre."): tensor for name, tensor in checkpoint["state_dict"].items()}
    if "proj" in tensors:
        tensors["head.weight"] = tensors.pop("proj").T.contiguous()
        tensors["head.bias"] = torch.zeros(len(tensors["head.weight"]))
    return tensors


def _clip(name: str, arch: str) -> Trunk:
    return Trunk(arch, f"{name}_pretrain.pth.tar", from_clip, "clip", {"num_classes": 512})


TRUNKS = {
    "dino_vitb16": Trunk("vit_base_patch16_224.dino", "checkpoints/dino_vitbase16_pretrain.pth", from_meta),
    "dinov2_vitb14": Trunk(
        "vit_base_patch14_dinov2.lvd142m",
        "checkpoints/dinov2_vitb14_pretrain.pth",
        from_meta,
        options={"num_classes": 0, "img_size": 224},
    ),
    "synclr_vitb16": Trunk("vit_base_patch16_224", "synclr_vit_b_16.pth", from_synclr),
    "clip_vitb16": _clip("clip_vitb16", "vit_base_patch16_clip_quickgelu_224"),
    "clip_vitb32": _clip("clip_vitb32", "vit_base_patch32_clip_quickgelu_224"),
    # LAION-400M was trained with QuickGELU as well, but DreamSim fine-tuned it under exact GELU.
    "open_clip_vitb16": _clip("open_clip_vitb16", "vit_base_patch16_clip_224"),
    "open_clip_vitb32": _clip("open_clip_vitb32", "vit_base_patch32_clip_224"),
}


class Ensemble(nn.Module):
    """Branches side by side, each with its own normalisation of pixels in [0, 1]."""

    def __init__(self, branches: Mapping[str, Any]) -> None:
        super().__init__()
        for name, module in branches.items():
            if not TRUNKS[name].options["num_classes"]:
                module.norm = nn.Identity()  # the embedding of DINO is the class token before its last norm
            self.add_module(name, module)
            mean, std = NORMS[TRUNKS[name].norm]
            self.register_buffer(f"{name}_mean", torch.tensor(mean).view(-1, 1, 1))
            self.register_buffer(f"{name}_std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into the branches' embeddings, concatenated: (n, dim)."""
        return torch.cat(
            [
                module((images - self.get_buffer(f"{name}_mean")) / self.get_buffer(f"{name}_std"))
                for name, module in self.named_children()
            ],
            dim=1,
        )


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the network of a ``dreamsim`` table.

    Raises
    ------
    NotHere
        If a DINO trunk is in neither the checkpoint nor a file beside it.
    EmbedctlError
        If the checkpoint is damaged, or its tensors are not exactly those of the network.
    """
    branches = _drawn(spec, weights, device) if weights.seed is not None else _loaded(spec, weights)
    if len(branches) == 1:
        return describe(next(iter(branches.values())))
    blocks = tuple(f"{name}.blocks.{i}" for name, module in branches.items() for i in range(len(module.blocks)))
    return Network(Ensemble(branches), layers=(*blocks, "output"), blocks=blocks, n_prefix=1)


def _drawn(spec: EncoderSpec, weights: Weights, device: str) -> dict[str, Any]:
    branches = {}
    for name in spec.model["branches"]:
        with construction(weights, device):
            branches[name] = TRUNKS[name].construct()
            if spec.model.get("adapter"):
                merge(branches[name], random_adapter(branches[name], spec.model["rank"], spec.model["alpha"]))
    return branches


def _loaded(spec: EncoderSpec, weights: Weights) -> dict[str, Any]:
    source = Checkpoint(weights.files)
    branches = {}
    for name in spec.model["branches"]:
        trunk = TRUNKS[name]
        with construction(weights, "meta"):  # drawing 86 million numbers to overwrite them would take seconds
            branches[name] = trunk.construct()
        if trunk.file.startswith("checkpoints/") and not source.has(trunk.file):
            raise NotHere(
                f"{source.label} holds no '{trunk.file}', and DreamSim takes this trunk from torch.hub",
                f"put it there; `embedctl models show {spec.id}` says where it is published",
            )
        load_strictly(branches[name], _converted(trunk, source, branches[name]), f"{source.label}: {trunk.file}")
    if adapter := spec.model.get("adapter"):
        for name, lora in read_adapters(source, adapter, branches).items():
            merge(branches[name], lora)
    return branches


def _converted(trunk: Trunk, source: Checkpoint, module: nn.Module) -> dict[str, Tensor]:
    try:
        return trunk.convert(source.tensors(trunk.file), module)
    except (KeyError, AttributeError, IndexError, RuntimeError) as wrong:
        raise EmbedctlError(
            f"{source.label}: {trunk.file} is not laid out as DreamSim publishes it",
            "give the checkpoint of this very type",
        ) from wrong
