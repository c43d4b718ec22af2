"""`embedctl doctor`: it names what is broken, with the cure, tries the disks, and leaves nothing behind."""

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedctl import folders, traps
from embedctl.cli import app
from stores.errors import CannotWrite
from stores.remote import locate

WHOLE = {"torch": "2.14.1", "numpy": "2.4.6", "dask": "2026.8.0", "distributed": "2026.8.0", "numcodecs": "0.16.6"}
NMS = "RuntimeError: operator torchvision::nms does not exist"


def done(*failing):
    """Return what tries code: lines that hold one of these words fail, as they do with these packages."""

    def attempt(code):
        why = next((f"Traceback\n{said}\n" for word, said in failing if word in code), "")
        return subprocess.CompletedProcess([], bool(why), "cpu\t2\tthreads\n", why)

    return attempt


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Pretend that these packages are installed, and that code with one of these words fails."""
    monkeypatch.chdir(tmp_path)

    def pretend(failing=(), **installed):
        monkeypatch.setattr("embedctl.doctor.attempt", done(*failing))
        monkeypatch.setattr(traps, "attempt", done(*failing))
        monkeypatch.setattr(traps, "installed_version", lambda package: {**WHOLE, **installed}.get(package, ""))

    return pretend


# Every trap that is known: what is installed, what fails there, the cure, and whether it is a conflict.
TRAPS = {
    "torchaudio": ({"torchaudio": "2.11.0"}, [("torchaudio", "OSError: CUDA")], "pip uninstall torchaudio", True),
    "torchvision": ({"torchvision": "0.28.0"}, [("torchvision", NMS)], "the same index", True),
    "torchvision, ours works": ({"torchvision": "0.28.0"}, [("import torchvision", NMS)], "the same index", False),
    "numcodecs": ({"numcodecs": "0.16.5"}, [], "pip install 'numcodecs>=0.16.6'", True),
    "zarr": ({"zarr": "3.1.5"}, [], "pip install 'zarr>=3.1.6'", True),
    "typer": ({"typer": "0.25.9"}, [], "pip install 'typer>=0.26'", True),
    "distributed": ({"distributed": "2026.7.1"}, [], "'dask[array,distributed]==2026.8.0'", True),
    "braindecode": ({"braindecode": "1.8.1"}, [("braindecode", "OSError: CUDA")], "torch<2.15", False),
    "thingsvision": ({"thingsvision": "2.6", "numpy": "1.26.4"}, [], "environment of its own", False),
}


def test_what_is_tried_imports_nothing_from_the_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("shlex.py", "stores.py"):
        (tmp_path / name).write_text("open('canary', 'w')\n")
    assert traps.attempt("import shlex, stores.errors; print('done')").stdout == "done\n"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_is_named_with_its_cure_and_only_conflicts_end_with_6(environment, monkeypatch, name):
    installed, failing, cure, is_conflict = TRAPS[name]
    if name == "torchvision, ours works":  # the module that declares the operators before it imports
        monkeypatch.setattr(traps, "_OURS", "ours")
    monkeypatch.setattr(
        traps, "requires", lambda _: ["zarr>=3.1.6", "numcodecs>=0.16.6", "typer>=0.26", "dask[array]>=2"]
    )
    environment(failing, **installed)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    said = json.loads(result.stdout)
    about = [one for one in said["findings" if not is_conflict else "conflicts"] if one["topic"] == name.split(",")[0]]
    assert [cure in one["hint"] for one in about if one["hint"]] == [True], said
    assert result.exit_code == (6 if is_conflict else 0)
    assert about[0]["found"] in said["for_a_bug_report"] or not about[0]["hint"]


def test_a_sound_environment_has_no_conflict_and_the_settings_say_who_decided_them(environment, tmp_path):
    (tmp_path / "embedctl.toml").write_text("[train]\nseed = [4]\n")
    environment()
    result = CliRunner().invoke(app, ["doctor", "--json"], env={"EMBEDCTL_RUNS": "elsewhere"})
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    settings = {setting["key"]: setting for setting in said["settings"]}
    assert said["conflicts"] == []
    assert settings["train.seed"] == {"key": "train.seed", "value": [4], "origin": "embedctl.toml"}
    assert settings["runs"]["origin"] == "EMBEDCTL_RUNS"
    assert settings["extract.dtype"]["origin"] == "default"


def test_the_disks_are_tried_and_nothing_is_left_behind(environment, tmp_path):
    environment()
    result = CliRunner().invoke(app, ["doctor"])
    assert result.stdout.count("rename, flush (") == 6  # three places, once in the table and once in the report
    assert list(tmp_path.iterdir()) == []
    for_report = result.stdout.partition("for a bug report:")[2]
    assert "store format 1" in for_report and str(tmp_path) not in for_report and str(Path.home()) not in for_report


def test_a_disk_that_is_full_or_cannot_be_written_or_lies_elsewhere_is_told(monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(5e8))
    (far,) = folders.folders({"embeddings": locate("s3://lab/e.zarr")})
    assert far.topic == "embeddings: s3://lab/e.zarr" and "object store" in far.found
    (full,) = folders.folders({"runs": tmp_path / "not" / "yet"})
    assert full.found.startswith(full.found.partition(",")[0] + ", 0.5 GB free") and "free some space" in full.hint
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(5e10))
    monkeypatch.setattr(folders, "_file_system", lambda _: "nfs4")
    assert "network file system" in folders.folders({"runs": tmp_path})[0].hint

    def refuse(*_):
        raise CannotWrite("the disk is read-only", "name a folder you can write to")

    monkeypatch.setattr(folders, "_file_system", lambda _: "ext4")
    monkeypatch.setattr(folders, "put_bytes", refuse)
    (read_only,) = folders.folders({"runs": tmp_path})
    assert read_only.found.endswith("cannot be written") and read_only.hint == "name a folder you can write to"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_system_is_the_one_that_df_names(tmp_path):
    named = subprocess.run(["df", "--output=fstype", tmp_path], capture_output=True, text=True).stdout.split()[-1]
    assert folders._file_system(tmp_path) == named
