"""Pickled dictionaries are mapped, not obeyed."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.preprocess.raw_npy import map_pickled
from pipelines.simulate.raw_file import raw_file
from stores.errors import BadRecording

DTYPES = st.sampled_from(["<f8", "<f4", ">f8", "<i4", "|u1", ">i2", "|b1", "<c16", "<U3", "|S4"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: st.one_of(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
        hnp.arrays(dtype, (3, 4)).map(np.asfortranarray),
        hnp.arrays(dtype, (6,)).map(lambda a: a[::2]),
    )
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DICTIONARIES = st.dictionaries(st.text(max_size=20), ARRAYS | PLAIN, max_size=6)


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == np.ascontiguousarray(b).tobytes()
        )
    return type(a) is type(b) and a == b


@settings(max_examples=60)
@given(DICTIONARIES, st.sampled_from([3, 4, 5, "numpy"]))
def test_what_was_pickled_comes_back(tmp_path_factory, whole, protocol):
    path = tmp_path_factory.getbasetemp() / "pickled.npy"
    if protocol == "numpy":
        np.save(path, whole, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(whole, protocol=protocol))
    found = map_pickled(path)
    assert found.keys() == whole.keys()
    for key in whole:
        assert same(whole[key], found[key]), key


def test_arrays_are_views_of_the_file_and_cannot_be_written(tmp_path):
    np.save(tmp_path / "raw.npy", {"x": np.arange(10.0), "y": np.arange(3)})
    found = map_pickled(tmp_path / "raw.npy")
    assert isinstance(found["x"].base, np.memmap) and found["x"].base is found["y"].base
    with pytest.raises(ValueError, match="read-only"):
        found["x"][0] = 1


def test_object_arrays_of_text_and_numpy_scalars_are_read(tmp_path):
    whole = {"names": np.array(["Oz", None], object), "sfreq": np.float64(1000), "who": np.str_("sub-01")}
    np.save(tmp_path / "raw.npy", whole)
    found = map_pickled(tmp_path / "raw.npy")
    assert found["names"].tolist() == ["Oz", None]
    assert (found["sfreq"], found["who"]) == (1000.0, "sub-01")


class _Runs:
    """Unpickles into a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.answer = (function, arguments)

    def __reduce__(self):
        return self.answer


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy_header", [True, False])
def test_a_pickle_that_wants_to_call_something_is_refused_with_its_names(tmp_path, protocol, numpy_header):
    import os
    import subprocess

    witness = tmp_path / "witness"
    whole = {
        "raw_eeg_data": np.zeros(3),
        "a": _Runs(os.system, f"touch {witness}"),
        "b": [_Runs(subprocess.getoutput, f"touch {witness}")],
        "c": pytest.approx,
    }
    path = tmp_path / "raw.npy"
    payload = pickle.dumps(whole, protocol=protocol)
    if numpy_header:
        np.save(path, {})
        payload = path.read_bytes()[:128] + payload
    path.write_bytes(payload)
    with pytest.raises(BadRecording) as caught:
        map_pickled(path)
    for name in ("posix.system", "getoutput", "approx"):
        assert name in str(caught.value)
    assert caught.value.hint and caught.value.exit_code == 2
    assert not witness.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x04cnumpy\nndarray.__reduce__\n.",  # a dotted path out of an allowed name
        b"\x80\x02(cposix\nsystem\nX\x02\x00\x00\x00idob.",
        b"\x80\x04(X\x02\x00\x00\x00idiposix\nsystem\n.",
        b"cposix\nsystem\n(S'id'\ntR.",  # protocol 0
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)\x81.",
    ],
)
def test_other_ways_of_calling_are_refused_too(tmp_path, payload):
    (tmp_path / "raw.npy").write_bytes(payload)
    with pytest.raises(BadRecording):
        map_pickled(tmp_path / "raw.npy")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_pickle_is_a_bad_recording_or_another_dictionary_never_a_crash(tmp_path_factory, data):
    whole = pickle.dumps({"raw_eeg_data": np.zeros((2, 3)), "ch_names": ["Oz", "stim"], "sfreq": 1000}, protocol=4)
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("raw") / "raw.npy"
    path.write_bytes(bytes(damaged))
    try:
        assert isinstance(map_pickled(path), dict)
    except BadRecording:
        pass


def test_parts_that_are_shared_are_not_copied_apart(tmp_path):
    layer: list = []
    for _ in range(5):
        layer = [layer] * 30  # unfolded: 25 million items
    (tmp_path / "raw.npy").write_bytes(pickle.dumps({"x": layer}, protocol=4))
    assert len(map_pickled(tmp_path / "raw.npy")["x"]) == 30


def nest(n: int) -> bytes:
    """Return opcodes that push tuples, each the one before twice; the last one is in the memo under ``n``."""
    return b"\x8c\x01x\x94" + b"".join(b"h" + bytes([i, 104, i]) + b"\x86\x94" for i in range(n))


