"""Whatever the header of a ``.npy`` file says, reading it ends in an array or in an expected error."""

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.encoders.affine import read_affine
from pipelines.imports.arrays import read_array, read_vector
from pipelines.preprocess.datasets.arrays import map_array
from stores.errors import DamagedStore, EmbedctlError
from stores.npy_header import read_header
from stores.sealed import npy_bytes, npy_of

BODY = bytes(256)


def with_header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return a ``.npy`` file of zeros whose header is ``text``."""
    said = text.encode("latin1", "replace") + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(said)) + said + BODY


def saying(shape: object = "(1, 64)", descr: object = "'<f4'", order: object = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


LIES = {
    "a negative size": saying("(-1, 64)"),
    "sizes whose product is negative": saying("(-1, -64)"),
    "a size beyond all memory": saying(f"({10**30}, 64)"),
    "sizes whose product overflows": saying(f"({2**40}, {2**40})"),
    "a size of nothing beside one beyond all memory": saying(f"(0, {10**30})"),
    "truth for a size": saying("(True, 64)"),
    "a hundred axes": saying("(" + "1, " * 100 + ")"),
    "brackets without end": "(" * 3000,
    "signs without end": saying("(" + "-" * 9000 + "1, 64)"),
    "pairs in pairs": saying(descr="(" * 150 + "'<f4'" + ", (1,))" * 150),
    "no type": saying(descr="'nothing'"),
    "a type without bytes": saying(descr="'<U0'"),
    "a type beyond all memory": saying(descr="'S99999999999999999999'"),
    "a list for a type": saying(descr="[1, 2]"),
    "a number for a type": saying(descr="3"),
    "a text for a shape": saying("'12'"),
    "an order that is none": saying(order="[]"),
    "no dictionary": "[1]",
    "other keys": "{1: 2}",
    "nothing": "",
    "half a text": "'",
    "a byte of nothing": "\x00" * 40,
    "a call": "__import__('os').mkdir('ran')",
}


def read_everywhere(folder: Path, content: bytes) -> list[str]:
    """Read a file wherever embedctl reads ``.npy``; return where it was refused. Any other error is the test's."""
    file, packed = folder / "mine.npy", folder / "mine.npz"
    file.write_bytes(content)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights.npy", content)
    with pytest.raises(EmbedctlError):  # an array alone is no map
        read_affine(packed, 64)
    refused = []
    for name, read, error in (
        ("import", lambda: read_array(file), EmbedctlError),
        ("import one per image", lambda: read_vector(file), EmbedctlError),
        ("import of an archive", lambda: read_array(packed), EmbedctlError),
        ("preprocess", lambda: map_array(file), EmbedctlError),
        ("a run", lambda: npy_of(content, file), DamagedStore),
    ):
        try:
            assert isinstance(read(), np.ndarray)
        except error as problem:
            assert "\n" not in problem.what and len(problem.what) < 1000
            refused.append(name)
    return refused


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.filterwarnings("ignore")
def test_a_header_that_no_array_can_have_is_an_expected_error_wherever_it_is_read(tmp_path, lie):
    assert len(read_everywhere(tmp_path, with_header(LIES[lie]))) == 5
    with pytest.raises(ValueError):
        read_header(io.BytesIO(b""))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["<f4", "|O", "<U3", "V9"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
SHAPES = st.lists(st.integers(-3, 70) | st.integers(), max_size=4).map(tuple) | VALUES
TEXTS = st.text(max_size=60) | st.builds(saying, SHAPES.map(repr), VALUES.map(repr), VALUES.map(repr))
TEXTS |= st.builds(saying, SHAPES.map(repr))


@given(text=TEXTS, version=st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_ends_in_an_array_or_in_an_expected_error(tmp_path, text, version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_everywhere(tmp_path, with_header(text, version))


def test_any_byte_of_a_whole_file_may_be_another(tmp_path):
    whole = npy_bytes(np.ones((2, 8), np.float32))
    assert read_everywhere(tmp_path, whole) == ["import one per image"]
    for at in range(128):
        read_everywhere(tmp_path, whole[:at] + bytes([whole[at] ^ 0x29]) + whole[at + 1 :])
