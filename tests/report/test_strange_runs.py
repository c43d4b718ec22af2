"""A run whose receipt fits and whose summary or configuration says what embedctl never writes: two lines and code 4."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from embedctl.report.gather import ReportRequest, gather
from embedctl.report.repetitions import repetitions
from stores.columns import COLUMNS, MAY_BE_EMPTY, rows_table, unsaid
from stores.errors import DamagedStore
from stores.results import TABLE, RunReader, assemble, read_results
from stores.tables import read_table, table_bytes
from tests.promises.hostile import reseal
from tests.report.conftest import ALIGNED, BASE, write
from tests.summaries import summary_of

GONE = object()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("strange"), np.random.default_rng(0)
    for name in (ALIGNED, BASE):
        for subject in (1, 2):
            write(folder, name, subject, 0, rng.standard_normal((12, 12)))
    return folder


@pytest.fixture
def runs(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs")


def tell(runs, name, key, value):
    """Have a run say something else, under a receipt that fits, and return its name."""
    folder = min(path.parent for path in runs.glob("*/receipt.json"))
    said = json.loads((folder / name).read_bytes())
    said.pop(key, None)
    (folder / name).write_text(json.dumps(said if value is GONE else said | {key: value}))
    reseal(folder)
    return folder.name


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        ("results", "weights", GONE),
        ("compare", "weights", GONE),
        ("report", "weights", GONE),
        ("results", "encoder", None),
        ("compare", "top1", "x"),
    ],
)
def test_a_row_that_lacks_what_commands_need_is_two_lines_that_name_the_run(runs, command, key, value):
    run = tell(runs, "summary.json", key, value)
    told = CliRunner().invoke(app, [command, "--runs", str(runs)])
    error, hint = told.stderr.splitlines()[-2:]
    assert told.exit_code == 4, told.stderr
    assert error.startswith("error: ") and run in error and key in error
    assert hint == "hint:  remove the run and train it again"


def test_the_run_that_says_nonsense_can_be_removed_and_the_others_count_again(runs):
    run = tell(runs, "summary.json", "weights", GONE)
    assert CliRunner().invoke(app, ["remove", str(runs), run]).exit_code == 0
    assert read_results(runs).num_rows == 3


def test_a_sealed_table_of_other_columns_is_made_again_from_the_runs(runs):
    assemble(runs)
    table = read_table(runs / TABLE)
    wrong = table.set_column(table.column_names.index("top1"), "top1", pa.array(["x"] * 4))
    (runs / TABLE).write_bytes(table_bytes(wrong))
    reseal(runs)
    assert read_results(runs)["top1"].type == pa.float64()


def test_what_is_missing_is_found_where_a_reader_needs_it():
    for name in COLUMNS:
        lacking = rows_table([summary_of("a"), summary_of("b") | {name: None}])
        assert unsaid(lacking) == (None if name in MAY_BE_EMPTY else (1, name))


@pytest.mark.parametrize("said", [{"top1": 1.5}, {"mrr": -0.1}, {"seconds": float("inf")}, {"n_way": 0}])
def test_a_number_that_cannot_be_is_found(said):
    assert unsaid(rows_table([summary_of("a", **said)])) == (0, next(iter(said)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("gallery_ids", [1]), ("gallery_ids", "x"), ("gallery_concepts", ["one"]), ("subject", "1"), ("dataset", [1])],
)
def test_a_configuration_of_other_kinds_is_damage(runs, key, value):
    run = tell(runs, "config.json", key, value)
    with pytest.raises(DamagedStore, match=run):
        RunReader(runs, run).shown()


def test_repetitions_that_are_no_numbers_are_damage_of_their_run(runs):
    run = tell(runs, "summary.json", "top1_by_repetitions", {"one": []})
    with pytest.raises(DamagedStore, match=run):
        repetitions(gather(ReportRequest(runs=runs)).answers[0], runs)
