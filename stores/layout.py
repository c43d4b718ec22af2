"""What the metadata of a store looks like: plain Zarr v3, written and read without the zarr library.

A node is the content of one ``zarr.json``. Numbers are stored with the codecs ``bytes`` and ``crc32c`` (see
`stores.codecs`), strings with ``vlen-utf8`` and ``crc32c``.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import DamagedStore, EmbedctlError, StoreMismatch
from stores.files import read_file

__all__ = [
    "FORMAT",
    "ArrayNode",
    "array_node",
    "group_node",
    "private",
    "read_array",
    "read_node",
    "read_ours",
    "read_root",
]

FORMAT = 1
Node = dict[str, Any]

_NUMBERS = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
_FILL: dict[str, Any] = {"f": "NaN", "i": -1, "b": False, "u": 0}


def private(array: Path) -> Path:
    """Return the folder of receipts, locks and tables of an array: only there does Zarr not stumble over them."""
    return array / ".embedctl"


def group_node(attributes: Node) -> Node:
    """Return the ``zarr.json`` of a group.

    Examples
    --------
    >>> group_node({})
    {'attributes': {}, 'zarr_format': 3, 'node_type': 'group'}
    """
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


def array_node(
    shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], dims: tuple[str, ...], inner: int = 0
) -> Node:
    """Return the ``zarr.json`` of an array.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array and of each chunk; a chunk spans whole rows.
    dtype : str
        A NumPy number type, ``bool`` or ``string``.
    dims : tuple of str
        Name of each axis; arrays of a group that share a name share a length.
    inner : int
        Rows of a chunk that can be read alone: for an object store, whose chunks are shards.

    Examples
    --------
    >>> node = array_node((100, 8), "float16", (64, 8), ("image", "feature"))
    >>> [codec["name"] for codec in node["codecs"]], node["fill_value"]
    (['bytes', 'crc32c'], 'NaN')
    """
    if dtype == "string":
        fill, codec = "", {"name": "vlen-utf8", "configuration": {}}
    else:
        fill = _FILL[np.dtype(dtype).kind]
        one_byte = np.dtype(dtype).itemsize == 1
        codec = {"name": "bytes"} if one_byte else {"name": "bytes", "configuration": {"endian": "little"}}
    codecs = [codec, {"name": "crc32c"}]
    if inner:
        shard = {"chunk_shape": [inner, *chunks[1:]], "codecs": codecs, "index_location": "end"}
        whole = {"index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]}
        codecs = [{"name": "sharding_indexed", "configuration": {**shard, **whole}}]
    return {
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": list(dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


@dataclass(frozen=True, slots=True)
class ArrayNode:
    """What a reader needs to know of one array.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array and of one chunk.
    dtype : str
        NumPy's name of the number type, or ``string``.
    fill : Any
        What unwritten rows read as.
    raw : bool
        Whether a chunk file is its rows and a checksum, so that it can be memory-mapped.
    inner : int
        Rows of each chunk inside a chunk file that is a shard; 0 where it is none.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    fill: Any
    raw: bool
    inner: int = 0

    @property
    def chunk_bytes(self) -> int:
        """Size of one chunk's rows in bytes, without the checksum."""
        return math.prod(self.chunks) * np.dtype(self.dtype).itemsize

    @property
    def n_chunks(self) -> int:
        """Number of chunks along the rows."""
        return -(-self.shape[0] // self.chunks[0])

    def file(self, chunk: int) -> str:
        """Return the file of one chunk of whole rows, below the array's folder."""
        return "/".join(["c", str(chunk), *["0"] * (len(self.shape) - 1)])


def read_array(folder: Path) -> ArrayNode:
    """Read what the ``zarr.json`` of an array says.

    Raises
    ------
    DamagedStore
        If it is missing or says nothing a reader can use.
    """
    node = read_node(folder)
    try:
        shape, chunks = tuple(node["shape"]), tuple(node["chunk_grid"]["configuration"]["chunk_shape"])
        dtype, codecs = str(node["data_type"]), node["codecs"]
        sizes = (*shape, *chunks)
        if not all(isinstance(size, int) and size >= 0 for size in sizes) or 0 in chunks or not shape:
            raise ValueError(f"shape {shape} in chunks of {chunks}")
        if dtype != "string" and dtype not in _NUMBERS:
            raise ValueError(f"numbers of type {dtype}")
        whole_rows = chunks[1:] == shape[1:] and len(chunks) == len(shape)
        little = codecs[0].get("configuration", {}).get("endian", "little") == "little"
        separator = node["chunk_key_encoding"]["configuration"]["separator"]
        raw = whole_rows and little and separator == "/" and [c["name"] for c in codecs] == ["bytes", "crc32c"]
        inner = _inner(codecs, chunks)
        fill = np.nan if node["fill_value"] == "NaN" else node["fill_value"]
        return ArrayNode(shape, chunks, dtype, fill, raw, inner)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DamagedStore(f"'{folder}' holds no array that embedctl can read") from error


def _inner(codecs: Any, chunks: tuple[int, ...]) -> int:
    """Return the rows of each chunk of a shard of ours; 0 for any other."""
    if [codec["name"] for codec in codecs] != ["sharding_indexed"]:
        return 0
    shard = codecs[0]["configuration"]
    rows, *rest = shard["chunk_shape"]
    ours = [codec["name"] for codec in shard["codecs"]] == ["bytes", "crc32c"] and tuple(rest) == chunks[1:]
    return rows if ours and shard["index_location"] == "end" and chunks[0] % rows == 0 else 0


def read_node(folder: Path) -> Node:
    """Read the ``zarr.json`` of ``folder``.

    Raises
    ------
    DamagedStore
        If it is missing or not JSON.
    """
    try:
        node = json.loads(read_file(folder / "zarr.json"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedStore(f"the metadata of '{folder}' cannot be read") from error
    if not isinstance(node, dict):
        raise DamagedStore(f"the metadata of '{folder}' cannot be read")
    return node


def read_ours(folder: Path, **kinds: type) -> Node:
    """Read what embedctl wrote into the attributes of a group, which must have these names with values of these kinds.

    Raises
    ------
    DamagedStore
        If it is not there.
    """
    attributes = read_node(folder).get("attributes")
    ours = attributes.get("embedctl") if isinstance(attributes, dict) else None
    if not isinstance(ours, dict) or not all(isinstance(ours.get(name), kind) for name, kind in kinds.items()):
        raise DamagedStore(f"'{folder}' does not say what embedctl wrote there")
    return ours


def read_root(path: Path, kind: str, made_by: str) -> Node:
    """Read what embedctl wrote into the root of the store at ``path``.

    Parameters
    ----------
    path : Path
        The store's folder.
    kind : {"embeddings", "epochs"}
        What the store must hold.
    made_by : str
        The command that writes such a store, for the hint.

    Raises
    ------
    EmbedctlError
        If nothing is there, or something else.
    StoreMismatch
        If a newer embedctl wrote it.
    """
    hint = f"{made_by} writes one; or name the place where it is"
    try:
        there, looks_like = path.exists(), (path / "zarr.json").is_file()
    except OSError as error:
        raise EmbedctlError(f"cannot read '{path}': {error.strerror}", "name a store you may read") from error
    if not there:
        raise EmbedctlError(f"no store at '{path}'", hint)
    if not looks_like:
        raise EmbedctlError(f"'{path}' is not a store", hint)
    read_node(path)
    try:
        ours = read_ours(path, kind=str)
    except DamagedStore as error:
        raise EmbedctlError(f"'{path}' is Zarr, but not a store of embedctl", hint) from error
    if ours["kind"] != kind:
        raise EmbedctlError(f"'{path}' holds {ours['kind']}, not {kind}", hint)
    if not isinstance(ours.get("format"), int) or ours["format"] > FORMAT:
        found = f"'{path}' has format {ours.get('format')}, this embedctl reads up to {FORMAT}"
        raise StoreMismatch(found, "install the newest embedctl")
    return ours
