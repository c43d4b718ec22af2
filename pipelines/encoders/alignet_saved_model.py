"""The variables of AligNet's SavedModels under the names of their public port.

A SavedModel of AligNet is an export by jax2tf: its variables have numbers for names, in the order in which JAX
flattens the tree of Flax parameters, keys sorted as text (``encoderblock_10`` before ``encoderblock_2``), the ImageNet
head last.
ViCCo-Group found this order for SigLIP 2 when they ported it (``training/alignet`` of their repository dimpred), and
compared the port with TensorFlow. Here every number must have the shape that its place asks for.
"""

import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.encoders.network import refuse_misfits
from pipelines.encoders.tensor_bundle import read_bundle
from pipelines.unpack import refuse_bomb
from stores.errors import EmbedctlError

__all__ = ["flax_shapes", "from_saved_model", "is_saved_model", "read_variables"]

VARIABLE = "variables/{}/.ATTRIBUTES/VARIABLE_VALUE"
ATTENTION = "MultiHeadDotProductAttention_0"


def is_saved_model(path: Path) -> bool:
    """Whether a path is a SavedModel: a folder, or the ``.tar.gz`` it is published in."""
    return path.is_dir() or path.name.endswith((".tar.gz", ".tgz"))


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Read the variables of a SavedModel, an unpacked one or a packed one in place.

    Raises
    ------
    EmbedctlError
        If it is cut off, damaged, or no SavedModel.
    """
    try:
        if path.is_dir():
            folder = next((file.parent for file in sorted(path.rglob("variables.index"))), path)
            return _bundle(lambda name: (folder / name).read_bytes())
        with tarfile.open(path, "r:gz") as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            refuse_bomb(path.stat().st_size, max((member.size for member in members.values()), default=0))
            return _bundle(lambda name: archive.extractfile(members[name]).read())  # type: ignore[union-attr]
    except (tarfile.TarError, zlib.error, EOFError, OSError, LookupError, ValueError, TypeError, MemoryError) as wrong:
        raise EmbedctlError(
            f"'{path}' is no whole SavedModel: {' '.join(str(wrong).split())[:160]}",
            "give the .tar.gz that AligNet publishes, or the folder it unpacks to",
        ) from wrong


def _bundle(read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    return read_bundle(read("variables.index"), lambda i, n: read(f"variables.data-{i:05}-of-{n:05}"))


def from_saved_model(variables: dict[str, np.ndarray], module: Any, what: str) -> dict[str, Tensor]:
    """Give the variables of a SavedModel the names and layouts of the port's tensors.

    Raises
    ------
    EmbedctlError
        If there are more or fewer variables than the network has, or one has another shape than its place.
    """
    shapes = flax_shapes(module)
    # JAX sorts the keys of each level of the tree; the ImageNet head was exported beside the model.
    order = sorted(shapes, key=lambda name: (name.startswith("i1k_head"), name.split("/")))
    numbered = [VARIABLE.format(number) for number in range(len(order))]
    names = dict(zip(numbered, order, strict=True))
    found = {names.get(number, number): array for number, array in variables.items()}
    refuse_misfits(shapes, {name: array.shape for name, array in found.items()}, what)
    tensors = {}
    for name, like in module.state_dict().items():
        parts = [_turned(found[source], like.ndim, name) for source in _sources(name)]
        tensors[name] = torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))).reshape(like.shape)
    return tensors


def _turned(array: np.ndarray, n_axes: int, name: str) -> np.ndarray:
    """Flax has the input first: (in, out), (in, head, width), (head, width, out), (row, column, in, out)."""
    if n_axes == 4:
        return array.transpose(3, 2, 0, 1)
    if n_axes == 2:
        split = 1 if not name.endswith("proj.weight") else array.ndim - 1
        return array.reshape(int(np.prod(array.shape[:split])), -1).T
    return array.reshape(-1)


def _sources(name: str) -> list[str]:
    """Return the Flax parameters that a tensor of the port is made of."""
    stem, _, leaf = name.rpartition(".")
    kernel = {"weight": "kernel"}.get(leaf, leaf)
    scale = {"weight": "scale"}.get(leaf, leaf)
    if stem == "triplet_head":
        return [f"triplet_head/{kernel}"]
    if stem in ("i1k_head", "i1k_norm"):
        return [f"i1k_head/scores/{kernel}" if stem == "i1k_head" else f"i1k_head/norm/{scale}"]
    tower, path = "model/_Model_0", stem.removeprefix("encoder").removeprefix(".").split(".")
    if leaf == "pos_embed":
        return [f"{tower}/pos_embedding"]
    if leaf == "latent":
        return [f"{tower}/MAPHead_0/probe"]
    if path[0] == "patch_embed":
        return [f"{tower}/embedding/{kernel}"]
    if path == ["norm"]:
        return [f"{tower}/Transformer/encoder_norm/{scale}"]
    pool = path[0] == "attn_pool"
    block = f"{tower}/MAPHead_0" if pool else f"{tower}/Transformer/encoderblock_{path[1]}"
    part = path[-1]
    if part in ("norm", "norm1", "norm2"):
        return [f"{block}/LayerNorm_{1 if part == 'norm2' else 0}/{scale}"]
    if part in ("fc1", "fc2"):
        return [f"{block}/MlpBlock_0/Dense_{int(part[-1]) - 1}/{kernel}"]
    heads = {"qkv": ("query", "key", "value"), "q": ("query",), "kv": ("key", "value"), "proj": ("out",)}[part]
    return [f"{block}/{ATTENTION}/{head}/{kernel}" for head in heads]


def flax_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every Flax parameter of a network in the names of the port."""
    n_heads = module.encoder.blocks[0].attn.num_heads
    shapes: dict[str, tuple[int, ...]] = {}
    for name, like in module.state_dict().items():
        sources = _sources(name)
        for source in sources:
            out, *inside = like.shape
            out //= len(sources)
            shape: tuple[int, ...] = (*reversed(inside), out)
            if like.ndim == 4:
                shape = (*inside[1:], inside[0], out)
            elif like.ndim == 3:
                shape = tuple(like.shape)
            parameter = source.split("/")[-2]
            if parameter in ("query", "key", "value"):
                shape = (*shape[:-1], n_heads, out // n_heads)
            elif parameter == "out" and like.ndim == 2:
                shape = (n_heads, inside[0] // n_heads, out)
            shapes[source] = shape
    return shapes
