"""The one place that imports torchvision: ``from pipelines.encoders.torchvision_import import torchvision``.

The CPU build of torch beside torchvision from the default package index has no compiled operators, and ``import
torchvision`` then fails with "operator torchvision::nms does not exist", although nothing here needs detection
operators. Declaring the two operators its Python code mentions lets networks and transforms work as usual.
timm and open_clip import torchvision themselves, so whoever imports them imports this first.
"""

import importlib.util
from pathlib import Path

import torch

__all__ = ["torchvision"]

_declared = None  # a torch Library undeclares its operators when it is collected


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # not installed: let the import below say so
    compiled = [
        file for suffix in ("so", "pyd") for file in Path(spec.submodule_search_locations[0]).glob(f"_C*.{suffix}")
    ]
    for file in compiled:
        try:
            torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
        except OSError:
            return False
    return bool(compiled)


if not _operators_load():
    _declared = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]

import torchvision  # noqa: E402
