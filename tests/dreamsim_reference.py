"""DreamSim as its authors ship it, run offline on checkpoints made here in the published layout.

`fabricate` writes what ``dreamsim_<type>_checkpoint.zip`` unpacks to, every tensor random, plus the trunk that
torch.hub would fetch (``checkpoints/``, where torch.hub leaves it). `package` runs the dreamsim package on it.
"""

import json
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.encoders import torchvision_import  # noqa: F401  torchvision of another build imports through it

BRANCHES = {"ensemble": ("dino_vitb16", "clip_vitb16", "open_clip_vitb16")}
ADAPTERS = {"ensemble": (16, 8)}  # rank, alpha: the published training configurations


def branches(type_: str) -> tuple[str, ...]:
    return BRANCHES.get(type_, (type_.removesuffix("_patch"),))


def adapter_folder(type_: str) -> str:
    if type_ == "ensemble":
        return "ensemble_lora"
    return f"{type_}_lora" if type_.endswith("_patch") else f"{type_}_single_lora"


def vit_tensors(patch, grid, *, generator, projected=False, scales=False, depth=12, width=768):
    """Tensors of a ViT in the names of Meta's DINO code, all random, none left at zero or one."""

    def draw(*shape, std=0.02, mean=0.0):
        return torch.empty(shape).normal_(mean, std, generator=generator)

    tensors = {
        "cls_token": draw(1, 1, width, std=0.5),
        "pos_embed": draw(1, 1 + grid * grid, width, std=0.5),
        "patch_embed.proj.weight": draw(width, 3, patch, patch, std=0.05),
        "patch_embed.proj.bias": draw(width, std=0.1),
    }
    if projected:
        tensors |= {"pos_drop.weight": draw(width, std=0.1, mean=1), "pos_drop.bias": draw(width, std=0.1)}
    for i in range(depth):
        for name, shape in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            tensors[f"blocks.{i}.{name}.weight"] = draw(*shape, std=0.015 if name in ("attn.proj", "mlp.fc2") else 0.03)
            tensors[f"blocks.{i}.{name}.bias"] = draw(shape[0], std=0.1)
        for name in ("norm1", "norm2"):
            tensors[f"blocks.{i}.{name}.weight"] = draw(width, std=0.2, mean=1)
            tensors[f"blocks.{i}.{name}.bias"] = draw(width, std=0.1)
        if scales:
            for name in ("ls1", "ls2"):
                tensors[f"blocks.{i}.{name}.gamma"] = draw(width, std=0.1, mean=0.5)
    tensors |= {"norm.weight": draw(width, std=0.2, mean=1), "norm.bias": draw(width, std=0.1)}
    if projected:
        tensors["proj"] = draw(width, 512, std=0.04)
    return tensors


