"""Variables of a TensorFlow SavedModel, read without TensorFlow.

``variables.index`` is a LevelDB table from the names of variables to where they lie in the data files: blocks of
entries whose keys leave out what they share with the key before, an index block that says where the blocks are, and a
footer that says where the index is (tensorflow/core/lib/io/format.cc, tensorflow/core/protobuf/tensor_bundle.proto).
Blocks and variables have checksums, and they are compared.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
import numpy as np

__all__ = ["read_bundle"]

FOOTER, MAGIC = 48, 0xDB4775248B80FB57
FLOAT32 = 1  # DT_FLOAT of tensorflow/core/framework/types.proto
DTYPE, SHAPE, SHARD, OFFSET, SIZE, CRC = range(1, 7)  # fields of a BundleEntryProto
NUM_SHARDS = 1  # of the BundleHeaderProto, which has the empty key


def read_bundle(index: bytes, shard: Callable[[int, int], bytes]) -> dict[str, np.ndarray]:
    """Read every float32 variable of a bundle.

    Parameters
    ----------
    index : bytes
        Content of ``variables.index``.
    shard : callable
        From the number of a data file and how many there are to its content.

    Returns
    -------
    dict of str to float32 array
        By the names TensorFlow saves them under, ``variables/0/.ATTRIBUTES/VARIABLE_VALUE`` for example. Variables of
        other kinds are left out.

    Raises
    ------
    ValueError
        If a file is cut off, is no bundle, or does not have its checksum.
    """
    if len(index) < FOOTER or int.from_bytes(index[-8:], "little") != MAGIC:
        raise ValueError("the index is cut off, or no table")
    _, at = _varint(index, len(index) - FOOTER)
    _, at = _varint(index, at)  # where the empty meta-index lies
    offset, at = _varint(index, at)
    size, _ = _varint(index, at)
    entries = dict(entry for _, handle in _entries(index, offset, size) for entry in _entries(index, *_handle(handle)))
    n_shards = _fields(entries.pop(b"")).get(NUM_SHARDS, 1)
    files: dict[int, bytes] = {}
    found = {}
    for name, value in entries.items():
        entry = _fields(value)
        number = entry.get(SHARD, 0)
        if entry.get(DTYPE) != FLOAT32:
            continue
        if number not in files:
            files[number] = shard(number, n_shards)
        start, stop = entry.get(OFFSET, 0), entry.get(OFFSET, 0) + entry.get(SIZE, 0)
        data = files[number][start:stop]
        shape = _shape(entry.get(SHAPE, b""))
        if len(data) != 4 * math.prod(shape) or _masked(google_crc32c.value(data)) != entry.get(CRC):
            raise ValueError(f"'{name.decode()}' is cut off or damaged")
        found[name.decode()] = np.frombuffer(data, "<f4").reshape(shape)
    return found


def _entries(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a block."""
    block, kind = index[offset : offset + size], index[offset + size : offset + size + 1]
    if kind != b"\0":
        raise ValueError("the index is compressed, or damaged")
    if _masked(google_crc32c.value(block + kind)) != int.from_bytes(index[offset + size + 1 :][:4], "little"):
        raise ValueError("the index is damaged")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")  # restart points and their number
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _handle(value: bytes) -> tuple[int, int]:
    offset, at = _varint(value, 0)
    return offset, _varint(value, at)[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, lowest first, and where the next begins."""
    number = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def _fields(message: bytes) -> dict[int, Any]:
    """Return the fields of a protocol buffer by number; of those that repeat, all bytes one after another."""
    fields: dict[int, Any] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            fields[number], at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            fields[number] = fields.get(number, b"") + message[at : at + length]
            at += length
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            fields[number] = int.from_bytes(message[at : at + length], "little")
            at += length
        else:
            raise ValueError("a field of no known kind")
    return fields


def _shape(message: bytes) -> tuple[int, ...]:
    """Read a TensorShapeProto: a size for each axis, in messages of their own."""
    sizes, at = [], 0
    while at < len(message):
        _, at = _varint(message, at)
        length, at = _varint(message, at)
        sizes.append(_fields(message[at : at + length]).get(1, 0))
        at += length
    return tuple(sizes)


def _masked(crc: int) -> int:
    """Return a checksum as it is stored: a checksum of data that holds checksums would be weak."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
