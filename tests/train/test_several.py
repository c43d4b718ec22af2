"""Several embeddings as one target: found by name, standardised or routed, and read back by whoever reads runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.export.predict import predict
from pipelines.interpret.interpret import interpret
from pipelines.interpret.request import InterpretRequest
from pipelines.train.compare import pairs, ranking
from pipelines.train.image_head import ImageHead
from pipelines.train.image_side import fit_image_side
from pipelines.train.losses import unit
from pipelines.train.origin import weights_of
from pipelines.train.recipes import read_recipe
from pipelines.train.request import TrainRequest
from pipelines.train.restore import restore
from pipelines.train.several import find_target
from pipelines.train.sweep import train
from stores.embedding import resolve
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, UnknownName
from stores.names import EmbeddingName
from stores.results import read_array, read_results
from tests.train.conftest import write_embedding

MODERN = read_recipe("modern", "eeg")


def entry(name, key="k", **provenance):
    return SimpleNamespace(
        name=EmbeddingName.parse(name), key=key, dim=4, dtype="float16", published=True, provenance=provenance
    )


STORED = [
    *map(entry, ("a", "b:blocks.2.cls+mean", "b:blocks.2.cls", "a@blur-9+noise-5", "noise-5")),
    *(entry("c", key, weights=key) for key in ("1", "2")),
]
STORED[-2].published = STORED[-1].published = False


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a+b:blocks.2.cls+mean", ["a", "b:blocks.2.cls+mean"]),
        ("b:blocks.2.cls+a", ["b:blocks.2.cls", "a"]),
        ("a@blur-9+noise-5", ["a@blur-9+noise-5"]),
        ("a+noise-5+c#2", ["a", "noise-5", "c"]),
    ],
)
def test_a_plus_joins_embeddings_unless_it_is_part_of_a_name(text, parts):
    found = find_target(text, lambda one: resolve(STORED, one))
    assert [str(part.name) for part in found.parts] == parts and found.name == "+".join(parts)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a+aa", "no embedding called 'aa'"), ("a+a", "names an embedding twice"), ("a+c", "stored with 2 keys")],
)
def test_what_cannot_be_joined_is_refused(text, said):
    with pytest.raises(EmbedctlError, match=said):
        find_target(text, lambda one: resolve(STORED, one))


def test_the_weights_of_several_are_those_of_the_first_with_a_mark():
    a, random = (entry(name, weights=said) for name, said in (("a", "sha256:aa"), ("b", "random:7")))
    assert weights_of(SimpleNamespace(parts=(a, random))) == "random:7"
    assert weights_of(SimpleNamespace(parts=(a, entry("b", weights="sha256:bb")))).startswith("sha256:")


def test_side_by_side_each_embedding_weighs_the_same_and_nothing_but_the_trained_images_settles_it():
    rng = np.random.default_rng(0)
    wide, narrow = 100 + 50 * rng.standard_normal((40, 60)), 0.01 * rng.standard_normal((40, 6))
    narrow[:, 2] = 5.0
    values, train = np.concatenate((wide, narrow), axis=1).astype(np.float32), np.arange(30)
    side, images = fit_image_side(values, train, (60, 6), MODERN, torch.device("cpu"))
    expected = (values - values[train].mean(axis=0)) / np.where(np.arange(66) == 62, np.inf, values[train].std(axis=0))
    expected /= np.repeat([60**0.5, 6**0.5], [60, 6])
    assert torch.allclose(unit(images), unit(torch.from_numpy(expected).float()), atol=1e-3)
    shares = [np.square(expected[train][:, part]).sum() for part in (slice(0, 60), slice(60, 66))]
    assert shares[0] / shares[1] == pytest.approx(6 / 5, rel=1e-3)  # but for the feature that is constant
    values[30:] = rng.standard_normal((10, 66))
    other, _ = fit_image_side(values, train, (60, 6), MODERN, torch.device("cpu"))
    assert all(torch.equal(mine, side.state()[name]) for name, mine in other.state().items())


def test_a_router_starts_with_the_mean_of_its_stack_and_narrows_all_by_one_map():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 3 * 20)).astype(np.float32)
    routed = MODERN.with_(several="route", dim=5)
    side, stack = fit_image_side(values, np.arange(30), (20, 20, 20), routed, torch.device("cpu"))
    assert stack.shape == (40, 3, 5) and set(side.state()) == {"axes"}
    head = ImageHead("linear", 5, 3)
    assert torch.allclose(head(stack), stack.mean(dim=1), atol=1e-6)
    assert torch.allclose(side(values[:4], torch.device("cpu")), stack[:4])


@pytest.fixture(scope="module")
def stores(workspace, tmp_path_factory):
    """Three layers of an encoder, one of which drives the recordings, and something narrower."""
    folder = tmp_path_factory.mktemp("several")
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images(EmbeddingStore.open(workspace.embeddings).images().values())
    rng = np.random.default_rng(5)
    said = {"aligned_by": "dreamsim", "matched_base": "net", "match": "exact"}
    for layer in (1, 2, 3):
        noise = rng.standard_normal(workspace.planted.shape)
        write_embedding(store, f"net:blocks.{layer}", workspace.planted if layer == 2 else noise, registry=said)
    write_embedding(store, "narrow", 100 * rng.standard_normal((len(noise), 3)))
    recipe = folder / "routed.toml"
    recipe.write_text('base = "modern"\nbatch = 32\npasses = 8\nlr = 1e-3\nwindow = []\nseveral = "route"\n')
    return SimpleNamespace(folder=folder, embeddings=folder / "embeddings.zarr", routed=str(recipe))


def ask(workspace, stores, model, **changes):
    asked = {"brain": "eeg", "models": (model,), "subjects": (1,), "device": "cpu", "recipe": workspace.recipe}
    where = {"embeddings": stores.embeddings, "epochs": workspace.epochs, "runs": stores.folder / "runs"}
    return TrainRequest(**asked | where | changes)


LAYERS = "net:blocks.1+net:blocks.2+net:blocks.3"


@pytest.fixture(scope="module", params=["concatenate", "route"])
def trained(request, workspace, stores):
    changes = {"recipe": stores.routed} if request.param == "route" else {}
    asked = ask(workspace, stores, LAYERS if changes else "net:blocks.2+narrow", **changes)
    return asked, train(asked).jobs[0], request.param


def test_a_run_against_several_finds_images_and_says_what_it_was(trained):
    asked, job, kind = trained
    (row,) = [row for row in read_results(asked.runs).to_pylist() if row["run_id"] == job.run_id]
    assert row["embedding"] == job.embedding == asked.models[0] and row["top1"] > 4 / 16
    assert row["encoder"] == ("net" if kind == "route" else "net+narrow")
    assert (row["aligned_by"], row["matched_base"], row["weights"]) == ("dreamsim", "", "none")
    assert train(asked).n_trained == 0


def test_the_router_turns_to_the_layer_that_the_recordings_carry(trained):
    asked, job, kind = trained
    weights = restore(asked.runs, job.run_id).image.weights()
    if kind == "route":
        assert weights.argmax() == 1 and weights[1] > 0.5
    else:
        assert weights is None


@pytest.mark.slow
def test_predict_and_interpret_give_what_the_run_gave(trained, workspace, tmp_path):
    asked, job, _ = trained
    found = predict(asked.runs, job.run_id, epochs=workspace.epochs, embeddings=asked.embeddings)
    assert np.allclose(found.scores, read_array(asked.runs, job.run_id, "scores"), atol=1e-5)
    report = interpret(
        InterpretRequest(embeddings=asked.embeddings, epochs=asked.epochs, runs=asked.runs, models=(job.embedding,))
    )
    assert report.to_do == [job.run_id] and not report.skipped


def test_the_rankings_hold_it_and_no_pair_is_formed(trained):
    asked, job, _ = trained
    results = read_results(asked.runs)
    assert job.embedding in [row.embedding for row in ranking(results)]
    assert pairs(results) == []
    for words in (
        ["results", "--runs", asked.runs],
        ["compare", "--runs", asked.runs],
        ["show", asked.runs / job.run_id],
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.stderr
        assert ("route " in done.stdout) == (words[0] == "show" and trained[2] == "route")


def test_layers_of_other_widths_cannot_be_routed(workspace, stores):
    with pytest.raises(EmbedctlError, match="its parts have 24, 3 features"):
        train(ask(workspace, stores, "net:blocks.2+narrow", recipe=stores.routed))
    with pytest.raises(UnknownName, match="no embedding called 'net:blocks.9'"):
        train(ask(workspace, stores, "net:blocks.2+net:blocks.9"))
