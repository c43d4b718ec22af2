"""A file of code runs where a person named it on the command line, and nowhere else."""

import py_compile
import shlex
import shutil
import types

import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.distributed import Trainer
from stores.errors import EmbedctlError

CODE = """
from pathlib import Path
from pipelines.train.brain_encoders.linear import LinearReadout as Net
from pipelines.train.losses import info_nce as near

Path("{canary}").touch()
"""
TRAIN = ["train", "--brain", "eeg", "--model", "planted", "--subject", "1", "--seed", "0", "--device", "cpu"]


@pytest.fixture
def home(workspace, tmp_path, monkeypatch):
    """A workspace with a file of code, which leaves a canary beside it when it runs."""
    home = tmp_path / "home"
    shutil.copytree(workspace.folder, home)
    (home / "net.py").write_text(CODE.format(canary=home / "canary"))
    (home / "short.toml").write_text('base = "modern"\nbatch = 32\npasses = 1\nlr = 1e-3\nwindow = []\n')
    (home / "code.toml").write_text((home / "short.toml").read_text() + 'loss = "net.py:near"\n')
    monkeypatch.chdir(home)
    return home


def ran(home):
    """Say whether the code has run since this was last asked."""
    is_there = (home / "canary").exists()
    (home / "canary").unlink(missing_ok=True)
    return is_there


def embedctl(*words):
    return CliRunner().invoke(app, list(words))


def allowed(result):
    """Return the words that the hint of a refusal gives."""
    assert result.exit_code == 2, result.output
    error, hint = (line for line in result.stderr.splitlines() if line.startswith(("error: ", "hint:  ")))
    assert "net.py" in error
    return shlex.split(hint.partition(";")[2].removesuffix("runs it"))


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("code.toml", "", ["--loss", "net.py:near"]),
        ("short.toml", 'loss = "net.py:near"', ["--loss", "net.py:near"]),
        ("short.toml", 'brain-encoder = "net.py:Net"', ["--brain-encoder", "net.py:Net"]),
    ],
)
def test_code_that_settings_or_a_recipe_name_is_refused_until_the_command_line_names_it(home, recipe, settings, words):
    (home / "embedctl.toml").write_text(f"[train]\n{settings}\n")
    asked = [*TRAIN, "--recipe", recipe]
    refused = embedctl(*asked, "--dry-run")
    assert not ran(home) and allowed(refused) == words
    assert embedctl(*asked, "--dry-run", *words).exit_code == 0 and ran(home)


@pytest.mark.slow
def test_code_of_a_run_is_refused_until_it_is_trusted_and_a_sweep_goes_on_with_the_same_line(home):
    asked = [*TRAIN, "--recipe", "short.toml", "--brain-encoder", "net.py:Net"]
    assert embedctl(*asked).exit_code == 0 and ran(home)
    assert embedctl(*asked).exit_code == 0  # resumed
    copied = home.parent / "copied"  # what a stranger gets sent, under another name
    shutil.copytree(home, copied, ignore=shutil.ignore_patterns("canary"))
    (run,) = (receipt.parent for receipt in (copied / "runs").glob("*/receipt.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copied)
        ran(home)
        for words in (["predict", str(run)], ["export", str(run)], ["interpret"]):
            refused = embedctl(*words)
            assert not ran(home) and allowed(refused) == ["--trust", "net.py"], words
        for words in (["show", str(run)], ["results"], ["verify", "."], ["screen", "--brain", "eeg"]):
            assert embedctl(*words).exit_code == 0 and not ran(home), words
        for words in (["predict", str(run)], ["export", str(run)], ["interpret"]):
            assert embedctl(*words, "--trust", "net.py").exit_code in (0, 3) and ran(home), words


def test_what_was_compiled_beside_the_text_does_not_run(tmp_path):
    """A stranger's ``__pycache__`` holds another program under the time and size of the text one looked into."""
    text = tmp_path / "net.py"
    text.write_text(CODE.format(canary=tmp_path / "canary"))
    py_compile.compile(str(text), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    text.write_text("from pipelines.train.brain_encoders.linear import LinearReadout as Net\n")
    trust(str(text))
    assert brain_encoder(f"{text}:Net").__name__ == "LinearReadout"
    assert not (tmp_path / "canary").exists()


def test_a_worker_runs_what_the_person_named_elsewhere(tmp_path):
    (tmp_path / "net.py").write_text(CODE.format(canary=tmp_path / "canary"))
    name = f"{tmp_path}/net.py:Net"
    with pytest.raises(EmbedctlError, match="the command line does not name it"):
        brain_encoder(name)
    Trainer(types.SimpleNamespace(own={name: "0a"}), "cpu").setup(None)
    assert brain_encoder(name).__name__ == "LinearReadout"
