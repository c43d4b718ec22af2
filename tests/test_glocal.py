"""gLocal: an affine map of stored rows, in thingsvision's documented formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.encoders import derived
from pipelines.encoders.affine import random_affine, read_affine
from pipelines.encoders.build import build
from pipelines.encoders.combinations import Source, read_combination
from pipelines.encoders.derived import base_name, load_derivation
from pipelines.encoders.key import embedding_key
from pipelines.encoders.registry import find, registry
from stores.errors import EmbedctlError, NotHere
from stores.names import EmbeddingName

GLOCAL = [spec for spec in registry().values() if spec.aligned_by == "glocal"]


def transform(dim=16, *, bias=True, scalars=np.float32, seed=0):
    """Arrays of a transform.npz as gLocal publishes them: about a tenth of the identity."""
    rng = np.random.default_rng(seed)
    arrays = {
        "weights": (0.1 * np.eye(dim) + 0.01 * rng.standard_normal((dim, dim))).astype(np.float32),
        "mean": np.array(scalars(-0.0018)),
        "std": np.array(scalars(0.0665)),
    }
    return arrays | ({"bias": rng.standard_normal(dim).astype(np.float32)} if bias else {})


def by_thingsvision(x, arrays):
    """thingsvision's ``align``: standardise with the scalars, multiply from the right, add the bias."""
    x = (x - arrays["mean"]) / arrays["std"]
    x = x @ arrays["weights"]
    return x + arrays["bias"] if "bias" in arrays else x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scalars", [np.float32, np.float64])
@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_rows_follow_the_documented_formula_in_float32(tmp_path, bias, scalars, stored):
    arrays = transform(bias=bias, scalars=scalars)
    np.savez_compressed(tmp_path / "transform.npz", **arrays)
    x = np.random.default_rng(1).standard_normal((131, 16)).astype(stored)
    mapped = read_affine(tmp_path / "transform.npz", 16)(x, np.arange(131))
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, by_thingsvision(x.astype(np.float64), arrays), rtol=2e-5, atol=2e-5)


@given(st.sets(st.integers(0, 300), min_size=1), st.data())
@settings(max_examples=25, deadline=None)
def test_a_row_has_the_same_bytes_whatever_rows_it_comes_with(rows, data):
    rows = np.array(sorted(rows))
    some = np.array(sorted(data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=1))))
    mapping = random_affine(96, 0)
    x = np.random.default_rng(0).standard_normal((301, 96)).astype(np.float16)[rows]
    assert mapping(x, rows)[some].tobytes() == mapping(x[some], rows[some]).tobytes()


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"values have shape \(2, 5\), the map takes \(n, 4\)"):
        random_affine(4, 0)(np.zeros((2, 5), np.float32), np.arange(2))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"weights": np.eye(15, dtype=np.float32)}, r"'weights' is \(15, 15\), this base needs \(16, 16\)"),
        ({"weights": np.zeros((16, 15), np.float32)}, "'weights' is"),
        ({"bias": np.zeros((1, 16), np.float32)}, r"'bias' is \(1, 16\)"),
        ({"mean": np.zeros(16, np.float32)}, r"'mean' is \(16,\), this base needs \(\)"),
        ({"weights": None}, "no array 'weights', only bias, mean, std"),
        ({"std": np.float32(0)}, "'std' is 0.0, not positive"),
        ({"mean": np.float32(np.nan)}, "'mean' holds values that are not finite numbers"),
        ({"scale": np.float32(1)}, "array 'scale' has no meaning"),
    ],
)
def test_a_transform_that_does_not_fit_its_base_is_a_named_error(tmp_path, change, what):
    arrays = {name: value for name, value in (transform() | change).items() if value is not None}
    np.savez(tmp_path / "transform.npz", **arrays)
    with pytest.raises(EmbedctlError, match=f"transform.npz: .*{what}"):
        read_affine(tmp_path / "transform.npz", 16)


@pytest.mark.parametrize("damage", ["truncated", "page", "empty", "array", "pickle"])
def test_a_file_that_is_no_complete_npz_is_a_named_error(tmp_path, damage):
    path = tmp_path / "transform.npz"
    np.savez(path, **transform(dim=64))
    whole = path.read_bytes()
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.eye(64))
    elif damage == "pickle":  # e89ee3a served such files for a day
        with path.open("wb") as file:
            np.save(file, np.array({"weights": 1}), allow_pickle=True)
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "page": b"<!DOCTYPE html>", "empty": b""}[damage])
    with pytest.raises(EmbedctlError, match="not a complete .npz file of plain arrays"):
        read_affine(path, 64)


