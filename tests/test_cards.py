"""Third parties add encoders with a TOML file: what CONTRIBUTING shows works as it stands there."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.encoders import families
from pipelines.encoders import registry as cards
from pipelines.encoders.families import family
from pipelines.encoders.registry import find, registry
from pipelines.encoders.torchvision_import import torchvision
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from tests.photos import write_photographs

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## An encoder of your own")[1]
TABLE = re.search(r"```toml\n(.*?)```", SECTION, re.DOTALL)[1]
COMMANDS = re.search(r"```\n(embedctl .*?)```", SECTION, re.DOTALL)[1].splitlines()


@pytest.fixture(autouse=True)
def forget_added_cards(monkeypatch):
    monkeypatch.setattr(cards, "_added", [])
    registry.cache_clear()
    yield
    monkeypatch.undo()
    registry.cache_clear()


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_photographs(tmp_path / "images", 2)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.toml").write_text(TABLE)
    torch.manual_seed(7)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "my-resnet.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow
def test_the_example_of_contributing_is_ten_lines_and_runs_as_it_stands(here):
    assert len(TABLE.splitlines()) == 10 and len(COMMANDS) == 2
    for command in COMMANDS:
        result = run(*shlex.split(command)[1:])
        assert result.exit_code == 0, result.stderr
    assert run("extract", "--model", "resnet18-tv", "--weights", "my-resnet.pth").exit_code == 0
    store = EmbeddingStore.open(here / "embeddings.zarr")
    assert store["my-resnet"].values.tobytes() == store["resnet18-tv"].values.tobytes()
    assert store["my-resnet"].provenance["registry"]["licence"] == "MIT"


def test_a_setting_saves_the_option(here):
    (here / "embedctl.toml").write_text('cards = "cards"\n')
    listed = json.loads(run("models", "list", "--json").stdout)["models"]
    assert "my-resnet" in [model["id"] for model in listed]
    assert run("models", "doctor", "my-resnet", "--weights", "my-resnet.pth").exit_code == 0
    assert run("models", "pull", "my-resnet").exit_code == 6


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda folder: None, "no cards in 'bad'"),
        (lambda folder: folder.mkdir(), "no cards in 'bad'"),
        (lambda folder: (folder.mkdir(), (folder / "a.toml").write_text("[a")), "not valid TOML"),
        (
            lambda folder: (
                folder.mkdir(),
                (folder / "a.toml").write_text(TABLE.replace("my-resnet", "resnet18-tv", 1)),
            ),
            "registers 'resnet18-tv', which is taken",
        ),
    ],
)
def test_cards_that_cannot_be_used_are_two_lines_and_code_2(here, write, what):
    write(here / "bad")
    for words in (("models", "list"), ("extract", "--model", "pixels")):
        result = run(*words, "--cards", "bad")
        assert result.exit_code == 2 and what in result.stderr.splitlines()[0] and len(result.stderr.splitlines()) == 2


def test_a_package_brings_encoders_and_a_family_by_entry_points(tmp_path, monkeypatch):
    package = tmp_path / "theirs"
    (package / "cards").mkdir(parents=True)
    (package / "cards" / "a.toml").write_text(
        '[flat-colour]\nfamily = "flat"\ndim = 3\n'
        'input = { resize = "bilinear", fit = "squash", resize_to = 8, size = 8, norm = "none" }\n'
    )
    (package / "__init__.py").write_text("import pathlib\nCARDS = pathlib.Path(__file__).parent / 'cards'\n")
    (package / "flat.py").write_text(
        "from torch import nn\nfrom pipelines.encoders.network import Network\n"
        "def network(spec, weights, device='cpu'):\n"
        "    return Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), ('output',))\n"
    )
    facts = tmp_path / "theirs-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[embedctl.cards]\ntheirs = theirs:CARDS\n[embedctl.families]\nflat = theirs.flat\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    registry.cache_clear()
    assert find("flat-colour").dim == 3 and family("flat").module == "theirs.flat"
    images = tmp_path / "images"
    write_photographs(images, 2)
    store = tmp_path / "embeddings.zarr"
    words = ("--weights", "random:0", "--images", str(images), "--store", str(store))
    result = run("extract", "--model", "flat-colour", *words)
    assert result.exit_code == 0, result.stderr
    stored = EmbeddingStore.open(store)["flat-colour"]
    assert stored.values.shape == (2, 3) and stored.provenance["recipe"]["versions"]["theirs"] == "1.0"
    for module in [name for name in sys.modules if name.split(".")[0] == "theirs"]:
        del sys.modules[module]


def test_a_family_nobody_brings_is_an_expected_problem(here):
    (here / "cards" / "mine.toml").write_text(TABLE.replace('"torchvision"', '"torchvison"'))
    result = run("extract", "--model", "my-resnet", "--cards", "cards", "--weights", "random:0")
    assert result.exit_code == 2 and "no encoder family called 'torchvison'" in result.stderr
    with pytest.raises(EmbedctlError, match="torchvison"):
        family("torchvison")
