"""Killed between its data and its end, a command that is run again finds all there, and puts the end right.

The end is the copy of the metadata in the root, where plain zarr and xarray look first, and the table of results.
"""

import warnings

import numpy as np
import pytest
import xarray
import zarr
from PIL import Image

import stores.roots
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.imports.imports import import_embeddings
from pipelines.imports.request import ImportRequest
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import simulate_things_eeg2
from pipelines.train import sweep
from pipelines.train.request import TrainRequest
from stores.results import read_results
from tests.extract.test_derived import store_base
from tests.test_preprocess import CHANNELS, ROWS, TEST, TRAINING
from tests.train.conftest import build_workspace


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def killed(*arguments, **options):
    raise Killed


def do_extract(folder):
    if not (folder / "images").exists():
        (folder / "images").mkdir()
        for n in range(3):
            Image.new("RGB", (40, 30), (80 * n, 0, 0)).save(folder / "images" / f"{n}.png")
    extract(ExtractRequest(models=("pixels",), images=folder / "images", store=folder / "s.zarr"))
    return [f"{group.name}" for group in (folder / "s.zarr").glob("pixels-*")]


def do_derive(folder):
    request = ExtractRequest(
        models=("glocal-resnet18",), images=folder / "images", store=folder / "s.zarr", weights="random:7"
    )
    extract(request)
    return [group.name for group in (folder / "s.zarr").glob("glocal-resnet18-*")]


def do_import(folder):
    np.save(folder / "x.npy", np.arange(6.0).reshape(3, 2))
    (folder / "ids.txt").write_text("000.jpg\n001.jpg\n002.jpg\n")
    import_embeddings(
        ImportRequest(name="mine", arrays=(folder / "x.npy",), ids=(folder / "ids.txt",), store=folder / "s.zarr")
    )
    return [group.name for group in (folder / "s.zarr").glob("mine-*")]


def do_preprocess(folder):
    if not (folder / "raw").exists():
        simulate_things_eeg2(
            folder / "raw", TRAINING, TEST, ROWS, subjects=[1], sessions=2, test_repetitions=4, ch_names=CHANNELS
        )
    preprocess(PreprocessRequest(dataset="things-eeg2", raw=folder / "raw", store=folder / "s.zarr"))
    return ["things-eeg2/sub-01/train"]


@pytest.mark.parametrize("command", [do_extract, do_derive, do_import, do_preprocess])
def test_other_programs_see_all_of_it_after_the_next_run(tmp_path, monkeypatch, command):
    if command in (do_derive, do_import):  # into a store that others made
        store_base(ExtractRequest(models=("glocal-resnet18",), store=tmp_path / "s.zarr"))
    with monkeypatch.context() as patch:
        made = stores.roots.Root._create
        # A new store is born with its copy: only the end of the command is cut off.
        patch.setattr(stores.roots.Root, "_create", lambda root: _born(root, made, patch))
        if (tmp_path / "s.zarr").exists():
            patch.setattr(stores.roots.Root, "consolidate", killed)
        with pytest.raises(Killed):
            command(tmp_path)
    data = _chunks(tmp_path)
    (name,) = command(tmp_path)
    assert _chunks(tmp_path) == data, "the data were all there"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_group(tmp_path / "s.zarr", mode="r", use_consolidated=True)
        assert name in dict(root.members(max_depth=None))
        found = xarray.open_zarr(tmp_path / "s.zarr", group=name, consolidated=True)
        assert found.sizes["image"] > 0
    before = _files(tmp_path)
    command(tmp_path)
    assert _files(tmp_path) == before, "and then there is nothing left to do"


def _born(root, made, patch):
    made(root)
    patch.setattr(stores.roots.Root, "consolidate", killed)


def _chunks(folder):
    return {p: p.read_bytes() for p in (folder / "s.zarr").rglob("c/*") if p.is_file() and p.parts[-3] != "subject"}


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "s.zarr").rglob("*") if path.is_file()}


def test_the_table_of_results_is_written_by_the_next_run_and_then_left_alone(tmp_path, monkeypatch):
    workspace = build_workspace(tmp_path)
    request = TrainRequest(
        brain="eeg",
        embeddings=workspace.embeddings,
        epochs=workspace.epochs,
        recipe=workspace.recipe,
        models=("planted",),
        subjects=(1,),
        runs=tmp_path / "runs",
    )
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "assemble", killed)
        with pytest.raises(Killed):
            sweep.train(request)
    table = tmp_path / "runs" / "results.parquet"
    assert not table.exists() and len(read_results(tmp_path / "runs")) == 1
    assert sweep.train(request).n_to_do == 0
    written = table.stat().st_mtime_ns
    assert sweep.train(request).n_to_do == 0 and table.stat().st_mtime_ns == written
