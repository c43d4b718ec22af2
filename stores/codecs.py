"""What a chunk file is: its content and four bytes of checksum, in Zarr v3's own codecs.

Numbers (``bytes``, ``crc32c``) are their rows, little-endian, so a chunk file can be memory-mapped. Strings
(``vlen-utf8``, ``crc32c``) are their number, and each its length and its bytes.
"""

import struct

import google_crc32c
import numpy as np

__all__ = ["CRC_BYTES", "decode_strings", "encode_rows", "encode_strings"]

CRC_BYTES = 4


def encode_rows(rows: np.ndarray) -> bytes:
    """Return one chunk of numbers as its file: the rows, then their checksum.

    Examples
    --------
    >>> len(encode_rows(np.zeros((64, 8), "float16")))
    1028
    """
    data = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes()
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
