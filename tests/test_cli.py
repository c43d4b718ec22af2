"""The program as a person or a script meets it: exit codes, the two-line problem, pipes, signals."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import embedctl
from embedctl import render
from embedctl.cli import app
from embedctl.config import written_out
from embedctl.group import Commands
from embedctl.progress import Bars, Lines
from stores import versions
from stores.errors import CannotWrite, DamagedStore, EmbedctlError, NotHere, StoreLocked, UnknownName

ROOT = Path(__file__).parent.parent
COMMANDS = typer.main.get_command(app).commands


def run(*words, **environment):
    return CliRunner().invoke(app, list(words), env=environment)


def program(*words, code="from embedctl.cli import main; main()", **more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, timeout=120, **more
    )


def failing(problem):
    """Return a program whose only command ends in ``problem``."""
    broken = typer.Typer(cls=Commands, rich_markup_mode=None, add_completion=False)

    @broken.callback()
    def root(): ...

    @broken.command()
    def fail():
        raise problem

    return broken


# Problems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (EmbedctlError("the thing is wrong", "make it right"), 2),
        (UnknownName("the thing is wrong", "make it right"), 2),
        (DamagedStore("the thing is wrong", "make it right"), 4),
        (StoreLocked("the thing is wrong", "make it right"), 5),
        (NotHere("the thing is wrong", "make it right"), 6),
        (CannotWrite("the thing is wrong", "make it right"), 7),
    ],
)
def test_an_expected_problem_is_two_lines_and_its_own_code(problem, code):
    result = CliRunner().invoke(failing(problem), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == "error: the thing is wrong\nhint:  make it right\n"


def test_a_long_problem_stays_two_lines():
    result = CliRunner().invoke(failing(EmbedctlError("x" * 500, "y " * 300)), ["fail"])
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["inti"], "no such command 'inti'", "did you mean 'init'?"),
        (["init", "--jsno"], "no such option: --jsno", "'embedctl init --help' lists what there is"),
        (["datasets", "show"], "missing argument 'ID'", "'embedctl datasets show --help' lists what there is"),
        (["datasets", "show", "things-eeg"], "no dataset called 'things-eeg'", "did you mean 'things-eeg2'?"),
    ],
)
def test_a_usage_mistake_is_two_lines_and_code_2(words, what, hint):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {what}\nhint:  {hint}\n"


def test_a_bug_is_one_line_and_code_1():
    result = CliRunner().invoke(failing(KeyError("key")), ["fail"])
    assert result.exit_code == 1
    assert result.stderr == "bug: KeyError: 'key' (run it again with --debug for the traceback)\n"


@pytest.mark.parametrize("words", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_lets_a_bug_through_wherever_it_stands(words):
    result = CliRunner().invoke(failing(KeyError("key")), words)
    assert isinstance(result.exception, KeyError)


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 7, "error: /data/x: no space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), 7, "error: /data/x: read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 2, "error: /data/x: permission denied"),
        (OSError(errno.EIO, "Input/output error", "/data/x"), 7, "error: /data/x: input/output error"),
        (OSError(errno.ENXIO, "No such device", "/data/x"), 1, "bug: OSError"),
        (ModuleNotFoundError("No module named 'mne'", name="mne"), 6, "error: mne is not installed"),
        (ModuleNotFoundError("No module named 'ours'", name="ours"), 1, "bug: ModuleNotFoundError"),
    ],
)
def test_what_the_system_says_has_a_code_too(problem, code, said):
    result = CliRunner().invoke(failing(problem), ["fail"])
    assert result.exit_code == code
    assert result.stderr.startswith(said)


def test_names_cannot_drive_the_terminal_nor_set_its_style():
    result = CliRunner().invoke(failing(EmbedctlError("no '\x1b[2J[bold]x[/bold]\r\n'", ":smile: [red]")), ["fail"])
    assert result.stderr == "error: no '�[2J[bold]x[/bold]��'\nhint:  :smile: [red]\n"


def test_a_table_shows_markup_as_text(capsys):
    render.table(("[bold]a[/bold]", "b"), [("[red]x", "\x1by"), (None, 3)], right=("b",))
    assert capsys.readouterr().out == "[bold]a[/bold]   b\n[red]x          �y\n                 3\n"


def test_a_table_in_a_pipe_is_never_cut(capsys):
    render.table(("a", "b"), [("x" * 300, "y" * 300)])
    assert "x" * 300 + "  " + "y" * 300 in capsys.readouterr().out


def test_skipped_items_are_listed_with_their_reasons(capsys):
    render.skipped({"a.jpg": "truncated", "b.jpg": "empty file"}, 10, "image")
    assert capsys.readouterr().err == "skipped 2 of 10 images:\n  a.jpg: truncated\n  b.jpg: empty file\n"


# Signals and pipes ------------------------------------------------------------------------------------------------

SLEEPER = """
import typer, sys, time
from embedctl.group import Commands, end_cleanly_when_terminated
app = typer.Typer(cls=Commands, rich_markup_mode=None, add_completion=False)
@app.callback()
def root(): ...
@app.command()
def sleep():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally: print("unwound", flush=True)
end_cleanly_when_terminated()
app()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_the_program_and_has_its_code(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "sleep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell that starts something in the background has it ignore SIGINT, and so would all that follows.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "unwound\n"
    assert len(err.splitlines()) == 1 and "the same command goes on from here" in err


AT_THE_END = """
import atexit, os, signal, sys
from embedctl import cli
def ask(kill=os.kill, me=os.getpid(), numbers=(signal.SIGTERM, signal.SIGUSR1)):
    for number in numbers:
        kill(me, number)
class Last:
    __del__ = lambda self, ask=ask: ask()
last = Last()
atexit.register(ask)
sys.argv = ["embedctl", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("--nothing", 2)])
def test_a_signal_that_comes_when_all_is_done_leaves_the_code_of_the_command(word, code):
    """In `__del__` of what lives to the end Python has given the handlers back."""
    ended = subprocess.run([sys.executable, "-c", AT_THE_END, word], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == code


def test_a_closed_pipe_is_silent():
    code = (
        "import sys, typer\nfrom embedctl.group import Commands\nfrom embedctl import render\n"
        "app = typer.Typer(cls=Commands, rich_markup_mode=None, add_completion=False)\n"
        "@app.callback()\ndef root(): ...\n"
        "@app.command()\ndef talk():\n    for _ in range(100000): render.line('x' * 80)\n"
        "app()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "talk"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 0


# Output -----------------------------------------------------------------------------------------------------------


def test_no_words_at_all_show_the_help_on_stdout():
    result = run()
    assert result.exit_code == 0
    assert "The three stages" in result.stdout or "Start here" in result.stdout
    assert result.stdout == run("--help").stdout


def test_every_command_stands_in_the_help_once():
    text = run("--help").stdout
    for name in COMMANDS:
        assert text.count(f"\n  {name} ") == 1, name
    assert "..." not in text.partition("COMMAND [ARGS]...")[2], "a description is cut short"


def test_json_is_one_object_with_its_version_first():
    from pipelines.preprocess.dataset import DATASETS
    from pipelines.preprocess.recipes import built_in_folder, names_in

    result = run("datasets", "list", "--json")
    found = json.loads(result.stdout)
    assert next(iter(found.items())) == ("schema_version", 1)
    assert {dataset["id"] for dataset in found["datasets"]} == set(DATASETS)
    kinds = {"arrays": "arrays", "nsd": "fmri", "things-meg": "meg"}  # the others are cut from recordings
    for dataset in found["datasets"]:
        assert set(dataset["recipes"]) <= set(names_in(built_in_folder(kinds.get(dataset["id"], ""))))
        assert (
            dataset["licence"] and dataset["downloads"] and all(download["goes"] for download in dataset["downloads"])
        )
    assert result.stderr == ""


def test_the_bare_name_of_a_group_lists():
    assert run("datasets").stdout == run("datasets", "list").stdout
    assert run("datasets", "--json").stdout == run("datasets", "list", "--json").stdout


def test_version_prints_the_version():
    assert run("--version").stdout == "embedctl 0.1.0\n"


def test_what_runs_from_a_clone_knows_its_version_too(monkeypatch):
    def not_installed(package):
        raise versions.PackageNotFoundError(package)

    monkeypatch.setattr(versions, "version", not_installed)
    assert versions.installed_version.__wrapped__("embedctl") == embedctl.__version__
    assert versions.installed_version.__wrapped__("numpy") == ""


def test_no_colour_in_a_pipe():
    assert "\x1b" not in program("datasets").stdout + program("datasets", "show", "x").stderr


def test_a_terminal_of_80_columns_shows_count_time_left_and_every_figure(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    bars = Bars()
    bars.start("extract", 26_107, "images")
    stages = dict.fromkeys(("read", "decode", "preprocess", "forward", "write"), "20 %")
    bars.advance(2000, **{"images/s": 51.6}, **stages, workers="2", GPU="2.0 GB")
    bars.close()
    said = capsys.readouterr().err
    assert "2000/26107 images" in said and all(figure in said for figure in (*stages, "workers 2", "GPU 2.0 GB"))
    assert "…" not in said


def test_a_log_gets_a_line_at_the_start_and_at_the_end(capsys):
    lines = Lines()
    lines.start("reading", 1000, "images")
    for _ in range(1000):
        lines.advance(decode=0.25)
    lines.say("chose \x07 batch 64")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "reading: 1,000 images"
    assert said[1].startswith("reading: 1,000 of 1,000 images (100 %), in ")
    assert said[1].endswith("decode 0.25")
    assert said[2] == "chose � batch 64"
    assert len(said) == 3


# models ------------------------------------------------------------------------------------------------


def test_the_registry_as_json_has_the_promised_fields():
    models = json.loads(run("models", "list", "--json").stdout)["models"]
    promised = {"id", "family", "dim", "aligned_by", "base", "matched_base", "match", "licence"}
    assert {"pixels", "gabor-pyramid", "hog", "colour-histogram", "resnet50-tv"} <= {model["id"] for model in models}
    assert all(promised <= set(model) for model in models)


def test_the_registry_can_be_filtered():
    models = json.loads(run("models", "--family", "classical", "--json").stdout)["models"]
    assert {model["family"] for model in models} == {"classical"}
    pairs = json.loads(run("models", "--pairs", "--json").stdout)["models"]
    assert all(model["aligned_by"] for model in pairs)
    shown = {line.split()[0]: line for line in run("models", "--pairs").stdout.splitlines()}
    assert shown["glocal-clip-vitl14"].endswith("THINGS or brain data") and "exact" in shown["dreamsim-dino-vitb16"]
    assert "THINGS" not in shown["dreamsim-dino-vitb16"]
    result = run("models", "--family", "clasical")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (2, "hint:  did you mean 'classical'?")


def test_an_encoder_can_be_shown_and_a_typo_is_answered():
    assert "dim            768" in run("models", "show", "pixels").stdout
    assert json.loads(run("models", "show", "pixels", "--json").stdout)["model"]["dim"] == 768
    result = run("models", "show", "pixel")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: no encoder called 'pixel'\nhint:  did you mean 'pixels'?\n"


def test_init_writes_the_defaults_once(tmp_path):
    result = run("init", str(tmp_path / "study"))
    file = tmp_path / "study" / "embedctl.toml"
    assert result.stdout == f"wrote {file}\n"
    assert file.read_text(encoding="utf-8") == written_out()
    again = run("init", str(tmp_path / "study"))
    assert (again.exit_code, again.stderr) == (
        2,
        f"error: {file} is there already\nhint:  edit it, or delete it first\n",
    )


# Processes --------------------------------------------------------------------------------------------------------

STARTS_ANOTHER = """
import multiprocessing
from embedctl import cli

def app():
    child = multiprocessing.get_context("spawn").Process(target=print, args=("here",))
    child.start()
    child.join()

if __name__ == "__main__":
    cli.app = app
    cli.main()
"""


def test_a_process_that_is_started_imports_nothing_from_the_workspace(tmp_path):
    """Dask starts its workers so."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "start.py").write_text(STARTS_ANOTHER)
    (workspace / "pickle.py").write_text("open('canary', 'w')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "start.py")]
    ran = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.stdout == "here\n" and not (workspace / "canary").exists(), ran.stderr
