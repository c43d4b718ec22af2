"""Keras files are loaded by name, completely or not at all."""

import h5py
import numpy as np
import pytest
import torch

from pipelines.encoders.build import build
from pipelines.encoders.harmonization import construct
from pipelines.encoders.harmonization_resnet50v2 import ResNet50V2
from pipelines.encoders.harmonization_weights import keras_tensors, sources
from pipelines.encoders.registry import NORMS, find
from stores.errors import EmbedctlError
from stores.names import EmbeddingName
from tests.harmonization_reference import HARMONISED
from tests.references.harmonization import recipe

SPEC = find("harmonized-levit")  # the smallest network


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A whole model as Keras saves it after training."""
    return recipe.write_h5(tmp_path_factory.mktemp("h5") / "levit.h5", "levit_128", whole_model=True)


@pytest.fixture
def damaged(trained, tmp_path):
    """A copy to be damaged."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(trained.read_bytes())
    return path


def refusal(path) -> str:
    with pytest.raises(EmbedctlError) as problem:
        build(SPEC, weights=str(path))
    assert problem.value.exit_code == 2 and problem.value.hint and "\n" not in str(problem.value)
    return str(problem.value)


def test_there_are_seven_and_the_alias_is_the_vit():
    assert len(HARMONISED) == 7
    assert find("harmonized-vitb16").id == "harmonized-vit"


@pytest.mark.parametrize("id_", HARMONISED)
def test_every_tensor_that_keras_has_is_the_source_of_one_of_ours(id_):
    """The inventory was written by Keras itself."""
    model = find(id_).model
    with torch.device("meta"):
        state = construct(model, classifier=True).state_dict()
    wanted = sources(model["name"], {name: tuple(tensor.shape) for name, tensor in state.items()})
    ours = [(name, source.shape) for source in wanted.values() for name in source.names]
    theirs = [tensor for _, found in recipe.inventory(model["name"]) for tensor in found]
    assert sorted(ours) == sorted(theirs)
    assert set(wanted) == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, source in wanted.items():
        part = np.broadcast_to(np.float32(0), source.shape)
        assert source.tensor([part] * len(source.names)).shape == state[name].shape, name


def test_a_pair_has_one_architecture_and_no_verdict():
    for spec in map(find, HARMONISED):
        assert spec.match == "architecture" and "Not the same training" in find(spec.matched_base).notes


def test_both_layouts_of_a_keras_file_give_the_same_numbers(trained, tmp_path):
    bare = recipe.write_h5(tmp_path / "bare.h5", "levit_128")
    x = torch.rand(1, 3, 224, 224)
    first, second = (build(SPEC, weights=str(path))(x)[EmbeddingName(SPEC.id)] for path in (bare, trained))
    assert torch.equal(first, second)
    with h5py.File(trained) as file:
        assert "optimizer_weights" in file and len(keras_tensors(file)) == 330


def edit(path, layer: str, change) -> None:
    """Change the tensors of one layer: a function of the list of (name, array)."""
    with h5py.File(path, "a") as file:
        group = file["model_weights"][layer]
        kept = change([(name.decode(), group[name.decode()][()]) for name in group.attrs["weight_names"]])
        del file["model_weights"][layer]
        group = file["model_weights"].create_group(layer)
        group.attrs["weight_names"] = np.array([name for name, _ in kept], dtype="S")
        for name, array in kept:
            group[name] = array


def test_a_missing_tensor_is_named(damaged):
    edit(damaged, "stem_2_bn", lambda tensors: tensors[:-1])
    assert refusal(damaged) == "damaged.h5 does not fit: 1 missing (stem_2_bn/moving_variance)"


def test_a_tensor_too_many_is_named(damaged):
    edit(damaged, "head", lambda tensors: [*tensors, ("head/scale:0", np.ones(3, np.float32))])
    assert refusal(damaged) == "damaged.h5 does not fit: 1 left over (head/scale)"


def test_a_misshapen_tensor_is_named(damaged):
    edit(damaged, "head", lambda tensors: [(name, array.T) for name, array in tensors])
    assert refusal(damaged) == "damaged.h5 does not fit: 1 misshapen (head/kernel (1000, 384), not (384, 1000))"


def test_a_renamed_tensor_is_missing_and_left_over(damaged):
    """What Keras' own ``load_weights(by_name=True, skip_mismatch=True)`` passes over in silence."""
    edit(damaged, "stem_1_conv", lambda tensors: [("conv2d/kernel:0", tensors[0][1])])
    assert refusal(damaged) == "damaged.h5 does not fit: 1 missing (stem_1_conv/kernel), 1 left over (conv2d/kernel)"


def test_a_tensor_twice_is_refused(damaged):
    edit(damaged, "stem_1_conv", lambda tensors: [("stem_2_conv/kernel:0", tensors[0][1])])
    assert refusal(damaged) == "damaged.h5 holds 'stem_2_conv/kernel' twice"


def test_the_file_of_another_network_is_refused(trained):
    with pytest.raises(
        EmbedctlError, match=r"levit.h5 does not fit: 311 missing \(stem_conv/.* 330 left over \(stem_1_"
    ):
        build(find("harmonized-efficientnet-b0"), weights=str(trained))


def test_a_truncated_file_and_a_web_page_are_no_keras_files(trained, tmp_path):
    for content in (trained.read_bytes()[:100_000], b"<html>404 Not Found</html>"):
        path = tmp_path / "download.h5"
        path.write_bytes(content)
        assert refusal(path) == "download.h5 is not a whole HDF5 file"


def test_an_hdf5_file_without_weights_is_no_keras_file(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = 1
    assert refusal(tmp_path / "data.h5") == "data.h5 holds no Keras weights: it has no layer_names"


def test_a_layer_that_is_listed_but_not_there_is_missing(damaged):
    with h5py.File(damaged, "a") as file:
        del file["model_weights"]["head"]
    assert refusal(damaged) == "damaged.h5 does not fit: 2 missing (head/kernel; head/bias)"


def test_random_weights_are_the_constructors_own():
    spec = find(id_ := "harmonized-levit")
    x = torch.rand(1, 3, 224, 224)
    torch.manual_seed(5)
    expected = construct(spec.model, classifier=False).eval()
    with torch.no_grad():
        assert torch.equal(build(spec, weights="random:5")(x)[EmbeddingName(id_)], expected(x))


def test_the_base_of_the_resnet_sees_the_pixels_its_weights_know():
    torch.manual_seed(0)
    base, plain = ResNet50V2(0, trained_on="half").eval(), ResNet50V2(0).eval()
    plain.load_state_dict(base.state_dict())
    pixels = torch.rand(1, 3, 64, 64)
    (imagenet, half) = (
        (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in (NORMS["imagenet"], NORMS["half"])
    )
    with torch.no_grad():
        torch.testing.assert_close(base(imagenet), plain(half), rtol=1e-4, atol=1e-5)
