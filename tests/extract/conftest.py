"""Photographs to extract from, and an ear for forward passes."""

import shutil
from pathlib import Path

import pytest

from pipelines.encoders.build import Encoder
from pipelines.extract import forms
from tests.photos import write_photographs


@pytest.fixture(autouse=True)
def no_form_is_timed(request, monkeypatch):
    """Fold what convolves without a trial: it takes seconds, and goes by how fast this computer is just now."""
    if not request.node.get_closest_marker("slow"):

        def settled(encoder, n_images):
            return ("folded" if encoder.convolves else "plain", "as the tests say")

        monkeypatch.setattr(forms, "choose_form", settled)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_photographs(folder, 20)
    return folder


@pytest.fixture
def images(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "images"))


@pytest.fixture
def few(tmp_path) -> Path:
    """For networks, which take their time."""
    write_photographs(tmp_path / "images", 6, first=2)
    return tmp_path / "images"


@pytest.fixture
def forwards(monkeypatch) -> list[str]:
    """The encoder of every forward pass, in order; building an encoder probes it, which is not counted."""
    passes = []
    plain = Encoder.__call__

    def counted(self, batch):
        if len(batch) > 2:
            passes.append(self.spec.id)
        return plain(self, batch)

    monkeypatch.setattr(Encoder, "__call__", counted)
    return passes
