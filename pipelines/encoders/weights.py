"""Where the numbers of a network come from: published files, a file of the user's, or a seed."""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.encoders.registry import EncoderSpec
from stores.errors import EmbedctlError, NotHere

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Weights", "read_tensors", "resolve_weights"]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one encoder, on this computer.

    Parameters
    ----------
    label : str
        ``random:SEED``, ``sha256:HEX`` or ``none``: what the key hashes.
    source : str
        Where they come from, for provenance.
    files : tuple of Path
        The files, in the order of the table.
    seed : int or None
        Of random weights.
    """

    label: str
    source: str = ""
    files: tuple[Path, ...] = ()
    seed: int | None = None


def resolve_weights(spec: EncoderSpec, weights: str = "published", *, offline: bool = False) -> Weights:
    """Find the weights of an encoder without reading them into memory.

    Raises
    ------
    NotHere
        If published weights are not on this computer and must not or cannot be fetched.
    EmbedctlError
        If ``weights`` is neither ``published``, ``random:SEED`` nor a file.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> resolve_weights(find("resnet50-tv"), "random:7").label, resolve_weights(find("pixels")).label
    ('random:7', 'none')
    """
    if spec.family == "classical":
        return Weights("none", "needs no weights")
    if weights.startswith("random:"):
        text = weights.removeprefix("random:")
        if not text.isdecimal():
            raise EmbedctlError(f"'{weights}' names no seed", "write random:SEED, for example random:7")
        return Weights(f"random:{int(text)}", f"torch.manual_seed({int(text)})", seed=int(text))
    if weights != "published":
        path = Path(weights)
        if not path.is_file():
            raise EmbedctlError(f"no weights at '{weights}'", "published, random:SEED or the path of a file")
        return Weights(f"sha256:{_sha256(path, path.stat().st_mtime_ns)}", str(path), (path,))
    files = tuple(torch_home() / file.name for file in spec.weights)
    if not files or not all(file.is_file() for file in files):
        raise NotHere(
            f"the weights of '{spec.id}' are not on this computer",
            f"run `embedctl models pull {spec.id}` where there is internet, or use --weights random:0 to try without",
        )
    return Weights(f"sha256:{_sha256(files[0], files[0].stat().st_mtime_ns)}", spec.weights[0].source, files)


def torch_home() -> Path:
    """Return the folder where torch keeps downloaded checkpoints."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("TORCH_HOME", cache_home / "torch")) / "hub" / "checkpoints"


@cache
def _sha256(path: Path, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Read a state dict: safetensors, or a torch file without running any code of it."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return tensors.get("state_dict", tensors)
