"""The demo: the planted encoder is found in every seed, and nothing is found where nothing was planted."""

import itertools
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from embedctl.commands.demo import HONESTLY
from embedctl.demo import DATASET, MODELS, PLANTED, SEEDS, SETTINGS, SUBJECTS, _settle, demo
from pipelines.progress import SILENT
from pipelines.train.request import Job, TrainReport

ROOT = Path(__file__).parent.parent
ONE_IN_TEN_THOUSAND = 1e-4


def top1(folder):
    """Return top-1 of every run by embedding and seed, a list over subjects."""
    found = {}
    for row in embedctl.read_results(Path(folder) / "runs").to_pylist():
        found.setdefault((row["embedding"], row["seed"]), []).append(row["top1"])
    return found


def by_run(folder):
    rows = embedctl.read_results(Path(folder) / "runs").to_pylist()
    return {(row["embedding"], row["subject"], row["seed"]): row["top1"] for row in rows}


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    result = CliRunner().invoke(app, ["demo", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: '{tmp_path}' holds something that no demo made",
        "hint:  name a new folder: embedctl demo DIR",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_demo_trains_on_its_own_embeddings_and_ranks_its_own_runs_alone(monkeypatch, tmp_path):
    """Also where the workspace was used since: another embedding in the store, a better run among the runs."""
    from embedctl import demo as module
    from embedctl.commands.demo import _its_own

    asked = []
    monkeypatch.setattr("pipelines.train.sweep.train", lambda request, progress: asked.append(request) or report)
    report = TrainReport(jobs=[job("ours")], runs=tmp_path)
    assert module._train(tmp_path, SILENT) is report
    assert (asked[0].models, asked[0].subjects, asked[0].dataset) == (MODELS, SUBJECTS, DATASET)
    everything = pa.table({"run_id": ["better", "ours"], "top1": [0.9, 0.5]})
    assert _its_own(everything, SimpleNamespace(trained=report))["top1"].to_pylist() == [0.5]


def job(run_id):
    return Job(run_id=run_id, subject=1, embedding="hog", embedding_key="k", seed=0, finished=True)


def test_a_demo_whose_settings_were_changed_is_still_a_demo_and_keeps_them(tmp_path):
    changed = SETTINGS.replace("seed = [0, 1]", "seed = [5]")
    (tmp_path / "embedctl.toml").write_text(changed, encoding="utf-8")
    _settle(tmp_path)
    assert changed != SETTINGS and (tmp_path / "embedctl.toml").read_text(encoding="utf-8") == changed


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "workspace"
    return folder, CliRunner().invoke(app, ["demo", str(folder)])


def test_a_demo_killed_before_its_settings_had_their_name_goes_on(tmp_path, monkeypatch):
    code = "import os, sys, stores.commits as c; from pathlib import Path; import embedctl.demo as d;"
    code += "c.os.replace = lambda *_: os._exit(1); d._settle(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 1
    assert [path.name.startswith(".embedctl.toml") for path in tmp_path.iterdir()] == [True], "the draft is left"
    _settle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["embedctl.toml"]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"encoder": "gabor-pyramid"}', "\udcff"])
def test_a_damaged_truth_is_two_lines(tmp_path, damage):
    _settle(tmp_path)
    (tmp_path / "planted.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    result = CliRunner().invoke(app, ["demo", str(tmp_path)])
    assert result.exit_code == 4
    *_, error, hint = result.stderr.splitlines()
    assert error == f"error: '{tmp_path / 'planted.json'}' is not what the demo wrote"
    assert hint.startswith(f"hint:  remove '{tmp_path}'")


@pytest.mark.slow
def test_the_first_line_is_honest_and_the_last_lines_say_what_to_type_next(made):
    _, result = made
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == HONESTLY and "simulated" in lines[0]
    assert "The planted encoder comes first." in lines
    assert any(line.startswith("  embedctl compare") for line in lines[-8:])


# Its own peak: what wait4 says of a child begins with that of the process it was forked from.
MEASURED = """
import runpy, sys
try:
    runpy.run_module("embedctl", run_name="__main__", alter_sys=True)
finally:
    print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_the_demo_keeps_to_its_cpu_seconds_and_memory_and_is_never_silent_for_long(tmp_path):
    began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", MEASURED, "demo", str(tmp_path / "workspace")]
    heard = [began]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for _ in process.stderr:
            heard.append(time.monotonic())
        peak = 1024 * int(process.stdout.read().split()[-1])
    heard.append(time.monotonic())
    assert process.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    slowed = max(1.0, (heard[-1] - began) / cpu)  # by other work on this machine
    assert cpu < 180, f"{cpu:.0f} CPU seconds"
    assert 1e8 < peak < 2e9, f"{peak / 1e9:.2f} GB"
    silence = max(b - a for a, b in itertools.pairwise(heard))
    assert silence < 20 * slowed, f"{silence:.0f} s of silence, slowed by {slowed:.1f}"


@pytest.mark.slow
def test_the_planted_encoder_wins_in_every_seed(made):
    scores = {key: sum(values) / len(values) for key, values in top1(made[0]).items()}
    assert len(scores) == len(MODELS) * len(SEEDS)
    for seed in SEEDS:
        others = [scores[model, seed] for model in MODELS if model != PLANTED]
        assert scores[PLANTED, seed] > max(others), scores
    truth = json.loads((made[0] / "planted.json").read_text(encoding="utf-8"))
    assert (truth["encoder"], truth["subjects"]) == (PLANTED, list(SUBJECTS))


@pytest.mark.slow
def test_a_second_demo_finds_everything_there(made):
    again = CliRunner().invoke(app, ["demo", str(made[0])])
    assert again.exit_code == 0, again.stderr
    n_rows = len(MODELS) * len(list((made[0] / "images").rglob("*.jpg")))
    for said in (
        "the images and the recordings are there already",
        f"{n_rows:,} of {n_rows:,} rows were there already",
        "2 of 2 subjects were there already",
        "16 of 16 runs were there already",
    ):
        assert said in again.stderr


@pytest.mark.slow
def test_runs_of_a_demo_say_that_they_are_simulated_wherever_they_lie(made, tmp_path):
    from embedctl.report.gather import ReportRequest, gather

    runs = shutil.copytree(made[0] / "runs", tmp_path / "elsewhere")
    nowhere = tmp_path / "nothing"
    notes = gather(ReportRequest(runs=runs, embeddings=nowhere, images=nowhere)).notes
    assert notes[0].startswith("The recordings are simulated")


@pytest.mark.slow
def test_a_demo_killed_at_every_stage_ends_as_if_nothing_had_happened(made, tmp_path):
    """One subject and one seed of what the undisturbed demo computed."""
    folder = tmp_path / "workspace"
    code = (
        "import sys; from pathlib import Path; import embedctl.demo as d;"
        "d.SUBJECTS, d.SEEDS = (1,), (0,); d.demo(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    for sign in (
        "images/test_images",
        "embeddings.zarr/*/values/.embedctl/receipts/*",
        "raw/things-eeg2/sub-01/ses-02",
        "epochs.zarr/subject/.embedctl/unfinished/things-eeg2/sub-01/train",
        "runs/*/receipt.json",
    ):
        process = subprocess.Popen(command, cwd=ROOT)
        while process.poll() is None and not list(folder.glob(sign)):
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"it ended before there was {sign}"
    subprocess.run(command, cwd=ROOT, check=True)
    disturbed, undisturbed = by_run(folder), by_run(made[0])
    assert len(disturbed) == len(MODELS)
    assert disturbed == {run: undisturbed[run] for run in disturbed}


@pytest.mark.slow
def test_without_a_planted_effect_every_encoder_is_at_chance(made, tmp_path):
    (tmp_path / "nothing").mkdir()
    for name in ("embedctl.toml", "embeddings.zarr"):  # the images are the same
        copy = shutil.copytree if (made[0] / name).is_dir() else shutil.copy
        copy(made[0] / name, tmp_path / "nothing" / name)
    demo(tmp_path / "nothing", planted=False)
    n_queries = 40 * len(SUBJECTS) * len(SEEDS)
    low, high = binom.interval(1 - ONE_IN_TEN_THOUSAND, n_queries, 1 / 40)
    for model in MODELS:
        hits = 40 * sum(sum(values) for (name, _), values in top1(tmp_path / "nothing").items() if name == model)
        assert low <= hits <= high, (model, hits)
