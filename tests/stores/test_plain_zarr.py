"""Both stores are plain Zarr v3: they open without us, and without a warning."""

import subprocess
import sys

import numpy as np
import pytest

from tests.crashes import NAMES, extract, preprocess

LOOK = """
import sys, warnings
warnings.simplefilter("error")
import numpy, xarray, zarr

def walk(group):
    for name, member in group.members():
        yield member
        if isinstance(member, zarr.Group):
            yield from walk(member)

path, copies, *arrays = sys.argv[1:]
for consolidated in (None, False):
    members = list(walk(zarr.open_group(path, mode="r", use_consolidated=consolidated)))
    assert len(members) > 2
    for member in members:
        if isinstance(member, zarr.Array):
            member[...]
            names = [codec.to_dict()["name"] for codec in member.metadata.codecs]
            assert names == ["vlen-utf8" if member.dtype.kind == "T" else "bytes", "crc32c"], names
            assert member.shards is None and member.chunks[1:] == member.shape[1:]
xarray.open_zarr(path).load()
for number, array in enumerate(arrays):
    group, name = array.rsplit("/", 1)
    numpy.save(f"{copies}/{number}.npy", xarray.open_zarr(path, group=group).load()[name].values)
assert not {"stores", "embedctl", "pipelines"} & set(sys.modules)
"""


def look(path, *arrays):
    command = [sys.executable, "-I", "-c", LOOK, str(path), str(path.parent), *arrays]
    ran = subprocess.run(command, capture_output=True, cwd=path.parent)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr.decode()
    return [np.load(path.parent / f"{number}.npy") for number in range(len(arrays))]


def test_the_embedding_store_opens_without_embedctl(tmp_path):
    extract(tmp_path, 70)
    (values,) = look(tmp_path / "e.zarr", f"{NAMES[1].replace(':', '~')}-0a/values")
    assert values.shape == (70, 3) and values.dtype == np.float16
    assert np.flatnonzero(np.isnan(values).any(axis=1)).tolist() == [3], "an absent row reads as NaN"


def test_the_epoch_store_opens_without_embedctl(tmp_path):
    preprocess(tmp_path, (1, 2))
    mean, _ = look(tmp_path / "p.zarr", "things-eeg2/sub-02/train/mean", "things-eeg2/sub-02/whitener")
    assert mean.shape == (5, 3, 4) and mean.dtype == np.float32 and (mean == 2).all()


@pytest.mark.parametrize("make, name", [(extract, "e.zarr"), (preprocess, "p.zarr")])
def test_only_arrays_hold_anything_that_is_not_zarr(tmp_path, make, name):
    make(tmp_path, 70) if make is extract else make(tmp_path)
    for path in (tmp_path / name).rglob("*"):
        if path.is_file() and path.name != "zarr.json" and "c" not in path.relative_to(tmp_path).parts:
            array = next(parent for parent in path.parents if (parent / "zarr.json").is_file())
            assert '"node_type": "array"' in (array / "zarr.json").read_text(), path


def test_labels_come_with_the_numbers(tmp_path):
    import xarray

    preprocess(tmp_path)
    split = xarray.open_zarr(tmp_path / "p.zarr", group="things-eeg2/sub-01/test")
    assert split["epochs"].dims == ("image", "repetition", "channel", "time")
    assert split["mean"].sel(channel="O1", time=0.1).dims == ("image",)
    assert split["image"].values.tolist() == ["test/0.jpg", "test/1.jpg"] and split["concept"].dims == ("image",)
