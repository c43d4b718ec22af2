"""What a chunk file is: its content and four bytes of checksum, in Zarr v3's own codecs.

Numbers (``bytes``, ``crc32c``) are their rows, little-endian, so a chunk file can be memory-mapped. Strings
(``vlen-utf8``, ``crc32c``) are their number, and each its length and its bytes.
"""

import struct

import google_crc32c
import numpy as np

__all__ = ["CRC_BYTES", "decode_rows", "decode_strings", "encode_rows", "encode_strings", "inner_checksums"]

CRC_BYTES = 4


def encode_rows(rows: np.ndarray, inner: int = 0) -> bytes:
    """Return one chunk of numbers as its file: the rows, then their checksum.

    With ``inner``, a shard: so many rows and their checksum after each other, then where each of them begins and how
    long it is, and the checksum of that (codec ``sharding_indexed``).

    Examples
    --------
    >>> len(encode_rows(np.zeros((64, 8), "float16"))), len(encode_rows(np.zeros((64, 8), "float16"), inner=32))
    (1028, 1068)
    """
    data = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    if not inner:
        return _checked(data.tobytes())
    chunks = [_checked(data[start : start + inner].tobytes()) for start in range(0, len(data), inner)]
    index = np.array([(number * len(chunk), len(chunk)) for number, chunk in enumerate(chunks)], "<u8")
    return b"".join([*chunks, _checked(index.tobytes())])


def decode_rows(data: bytes, shape: tuple[int, ...], dtype: str, inner: int = 0) -> np.ndarray:
    """Return the numbers of a chunk file; its checksums are not looked at.

    Examples
    --------
    >>> rows = np.arange(64, dtype="float32").reshape(32, 2)
    >>> all(np.array_equal(decode_rows(encode_rows(rows, n), (32, 2), "float32", n), rows) for n in (0, 8))
    True
    """
    little = np.dtype(dtype).newbyteorder("<")
    n_inner = shape[0] // inner if inner else 1
    size = (np.prod(shape) // n_inner) * little.itemsize + CRC_BYTES
    chunks = np.frombuffer(data[: n_inner * size], np.uint8).reshape(n_inner, size)
    return np.ascontiguousarray(chunks[:, :-CRC_BYTES]).view(little).reshape(shape)


def inner_checksums(rows: np.ndarray, inner: int) -> dict[str, list[str]]:
    """Return the checksum of each chunk of a shard: who fetches one needs to know which it should be."""
    if not inner:
        return {}
    size = inner * rows[0].nbytes + CRC_BYTES
    data = encode_rows(rows, inner)
    n_inner = len(rows) // inner
    return {"inner": [data[(n + 1) * size - CRC_BYTES : (n + 1) * size].hex() for n in range(n_inner)]}


def _checked(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def encode_strings(texts: list[str], n_rows: int) -> bytes:
    """Return one chunk of strings, filled up to ``n_rows``, as its file (codecs ``vlen-utf8``, ``crc32c``).

    Examples
    --------
    >>> decode_strings(encode_strings(["a.jpg", "Sch\u00f6n.png"], n_rows=4))
    ['a.jpg', 'Schön.png', '', '']
    """
    encoded = [text.encode() for text in texts] + [b""] * (n_rows - len(texts))
    data = struct.pack("<I", n_rows) + b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def decode_strings(data: bytes, n_rows: int | None = None) -> list[str]:
    """Return the strings of one chunk file, or the first ``n_rows`` of them.

    Raises
    ------
    ValueError
        If the checksum does not fit.
    """
    body, tail = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if google_crc32c.value(body).to_bytes(CRC_BYTES, "little") != tail:
        raise ValueError("the checksum does not fit")
    texts, at, length = [], 4, struct.Struct("<I").unpack_from
    (n_stored,) = length(body)
    for _ in range(n_stored if n_rows is None else min(n_rows, n_stored)):
        end = at + 4 + length(body, at)[0]
        texts.append(body[at + 4 : end].decode())
        at = end
    return texts
