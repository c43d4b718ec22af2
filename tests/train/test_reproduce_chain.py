"""`reproduce` goes the whole way: from images and raw recordings to measured numbers beside published ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.paper import beside, chain, reproduce
from pipelines.paper.chain import Workspace, steps
from pipelines.paper.sweeps import paper_sweeps
from pipelines.paper.tables import paper_cells
from pipelines.preprocess.recipes import read_recipe
from pipelines.simulate.images import render_images
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.results import read_results

pytestmark = pytest.mark.slow
ALIGNED, BASE, N_TEST = "hog", "gabor-pyramid", 8


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Images and raw recordings of one subject, and nothing else."""
    folder = tmp_path_factory.mktemp("reproduced")
    images = render_images(folder / "images", 8, 5, N_TEST)
    rng = np.random.default_rng(0)
    rows = {image: rng.standard_normal(16) for image in (*images.training, *images.test)}
    simulate_things_eeg2(
        folder / "raw" / "things-eeg2", images.training, images.test, rows,
        subjects=[1], sessions=2, test_repetitions=4, ch_names=read_recipe("nice").channels,
    )  # fmt: skip
    return folder


@pytest.fixture
def small_paper(monkeypatch):
    """A paper of one sweep: two encoders that need no weights, a linear readout, two people."""
    sweep = replace(paper_sweeps()[0], brain_encoder="linear", subjects=(1, 2), embeddings=(ALIGNED, BASE))
    for module in (chain, reproduce):
        monkeypatch.setattr(module, "paper_sweeps", lambda: [sweep])
    of = {"brain_encoder": "linear", "subjects": (1, 2), "n_way": N_TEST}
    cells = [one for one in paper_cells() if (one.table, one.row, one.column) == ("T1", "NICE", "CLIP")]
    mine = [replace(one, embedding=ALIGNED if one.variant == "HA" else BASE, **of) for one in cells]
    monkeypatch.setattr(beside, "paper_cells", lambda: mine)
    monkeypatch.setattr(reproduce, "seconds_per_row", lambda *network: 1e-3)


def embedctl(folder, monkeypatch, *words):
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, ["reproduce", "icml2025", "--device", "cpu", *words])


def test_it_tells_what_it_will_make_first_and_what_is_missing(simulated, small_paper, monkeypatch):
    before = sorted(simulated.rglob("*"))
    done = embedctl(simulated, monkeypatch, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert [step["what"] for step in said["first"]] == [
        "preprocess things-eeg2, recipe nice, subjects 1",
        "extract hog, gabor-pyramid of the 48 images in 'images'",
    ]
    assert all(step["bytes"] > 0 for step in said["first"]) and said["sweeps"][0]["seconds"] > 0
    assert sorted(simulated.rglob("*")) == before


def test_images_of_a_dataset_nobody_has_are_not_touched(simulated, small_paper, tmp_path):
    place = Workspace(images=simulated / "images", raw=tmp_path, embeddings=tmp_path / "e", epochs=tmp_path / "p")
    assert steps(place).steps == [] and steps(place).missing == []
    no_images = replace(place, images=tmp_path / "none", raw=simulated / "raw")
    assert [step.what[:10] for step in steps(no_images).steps] == ["preprocess"]
    assert "embedctl datasets show things-eeg2" in steps(no_images).missing[0]


def test_from_images_and_recordings_to_numbers_beside_the_published_ones(simulated, small_paper, monkeypatch):
    done = embedctl(simulated, monkeypatch)
    assert done.exit_code == 3, done.stderr  # subject 2 is missing
    assert "--subject 1,2" in done.stdout
    results = read_results(simulated / "runs").to_pylist()
    assert len(results) == 2 * 1 * 5 and {row["recipe"] for row in results} == {"paper"}
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:4] == ["T1", "NICE", "CLIP", "top1"]]
    assert "1 of 2" in line
    for name in (ALIGNED, BASE):
        mean = np.mean([row["top1"] for row in results if row["embedding"] == name])
        assert f"{100 * mean:.1f} %" in line
    again = embedctl(simulated, monkeypatch, "--json", "--dry-run")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["first"] == [] and json.loads(again.stdout)["sweeps"][0]["n_finished"] == 10
