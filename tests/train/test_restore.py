"""A run read back from its folder is the network that was tested."""

import numpy as np
import pytest
import torch

from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.data import load_subject
from pipelines.train.request import TrainRequest
from pipelines.train.restore import restore
from pipelines.train.several import find_target
from pipelines.train.sweep import train
from pipelines.train.targets import Targets
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import StoreMismatch
from stores.results import read_array


@pytest.fixture(scope="module", params=["eegproject", "nice", "narrowed"])
def run(request, workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("restore")
    recipe = folder / "r.toml"
    settings = 'base = "modern"\nbatch = 32\npasses = 2\nwindow = [0.0, 0.95]\nimage_head = "mlp"\n'
    recipe.write_text(settings + ("dim = 5\n" if request.param == "narrowed" else ""))
    encoder = "nice" if request.param == "nice" else "eegproject"
    asked = {"brain": "eeg", "models": ("planted",), "subjects": (1,), "brain_encoder": encoder, "device": "cpu"}
    where = {"embeddings": workspace.embeddings, "epochs": workspace.epochs, "runs": folder / "runs"}
    report = train(TrainRequest(**asked, **where, recipe=str(recipe)))
    return folder / "runs", report.jobs[0].run_id


def test_it_scores_as_it_did(workspace, run):
    trained = restore(*run)
    loaded = load_subject(EpochStore.open(workspace.epochs)["things-eeg2", 1], trained.recipe)
    store = EmbeddingStore.open(workspace.embeddings)
    gallery = Targets(store, "suffix").rows(find_target("planted", store.resolve), loaded.test.image_ids)
    with torch.no_grad():
        scores = trained.see(loaded.test.epochs) @ trained.picture(gallery).T
    assert np.allclose(scores.numpy(), read_array(*run, "scores"), atol=1e-5)
    assert 0 < trained.scale <= 100


def test_untrained_is_the_same_network_with_other_weights(run):
    trained = restore(*run)
    x = torch.randn(3, trained.shape[0], trained.shape[1])
    random = trained.untrained().see(x)
    assert torch.equal(random, trained.untrained().see(x))
    assert (random * trained.see(x)).sum(dim=1).abs().mean() < 0.8
    torch.manual_seed(trained.config["seed"])
    start = type(trained.brain)(*trained.shape)
    weights = zip(trained.untrained().brain.parameters(), start.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in weights if a.dim() > 1)


def test_weights_of_another_network_are_refused(run, monkeypatch):
    other = {"eegproject": "nice", "nice": "eegproject"}[restore(*run).config["brain_encoder"]]
    monkeypatch.setattr("pipelines.train.restore.brain_encoder", lambda name: brain_encoder(other))
    with pytest.raises(StoreMismatch, match="do not fit"):
        restore(*run)