def test_the_random_map_is_drawn_as_documented():
    rng = np.random.default_rng(7)
    weights = 0.1 * (np.eye(512) + rng.standard_normal((512, 512)) / (2 * np.sqrt(512)))
    bias = 0.01 * rng.standard_normal(512)
    drawn = load_derivation(find("glocal-resnet18"), "random:7")
    np.testing.assert_array_equal(drawn.map.weights, weights.astype(np.float32))
    np.testing.assert_array_equal(drawn.map.bias, bias.astype(np.float32))
    assert drawn.weights.label == "random:7" and drawn.weights.source == "numpy.random.default_rng(7)"


def test_the_transform_of_another_encoder_is_refused_by_its_hash(tmp_path, monkeypatch):
    """Upstream's main branch serves DINO's transform for DINOv2: same shapes, so only the hash can tell."""
    dino, dinov2 = find("glocal-dino-vitb16"), find("glocal-dinov2-vitb14")
    path = tmp_path / "transform.npz"
    np.savez(path, **transform(768))
    monkeypatch.setattr(
        derived, "resolve_weights", lambda *_, **__: derived.Weights(f"sha256:{dino.weights[0].sha256}", "", (path,))
    )
    assert load_derivation(dino, str(path)).map.dim == 768
    with pytest.raises(EmbedctlError, match="is the transform of 'glocal-dino-vitb16', not of") as problem:
        load_derivation(dinov2, str(path))
    assert "models pull glocal-dinov2-vitb14" in problem.value.hint


def test_a_transform_known_by_gits_digest_alone_is_refused_for_another_encoder(tmp_path, monkeypatch):
    """VGG's and AlexNet's are as wide as each other, and nobody has published a sha256 of either."""
    np.savez(tmp_path / "transform.npz", **transform(512))
    blob = find("glocal-vgg16").weights[0].git_blob
    monkeypatch.setattr(derived, "git_blob", lambda path: blob)
    with pytest.raises(EmbedctlError, match="is the transform of 'glocal-vgg16', not of 'glocal-alexnet'"):
        load_derivation(find("glocal-alexnet"), str(tmp_path / "transform.npz"))


@pytest.mark.parametrize("spec", GLOCAL, ids=lambda spec: spec.id)
def test_every_table_is_pinned_and_shares_its_hash_with_no_other(spec):
    (file,) = spec.weights
    commit = file.url.removeprefix("https://raw.githubusercontent.com/LukasMut/gLocal/").partition("/")[0]
    assert len(commit) == 40 and int(commit, 16)
    assert file.sha256 or file.git_blob
    assert sum(file.sha256 == f.sha256 for other in GLOCAL for f in other.weights if f.sha256) <= 1
    assert "THINGS" in spec.fitted_on and spec.match == "exact"


def test_a_map_has_no_layers_and_no_network():
    with pytest.raises(EmbedctlError, match="map of stored rows of 'resnet18-tv'") as problem:
        build(find("glocal-resnet18"), weights="random:0")
    assert problem.value.exit_code == 2
    with pytest.raises(EmbedctlError, match="it has no layers"):
        base_name(EmbeddingName.parse("glocal-resnet18:layer3"))


def test_the_key_changes_with_the_rows_that_are_mapped():
    name = EmbeddingName("glocal-resnet18")
    combination = read_combination(name, "random:7")
    given = ("random:7", False, 32, "float16", {"numpy": "2.4"})
    base = lambda key: Source(EmbeddingName("resnet18-tv"), key, "random:7", 32, 512)  # noqa: E731
    keys = {embedding_key(combination.keyed_spec([base(key)]), name, *given)[0] for key in ("0" * 12, "1" * 12)}
    assert len(keys) == 2


def test_a_transform_that_is_not_here_ends_with_the_line_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(NotHere) as problem:
        load_derivation(find("glocal-clip-rn50"), offline=True)
    assert "embedctl models pull glocal-clip-rn50" in problem.value.hint
