"""`embedctl verify` from the outside: its table, its JSON, its exit codes."""

import json

import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from tests.crashes import extract, train


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def workspace(tmp_path):
    extract(tmp_path, 70)
    train(tmp_path)
    return tmp_path


def test_a_clean_workspace_ends_in_0(workspace):
    for way in ([], ["--quick"], ["--full"], ["--sample", "5%"]):
        result = run("verify", workspace, *way)
        assert result.exit_code == 0, result.output
        said = "all as written"
        if way and way != ["--full"]:
            read = "5%" if "5%" in way else "none"
            said = f"all of the size and last bytes they were written with; {read} read whole"
        assert result.stdout.splitlines() == [
            f"{workspace}/e.zarr: 21 files, {said}",
            f"{workspace}/runs: 16 files, {said}",
        ]


def test_damage_ends_in_4_and_a_table_says_what_it_hit(workspace):
    chunk = workspace / "e.zarr/pixels-0a/values/c/1/0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    result = run("verify", workspace)
    assert result.exit_code == 4
    assert f"{workspace}/e.zarr: 21 files, 1 damaged" in result.stdout
    row = "e.zarr  pixels#0a  64-69  064.jpg .. 069.jpg  pixels-0a/values/c/1/0  is not the file that was written"
    assert result.stdout.splitlines()[-1] == row


def test_json_names_embedding_rows_and_images(workspace):
    (workspace / "e.zarr/pixels-0a/values/c/1/0").unlink()
    (workspace / "runs/run-1/summary.json").unlink()
    result = run("verify", workspace, "--json")
    damaged, lost = json.loads(result.stdout)["damages"]
    assert result.exit_code == 4
    assert (damaged["embedding"], damaged["rows"][0][0], damaged["images"][0]) == ("pixels#0a", 64, "064.jpg")
    assert (lost["run"], lost["problem"]) == ("run-1", "is missing")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--quick", "--full"], "--quick, --full and --sample exclude each other"),
        (["--sample", "many"], "--sample cannot be 'many'"),
        (["--sample", "0%"], "--sample cannot be '0%'"),
    ],
)
def test_an_impossible_choice_is_refused(workspace, words, says):
    result = run("verify", workspace, *words)
    assert result.exit_code == 2 and says in result.stderr


def test_a_place_without_anything_is_refused(tmp_path):
    result = run("verify", tmp_path)
    assert result.exit_code == 2 and "neither a store, nor runs, nor a workspace" in result.stderr


def test_repair_says_what_it_dropped_and_what_to_type_next(workspace):
    (workspace / "e.zarr/pixels-0a/values/c/1/0").unlink()
    (workspace / "runs/run-1/summary.json").unlink()
    result = run("repair", workspace)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"{workspace}/e.zarr: 1 damaged",
        "  dropped   what was damaged of pixels#0a",
        f"  next      embedctl extract --model pixels --store {workspace}/e.zarr",
        f"{workspace}/runs: 1 damaged",
        "  dropped   what was damaged of run-1",
        f"  next      embedctl train --runs {workspace}/runs",
    ]
    assert run("verify", workspace).exit_code == 0


def test_repair_of_what_is_whole_does_nothing(workspace):
    result = run("repair", workspace / "e.zarr")
    assert (result.exit_code, result.stdout) == (0, f"{workspace}/e.zarr: nothing is damaged\n")
