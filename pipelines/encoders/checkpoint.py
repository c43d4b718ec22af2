"""A checkpoint made of several files: a folder, the zip it was published in, or files given one by one.

A zip is read in place: it is not unpacked beside anything, so two processes cannot trip over each other.
"""

import io
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from pipelines.encoders.weights import read_tensors
from pipelines.nests import refuse_nests
from pipelines.unpack import check_members, read_member
from stores.errors import EmbedctlError

__all__ = ["Checkpoint"]


class Checkpoint:
    """Files of weights by name.

    Parameters
    ----------
    paths : sequence of Path
        Folders, zips (``.zip``) and single files. A single file answers to its own name in whatever folder it is
        looked for, and before a zip that holds another one of that name.

    Raises
    ------
    EmbedctlError
        If a zip is incomplete, or not a zip at all (a web page saved under that name, for example).
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.label = paths[0].name
        self._single: dict[str, Path] = {}
        self._inside: dict[str, Path | zipfile.ZipFile] = {}
        for path in paths:
            if path.is_dir():
                self._inside |= {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
            elif path.suffix == ".zip":
                archive = self._open(path)
                self._inside |= {name: archive for name in archive.namelist()}
            else:
                if _is_page(path):
                    raise self._damaged("it is a web page")
                self._single[path.name] = path

    def has(self, name: str) -> bool:
        """Whether a file of this name is here."""
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """Read a file whole.

        Raises
        ------
        EmbedctlError
            If there is no such file, or its bytes are not the ones the zip was made with.
        """
        where = self._wanted(name)
        if isinstance(where, Path):
            return where.read_bytes()
        try:
            return read_member(where, name)
        except ValueError as bomb:
            raise self._damaged(f"'{name}': {bomb}") from bomb
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as problem:  # encrypted
            raise self._damaged(f"'{name}' is damaged") from problem

    def tensors(self, name: str) -> dict[str, Any]:
        """Read a ``.safetensors`` file, or what `torch.save` wrote: tensors only, no code is run.

        Raises
        ------
        EmbedctlError
            If there is no such file, or it holds something else than tensors.
        """
        where = self._wanted(name)
        if isinstance(where, Path):
            return read_tensors(where)
        data = self.read(name)
        try:
            if name.endswith(".safetensors"):
                return load_safetensors(data)
            if zipfile.is_zipfile(io.BytesIO(data)):
                with zipfile.ZipFile(io.BytesIO(data)) as inner:
                    check_members(inner)
            refuse_nests(io.BytesIO(data))
            found: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return found
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as problem:
            raise self._damaged(f"'{name}' cannot be read as tensors") from problem

    def _wanted(self, name: str) -> Path | zipfile.ZipFile:
        where = self._find(name)
        if where is None:
            there = ", ".join(sorted({*self._single, *self._inside})[:6]) or "nothing"
            raise EmbedctlError(
                f"{self.label} holds no '{name}', only {there}",
                "give the folder or zip this encoder was published as, its files under their own names",
            )
        return where

    def _find(self, name: str) -> Path | zipfile.ZipFile | None:
        return self._single.get(name.rpartition("/")[2]) or self._inside.get(name)

    def _open(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except zipfile.BadZipFile as problem:
            page = _is_page(path)
            raise self._damaged("it is a web page, not a zip" if page else "the zip is incomplete") from problem

    def _damaged(self, what: str) -> EmbedctlError:
        return EmbedctlError(f"{self.label}: {what}", "delete it and fetch it again with `embedctl models pull`")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"<")
