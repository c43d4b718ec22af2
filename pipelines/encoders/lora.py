"""Low-rank adapters (LoRA) on a vision transformer, merged into its weights.

DreamSim fine-tunes nothing but ``attn.qkv`` of every block: ``W' = W + (alpha / r) * B @ A``. Merged, the network
has the speed and the code of its base, and neither peft nor transformers is needed to run it. Adapters are read
as peft writes them: a folder with ``adapter_config.json`` and ``adapter_model.safetensors`` (``.bin`` before 0.5).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.encoders.checkpoint import Checkpoint
from stores.errors import EmbedctlError

__all__ = ["Adapter", "merge", "random_adapter", "read_adapters"]

_NAME = re.compile(r"(?:.*\.)?extractor_list\.(\d+)\.model\.blocks\.(\d+)\.attn\.qkv\.lora_([AB])\.weight")
# Options of peft that change what the tensors mean; DreamSim's training used none of them.
_PLAIN = {"use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save"}


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter of one network: per block ``a`` (r, width) and ``b`` (3 * width, r), scaled by ``alpha / r``."""

    a: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    scale: float


def merge(trunk: Any, adapter: Adapter) -> None:
    """Add the adapter to the ``attn.qkv`` weights of a timm vision transformer, in place.

    The product is summed in float64 and rounded once, so that the merged weight is the nearest float32 one.

    Raises
    ------
    ValueError
        If the adapter has another number of blocks, or other shapes, than the network.
    """
    blocks = list(trunk.blocks)
    if len(blocks) != len(adapter.a):
        raise ValueError(f"the adapter has {len(adapter.a)} blocks, the network {len(blocks)}")
    for block, a, b in zip(blocks, adapter.a, adapter.b, strict=True):
        weight = block.attn.qkv.weight
        if (b.shape[0], a.shape[1]) != tuple(weight.shape):
            raise ValueError(f"the adapter is for weights {(b.shape[0], a.shape[1])}, not {tuple(weight.shape)}")
        with torch.no_grad():
            weight.copy_(weight.double() + adapter.scale * (b.double() @ a.double()))


def random_adapter(trunk: Any, rank: int, alpha: float) -> Adapter:
    """Draw an adapter from torch's global generator: block by block, first A then B, each ``0.02 * randn``.

    peft starts B at zero, which would leave the base as it is: nothing could be told apart in a test.
    """
    a, b = [], []
    for block in trunk.blocks:
        n_out, n_in = block.attn.qkv.weight.shape
        a.append(0.02 * torch.randn(rank, n_in))
        b.append(0.02 * torch.randn(n_out, rank))
    return Adapter(tuple(a), tuple(b), alpha / rank)


def read_adapters(source: Checkpoint, folder: str, trunks: Mapping[str, Any]) -> dict[str, Adapter]:
    """Read the adapters of all branches of a DreamSim checkpoint.

    Parameters
    ----------
    source : Checkpoint
        The checkpoint.
    folder : str
        Where the adapter lies in it, ``ensemble_lora`` for example.
    trunks : mapping of str to timm vision transformer
        The networks in the order of DreamSim's branches: the n-th is ``extractor_list.n``.

    Raises
    ------
    EmbedctlError
        If a file is missing, an option has an unknown meaning, or the tensors are not exactly one A and one B of the
        configured rank for every block of every branch.
    """
    try:
        config = dict(json.loads(source.read(f"{folder}/adapter_config.json")))
        rank, alpha = int(config.get("r") or 0), float(config.get("lora_alpha") or 0)
    except (ValueError, TypeError) as wrong:
        raise _inventory(source, folder, "its configuration cannot be read") from wrong
    if odd := sorted(option for option in _PLAIN if config.get(option)):
        raise EmbedctlError(
            f"{source.label}: {folder} sets '{odd[0]}', which a plain LoRA merge cannot honour",
            "give a checkpoint published by DreamSim",
        )
    if silent := [option for option in ("r", "lora_alpha") if not config.get(option)]:
        raise _inventory(source, folder, f"its configuration says no '{silent[0]}'")
    name = next(
        (file for file in ("adapter_model.safetensors", "adapter_model.bin") if source.has(f"{folder}/{file}")),
        "adapter_model.safetensors",
    )
    found: dict[tuple[int, int, str], Tensor] = {}
    for key, tensor in source.tensors(f"{folder}/{name}").items():
        if not (match := _NAME.fullmatch(key)):
            raise _inventory(source, folder, f"unknown tensor '{key}'")
        found[int(match[1]), int(match[2]), match[3]] = tensor
    adapters = {}
    for branch, (id_, trunk) in enumerate(trunks.items()):
        pairs = []
        for index, block in enumerate(trunk.blocks):
            n_out, n_in = block.attn.qkv.weight.shape
            for letter, shape in (("A", (rank, n_in)), ("B", (n_out, rank))):
                tensor = found.pop((branch, index, letter), None)
                if tensor is None or tuple(tensor.shape) != shape:
                    have = "is missing" if tensor is None else f"is {tuple(tensor.shape)}, not {shape}"
                    what = f"lora_{letter} of block {index} of branch {branch} ({id_}) {have}"
                    raise _inventory(source, folder, what)
                pairs.append(tensor.float())
        adapters[id_] = Adapter(tuple(pairs[0::2]), tuple(pairs[1::2]), alpha / rank)
    if found:
        branch, index, letter = min(found)
        raise _inventory(source, folder, f"lora_{letter} of block {index} of branch {branch} has no place in this type")
    return adapters


def _inventory(source: Checkpoint, folder: str, what: str) -> EmbedctlError:
    return EmbedctlError(f"{source.label}: {folder}: {what}", "give the checkpoint DreamSim publishes for this type")
