"""R9: fifty bad files in a thousand cost fifty rows, each with its reason, and change no other byte."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from embedctl.cli import app
from stores.embeddings import EmbeddingStore
from tests.photos import ODD_FILES, broken_files, photograph

N, BAD = 1000, 50
EVERY = N // BAD


def one_of_each() -> dict[str, bytes]:
    """Return files that are no picture, each in another way."""
    strip, floats = Image.new("L", (30_000, 2)), Image.fromarray(np.ones((9, 9), np.float32))
    found = broken_files(photograph(0, 24, 18))
    for name, image in (("strip.png", strip), ("floats.tif", floats)):
        image.save(name)
        with open(name, "rb") as file:
            found[name] = file.read()
        os.unlink(name)
    idat = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 8, 9, 0, 0, 0)
    found["colours.png"] = idat + struct.pack(">I", zlib.crc32(idat[12:]))
    found["pickle.png"] = b"\x80\x04cposix\nmkdir\n(X\x06\x00\x00\x00canarytR."
    return found


@pytest.mark.slow
def test_fifty_bad_files_are_listed_and_the_others_are_as_without_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad, odd = list(one_of_each().values()), list(ODD_FILES.items())
    for kind in ("clean", "mixed"):
        (tmp_path / kind).mkdir()
    for n in range(N):
        name, data = odd[n % len(odd)] if n % 4 == 1 else ("a.png", None)
        pixels = photograph(n, 24, 18)
        data = ODD_FILES[name](pixels) if data else ODD_FILES["png_inside.jpg"](pixels)
        for kind in ("clean", "mixed"):
            path = tmp_path / kind / f"{n:04d}{os.path.splitext(name)[1]}"
            if kind == "mixed" and n % EVERY == 0:
                number = n // EVERY
                if number % 13 == 12:
                    path.symlink_to("/etc/hostname" if number % 2 else "nowhere.png")
                else:
                    path.write_bytes(bad[number % len(bad)])
            else:
                path.write_bytes(data)
    stores = {}
    for kind, code in (("clean", 0), ("mixed", 3)):
        words = ["extract", "--model", "pixels,colour-histogram", "--images", kind, "--store", f"{kind}.zarr", "--json"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, result.stderr
        stores[kind], said = EmbeddingStore.open(tmp_path / f"{kind}.zarr"), json.loads(result.stdout)
    assert not (tmp_path / "canary").exists(), "the pickle ran"
    assert sorted(said["skipped"]) == [name for n, name in enumerate(stores["clean"].image_ids) if n % EVERY == 0]
    assert len(said["skipped"]) == BAD and all(why.isprintable() and len(why) > 5 for why in said["skipped"].values())
    for name in ("pixels", "colour-histogram"):
        clean, mixed = stores["clean"][name], stores["mixed"][name]
        assert mixed.absent == said["skipped"] and len(mixed) == N - BAD
        there = [row for row in range(N) if row % EVERY]
        assert clean.take(there).tobytes() == mixed.values.tobytes()