N = 200
NAMES = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f8\x85R"
NESTS = {
    "a name": nest(N) + b"\x8c\x01a\x93.",
    "a module": nest(N) + b"\x8c\x01ah\xc8\x93.",
    "a byte order": nest(N) + NAMES + b"(K\x03h\xc8NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
    "a shape": b"}" + nest(N) + b"\x8c\x12numpy.core.numeric\x8c\x0b_frombuffer\x93(C\x00" + NAMES + b"h\xc8\x8c\x01CtR"
    b"\x94}h\x00h\xc9s.",
}


@pytest.mark.parametrize("where", NESTS)
def test_tuples_that_share_their_parts_are_refused_before_anybody_unfolds_them(tmp_path, where):
    """Each weighs a kilobyte; unfolded it has 2^200 items."""
    (tmp_path / "raw.npy").write_bytes(b"\x80\x04" + NESTS[where])
    with pytest.raises(BadRecording):
        map_pickled(tmp_path / "raw.npy")


def test_lists_and_dictionaries_that_hold_themselves_or_each_other_are_refused(tmp_path):
    shared: list = []
    for _ in range(15):
        shared = [shared] * 1000  # unfolded: 10^45 items
    endless: list = []
    endless.append({"a": endless})
    for value in (shared, endless):
        (tmp_path / "raw.npy").write_bytes(pickle.dumps({"ch_names": value}, protocol=4))
        with pytest.raises(BadRecording, match="share their parts"):
            map_pickled(tmp_path / "raw.npy")


def test_a_name_that_is_a_nest_of_tuples_is_refused_at_once(tmp_path):
    nest = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x94" for n in range(60))  # printed: 2^60 words
    (tmp_path / "raw.npy").write_bytes(b"\x80\x04\x8c\x01x\x94" + nest + b"\x8c\x01a\x93.")
    with pytest.raises(BadRecording):
        map_pickled(tmp_path / "raw.npy")


def test_an_array_larger_than_its_bytes_is_refused(tmp_path):
    saved = pickle.dumps({"raw_eeg_data": np.zeros((1, 3))}, protocol=4)
    claimed = saved.replace(b"K\x01K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86")
    start = claimed.index(b"\x95")
    (tmp_path / "raw.npy").write_bytes(claimed[:start] + claimed[start + 9 :])
    with pytest.raises(BadRecording, match=r"shape \(2147483647, 3\)"):
        map_pickled(tmp_path / "raw.npy")


def test_a_truncated_recording_tells_how_much_of_it_there_is(tmp_path):
    path = tmp_path / "raw.npy"
    with raw_file(path, (2, 250_000), {"sfreq": 1000}):
        pass
    with open(path, "r+b") as file:
        file.truncate(1_200_000)
    with pytest.raises(BadRecording, match=r"is truncated: have 1.2 of 4 MB"):
        map_pickled(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"hello", "not a pickle"),
        (pickle.dumps([1, 2], protocol=4), "it holds list"),
    ],
)
def test_files_that_are_something_else_are_named(tmp_path, content, said):
    (tmp_path / "raw.npy").write_bytes(content)
    with pytest.raises(BadRecording, match=said) as caught:
        map_pickled(tmp_path / "raw.npy")
    assert caught.value.hint


def test_a_plain_array_and_a_missing_file_are_named(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(BadRecording, match="one plain array"):
        map_pickled(tmp_path / "plain.npy")
    with pytest.raises(BadRecording, match="no file"):
        map_pickled(tmp_path / "absent.npy")


def test_arrays_pickled_as_text_by_protocol_2_are_named(tmp_path):
    (tmp_path / "raw.npy").write_bytes(pickle.dumps({"x": np.zeros(3)}, protocol=2))
    with pytest.raises(BadRecording, match="protocol 2"):
        map_pickled(tmp_path / "raw.npy")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x8c\x02f8", b"\x8c\x02f3"),
        (b"\x8c\x02f8", b"\x8c\x02c1"),
        (b"\x8c\x02f8", b"\x8c\x0cU99999999999"),
        (b"K\x00K\x03\x86", b"K\x00\x8a\x0a" + (2**70).to_bytes(10, "little") + b"\x86"),
        (b"K\x00K\x03\x86", b"(" + b"K\x01" * 70 + b"K\x00K\x03t"),
    ],
    ids=["f3", "c1", "U99999999999", "2**70", "72 axes"],
)
def test_types_and_shapes_that_numpy_does_not_have_are_bad_recordings(tmp_path, old, new):
    saved = pickle.dumps({"raw_eeg_data": np.zeros((0, 3))}, protocol=4)
    assert old in saved
    (tmp_path / "raw.npy").write_bytes(saved.replace(old, new))
    with pytest.raises(BadRecording, match="does not hold a dictionary of arrays") as caught:
        map_pickled(tmp_path / "raw.npy")
    assert caught.value.exit_code == 2
