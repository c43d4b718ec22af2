"""What an embedding says about where its numbers come from."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import features

from pipelines.extract.request import ExtractRequest
from pipelines.extract.targets import Target

if TYPE_CHECKING:
    from pipelines.extract.forward import Networks

__all__ = ["provenance"]

_PACKAGES = ("embedctl", "torch", "torchvision", "timm", "open_clip_torch", "dreamsim", "numpy", "pillow")


def provenance(target: Target, request: ExtractRequest, networks: "Networks") -> dict[str, Any]:
    """Return everything needed to compute an embedding again, as plain data.

    Random weights are recognised by ``weights``, which then is ``random:SEED``.

    Parameters
    ----------
    target : Target
        The embedding.
    request : ExtractRequest
        What was asked.
    networks : Networks
        What computes it.
    """
    spec, name = target.spec, target.name
    found = {
        "encoder": spec.id,
        "layer": target.recipe["layer"],
        "pooling": target.recipe["pooling"],
        "view": name.view,
        "key": target.key,
        "weights": target.weights.label,
        "weights_source": _weights_source(target, request, networks),
        "preprocessing": target.recipe["preprocessing"],
        "decoder": f"pillow {version('pillow')}, libjpeg-turbo {features.version('libjpeg_turbo')}",
        "pixels": "EXIF orientation applied, alpha on white, first frame, 16 bit rescaled",
        "exact": request.exact,
        "batch_size": target.batch_size,
        "compute_dtype": "float32",
        "dtype": target.dtype,
        "device": networks.device,
        "recipe": target.recipe,
        "registry": spec.table(),
        "versions": {"python": platform.python_version()} | {p: v for p in _PACKAGES if (v := _version(p))},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "imported": False,
    }
    if target.note:
        found["note"] = target.note
    if name in networks.token_shapes:
        found["token_shape"] = list(networks.token_shapes[name])
    return found


def _weights_source(target: Target, request: ExtractRequest, networks: "Networks") -> str:
    """Return where the weights came from; ``file:`` marks the user's own, which are not the published ones."""
    source, given = networks.weights_sources[target.spec.id], request.weights
    # `models pull --to FOLDER` puts published weights into FOLDER/ID.
    published = given == "published" or (Path(given) / target.spec.id).is_dir()
    return f"file:{source}" if target.weights.label.startswith("sha256:") and not published else source


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
