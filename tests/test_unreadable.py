"""Every command that opens a store, on every way a store can be unreadable: two lines, and 2 or 4."""

import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import simulate_things_eeg2
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from tests.train.conftest import TRAIN_IDS, build_workspace

NOT_A_STORE, DAMAGED, FINE = 2, 4, 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stores, runs, images and recordings for every command."""
    folder = tmp_path_factory.mktemp("made")
    workspace = build_workspace(folder)
    train(
        TrainRequest(
            brain="eeg", embeddings=workspace.embeddings, epochs=workspace.epochs, recipe=workspace.recipe,
            models=("planted",), subjects=(1,), runs=folder / "runs",
        )
    )  # fmt: skip
    (folder / "images").mkdir()
    Image.new("RGB", (40, 30), (80, 0, 0)).save(folder / "images" / "new.png")
    training, test = ["training_images/1_a/x.jpg", "training_images/2_b/y.jpg"], ["test_images/1_c/z.jpg"]
    rows = {name: np.random.default_rng(n).normal(size=12) for n, name in enumerate(training + test)}
    simulate_things_eeg2(
        folder / "raw" / "things-eeg2", training, test, rows,
        subjects=[1], sessions=2, test_repetitions=2, ch_names=("Cz", "O1", "Oz"), n_sources=2,
    )  # fmt: skip
    preprocess(PreprocessRequest(dataset="things-eeg2", raw=folder / "raw" / "things-eeg2", store=folder / "p.zarr"))
    np.save(folder / "mine.npy", np.ones((1, 2), "f4"))
    (folder / "mine.txt").write_text(TRAIN_IDS[0] + "\n")
    return folder


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


TRAIN = ["train", "--brain", "eeg", "--recipe", "quick.toml", "--device", "cpu"]
COMMANDS = {
    "show": ["show", "embeddings.zarr"],
    "extract": ["extract", "--model", "pixels", "--overwrite"],
    "import": ["import", "--name", "mine", "--npy", "mine.npy", "--ids", "mine.txt"],
    "train": [*TRAIN, "--seed", "1", "--model", "planted"],
    "show epochs": ["show", "epochs.zarr"],
    "train on epochs": [*TRAIN, "--seed", "1"],
    "preprocess": ["preprocess", "--dataset", "things-eeg2", "--store", "p.zarr"],
    "results": ["results"],
    "compare": ["compare"],
    "show runs": ["show", "runs"],
    "show run": ["show", "runs/RUN"],
    "train again": [*TRAIN, "--model", "planted", "--subject", "1"],
}
EMBEDDINGS, EPOCHS, P = ("show", "extract", "import", "train"), ("show epochs", "train on epochs"), ("preprocess",)
SUB, PSUB = "epochs.zarr/things-eeg2/sub-01", "p.zarr/things-eeg2/sub-01"

# What may be damaged, by which commands it is read, and the exit code that is documented for that.
PLACES = [
    ("embeddings.zarr", EMBEDDINGS, NOT_A_STORE),
    ("embeddings.zarr/zarr.json", EMBEDDINGS, DAMAGED),
    ("embeddings.zarr/image/zarr.json", EMBEDDINGS, DAMAGED),
    ("embeddings.zarr/image/c/0", EMBEDDINGS, DAMAGED),
    ("embeddings.zarr/image/.embedctl/images-0.parquet", ("extract", "train"), DAMAGED),
    ("embeddings.zarr/image/.embedctl/metadata.json", ("import",), DAMAGED),
    ("embeddings.zarr/planted-*/zarr.json", EMBEDDINGS, DAMAGED),
    ("embeddings.zarr/planted-*/values/zarr.json", EMBEDDINGS, DAMAGED),
    ("embeddings.zarr/planted-*/values/c/0/0", ("train",), DAMAGED),
    ("embeddings.zarr/planted-*/values/.embedctl/metadata.json", ("import",), DAMAGED),
    ("embeddings.zarr/planted-*/values/.embedctl/receipts/000000.json", EMBEDDINGS, DAMAGED),
    ("epochs.zarr", EPOCHS, NOT_A_STORE),
    ("epochs.zarr/zarr.json", EPOCHS, DAMAGED),
    (f"{SUB}/zarr.json", EPOCHS, DAMAGED),
    (f"{SUB}/train/zarr.json", EPOCHS, DAMAGED),
    (f"{SUB}/train/image/c/0", EPOCHS, DAMAGED),
    (f"{SUB}/train/image/zarr.json", EPOCHS, DAMAGED),
    (f"{SUB}/train/image/.embedctl/metadata.json", EPOCHS, DAMAGED),
    (f"{SUB}/train/mean/zarr.json", EPOCHS, DAMAGED),
    (f"{SUB}/train/mean/c/0/0/0", ("train on epochs",), DAMAGED),
    (f"{SUB}/train/mean/.embedctl/receipts/000000.json", EPOCHS, DAMAGED),
    ("p.zarr", P, NOT_A_STORE),
    ("p.zarr/zarr.json", P, DAMAGED),
    ("p.zarr/subject/zarr.json", P, DAMAGED),
    ("p.zarr/subject/c/0", P, DAMAGED),
    ("p.zarr/things-eeg2/zarr.json", P, DAMAGED),
    (f"{PSUB}/zarr.json", P, DAMAGED),
    (f"{PSUB}/train/zarr.json", P, DAMAGED),
    ("runs", ("results", "compare", "show runs"), NOT_A_STORE),
    ("runs/RUN/receipt.json", ("results", "compare", "show runs", "show run", "train again"), DAMAGED),
    ("runs/RUN/summary.json", ("show run",), DAMAGED),
    ("runs/RUN/config.json", ("show run",), DAMAGED),
]
# Lost without a trace, it was never there: the receipt of a block of embeddings, and what only vouches.
NEVER_THERE = ("metadata.json", "values/.embedctl/receipts/000000.json")


def _write(content):
    def damage(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(content)

    return damage


def _lose(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder(path):
    _lose(path)
    path.mkdir()


DAMAGES = {
    "garbage": _write(b"\xff\x00{"),
    "empty": _write(b""),
    "a folder": _folder,
    "lost": _lose,
    "other JSON": _write(b'{"attributes": null, "shape": "x", "node_type": "array", "files": 3}'),
    "a list": _write(b"[]"),
    "nested": _write(b"[" * 100_000),
}
QUICK = ("garbage",)
OF_JSON = ("other JSON", "a list", "nested")


def _cases():
    for place, commands, code in PLACES:
        for damage in DAMAGES:
            if code == NOT_A_STORE and damage in ("a folder", "lost"):
                continue  # an empty place is where a store is made
            if damage in ("lost", "a folder") and place.endswith("RUN/receipt.json"):
                continue  # then the run is not finished: no damage, and none of the results
            if damage == "lost" and place.endswith(NEVER_THERE):
                continue
            said = code
            if place.count("/") == 1 and place.endswith("zarr.json") and damage in ("a folder", "lost", "other JSON"):
                said = NOT_A_STORE
            marks = () if damage in QUICK else pytest.mark.slow
            if damage in OF_JSON and not place.endswith(".json"):
                continue  # to anything else it is garbage
            # One damage at every command every day; the others, which all commands read with the same code, at one.
            for command in commands if damage in QUICK else commands[:1]:
                yield pytest.param(place, damage, command, said, marks=marks, id=f"{command}: {damage} at {place}")


@pytest.mark.parametrize(("place", "damage", "command", "code"), list(_cases()))
def test_a_store_that_cannot_be_read_is_two_lines_and_its_code(workspace, place, damage, command, code):
    (run,) = (path.parent.name for path in workspace.glob("runs/*/receipt.json"))
    (path,) = workspace.glob(place.replace("RUN", run))
    DAMAGES[damage](path)
    result = CliRunner().invoke(app, [word.replace("RUN", run) for word in COMMANDS[command]])
    assert result.exit_code == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error: ", "hint:  "))]
    assert len(lines) == 2 and result.stderr.endswith(f"{lines[0]}\n{lines[1]}\n")
    assert len(lines[1]) > 10


def test_without_damage_every_command_ends_well(workspace):
    (run,) = (path.parent.name for path in workspace.glob("runs/*/receipt.json"))
    for command in sorted(COMMANDS, key=("import", "extract").__contains__):  # these change what is trained on
        result = CliRunner().invoke(app, [word.replace("RUN", run) for word in COMMANDS[command]])
        assert result.exit_code == 0, f"{command}: {result.stderr}"


@pytest.mark.parametrize("damage", ["a folder", "lost"])
@pytest.mark.parametrize("command", ["results", "compare", "show runs", "show run", "train again"])
def test_a_run_without_a_receipt_is_not_finished(workspace, damage, command):
    (receipt,) = workspace.glob("runs/*/receipt.json")
    DAMAGES[damage](receipt)
    result = CliRunner().invoke(app, [word.replace("RUN", receipt.parent.name) for word in COMMANDS[command]])
    assert result.exit_code == (2 if command == "show run" else 0), result.stderr
    assert (command == "train again") == receipt.is_file(), "it is trained again"
