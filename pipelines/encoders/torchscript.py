"""The tensors of a TorchScript archive, without TorchScript.

OpenAI published CLIP as compiled programs. Such a file is a zip: ``code/`` is the program, ``data.pkl`` describes the
tree of modules, ``data/`` holds the raw numbers. Here only the tree and the numbers are read: nothing is executed,
and every class the tree mentions becomes an empty shell.
"""

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.unpack import read_member

__all__ = ["is_torchscript", "read_torchscript"]


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, and not what ``torch.save`` writes, which is a zip as well."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return parameters and buffers by name, as ``torch.jit.load(path).state_dict()`` would.

    Raises
    ------
    pickle.UnpicklingError
        If the archive mentions anything but modules, tensors and plain containers.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        with archive.open(f"{root}data.pkl") as pickled:
            return dict(_tensors(_Reader(pickled, archive, f"{root}data/").load()))


_MOST_DEPTH = 30


class _Module:
    """A shell that keeps the attributes of a compiled module."""


def _list(items: list[Any], *_: Any) -> list[Any]:
    return items


class _Reader(pickle.Unpickler):
    def __init__(self, pickled: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(pickled)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch.jit._pickle":  # lists of numbers or tensors, and marks of their type
            return _list
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"a TorchScript archive has no business with {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, n_numbers = pid
        if key not in self._storages:
            held = read_member(self._archive, f"{self._folder}{key}")
            raw = bytearray(held[: n_numbers * kind.dtype.itemsize])
            numbers = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
            storage: Any = torch.storage.TypedStorage
            self._storages[key] = storage(wrap_storage=numbers.untyped_storage(), dtype=kind.dtype, _internal=True)
        return self._storages[key]


def _tensors(module: _Module, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if depth > _MOST_DEPTH:  # modules that share their parts are named once for each way that leads to them
        raise pickle.UnpicklingError("modules nested too deeply")
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)
