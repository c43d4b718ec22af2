"""Stores that the commands wrote, opened where nothing of embedctl can be imported, every warning an error."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from pipelines.simulate.images import render_images
from pipelines.simulate.recordings import simulate_things_eeg2

LOOK = """
import sys, warnings

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("embedctl", "pipelines", "stores"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Nothing())
warnings.simplefilter("error")
import numpy, xarray, zarr

def plain(values):
    return numpy.array(values.tolist()) if values.dtype.kind in "TO" else values

def arrays(group, prefix=""):
    for name, member in group.members():
        if isinstance(member, zarr.Array):
            yield prefix + name, plain(member[...])
        else:
            yield from arrays(member, f"{prefix}{name}/")

path, copy = sys.argv[1:]
found = dict(arrays(zarr.open_group(path, mode="r")))
groups = {name.rpartition("/")[0] for name in found}
for group in sorted(groups):
    seen = xarray.open_zarr(path, group=group).load()
    for name in seen.variables:
        again = found[f"{group}/{name}" if group else name]
        numpy.testing.assert_array_equal(plain(seen[name].values), again)
numpy.savez(copy, **found)
assert not {"embedctl", "pipelines", "stores"} & set(sys.modules)
"""


def run(*words: str) -> None:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.stderr


def elsewhere(store: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return every array of a store, read by zarr and again by xarray in a process that knows nothing of us."""
    command = [sys.executable, "-I", "-c", LOOK, str(store), str(folder / "copy.npz")]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    with np.load(folder / "copy.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        images = render_images(folder / "images", n_train_concepts=6, images_per_concept=2, n_test_concepts=3)
        (folder / "images" / "broken.jpg").write_bytes(b"")
        run_with_a_broken_image = CliRunner().invoke(app, ["extract", "--model", "pixels,colour-histogram"])
        assert run_with_a_broken_image.exit_code == 3
        run("extract", "--model", "pixels:output", "--dtype", "float32", "--images", "images/training_images")
        pixels = embedctl.open_embeddings("embeddings.zarr")["pixels"]
        rows = dict(zip(pixels.image_ids, pixels.values, strict=True))
        simulate_things_eeg2(
            folder / "raw" / "things-eeg2", images.training, images.test, rows,
            subjects=[1, 2], sessions=2, test_repetitions=4, ch_names=("Fz", "P7", "Pz", "O1", "Oz"), n_sources=3,
        )  # fmt: skip
        run("preprocess", "--dataset", "things-eeg2", "--subject", "1")
        run("preprocess", "--dataset", "things-eeg2")
    return folder


@pytest.mark.slow
def test_what_extract_wrote_opens_with_zarr_and_xarray_and_nothing_of_ours(workspace, tmp_path):
    found = elsewhere(workspace / "embeddings.zarr", tmp_path)
    store = embedctl.open_embeddings(workspace / "embeddings.zarr")
    assert len(store.names) == 3
    for name in store.names:
        e = store[name]
        group = f"{name.replace(':', '~')}-{e.provenance['key']}"
        committed = np.isin(found[f"{group}/image"], e.image_ids)
        assert found[f"{group}/image"][committed].tolist() == e.image_ids and len(e.image_ids) in (15, 12)
        values = found[f"{group}/values"]
        assert values.dtype == e.values.dtype and np.array_equal(values[committed], e.values)
        assert np.isnan(values[~committed]).all()


@pytest.mark.slow
def test_what_preprocess_wrote_opens_with_zarr_and_xarray_and_nothing_of_ours(workspace, tmp_path):
    found = elsewhere(workspace / "epochs.zarr", tmp_path)
    epochs = embedctl.open_epochs(workspace / "epochs.zarr")
    assert epochs.subjects("things-eeg2") == [1, 2]
    for subject in (1, 2):
        s = epochs["things-eeg2", subject]
        for split in ("train", "test"):
            ours, group = getattr(s, split), f"things-eeg2/sub-{subject:02d}/{split}"
            assert found[f"{group}/image"].tolist() == ours.image_ids
            assert found[f"{group}/channel"].tolist() == s.ch_names
            assert np.array_equal(found[f"{group}/time"], s.times)
            assert np.array_equal(found[f"{group}/mean"], ours.mean)
            assert np.array_equal(found[f"{group}/valid"], ours.valid)
            everything = np.arange(len(ours.image_ids))
            assert np.array_equal(found[f"{group}/epochs"].astype("f4"), ours.take(everything), equal_nan=True)
