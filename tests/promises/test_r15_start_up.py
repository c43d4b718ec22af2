"""R15: what lists and shows is there at once: it imports nothing heavy, and costs little.

``python -m tests.promises.test_r15_start_up`` prints the CPU seconds of each, the least of five.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from stores.results import assemble
from tests.golden import look

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "open_clip", "mne", "scipy", "sklearn", "pandas", "dask", "matplotlib")
PROGRAM = f"""
import sys
from embedctl.cli import main
try: main()
except SystemExit as end: print(end.code or 0, sorted({set(HEAVY)} & set(sys.modules)))
"""
LIGHT = (
    ["--help"],
    ["extract", "--help"],
    ["models", "list"],
    ["models", "show", "pixels"],
    ["datasets"],
    ["show", "embeddings.zarr"],
    ["show", "epochs.zarr"],
    ["show", "runs"],
    ["verify", "."],
)
LIMITS = {("--help",): 0.5, ("models", "list"): 1.5, ("show", "embeddings.zarr"): 1.5}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = look.unpack(look.GOLDEN[-1], tmp_path_factory.mktemp("golden"))
    assemble(folder / "runs")  # a table with the columns of today: one of an earlier version is made anew to be shown
    return folder


def program(words, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=120)


def cpu_seconds(words, folder):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert program(words, folder).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_what_lists_and_shows_imports_nothing_heavy(workspace, words):
    ran = program(words, workspace)
    assert ran.stdout.splitlines()[-1] == "0 []", ran.stderr


@pytest.mark.parametrize(("words", "limit"), LIMITS.items(), ids=[" ".join(words) for words in LIMITS])
def test_it_starts_quickly(workspace, words, limit):
    assert any(cpu_seconds(words, workspace) <= limit for _ in range(3)), "the least of three"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        golden = look.unpack(look.GOLDEN[-1], Path(folder))
        for words in LIGHT:
            print(f"{min(cpu_seconds(words, golden) for _ in range(5)):.2f} s  embedctl {' '.join(words)}")
