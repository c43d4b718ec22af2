"""R11: no input runs code, writes outside the workspace, or ends in anything but two lines and a documented code.

Every command that reads, over everything a stranger can put where it reads. `tests.promises.hostile` makes both.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from stores.again import STORE, note_command
from stores.errors import EmbedctlError
from tests.promises import hostile
from tests.promises.hostile import GROUP, SUBJECT, damaged, linked, rows_said, seal, strange_run

EXPECTED = {0, 2, 3, 4, 6}
RUN = "RUN"
NOTEBOOK = "from python"

TRAIN = ["train", "--brain", "eeg", "--recipe", "quick.toml", "--device", "cpu", "--seed", "1", "--model", "planted"]
READING = {
    "show": ["show", "embeddings.zarr"],
    "show epochs": ["show", "epochs.zarr"],
    "show runs": ["show", "runs"],
    "show run": ["show", f"runs/{RUN}"],
    "extract": ["extract", "--model", "pixels"],
    "extract settings": ["extract"],
    "extract file": ["extract", "--model", "resnet18-tv", "--weights", "mine.pt"],
    "extract legacy": ["extract", "--model", "resnet18-tv", "--weights", "mine.pth"],
    "extract script": ["extract", "--model", "clip-vitb32", "--weights", "script.pt"],
    "extract tar": ["extract", "--model", "pixels", "--images", "images.tar", "--store", "other.zarr"],
    "import": ["import", "--name", "mine", "--npy", "mine.npy", "--ids", "mine.txt"],
    "import npz": ["import", "--name", "mine", "--npy", "mine.npz", "--ids", "mine.txt"],
    "import pt": ["import", "--name", "mine", "--npy", "mine.pt", "--ids", "mine.csv"],
    "import pth": ["import", "--name", "mine", "--npy", "mine.pth", "--ids", "mine.json"],
    "import joblib": ["import", "--name", "mine", "--npy", "mine.joblib", "--ids", "mine.txt"],
    "preprocess": ["preprocess", "--dataset", "things-eeg2", "--store", "new.zarr"],
    "train": TRAIN,
    "screen": ["screen", "--brain", "eeg", "--model", "planted"],
    "results": ["results"],
    "compare": ["compare"],
    "reproduce": ["reproduce", "icml2025", "--dry-run"],
    "interpret": ["interpret", "--model", "planted"],
    "report": ["report"],
    "predict": ["predict", RUN],
    "export": ["export", RUN],
    "export model": ["export", "--model", "planted"],
    "export epochs": ["export", "--dataset", "things-eeg2", "--subject", "1"],
    "merge": ["merge", "fresh.zarr", "embeddings.zarr"],
    "merge into": ["merge", "embeddings.zarr", "fresh.zarr"],
    "remove": ["remove", "embeddings.zarr", "unrelated"],
    "remove epochs": ["remove", "epochs.zarr", "things-eeg2/sub-01"],
    "remove run": ["remove", "runs", RUN],
    "verify": ["verify", "."],
    "quick": ["verify", ".", "--quick"],
    "repair": ["repair", "."],
    "models doctor": ["models", "doctor", "resnet18-tv", "--weights", "mine.pt"],
    "models": ["models", "list", "--cards", "cards"],
    "doctor": ["doctor"],
}
# Commands that read nothing of a stranger's, each with the reason.
EXEMPT = {
    "demo": "makes what it reads",
    "init": "writes a file where there is none",
    "datasets list": "reads what is installed",
    "datasets show": "reads what is installed",
    "models show": "reads cards as `models list` does",
    "models pull": "what comes is compared with its sha256",
}

FEW = ("show", "extract", "export model", "verify", NOTEBOOK)
FEW_EPOCHS = ("show epochs", "screen", "verify", NOTEBOOK)
ROWS = ("show", "extract", "import", "export model", "merge", "merge into", "remove", "verify", "repair", NOTEBOOK)
EPOCHS = ("show epochs", "screen", "export epochs", "remove epochs", "verify", "repair", NOTEBOOK)
RUNS = ("show runs", "show run", "results", "predict", "export", "compare", "verify", "repair", "remove run", NOTEBOOK)


def _cases():
    for name, (place, change) in hostile.LIES.items():
        readers = FEW if place.startswith("emb") else FEW_EPOCHS
        yield name, partial(damaged, place=place, change=change), readers
    for place, readers in (
        (f"{GROUP}/values/.embedctl/metadata.json", ROWS),
        (f"{GROUP}/values/.embedctl/receipts/000000.json", ROWS),
        ("embeddings.zarr/image/.embedctl/metadata.json", ROWS),
        (f"{SUBJECT}/train/mean/.embedctl/receipts/000000.json", EPOCHS),
        (f"{SUBJECT}/split/.embedctl/metadata.json", EPOCHS),
        ("epochs.zarr/subject/.embedctl/metadata.json", EPOCHS),
        (f"runs/{RUN}/receipt.json", RUNS),
        ("runs/.embedctl/results.json", RUNS),
    ):
        for number, (name, content) in enumerate(hostile.RECEIPT_LIES.items()):
            # A receipt is read by one function: what it says is tried at one place, where it lies with two lies.
            if "values/.embedctl/receipts" in place or name == "a file above":
                these = readers if number == 0 else (readers[1], "verify", "repair", NOTEBOOK)
                yield f"{place}: {name}", partial(_sealed, place=place, content=content), these
    for name, rows in hostile.ROWS_LIES.items():
        yield name, partial(rows_said, rows=rows), ROWS if name == "rows without end" else FEW
    for place, readers in (
        (GROUP, ROWS),
        (f"{GROUP}/values/c", ROWS),
        ("embeddings.zarr/image/.embedctl/locks", ROWS),
        (SUBJECT, EPOCHS),
        (f"{SUBJECT}/train/mean/c", EPOCHS),
        ("runs/.embedctl", RUNS),
        (f"runs/{RUN}", RUNS),
    ):
        yield f"a link at {place}", partial(_linked, place=place), readers
    yield "a pickle in a v2 store", hostile.v2_with_a_pickle, (*ROWS, "train", "screen")
    arrays = ("import", "import npz", "import pt", "import pth", "import joblib")
    weights = ("extract file", "extract legacy", "extract script", "models doctor")
    yield "pickles as arrays and weights", hostile.pickled_arrays, (*arrays, *weights)
    yield "a pickle as a recording", hostile.pickled_recordings, ("preprocess",)
    yield "names of images", hostile.strange_images, ("extract", "show", "verify")
    yield "an archive that leads out", hostile.strange_archive, ("extract tar",)
    yield "code named by settings and a recipe", hostile.code_named, ("train", "screen", "doctor", "results")
    named = partial(hostile.code_named, config=True)
    yield "code named by a run", named, (*RUNS, "interpret", "report")
    yield "files called like modules", hostile.modules_beside, ("doctor", "train", "verify")
    yield "a card that unpickles", hostile.card_that_unpickles, ("models", "extract settings", "doctor")
    yield "pipes as arrays, ids and weights", partial(hostile.pipes, places=PIPES), (
        *(name for name in arrays if name != "import joblib"), "extract file", "extract tar", "models", "train",
    )  # fmt: skip
    raw = "raw/things-eeg2/sub-01/ses-01/raw_eeg_training.npy"
    yield "a pipe as a recording", partial(hostile.pipes, places=(raw,)), ("preprocess",)
    yield "images without end", hostile.endless_images, ("extract",)
    yield "settings without end", hostile.strange_settings, ("doctor", "extract", "results")
    yield "a recipe and ids without end", hostile.strange_recipe, ("train", "import pth")
    yield "ids that are paths and formulas", hostile.strange_ids, ("import", "import pt")
    yield "cards that are a list", _cards, ("models",)
    canary = b"\x80\x04cposix\nmkdir\n(X\x06\x00\x00\x00canarytR."
    for name, data in {
        "a pickle": canary, "nothing": b"", "no object": b"[]", "an empty object": b"{}", "no end": hostile.DEEP
    }.items():  # fmt: skip
        yield f"a run of {name}", partial(strange_run, config__json=data, summary__json=data), RUNS
    yield "a run of pickles", partial(
        strange_run, scores__npy=canary, checkpoint__safetensors=canary, brain__npy=hostile.npy_of_objects()
    ), (*RUNS, "interpret", "report")  # fmt: skip


PIPES = (
    "mine.npy",
    "mine.npz",
    "mine.pt",
    "mine.pth",
    "mine.txt",
    "mine.json",
    "images.tar",
    "cards/a.toml",
    "quick.toml",
)


def _sealed(home, place, content):
    seal(home / place.replace(RUN, _run(home)), content)


def _linked(home, place):
    linked(home, place.replace(RUN, _run(home)))


def _cards(home):
    (home / "cards").mkdir()
    (home / "cards" / "a.toml").write_text('[evil]\nfamily = "os"\nmodel = { name = "system" }\n')
    (home / "cards" / "b.toml").write_bytes(b"a = " + hostile.DEEP)


def _run(home: Path) -> str:
    return next(path.parent.name for path in sorted((home / "runs").glob("*/receipt.json")))


CASES = {name: (damage, readers) for name, damage, readers in _cases()}
DAILY = ("values of a trillion rows", "rows without end", "pickles as arrays and weights")
DAILY += (f"{GROUP}/values/.embedctl/receipts/000000.json: a file above", f"a link at {GROUP}/values/c")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return hostile.make(tmp_path_factory.mktemp("stranger"))


def _every_command(group, above=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _every_command(command, (*above, name))
        else:
            yield " ".join((*above, name))


def test_every_command_that_reads_is_tried():
    commands = set(_every_command(typer.main.get_command(app)))
    tried = {name for name in commands for words in READING.values() if " ".join(words).startswith(name)}
    assert commands - tried == set(EXEMPT), "a new command is tried here, or exempt with a reason"
    reached = {name for _, readers in CASES.values() for name in readers}
    assert set(READING) <= reached | {"quick", "reproduce", "show", "compare", "interpret"}, set(READING) - reached


@pytest.mark.parametrize(
    "name", [name if name in DAILY else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_nothing_runs_and_nothing_outside_changes(made, tmp_path, monkeypatch, name):
    damage, readers = CASES[name]
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    home = tmp_path / "home"
    shutil.copytree(home / "embeddings.zarr", home / "fresh.zarr")
    run = _run(home)
    damage(home)
    monkeypatch.chdir(home)
    outside = _outside(tmp_path)
    for reader in readers:
        if reader == NOTEBOOK:
            _read_from_python()
        else:
            result = CliRunner().invoke(app, [word.replace(RUN, run) for word in READING[reader]])
            lines = result.stderr.splitlines()
            assert result.exit_code in EXPECTED, f"{reader}: {result.stderr[-500:]}"
            problems = [line for line in lines if line.startswith(("error: ", "hint:  "))]
            assert result.exit_code in (0, 3) or reader in ("doctor", "verify", "quick") or len(problems) == 2, lines
            assert not set(result.output) & set("\x1b\x07\x00\u202e"), reader
        assert _outside(tmp_path) == outside, f"{reader} changed what is outside the workspace"


LIES_OF_A_RUN = {
    "summary.json": {"results": "left out", "report": "left out", "compare": [1], "show runs": 7},
    "config.json": {"predict": "left out", "report": "left out", "export": [1], "show run": 7},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIES_OF_A_RUN)
def test_whatever_a_run_says_of_one_thing_no_command_ends_in_a_bug(made, tmp_path, monkeypatch, name):
    home = shutil.copytree(made / "home", tmp_path / "home")
    monkeypatch.chdir(home)
    file = home / "runs" / _run(home) / name
    whole = json.loads(file.read_bytes())
    for key in whole:
        for reader, lie in LIES_OF_A_RUN[name].items():
            said = {other: value for other, value in whole.items() if other != key}
            file.write_text(json.dumps(said if lie == "left out" else said | {key: lie}))
            hostile.reseal(file.parent)
            result = CliRunner().invoke(app, [word.replace(RUN, file.parent.name) for word in READING[reader]])
            assert result.exit_code in EXPECTED, f"{reader} without {key}, or {lie}: {result.stderr[-500:]}"


NOTED = {
    "as it was typed": (["extract", "--store", STORE, "--weights", "random:7"], "--weights random:7"),
    "code": (["extract", "--store", STORE, "--weights", "/tmp/evil.py:X"], "left out  --weights /tmp/evil.py:X: that"),
    "an address that is obeyed": (["extract", "--store", STORE, "--scheduler", "tcp://6.6.6.6:1"], "left out  what"),
    "another place": (["extract", "--store", "/home/you/.config"], "left out  what"),
    "a value that lacks": (["extract", "--store"], "left out  what"),
    "a word that is no option": (["extract", "--store", STORE, "; reboot"], "left out  what"),
    "a terminal's commands": (["extract", "--store", STORE, "--images", "\x1b[2K\x1b[1A"], "left out  what"),
    "another command": (["remove", "--store", STORE], "left out  what"),
    "no words": ([], "next"),
    "no texts": ([5, ["x"]], "next"),
}


@pytest.mark.parametrize("name", NOTED)
def test_repair_prints_nothing_that_a_stranger_noted_but_options_of_a_command_that_computes(made, tmp_path, name):
    store = shutil.copytree(made / "home" / "embeddings.zarr", tmp_path / "embeddings.zarr")
    words, expected = NOTED[name]
    [chunk] = store.glob("planted-*/values/c/0/0")
    chunk.unlink()
    key = chunk.parents[3].name.rpartition("-")[2]
    note_command(store / "image/.embedctl", f"planted#{key}", words, "--model", "planted")
    result = CliRunner().invoke(app, ["repair", str(store)])
    assert result.exit_code == 0 and expected in result.output
    [line] = [line for line in result.output.splitlines() if line.startswith("  next ")]
    assert line.startswith("  next      embedctl extract --model planted --store ")
    assert not any(word in line for word in ("evil", "6.6.6.6", "you", "reboot", "\x1b"))


def _outside(folder: Path) -> dict[str, tuple[int, int]]:
    """Return all that lies beside the workspace, canaries included; those with no path of their own lie in it."""
    there = [*folder.iterdir(), *folder.glob("home/canary*"), *(folder / hostile.VICTIM).rglob("*")]
    return {str(p): (p.lstat().st_mtime_ns if p.is_file() else 0, p.lstat().st_size) for p in there}


def _read_from_python() -> None:
    for read in (
        lambda: embedctl.open_embeddings()._repr_html_(),
        lambda: embedctl.open_embeddings()["planted"].values,
        lambda: embedctl.open_embeddings()["planted"].nearest(hostile.TRAIN_IDS[0])._repr_html_(),
        lambda: embedctl.open_epochs()._repr_html_(),
        lambda: embedctl.open_epochs()["things-eeg2", 1].train.mean,
        lambda: embedctl.open_epochs()["things-eeg2", 1].test.session,
        lambda: embedctl.read_results(),
    ):
        try:
            read()
        except EmbedctlError as problem:
            assert problem.hint
