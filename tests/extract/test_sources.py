"""Archives of strangers, WebDataset shards and NSD's HDF5 file as sources of images."""

import io
import os
import struct
import tarfile
import zipfile
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event

import h5py
import numpy as np
import pytest

from pipelines.extract.extract import extract
from pipelines.extract.images import DecodedImage, decode
from pipelines.extract.loading import load_all
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from tests.photos import photograph, write_photographs


def packed(tmp_path, kind: str, members: dict[str, bytes]):
    """Write an archive whose names are written as they are given, each as often as it is given."""
    path = tmp_path / f"images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg"])
def test_an_archive_with_a_name_that_leads_out_of_it_is_refused(tmp_path, kind, name):
    with pytest.raises(EmbedctlError, match="leads out of") as problem:
        open_images(packed(tmp_path, kind, {"good.jpg": b"x", name: b"x"}))
    assert repr(name) in str(problem.value) and problem.value.hint


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_two_images_of_one_name_is_refused(tmp_path, kind):
    with pytest.raises(EmbedctlError, match=r"'b/a\.jpg' is in .* twice"):
        open_images(packed(tmp_path, kind, {"b/a.jpg": b"x", "b/./a.jpg": b"y"}))


def test_links_and_devices_in_a_tar_keep_their_rows_and_get_a_reason(tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = open_images(tmp_path / "images.tar")
    for name, reason in (("a.jpg", "a link"), ("b.jpg", "a link"), ("c.jpg", "not a plain file")):
        with pytest.raises(OSError, match=reason):
            source.read(name)


def test_a_link_in_a_zip_keeps_its_row_and_gets_a_reason(tmp_path):
    link = zipfile.ZipInfo("a.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(OSError, match="a link"):
        open_images(tmp_path / "images.zip").read("a.jpg")


def test_a_bomb_in_a_zip_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bmp", bytes(1 << 25))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(OSError, match="a bomb"):
        open_images(tmp_path / "images.zip").read("bomb.bmp")


def test_a_zip_that_lies_about_a_size_gives_a_reason_and_not_the_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", bytes(1 << 20))
    data = (tmp_path / "images.zip").read_bytes()
    (tmp_path / "images.zip").write_bytes(data.replace(struct.pack("<I", 1 << 20), struct.pack("<I", 10)))
    with pytest.raises(OSError, match="in the zip"):
        open_images(tmp_path / "images.zip").read("a.bmp")


def test_a_tar_that_was_cut_off_is_refused_or_names_the_image_it_ends_in(tmp_path):
    path = packed(tmp_path, "tar", {"a.jpg": b"x" * 5000, "b.jpg": b"y" * 5000})
    whole = path.read_bytes()
    for end in range(600, 11_500, 700):
        path.write_bytes(whole[:end])
        try:
            source = open_images(path)
            read = {name: source.read(name) for name in source.stamps}
        except (OSError, EmbedctlError):
            continue
        assert all(len(data) == 5000 for data in read.values())


def test_a_damaged_zip_is_an_expected_problem(tmp_path):
    path = packed(tmp_path, "zip", {"a.jpg": b"x" * 100})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2")] = 0
    path.write_bytes(data)
    with pytest.raises(EmbedctlError, match="cannot be read in place"):
        open_images(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_half_an_archive_is_an_expected_problem_that_says_so(tmp_path, kind):
    path = packed(tmp_path, kind, {f"{name}.jpg": b"x" * 1000 for name in "abc"})
    path.write_bytes(path.read_bytes()[: 100 if kind == "tar" else 1500])
    with pytest.raises(EmbedctlError, match=f"is no whole {kind}"):
        open_images(path)


def test_a_device_is_no_source_of_images():
    with pytest.raises(EmbedctlError, match="'/dev/null' is no folder, zip or tar"):
        open_images(Path("/dev/null"))


def test_no_further_image_is_loaded_once_nobody_waits(tmp_path):
    write_photographs(tmp_path, 2)
    source, over = open_images(tmp_path), Event()

    def end(decoded):
        over.set()
        return decoded.rgb

    with pytest.raises(CancelledError):
        load_all(source, {0: ("", end)}, list(source.stamps), over)


def test_webdataset_shards_give_the_rows_of_the_folder_they_were_made_of(tmp_path):
    ids = write_photographs(tmp_path / "images", 6)
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / f"shards/{shard:05d}.tar", "w") as archive:
            for name in ids[3 * shard : 3 * shard + 3]:
                archive.add(tmp_path / "images" / name, arcname=name)
                archive.addfile(tarfile.TarInfo(f"{name}.json"))
    embeddings = {}
    for where in ("images", "shards"):
        store = tmp_path / f"{where}.zarr"
        extract(ExtractRequest(models=("pixels",), images=tmp_path / where, store=store))
        embeddings[where] = EmbeddingStore.open(store)["pixels"]
    assert embeddings["shards"].image_ids == [f"{n // 3:05d}/{name}" for n, name in enumerate(ids)]
    assert embeddings["shards"].values.tobytes() == embeddings["images"].values.tobytes()


def test_a_folder_of_tars_obeys_the_rules_of_a_folder_of_images(tmp_path):
    """Hidden tars are none; what is no file or leads out of the folder is not opened: a pipe would wait for ever."""
    folder, outside = tmp_path / "shards", tmp_path / "outside"
    folder.mkdir(), outside.mkdir()
    packed(folder, "tar", {"a.jpg": b"x"}).rename(folder / "0.tar")
    packed(outside, "tar", {"secret.jpg": b"x"})
    (folder / "._0.tar").write_bytes(b"what macOS leaves")
    (folder / ".1.tar").write_bytes((folder / "0.tar").read_bytes())
    (folder / "inside.tar").symlink_to("0.tar")
    (folder / "out.tar").symlink_to(outside / "images.tar")
    (folder / "nothing.tar").symlink_to("gone.tar")
    os.mkfifo(folder / "pipe.tar")
    source = open_images(folder)
    assert list(source.stamps) == ["0/a.jpg", "inside/a.jpg", "nothing.tar", "out.tar", "pipe.tar"]
    assert source.read("0/a.jpg") == source.read("inside/a.jpg") == b"x"
    for name, reason in (("nothing.tar", "No such file"), ("out.tar", "leads out of"), ("pipe.tar", "not a regular")):
        with pytest.raises(OSError, match=reason):
            source.read(name)


@pytest.mark.parametrize("chunks", [None, (1, 40, 40, 3), (2, 17, 40, 1)])
def test_nsd_images_are_read_from_hdf5_under_their_own_ids(tmp_path, chunks):
    pixels = np.stack([photograph(seed, 40, 40) for seed in range(5)])
    with h5py.File(tmp_path / "nsd_stimuli.hdf5", "w") as file:
        file.create_dataset("imgBrick", data=pixels, chunks=chunks)
    source = open_images(tmp_path / "nsd_stimuli.hdf5")
    assert list(source.stamps) == [f"nsd-{n:05d}" for n in range(5)]
    for image_id, shown in zip(source.stamps, pixels, strict=True):
        decoded = decode(source.read(image_id))
        assert isinstance(decoded, DecodedImage) and np.array_equal(decoded.rgb, shown)
    extract(ExtractRequest(models=("pixels",), images=tmp_path / "nsd_stimuli.hdf5", store=tmp_path / "e.zarr"))
    assert EmbeddingStore.open(tmp_path / "e.zarr")["pixels"].image_ids == list(source.stamps)


def test_another_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("imgBrick", data=np.zeros((2, 3)))
    with pytest.raises(EmbedctlError, match="imgBrick") as problem:
        open_images(tmp_path / "x.hdf5")
    assert "nsd_stimuli" in problem.value.hint
