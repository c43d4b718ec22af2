"""The decisive table chooses every encoder's layer on validation, and no test score of another layer is told."""

import csv
import json
from itertools import product

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.train.depths import at_best_depths
from stores.results import results_schema
from tests.train.test_compare import ALIGNED, HUMAN, PLAIN, row

LAYERS = ("blocks.2.mean", "blocks.10.mean", "")
BEST = {("nice", "none"): ("blocks.2.mean", ""), ("nice", "linear"): ("blocks.10.mean", "blocks.10.mean")}


def runs_of(hidden=0.987):
    """Six subjects; validation prefers `BEST` of aligned and base, all other layers have the test score ``hidden``."""
    for (brain, head), best in BEST.items():
        for which, (encoder, chosen) in enumerate(zip((HUMAN, PLAIN), best, strict=True)):
            for layer, subject, seed in product(LAYERS, range(1, 7), (0, 1)):
                is_best = layer == chosen
                name = f"{encoder}:{layer}" if layer else encoder
                said = {"brain_encoder": brain, "image_head": head, "config_key": brain + head}
                said |= ALIGNED if encoder == HUMAN else {}
                said |= {"val_top1": 0.4 if is_best else 0.3, "epochs_key": f"e{subject}"}
                yield row(name, subject, seed, 0.5 - 0.2 * which + 0.01 * subject if is_best else hidden, **said)


def table(**how):
    return pa.Table.from_pylist(list(runs_of(**how)), schema=results_schema())


def named(encoder, layer):
    return f"{encoder}:{layer}" if layer else encoder


def test_each_encoder_is_taken_at_the_depth_that_validation_chose():
    rows, notes = at_best_depths(table())
    assert not notes
    found = {
        (r.condition["brain_encoder"], r.condition["image_head"]): (r.aligned.embedding, r.base.embedding) for r in rows
    }
    assert found == {key: (named(HUMAN, ours), named(PLAIN, theirs)) for key, (ours, theirs) in BEST.items()}
    for one in rows:
        assert list(one.base.validation) == [named(PLAIN, layer) for layer in LAYERS]
        assert (one.aligned.top1, one.base.top1) == (pytest.approx(0.535), pytest.approx(0.335))
        assert one.pair.difference == pytest.approx(0.2) and one.pair.verdict == "higher"


def test_of_equal_depths_the_first_is_taken_and_only_runs_that_all_layers_have_count():
    rows = [r | {"val_top1": 0.3} for r in runs_of()]
    lacking = [r for r in rows if not (r["subject"] == 6 and r["embedding"] == PLAIN)]
    found, _ = at_best_depths(pa.Table.from_pylist(lacking, schema=results_schema()))
    assert all(one.base.embedding == f"{PLAIN}:blocks.2.mean" and one.pair.subjects == (1, 2, 3, 4, 5) for one in found)
    apart = [r for r in rows if (r["subject"] < 4) == (r["embedding"] == PLAIN) or r["encoder"] == HUMAN]
    found, notes = at_best_depths(pa.Table.from_pylist(apart, schema=results_schema()))
    assert not found and notes == [f"{PLAIN} is left out: no subject and seed was run at all its layers"]


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What the program tells and writes of runs whose other layers have one test score or another."""

    def of(hidden):
        monkeypatch.setattr("stores.results.read_results", lambda folder: table(hidden=hidden))
        files = [tmp_path / f"{hidden}.csv", tmp_path / f"{hidden}.png"]
        said = []
        for words in (["--csv", files[0], "--plot", files[1]], ["--json"]):
            done = CliRunner().invoke(app, ["compare", "--layers", *map(str, words), "--runs", str(tmp_path / "runs")])
            assert done.exit_code == 0, done.stderr
            said.append(done.stdout)
        return *said, files[0].read_bytes(), files[1].read_bytes()

    return of


def test_the_test_scores_of_other_depths_change_no_letter_and_no_pixel(shown):
    told, as_json, as_csv, picture = shown(0.987)
    assert shown(0.123) == (told, as_json, as_csv, picture)
    assert not any("98.7" in text or "0.987" in text for text in (told, as_json, as_csv.decode()))
    assert picture.startswith(b"\x89PNG") and "53.5 %" in told
    first = next(csv.DictReader(as_csv.decode().splitlines()))
    assert (first["image_head"], first["aligned_embedding"]) == ("linear", f"{HUMAN}:blocks.10.mean")
    assert float(first["difference"]) == pytest.approx(0.2)
    assert json.loads(as_json)["layers"][0]["aligned"]["validation"][f"{HUMAN}:blocks.10.mean"] == pytest.approx(0.4)


def test_without_layers_nothing_is_written(tmp_path):
    done = CliRunner().invoke(app, ["compare", "--csv", "x.csv", "--runs", str(tmp_path)])
    assert done.exit_code == 2 and "add --layers" in done.stderr