def fabricate(folder: Path, type_: str, *, width=768, depth=12, patch=0, image=224, old_grid=37) -> None:
    generator = torch.Generator().manual_seed(len(type_))
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    rank, alpha = ADAPTERS.get(type_, (16, 32))
    adapter = {}
    for index, branch in enumerate(branches(type_)):
        size = patch or int(branch[-2:])
        make = partial(vit_tensors, size, generator=generator, depth=depth, width=width)
        if branch == "dino_vitb16":
            torch.save(make(image // size), folder / "checkpoints" / "dino_vitbase16_pretrain.pth")
            head = {"mlp.0": (2048, 768), "mlp.2": (2048, 2048), "mlp.4": (256, 2048)}
            student = {f"module.head.{name}.weight": torch.zeros(shape) for name, shape in head.items()}
            student |= {f"module.head.{name}.bias": torch.zeros(shape[0]) for name, shape in head.items()}
            student["module.head.last_layer.weight"] = torch.zeros(2048, 256)
            torch.save({"student": student}, folder / "dino_vitb16_pretrain.pth")
        elif branch == "dinov2_vitb14":
            tensors = make(old_grid, scales=True) | {"mask_token": torch.zeros(1, width)}
            torch.save(tensors, folder / "checkpoints" / "dinov2_vitb14_pretrain.pth")
            (folder / "dinov2_vitb14_pretrain.pth").touch()  # the package asks only whether it exists
        elif branch == "synclr_vitb16":
            tensors = {f"module.visual.{key}": value for key, value in make(image // size).items()}
            torch.save({"model": tensors}, folder / "synclr_vit_b_16.pth")
        else:
            torch.save({"state_dict": make(image // size, projected=True)}, folder / f"{branch}_pretrain.pth.tar")
        for block in range(depth):
            stem = f"base_model.model.extractor_list.{index}.model.blocks.{block}.attn.qkv.lora_"
            adapter[f"{stem}A.weight"] = torch.empty(rank, width).normal_(0, 0.02, generator=generator)
            adapter[f"{stem}B.weight"] = torch.empty(3 * width, rank).normal_(0, 0.05, generator=generator)
    lora = folder / adapter_folder(type_)
    lora.mkdir(exist_ok=True)
    save_file(adapter, lora / "adapter_model.safetensors")
    config = {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.2,
        "bias": "none",
        "target_modules": ["qkv"],
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    (lora / "adapter_config.json").write_text(json.dumps(config))


def import_dreamsim():
    # braindecode installs a torchaudio built for another CUDA; its import breaks peft's, and peft's DreamSim's.
    try:
        import torchaudio  # noqa: F401
    except Exception:
        sys.modules["torchaudio"] = None
    import dreamsim.model

    return dreamsim.model


def package(folder: Path, type_: str, images, *, baseline=False):
    """Return ``embed(images)`` of the dreamsim package, features not normalised, torch.hub replaced."""
    model = import_dreamsim()

    def hub_load(repository, name):
        checkpoint = {"dino_vitb16": "dino_vitbase16_pretrain.pth", "dinov2_vitb14": "dinov2_vitb14_pretrain.pth"}
        tensors = torch.load(folder / "checkpoints" / checkpoint[name])
        if name == "dinov2_vitb14":
            assert repository == "facebookresearch/dinov2"
            return HubDinoV2(tensors)
        assert repository == "facebookresearch/dino:main"
        from dreamsim.feature_extraction.vision_transformer import vit_base

        network = vit_base(patch_size=16)  # the package carries Meta's DINO file
        network.load_state_dict(tensors)
        return network

    with mock.patch("torch.hub.load", hub_load), mock.patch("torch.hub.set_dir"), torch.inference_mode():
        if baseline:
            settings = dict(model.dreamsim_args["model_config"][type_], lora=False)
            network = model.PerceptualModel(**settings, baseline=True, device="cpu", load_dir=str(folder)).eval()
        else:
            network, _ = model.dreamsim(
                device="cpu",
                cache_dir=str(folder),
                normalize_embeds=False,
                dreamsim_type=type_.removesuffix("_patch"),
                use_patch_model=type_.endswith("_patch"),
            )
        return network.embed(images)


class HubDinoV2(nn.Module):
    """DINOv2 ViT-B/14 as Meta's hub code computes it, written from its description, on plain tensors and numpy."""

    def __init__(self, tensors):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.patch_size = (14, 14)
        self.patch_embed.proj = nn.Conv2d(3, 768, 14, stride=14)
        self.cls_token = nn.Parameter(tensors["cls_token"])
        self.pos_embed = nn.Parameter(tensors["pos_embed"])
        self.mask_token = nn.Parameter(tensors["mask_token"])
        self.blocks = nn.ModuleList(HubBlock() for _ in range(12))
        self.norm = nn.LayerNorm(768, eps=1e-6)
        self.load_state_dict(tensors)

    def forward(self, images):
        x = self.patch_embed.proj(images).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + hub_position_embedding(self.pos_embed, images.shape[-1] // 14)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class HubBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(768, eps=1e-6), nn.LayerNorm(768, eps=1e-6)
        self.attn, self.mlp, self.ls1, self.ls2 = nn.Module(), nn.Module(), nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(768, 2304), nn.Linear(768, 768)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(768, 3072), nn.Linear(3072, 768)
        self.ls1.gamma, self.ls2.gamma = nn.Parameter(torch.ones(768)), nn.Parameter(torch.ones(768))

    def forward(self, x):
        q, k, v = self.attn.qkv(self.norm1(x)).unflatten(-1, (3, 12, 64)).permute(2, 0, 3, 1, 4)
        attention = (q * 64**-0.5 @ k.mT).softmax(-1)
        x = x + self.ls1.gamma * self.attn.proj((attention @ v).transpose(1, 2).flatten(2))
        return x + self.ls2.gamma * self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


def hub_position_embedding(pos_embed, grid: int):
    """Bicubic resampling by hand: Keys' kernel with a = -0.75, borders repeated, no antialias.

    The hub passes ``scale_factor = (grid + 0.1) / old``: sample i is read at ``(i + 0.5) / scale - 0.5``.
    """
    old = int((pos_embed.shape[1] - 1) ** 0.5)
    resample = torch.zeros(grid, old, dtype=torch.float64)
    for i in range(grid):
        centre = (i + 0.5) * old / (grid + 0.1) - 0.5
        first = int(centre // 1) - 1
        for j in range(first, first + 4):
            t, a = abs(centre - j), -0.75
            weight = (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            resample[i, min(max(j, 0), old - 1)] += weight
    patches = pos_embed[0, 1:].double().reshape(old, old, -1)
    patches = torch.einsum("ia,jb,abc->ijc", resample, resample, patches).reshape(1, grid * grid, -1)
    return torch.cat([pos_embed[:, :1], patches.float()], dim=1)
