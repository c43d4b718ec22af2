"""Keras files are loaded by name, completely or not at all."""

import h5py
import numpy as np
import pytest
import timm
import torch

from pipelines.encoders.build import build
from pipelines.encoders.harmonization import network
from pipelines.encoders.harmonization_resnet50v2 import ResNet50V2
from pipelines.encoders.harmonization_weights import AXES, keras_tensors, load, sources
from pipelines.encoders.registry import find, registry
from pipelines.encoders.weights import Weights
from stores.errors import EmbedctlError
from stores.names import EmbeddingName
from tests.harmonization_reference import HARMONISED
from tests.references.harmonization import recipe

SPEC = find("harmonized-levit")  # the smallest file


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory):
    return recipe.write_h5(tmp_path_factory.mktemp("h5") / "levit.h5", "levit_128", whole_model=True)


@pytest.fixture
def damaged(whole_model, tmp_path):
    """A copy to damage, and the group of its weights."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(whole_model.read_bytes())
    with h5py.File(path, "a") as file:
        yield path, file["model_weights"]


def loading(path):
    return build(SPEC, weights=str(path))


@pytest.mark.parametrize("id_", HARMONISED)
def test_every_tensor_of_keras_has_its_place_and_shape(id_):
    """The inventory was written by Keras itself."""
    spec = find(id_)
    with torch.device("meta"):
        module = network(spec, Weights("none"), "meta") if False else _with_classifier(spec)
    wanted = sources(spec.model["name"], {name: tuple(t.shape) for name, t in module.state_dict().items()})
    ours = {(name, source.shape) for source in wanted.values() for name in source.names}
    theirs = {tensor for _, found in recipe.inventory(spec.model["name"]) for tensor in found}
    assert ours == theirs
    for name, source in wanted.items():
        part = np.broadcast_to(np.float32(0), source.shape)
        assert source.tensor([part] * len(source.names)).shape == module.state_dict()[name].shape, name


def test_both_layouts_of_a_keras_file_give_the_same_numbers(whole_model, tmp_path):
    bare = recipe.write_h5(tmp_path / "bare.h5", "levit_128")
    x = torch.rand(1, 3, 224, 224)
    rows = [loading(path)(x)[EmbeddingName(SPEC.id)] for path in (bare, whole_model)]
    assert torch.equal(*rows)


def test_the_optimizers_tensors_are_not_the_networks(whole_model):
    with h5py.File(whole_model) as file:
        assert "optimizer_weights" in file
        assert len(keras_tensors(file)) == 330
