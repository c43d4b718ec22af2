"""What an embedding says about where its numbers come from."""

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import features

from pipelines.extract.images import simplejpeg_agrees
from pipelines.extract.request import ExtractRequest
from pipelines.extract.targets import Target
from pipelines.extract.views import describe_views
from stores.versions import installed_version

__all__ = ["provenance"]

_PACKAGES = ("embedctl", "torch", "torchvision", "timm", "open_clip_torch", "dreamsim", "numpy", "pillow")


def provenance(
    target: Target,
    request: ExtractRequest,
    device: str,
    threads: int,
    form: str = "plain",
    weights_source: str = "",
    token_shape: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Return everything needed to compute an embedding again, as plain data.

    Random weights are recognised by ``weights``, which then is ``random:SEED``.

    Parameters
    ----------
    target : Target
        The embedding.
    request : ExtractRequest
        What was asked.
    device : str
        Where it is computed: ``cpu`` or ``cuda``.
    threads : int
        Of torch, in a forward pass.
    form : str
        Of the network: ``plain``; ``folded``, with norms folded into convolutions and channels last; or ``winograd``,
        with fewer products besides.
    weights_source : str
        Where the weights came from; empty for what `resolve_weights` said.
    token_shape : tuple of int, optional
        (token, dim) of one row of flattened tokens.
    """
    spec, name = target.spec, target.name
    found = {
        "encoder": spec.id,
        "layer": target.recipe["layer"],
        "pooling": target.recipe["pooling"],
        "view": name.view,
        "key": target.key,
        "weights": target.weights.label,
        "weights_source": _source(target, request, weights_source or target.weights.source),
        "preprocessing": target.recipe["preprocessing"],
        "decoder": _decoder(),
        "pixels": "EXIF orientation applied, alpha on white, first frame, 16 bit: grey rounded, colour high byte",
        "exact": target.recipe["exact"],
        "batch_size": target.batch_size,
        "compute_dtype": "float32",
        "dtype": target.dtype,
        "device": device,
        "threads": threads,
        "form": form,
        "images": str(request.images.absolute()),
        "recipe": target.recipe,
        "registry": spec.table(),
        "versions": {"python": platform.python_version()} | {p: v for p in _PACKAGES if (v := installed_version(p))},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "imported": False,
    }
    if name.view:
        found["view_definition"] = describe_views(name.view)
    if target.note:
        found["note"] = target.note
    if token_shape:
        found["token_shape"] = list(token_shape)
    return found


def _decoder() -> str:
    library = f"pillow {installed_version('pillow')}, libjpeg-turbo {features.version('libjpeg_turbo')}"
    return f"{library}, simplejpeg {installed_version('simplejpeg')}" if simplejpeg_agrees() else library


def _source(target: Target, request: ExtractRequest, source: str) -> str:
    """Return where weights came from; ``file:`` marks the user's own, which are not the published ones."""
    # `models pull --to FOLDER` puts published weights into FOLDER/ID.
    published = request.weights == "published" or (Path(request.weights) / target.spec.id).is_dir()
    return f"file:{source}" if target.weights.label.startswith("sha256:") and not published else source
