"""`embedctl models doctor` tells a sound encoder from one whose weights, width or numbers are others."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.encoders import doctor, registry
from pipelines.encoders.doctor import examine
from pipelines.encoders.golden import golden
from pipelines.encoders.registry import WeightsFile, find
from pipelines.encoders.torchvision_import import torchvision
from pipelines.encoders.weights import digest

SMALL = find("mobilenetv3-small-tv")


def run(*words):
    return CliRunner().invoke(app, ["models", "doctor", *map(str, words)])


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Return a file of weights and put it where torch keeps downloaded ones."""
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(3)
    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), folder / "net.pth")
    return folder / "net.pth"


def published(sha256):
    return replace(SMALL, weights=(WeightsFile(url="http://127.0.0.1:9/net.pth", sha256=sha256),))


def found(spec, what, **how):
    return next(check for check in examine(spec, **how) if check.what == what)


def test_a_sound_encoder_says_what_was_looked_at_and_ends_well():
    result = run("hog")
    assert result.exit_code == 0 and not result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["check", "weights", "network", "pixels", "probe image"]
    assert "324 numbers at output" in lines[2] and "0e+00 from its golden row" in lines[4]


def test_random_weights_are_compared_with_their_golden_row():
    if golden()["versions"] != doctor.versions():
        pytest.skip("other versions of the libraries may draw other random weights")
    assert "from its golden row" in found(SMALL, "probe image", weights="random:0").found
    assert "--weights random:0" in found(SMALL, "probe image", weights="random:1").found


def test_numbers_that_are_not_the_golden_ones_are_code_4(monkeypatch):
    monkeypatch.setitem(golden()["rows"], "hog", [1.0] * 8)
    result = run("hog")
    assert result.exit_code == 4 and "wrong: probe image: the golden row begins 1, 1, 1, 1" in result.stderr
    monkeypatch.delitem(golden()["rows"], "hog")
    assert "this encoder has no golden row" in run("hog").stdout


def test_golden_rows_of_other_versions_are_not_compared(monkeypatch):
    monkeypatch.setitem(golden()["rows"], SMALL.id, [1.0] * 8)
    monkeypatch.setattr(doctor, "versions", lambda: {**golden()["versions"], "torch": "9.9"})
    check = found(SMALL, "probe image", weights="random:0")
    assert not check.problem and f"torch {golden()['versions']['torch']} (here 9.9)" in check.found


def test_a_width_that_is_not_the_registrys_is_wrong(monkeypatch):
    monkeypatch.setattr(registry, "find", lambda id_: replace(SMALL, dim=512))
    result = run(SMALL.id, "--weights", "random:0", "--json")
    checks = {check["what"]: check["problem"] for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 4 and checks["network"] == "the registry says 512"


def test_pixels_that_the_fast_way_does_not_give_are_wrong(monkeypatch):
    true = doctor.preprocessing.fast_transform
    monkeypatch.setattr(doctor.preprocessing, "fast_transform", lambda p: lambda rgb: true(p)(rgb[:, ::-1]))
    assert found(SMALL, "pixels", weights="random:0").problem == "more than 2 grey levels apart"


def test_weights_are_the_published_ones_as_far_as_anybody_knows(trained):
    sha256 = digest([trained])
    for known, said in (
        (sha256, "the published file"),
        (sha256[:8], "the published file by its first 8 digits"),
        ("", "nobody has published one to compare with"),
    ):
        check = found(published(known), "weights")
        assert check.found == f"{trained}: sha256 {sha256}, {said}"
    assert found(published("00"), "weights", weights=str(trained)).found.endswith("not the published file")


def test_a_cached_file_that_is_another_is_code_4(trained, monkeypatch):
    monkeypatch.setattr(registry, "find", lambda id_: published("00000000"))
    result = run(SMALL.id)
    assert result.exit_code == 4 and "is not the file of 'mobilenetv3-small-tv'" in result.stderr


def test_what_is_made_of_others_names_them(tmp_path, monkeypatch):
    made = '[both]\nfamily = "concat"\ndim = 1092\nmodel = { of = ["pixels", "hog@grey"] }\n'
    (tmp_path / "mine.toml").write_text(made)
    result = CliRunner().invoke(app, ["models", "doctor", "both", "--cards", str(tmp_path)])
    registry._added.clear()
    registry.registry.cache_clear()
    assert result.exit_code == 0 and "made of stored rows of pixels, hog@grey" in " ".join(result.stdout.split())


def test_a_derived_encoder_is_its_map():
    result = run("glocal-resnet18", "--weights", "random:0")
    assert (
        result.exit_code == 0 and "rows of 'resnet18-tv', which `embedctl models doctor resnet18-tv`" in result.stdout
    )


def truncated_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"x" * 1000)
    path.write_bytes(path.read_bytes()[:-30])


def square(dim):
    return lambda path: np.savez(path, weights=np.eye(dim, dtype="f4"), mean=0.0, std=1.0)


@pytest.mark.parametrize(
    ("id_", "file", "write", "what"),
    [
        ("clip-vitb23", None, None, "error: no encoder called 'clip-vitb23'\nhint:  did you mean 'clip-vitb32'?"),
        ("resnet18-tv", "nowhere.pth", None, "no weights at"),
        ("resnet18-tv", "page.pth", lambda p: p.write_text("<html>sign in</html>"), "it is a web page"),
        ("resnet18-tv", "other.pth", lambda p: torch.save({"a": torch.ones(1)}, p), "other.pth does not fit: "),
        ("dreamsim-clip-vitb32", "cut.zip", truncated_zip, "cut.zip: the zip is incomplete"),
        ("dreamsim-clip-vitb32", "page.zip", lambda p: p.write_text("<html>"), "it is a web page, not a zip"),
        ("glocal-resnet18", "transform.npz", square(5), "'weights' is (5, 5), this base needs (512, 512)"),
        ("glocal-resnet18", "cut.npz", truncated_zip, "not a complete .npz file"),
        ("harmonized-vit", "page.h5", lambda p: p.write_text("<html>"), "page.h5"),
    ],
)
def test_bad_input_is_two_lines_and_code_2(tmp_path, id_, file, write, what):
    if write:
        write(tmp_path / file)
    result = run(id_, *(["--weights", tmp_path / file] if file else []))
    assert result.exit_code == 2 and what in result.stderr, result.stderr
    assert [line[:7] for line in result.stderr.splitlines()] == ["error: ", "hint:  "]
