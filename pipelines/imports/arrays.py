"""Reading the numbers of other programs: ``.npy``, ``.npz``, ``.pt``. Nothing is unpickled.

A file gives one array (image, feature) of floating-point numbers. An archive or a dictionary may hold other arrays
as well, as long as only one of them has that form.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.unpack import check_members
from stores.errors import EmbedctlError
from stores.files import open_file
from stores.npy_header import read_header

__all__ = ["SUFFIXES", "read_array", "read_vector"]

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
_BROKEN = (
    ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError, RuntimeError
)  # fmt: skip


def read_array(path: Path) -> np.ndarray:
    """Return the array (image, feature) of a file, memory-mapped where its format allows.

    Raises
    ------
    EmbedctlError
        If there is no such file, it is damaged, needs code to be read, or does not hold exactly one array of two axes
        of floating-point numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/mine.npy", np.ones((3, 2), np.float32))
    ...     read_array(Path(folder) / "mine.npy").shape
    (3, 2)
    """
    if not path.is_file():
        raise EmbedctlError(f"no file '{path}'", "name the file of embeddings with --npy")
    if path.suffix == ".npy":
        return _npy(path)
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix in SUFFIXES:
        return _tensors(path)
    raise EmbedctlError(f"'{path}' has no format that is known", f"embeddings come as {', '.join(SUFFIXES)}")


def read_vector(path: Path) -> np.ndarray:
    """Return the one vector of a small ``.npy`` file: shape (feature,) or (1, feature), as AlignVis writes it.

    Raises
    ------
    EmbedctlError
        If the file cannot be read, or holds anything else.
    """
    array = _npy(path, axes=(1, 2))
    if array.ndim == 2 and len(array) != 1:
        raise _unusable(path, f"it holds {array.shape}, not one vector", "one file per image holds one vector each")
    return np.array(array.reshape(-1))  # read now: thousands of files must not stay open


def _npy(path: Path, axes: tuple[int, ...] = (2,)) -> np.ndarray:
    try:
        with open_file(path) as file:
            shape, dtype, n_bytes = read_header(file)
            whole = n_bytes <= path.stat().st_size - file.tell()
    except _BROKEN:
        raise _unusable(path, "it is no .npy file: a pickle or a web page, perhaps, or cut off") from None
    _check(path, "it", shape, dtype, axes)
    if not whole:
        raise _unusable(path, "it is cut off")
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _npz(path: Path) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            headers, sizes = {}, {}
            if members:  # before any of them is opened
                check_members(archive, *members)
            for name in members:
                with archive.open(name) as file:
                    shape, dtype, sizes[name] = read_header(file)
                headers[name.removesuffix(".npy")] = shape, dtype
            name = _only(path, headers)
            # A header may claim any size: what the archive says it holds is what will be read.
            if sizes[f"{name}.npy"] > archive.getinfo(f"{name}.npy").file_size:
                raise ValueError("cut off")
            with archive.open(f"{name}.npy") as file:
                array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except _BROKEN:
        raise _unusable(path, "it is no complete .npz file of plain arrays") from None
    return array


def _tensors(path: Path) -> np.ndarray:
    import torch

    from pipelines.encoders.weights import read_checkpoint

    read = read_checkpoint(path)
    tensors = dict(read) if isinstance(read, Mapping) else {"": read}
    tensors = {str(key): x for key, x in tensors.items() if isinstance(x, torch.Tensor) and x.layout == torch.strided}
    if any(x.numel() * x.element_size() > x.untyped_storage().nbytes() for x in tensors.values()):
        raise _unusable(path, "it holds a tensor of more numbers than are in it")
    if not tensors:
        raise _unusable(path, "it holds no tensor")
    # NumPy has no bfloat16
    arrays = {
        key: (x.float() if x.dtype == torch.bfloat16 else x).detach().resolve_conj().resolve_neg()
        for key, x in tensors.items()
    }
    numbers = {key: x.numpy() for key, x in arrays.items()}
    return numbers[_only(path, {key: (x.shape, x.dtype) for key, x in numbers.items()})]


def _only(path: Path, headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    """Return the name of the array to take."""
    if len(headers) == 1:
        name, (shape, dtype) = next(iter(headers.items()))
        _check(path, f"'{name}'" if name else "it", shape, dtype, (2,))
        return name
    fitting = [name for name, (shape, dtype) in headers.items() if len(shape) == 2 and dtype.kind == "f"]
    if len(fitting) != 1:
        there = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in list(headers.items())[:6])
        raise _unusable(
            path,
            f"it holds {len(fitting)} arrays (image, feature): {there or 'it is empty'}",
            "save the array you want in a file of its own",
        )
    name = fitting[0]
    _check(path, f"'{name}'", *headers[name], axes=(2,))
    return name


def _check(path: Path, what: str, shape: tuple[int, ...], dtype: np.dtype[Any], axes: tuple[int, ...]) -> None:
    if dtype.hasobject:
        raise _unusable(path, f"{what} holds Python objects, which only code can read", "save it as a plain array")
    if dtype.kind != "f":
        raise _unusable(path, f"{what} holds {dtype}, not floating-point numbers", "save embeddings as float32")
    if len(shape) not in axes or 0 in shape:
        raise _unusable(path, f"{what} has the shape {tuple(shape)}, not (image, feature)", "one row per image")


def _unusable(
    path: Path, what: str, hint: str = "write it again, whole, with numpy.save or torch.save"
) -> EmbedctlError:
    return EmbedctlError(f"'{path}' cannot be imported: {what}", hint)
