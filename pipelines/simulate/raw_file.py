"""Write a THINGS-EEG2 raw file piece by piece, in the form that ``numpy.save`` of the dictionary gives.

``numpy.save`` needs the whole array in memory; a full-size session is 2.8 GB. Here the array is a
gap of known size in a pickle written by hand, mapped for the caller to fill.
"""

import os
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["raw_file"]


@contextmanager
def raw_file(path: Path, shape: tuple[int, int], others: Mapping[str, Any]) -> Iterator[np.memmap]:
    """Open ``path`` as ``{"raw_eeg_data": float64 array of shape, **others}`` for its array to be filled.

    The file appears under its name when the block ends without an error.

    Parameters
    ----------
    path : Path
        The ``.npy`` to write; its folder is made.
    shape : (int, int)
        Channels, the stim channel last, and samples.
    others : mapping
        The further entries of the dictionary.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "ses-01" / "raw_eeg_test.npy"
    >>> with raw_file(path, (2, 3), {"sfreq": 1000}) as samples:
    ...     samples[:] = [[1, 2, 3], [4, 5, 6]]
    >>> np.load(path, allow_pickle=True).item()["raw_eeg_data"].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    head, tail = _around_the_array(shape, others)
    size = 8 * shape[0] * shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with open(draft, "wb") as file:
        file.write(head)
        file.seek(len(head) + size)
        file.write(tail)
    samples = np.memmap(draft, np.float64, mode="r+", offset=len(head), shape=shape)
    yield samples
    samples.flush()
    os.replace(draft, path)


def _around_the_array(shape: tuple[int, int], others: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return what ``numpy.save`` writes before and after the array's bytes.

    The dictionary is pickled with an array of one element; then the shape and the bytes of that, whose
    place in the pickle is known, are exchanged for the real ones. Protocol 3 is what NumPy wrote when
    the data set was published.
    """
    size = 8 * shape[0] * shape[1]
    if size >= 2**32:
        raise ValueError(f"{size} bytes in one array: protocol 3 holds up to 4 GiB")
    whole = np.empty((), object)
    whole[()] = {"raw_eeg_data": np.zeros((1, 1)), **others}
    saved = pickle.dumps(whole, protocol=3)
    before, found, after = saved.partition(pickle.SHORT_BINBYTES + bytes([8]) + bytes(8))
    one = pickle.BININT1 + b"\x01"
    start, found_shape, middle = before.rpartition(one + one + pickle.TUPLE2)
    if not found or not found_shape:
        raise RuntimeError("this version of NumPy pickles arrays in a way embedctl does not know")
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    real_shape = b"".join(pickle.BININT + struct.pack("<i", n) for n in shape) + pickle.TUPLE2
    return header.getvalue() + start + real_shape + middle + pickle.BINBYTES + struct.pack("<I", size), after
