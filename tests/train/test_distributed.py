"""A sweep in several processes: the same rows and files as in one, whoever dies meanwhile."""

import os
import pickle
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pipelines.train import engine, runner
from pipelines.train.plan import grouped
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.errors import EmbedctlError
from stores.results import read_config, read_results
from tests.clusters import Heard, Killer, one_worker

VARYING = ["seconds", "started"]


def request(workspace, runs, **changes):
    asked = {"brain": "eeg", "embeddings": workspace.embeddings, "epochs": workspace.epochs, "recipe": workspace.recipe}
    return TrainRequest(runs=runs, seeds=(0, 1), device="cpu", **asked, **changes)


@pytest.fixture(scope="module")
def alone(workspace, tmp_path_factory):
    return train(request(workspace, tmp_path_factory.mktemp("alone") / "runs"))


def require_the_same(report, alone, apart=()):
    rows, others = (read_results(runs).drop_columns(VARYING) for runs in (report.runs, alone.runs))
    assert rows.equals(others)
    for job in alone.jobs:
        here, there = report.runs / job.run_id, alone.runs / job.run_id
        assert sorted(f.name for f in here.iterdir()) == sorted(f.name for f in there.iterdir())
        for file in there.iterdir():
            if file.name not in ("summary.json", "receipt.json", *apart):  # when it was trained, and for how long
                assert (here / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.slow
def test_two_workers_write_the_rows_and_files_of_one_process(workspace, alone, tmp_path):
    heard = Heard()
    report = train(request(workspace, tmp_path / "runs", workers=2), heard)
    assert (report.n_trained, heard.n, report.skipped) == (8, 8, {})
    require_the_same(report, alone)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(workspace, alone, tmp_path):
    with one_worker() as (address, pids):
        killer = Killer(pids, lambda n: n == 2)  # its worker is at the next run
        report = train(request(workspace, tmp_path / "runs", scheduler=address), killer)
    assert not pids and report.n_trained == 8
    require_the_same(report, alone)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_sweep_that_was_killed_ends_with_the_rows_and_files_of_one_that_was_not(workspace, alone, tmp_path):
    runs = tmp_path / "runs"
    asked = request(workspace, runs)
    code = (
        "import sys, pickle; from pipelines.train.sweep import train\n"
        "train(pickle.load(sys.stdin.buffer))"
    )  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as sweep:
        sweep.stdin.write(pickle.dumps(asked))
        sweep.stdin.close()
        while not any(runs.glob("*/receipt.json")) and sweep.poll() is None:
            time.sleep(0.005)
        sweep.kill()
    assert sweep.returncode == -signal.SIGKILL
    report = train(asked)
    assert 0 < report.n_already < 8 and not report.skipped
    require_the_same(report, alone)


def test_long_runs_go_to_all_cores_after_the_first_one_and_it_is_said(workspace, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(engine, "WORTH", 0.0)
    monkeypatch.setattr(engine, "n_cores", lambda: 2)
    monkeypatch.setattr(engine, "_elsewhere", lambda common, device, jobs, n: sent.extend([n, device, *jobs]) or ())
    heard = Heard()
    report = train(request(workspace, tmp_path / "runs", models=("planted",)), heard)
    assert heard.said[-1].startswith("3 runs are left, ") and heard.said[-1].endswith(" s each: in 2 processes")
    assert sent == [2, "cpu", *report.jobs[1:]]


def test_runs_of_one_seed_and_width_may_be_one_pass(workspace, tmp_path):
    plan = train(request(workspace, tmp_path / "runs", dry_run=True)).jobs
    width = {"planted": SimpleNamespace(widths=(24,)), "unrelated": SimpleNamespace(widths=(24,))}
    embeddings = {(job.embedding, job.embedding_key): width[job.embedding] for job in plan}
    together = [[(j.subject, j.seed, j.embedding) for j in group] for group in grouped(plan, 16, embeddings)]
    assert together == [[(s, n, e) for e in ("planted", "unrelated")] for s in (1, 2) for n in (0, 1)]
    assert grouped(plan, 1, embeddings) == [[job] for job in plan]
    width["unrelated"].widths = (12, 12)
    assert [len(group) for group in grouped(plan, 16, embeddings)] == [1] * 8


@pytest.mark.slow
def test_runs_in_one_pass_are_written_as_if_they_had_been_alone(workspace, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "pays", lambda config, data, against: (True, "in one pass"))
    monkeypatch.setattr(engine, "_at_most", lambda device: 16)
    heard = Heard()
    report = train(request(workspace, tmp_path / "runs"), heard)
    assert "in one pass" in heard.said and report.n_trained == 8
    require_the_same(report, alone, apart=("config.json",))
    assert read_config(report.runs, report.jobs[0].run_id)["runs_in_one_pass"] == 2


def test_a_cluster_is_started_or_named(workspace, tmp_path):
    with pytest.raises(EmbedctlError, match="--workers starts a cluster"):
        train(request(workspace, tmp_path / "runs", workers=2, scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(EmbedctlError, match=r"no dask scheduler at 'tcp://127\.0\.0\.1:9'"):
        train(request(workspace, tmp_path / "runs", scheduler="tcp://127.0.0.1:9"))
