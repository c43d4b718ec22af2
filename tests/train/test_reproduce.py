"""`reproduce` knows what the tables need, says what is missing, and trains what can be trained."""

from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.paper import reproduce as module
from pipelines.paper.reproduce import look, reproduce
from pipelines.paper.sweeps import paper_sweeps
from pipelines.paper.tables import paper_cells
from pipelines.train.cost import seconds_per_row
from stores.embeddings import EmbeddingStore
from stores.images import ImageRecord
from stores.results import write_run
from tests.train.conftest import TEST_IDS, TRAIN_IDS, write_embedding
from tests.train.test_paper_tables import BASE, HUMAN, measured


def test_every_published_cell_is_the_business_of_one_sweep():
    for cell in paper_cells():
        mine = [
            sweep
            for sweep in paper_sweeps()
            if cell.table in sweep.tables
            and cell.brain_encoder == sweep.brain_encoder
            and cell.embedding in sweep.embeddings
        ]
        assert len(mine) == 1 and set(cell.subjects) <= set(mine[0].subjects), cell
        assert (mine[0].protocol, mine[0].gallery, mine[0].dataset) == (cell.protocol, cell.gallery, cell.dataset)


@pytest.mark.parametrize("sweep", paper_sweeps(), ids=lambda sweep: f"{sweep.tables[0]} {sweep.brain_encoder}")
def test_the_program_understands_what_to_type_for_a_sweep(sweep):
    _, name, *words = sweep.words.split()
    typer.main.get_command(app).commands[name].make_context(name, words)
    assert sweep.n_runs == 12 * len(sweep.subjects) * 5


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(module, "seconds_per_row", lambda name, n_chans, n_times: 1e-3)


def test_of_an_empty_workspace_everything_is_missing(tmp_path, fast):
    plan = look(tmp_path / "embeddings.zarr", tmp_path / "epochs.zarr", tmp_path / "runs")
    assert all(one.request is None and one.n_ready == 0 for one in plan) and not list(tmp_path.iterdir())
    typed = list(dict.fromkeys(text for one in plan for text in one.missing))
    assert typed[0].startswith("embedctl extract --model dreamsim-ensemble,dreamsim-ensemble-base,")
    assert typed[1:] == [
        "embedctl preprocess --dataset things-eeg2 --recipe nice --subject 1,2,3,4,5,6,7,8,9,10",
        "embedctl preprocess --dataset things-meg --recipe alignvis --subject 1,2,3,4",
        "embedctl preprocess --dataset nsd --recipe alignvis --subject 1,2,5,7",
    ]
    nice = next(one for one in plan if one.sweep.brain_encoder == "nice+linear")
    assert nice.seconds == pytest.approx(600 * 50 * 14_886 * 1e-3)  # runs, passes, nine tenths of the images


@pytest.fixture
def partial(workspace, tmp_path):
    """Two of the twelve embeddings, and another one of random weights, for two of the ten subjects."""
    store = EmbeddingStore.open(tmp_path / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(i, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, i in enumerate(TRAIN_IDS + TEST_IDS)])
    for name in (HUMAN, BASE):
        write_embedding(store, name, workspace.planted, weights="sha256:00")
    write_embedding(store, "dino-vitb16", workspace.planted, weights="random:7")
    return tmp_path / "embeddings.zarr", workspace.epochs, tmp_path / "runs"


def test_what_is_there_can_be_trained_and_nothing_else(partial, fast):
    plan = {(one.sweep.tables[0], one.sweep.brain_encoder): one for one in look(*partial, device="cpu")}
    nice = plan["T1", "nice+linear"]
    assert (nice.n_ready, nice.n_finished) == (2 * 2 * 5, 0) and nice.bytes > 0
    assert (nice.request.models, nice.request.subjects) == ((HUMAN, BASE), (1, 2))
    assert nice.missing[0].startswith("embedctl extract --model dreamsim-ensemble,") and HUMAN not in nice.missing[0]
    assert "dino-vitb16," in nice.missing[0]
    assert nice.missing[1].endswith("--subject 3,4,5,6,7,8,9,10")
    assert nice.notes == ["things-eeg2 was preprocessed with clean; the paper's is nice"]
    across = plan["T2", "nice+linear"]
    assert across.request is None and any("2 subjects are too few" in text for text in across.missing)
    assert plan["T10", "nice+linear"].request is None and plan["T3", "nice+linear"].request is None


def test_it_trains_each_sweep_that_can_be_trained(partial, fast, monkeypatch):
    plan, asked, plain = look(*partial, device="cpu"), [], module.train

    def instead(request, progress, planned):
        asked.append(request)
        return plain(replace(request, dry_run=True), progress)

    monkeypatch.setattr(module, "train", instead)
    reproduce(plan)
    assert [request.brain_encoder for request in asked if request.brain_encoder == "nice+linear"] == ["nice+linear"]
    assert all(request.recipe == "paper" and not request.seeds and not request.dry_run for request in asked)


def embedctl(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_says_what_is_missing_and_shows_what_was_measured(tmp_path, fast):
    write_run(
        tmp_path / "runs", "one", config={}, summary=measured(HUMAN, 1, 7, 0.5) | {"run_id": "one"}, arrays={},
        checkpoint=b"", metrics=[],
    )  # fmt: skip
    words = ["--embeddings", tmp_path / "e.zarr", "--epochs", tmp_path / "p.zarr", "--runs", tmp_path / "runs"]
    dry = embedctl("reproduce", "icml2025", "--dry-run", *words)
    assert dry.exit_code == 0, dry.stderr
    assert "3,540 runs; what is not there takes at most" in dry.stdout
    assert dry.stdout.count("missing: ") == 4
    assert any(line.split()[:5] == ["T1", "NICE", "CLIP", "top1", "1"] for line in dry.stdout.splitlines())
    assert embedctl("reproduce", "icml2025", *words).exit_code == 3
    unknown = embedctl("reproduce", "icml2052")
    assert unknown.exit_code == 2 and "did you mean 'icml2025'?" in unknown.stderr


def test_the_time_of_a_row_is_measured_on_one_thread_and_leaves_the_program_as_it_was():
    import torch

    threads = torch.get_num_threads()
    assert 0 < seconds_per_row("nice+linear", 5, 100, dim=16, n_rows=8) < 1
    assert torch.get_num_threads() == threads
