"""What somebody writes who has never heard of embedctl: open a picture, the library's transform, the library's model.

The outside judge of `tests/test_main_job.py` and `benchmarks/plain_loop.py`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pipelines.encoders.torchvision_import import torchvision

__all__ = ["MODELS", "by_the_library", "plain_rows", "rgb"]

MODELS = ("resnet50-tv", "vitb16-in1k", "clip-vitb32")


def by_the_library(id_: str, seed: int, **arguments: object) -> tuple[torch.nn.Module, Callable]:
    """Return network and transform from torchvision, timm or open_clip alone."""
    import open_clip
    import timm

    torch.manual_seed(seed)
    if id_ == "resnet50-tv":
        model = torchvision.models.resnet50(weights=None)
        model.fc = torch.nn.Identity()
        transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    elif id_ == "vitb16-in1k":
        model = timm.create_model("vit_base_patch16_224.augreg_in1k", pretrained=False, num_classes=0, **arguments)
        config = timm.data.resolve_data_config({}, model=model)
        transform = timm.data.create_transform(**config, is_training=False)
    elif id_ == "clip-vitb32":
        model = open_clip.create_model("ViT-B-32-quickgelu", **arguments).visual
        transform = open_clip.image_transform(224, is_train=False)
    else:
        raise ValueError(id_)
    return model.eval(), transform


def rgb(file: Path) -> Image.Image:
    """Return the picture as it is meant to be seen: upright, on white, 16 bits as 8."""
    image = ImageOps.exif_transpose(Image.open(file))
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if "A" in image.mode:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


@torch.inference_mode()
def plain_rows(id_: str, seed: int, files: list[Path]) -> np.ndarray:
    """Return one row per file, computed one by one."""
    model, transform = by_the_library(id_, seed)
    return np.stack([model(transform(rgb(file))[None])[0].numpy() for file in files])
