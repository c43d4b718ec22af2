"""What leaves the stores equals what is in them, and a run applied to its own test says what it said then."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.export.predict import predict
from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.request import TrainRequest
from pipelines.train.restore import restore
from pipelines.train.sweep import train
from stores.epochs import EpochStore
from stores.errors import EmbedctlError, StoreMismatch, UnknownName
from stores.results import read_array, read_results, read_summary
from tests.train.conftest import TEST_IDS, TRAIN_IDS, write_subject


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    asked = {"brain": "eeg", "models": ("planted",), "subjects": (1,), "recipe": workspace.recipe, "device": "cpu"}
    where = {"embeddings": workspace.embeddings, "epochs": workspace.epochs, "runs": folder / "runs"}
    return folder / "runs", train(TrainRequest(**asked, **where)).jobs[0].run_id


def stores(workspace):
    return {"epochs": workspace.epochs, "embeddings": workspace.embeddings}


def test_a_run_applied_to_its_own_test_set_gives_what_it_kept(workspace, run):
    found = predict(*run, **stores(workspace))
    assert np.allclose(found.brain, read_array(*run, "brain"), atol=1e-6)
    assert np.allclose(found.scores, read_array(*run, "scores"), atol=1e-6)
    kept = read_summary(*run)
    assert found.figures["chance"] == 1 / 16
    assert all(found.figures[name] == kept[name] for name in ("top1", "top5", "noise_ceiling"))
    assert found.queries == found.gallery_ids == TEST_IDS


def test_it_reads_another_subject_and_the_training_images(workspace, run):
    other = predict(*run, subject=2, **stores(workspace))
    assert other.figures["top1"] > 3 / 16  # the same sources drive both
    assert not np.allclose(other.brain, read_array(*run, "brain"), atol=0.1)
    own = predict(*run, training=True, **stores(workspace))
    assert own.queries == TRAIN_IDS and own.figures["top1"] > 10 / len(TRAIN_IDS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ch_names": ["C9", "Oz", "O2", "PO7", "Fz", "Cz"]}, "lack 1 channel "),
        ({"times": [0.3 + t / 80 for t in range(80)]}, "other moments than the 80"),
    ],
)
def test_recordings_without_its_channels_or_moments_are_refused(workspace, run, tmp_path, monkeypatch, change, said):
    recordings = EpochStore.open(workspace.epochs)["things-eeg2", 2]
    for name, value in change.items():
        setattr(recordings, name, np.array(value) if name == "times" else value)
    monkeypatch.setattr(EpochStore, "__getitem__", lambda self, key: recordings)
    with pytest.raises(EmbedctlError, match=said):
        predict(*run, **stores(workspace))


def test_voxels_are_not_read_by_a_run_on_channels(workspace, run, tmp_path):
    write_subject(
        EpochStore.open(tmp_path / "v.zarr", create=True), 1, workspace.planted, dataset="nsd", modality="fmri"
    )
    with pytest.raises(EmbedctlError, match="reads eeg, these are fmri"):
        predict(*run, dataset="nsd", epochs=tmp_path / "v.zarr", embeddings=workspace.embeddings)


def test_the_csls_column_is_what_nearest_neighbours_of_another_library_make_of_it(workspace, run):
    from sklearn.neighbors import NearestNeighbors

    found = predict(*run, epochs=workspace.epochs, embeddings=workspace.embeddings)
    brain, images = found.brain.astype(np.float64), found.gallery.astype(np.float64)

    def density(of, among):  # mean cosine of the ten nearest; of unit vectors it is 1 - distance² / 2
        distances, _ = NearestNeighbors(n_neighbors=10).fit(among).kneighbors(of)
        return 1 - (distances**2 / 2).mean(axis=1)

    corrected = 2 * brain @ images.T - density(brain, images)[:, None] - density(images, brain)[None]
    own = [found.gallery_ids.index(image) for image in found.queries]
    (row,) = [row for row in read_results(run[0]).to_pylist() if row["run_id"] == run[1]]
    assert row["csls_top1"] == (corrected.argmax(axis=1) == own).mean()


def test_a_store_without_the_very_embedding_is_refused(workspace, run, tmp_path, monkeypatch):
    trained = restore(*run)
    trained.config.update({"embedding_key": "ffffffffffff", "parts": ["planted#ffffffffffff"]})
    monkeypatch.setattr("pipelines.export.predict.restore", lambda *_: trained)
    with pytest.raises(StoreMismatch, match="does not hold planted#ffffffffffff"):
        predict(*run, **stores(workspace))


def test_a_run_of_another_version_is_refused_in_two_lines(workspace, run, monkeypatch):
    trained = restore(*run)
    del trained.config["scale"]
    monkeypatch.setattr("pipelines.export.predict.restore", lambda *_: trained)
    with pytest.raises(StoreMismatch, match="is of another version of embedctl") as problem:
        predict(*run, epochs=workspace.epochs, embeddings=workspace.embeddings)
    assert problem.value.hint == "train it again"


def test_a_run_whose_own_network_has_changed_since_is_refused(workspace, tmp_path):
    file = tmp_path / "mine.py"
    text = "from pipelines.train.brain_encoders.linear import LinearReadout as Net\n"
    file.write_text(text)
    trust(str(file))
    asked = {"brain": "eeg", "models": ("planted",), "subjects": (1,), "recipe": workspace.recipe}
    where = {"embeddings": workspace.embeddings, "epochs": workspace.epochs, "runs": tmp_path / "runs"}
    run_id = train(TrainRequest(**asked, **where, brain_encoder=f"{file}:Net")).jobs[0].run_id
    assert restore(tmp_path / "runs", run_id)
    file.write_text(text + "# changed\n")
    with pytest.raises(StoreMismatch, match="has changed since"):
        restore(tmp_path / "runs", run_id)


def embedctl(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_an_exported_run_is_what_the_run_kept_and_its_gallery_gives_its_scores(workspace, run, tmp_path):
    words = ("export", run[0] / run[1], "--embeddings", workspace.embeddings, "--to", tmp_path / "out")
    assert embedctl(*words).exit_code == 0
    brain, scores, gallery = (np.load(tmp_path / "out" / f"{name}.npy") for name in ("brain", "scores", "gallery"))
    assert np.array_equal(brain, read_array(*run, "brain")) and np.array_equal(scores, read_array(*run, "scores"))
    assert np.allclose(brain @ gallery.T, scores, atol=1e-5)
    assert json.loads((tmp_path / "out" / "queries.json").read_text()) == TEST_IDS
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "queries.json").unlink()  # as after a call that was cut short
    assert embedctl(*words).exit_code == 0
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert {file.name for file in written if again[file] != written[file]} == {"queries.json"}
    (tmp_path / "out" / "scores.npy").write_bytes(b"another run's")
    other = embedctl(*words)
    assert other.exit_code == 2 and other.stderr.splitlines()[0].endswith("scores.npy' is there already")


def test_predict_writes_the_same_files(workspace, run, tmp_path):
    where = ("--embeddings", workspace.embeddings, "--epochs", workspace.epochs, "--runs", run[0])
    result = embedctl("predict", run[1], *where, "--subject", 1, "--to", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "16 recordings among 16 images: top-1 " in result.stdout and "chance 6.2 %" in result.stdout
    assert np.allclose(np.load(tmp_path / "out" / "scores.npy"), read_array(*run, "scores"), atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "brain.npy", "gallery.json", "gallery.npy", "queries.json", "scores.npy",
    ]  # fmt: skip


def test_an_embedding_and_epochs_are_exported_as_they_are_stored(workspace, tmp_path):
    out = tmp_path / "out"
    assert embedctl("export", "--model", "planted", "--embeddings", workspace.embeddings, "--to", out).exit_code == 0
    assert np.array_equal(np.load(out / "planted-00112233aabb.npy"), workspace.planted.astype(np.float32))
    assert json.loads((out / "planted-00112233aabb.json").read_text()) == TRAIN_IDS + TEST_IDS
    words = ("export", "--dataset", "things-eeg2", "--subject", 2, "--epochs", workspace.epochs, "--to", out)
    assert embedctl(*words).exit_code == 0
    stored = EpochStore.open(workspace.epochs)["things-eeg2", 2]
    for name, split in (("train", stored.train), ("test", stored.test)):
        assert np.array_equal(np.load(out / f"{name}.npy"), split.mean)
        assert json.loads((out / f"{name}.json").read_text()) == split.image_ids
    assert np.array_equal(np.load(out / "times.npy"), stored.times)
    assert json.loads((out / "channels.json").read_text()) == stored.ch_names


@pytest.mark.parametrize("words", [(), ("a-run", "--model", "pixels"), ("--dataset", "d"), ("--subject", "1")])
def test_export_takes_one_thing(words):
    result = embedctl("export", *words)
    assert result.exit_code == 2 and result.stderr.startswith("error: export takes one thing\nhint:")


def test_a_run_that_is_not_there_is_named(workspace, run):
    with pytest.raises(EmbedctlError, match="no finished run 'nothing'"):
        predict(run[0], "nothing", **stores(workspace))
    with pytest.raises(UnknownName):
        predict(*run, subject=7, **stores(workspace))
