"""Runs interpreted from end to end: early and late embeddings told apart, and every limit said."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from embedctl.interpretation_figures import sensors_figure
from embedctl.report.build import build
from embedctl.report.gather import ReportRequest
from pipelines.interpret.gradcam import stretched_times
from pipelines.interpret.interpret import interpret
from pipelines.interpret.request import InterpretRequest
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.beside import read_array_beside, read_beside
from stores.epochs import EpochStore
from stores.errors import DamagedStore, EmbedctlError, UnknownName
from stores.results import assemble, read_results
from tests.interpret.conftest import CH_NAMES, EARLY, LATE, OCCIPITAL, SFREQ, TIMES, within
from tests.train.conftest import TEST_IDS, TRAIN_IDS, build_workspace, concept

NAME = "interpret-integrated-gradients"


def where(planted, runs):
    return {"embeddings": planted.embeddings, "epochs": planted.epochs, "runs": runs}


def interpreted(planted, runs, **changes):
    return interpret(InterpretRequest(**where(planted, runs), **changes))


def of(report, embedding, subject=1):
    return next(p for p in report.profiles if (p.embedding, p.subject) == (embedding, subject))


@pytest.fixture(scope="module")
def runs(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpreted") / "runs"
    train(TrainRequest(brain="eeg", seeds=(0, 1), recipe=planted.recipe, device="cpu", **where(planted, folder)))
    return folder


@pytest.fixture(scope="module")
def report(planted, runs):
    return interpreted(planted, runs)


@pytest.mark.parametrize(("embedding", "window"), [("early", EARLY), ("late", LATE)])
def test_evidence_is_found_when_and_where_it_was_planted(report, embedding, window):
    for subject in (1, 2):
        found = of(report, embedding, subject)
        assert (found.n_seeds, found.n_images) == (2, len(TEST_IDS))
        assert found.time[within(window)].sum() > 0.6
        assert found.windows and all(
            window[0] - 0.005 <= w.first and w.last <= window[1] + 0.005 for w in found.windows
        )
        assert found.half == pytest.approx(np.mean(window), abs=0.03)
        assert max(found.groups, key=found.groups.get) == "occipital"
        lost = {part["part"]: part["lost"] for part in found.occlusion if part["kind"] == "time"}
        most = max(lost, key=lost.get)
        assert window[0] - 0.05 < float(most.split()[0]) / 1000 < window[1]


def test_shares_are_of_unit_mass_and_every_sum_is_of_the_same_maps(runs, report):
    run = read_results(runs)["run_id"].to_pylist()[0]
    said = read_beside(runs, run, NAME)
    maps = read_array_beside(runs, run, NAME, "maps").astype(np.float64) * said["maps_unit"]
    assert maps.shape == (len(TEST_IDS), len(CH_NAMES), len(TIMES))
    time, bands, sensors = (read_array_beside(runs, run, NAME, part) for part in ("time", "bands", "sensors"))
    assert np.allclose(maps.sum(axis=1), time, atol=0.02 * np.abs(time).max())
    assert np.allclose(time.sum(axis=1), bands.sum(axis=1), atol=1e-4)
    assert np.allclose(time.sum(axis=1), sensors.sum(axis=1), atol=1e-4)
    assert time.sum(axis=1).mean() == pytest.approx(said["explained"], rel=0.02) and said["gap"] <= 0.01
    for profile in report.profiles:
        assert np.abs(profile.time).sum() == pytest.approx(1)
        assert sum(map(abs, profile.bands.values())) == pytest.approx(1)
        assert sum(map(abs, profile.sensors.values())) == pytest.approx(1)


def test_random_weights_find_nothing_and_give_another_map(report):
    for profile in report.profiles:
        assert (profile.untrained_windows, profile.untrained_bands, profile.untrained_groups) == ([], [], [])
        assert abs(profile.similarity) < profile.reliability


def test_early_minus_late_has_more_early_and_less_late(report):
    [pair] = report.pairs
    assert (pair.embedding, pair.base, pair.subjects) == ("early", "late", (1, 2))
    assert all(-0.4 < later < -0.15 for later in pair.half.values())
    assert [(test.over, test.matched) for test in pair.tests] == [
        (f"images of subject {s}", matched) for matched in (False, True) for s in (1, 2)
    ]
    for test in pair.tests:
        more, less = ([w for w in test.windows if w.sign == sign] for sign in (1, -1))
        assert more and all(EARLY[0] - 0.005 <= w.first and w.last <= EARLY[1] + 0.005 for w in more)
        assert less and all(LATE[0] - 0.005 <= w.first and w.last <= LATE[1] + 0.005 for w in less)
        assert test.n == len(TEST_IDS) if not test.matched else test.n <= len(TEST_IDS)
    assert "2 subjects cannot show a group difference" in pair.notes[0]


def test_it_is_computed_once(planted, runs, report):
    before = {file: file.stat().st_mtime_ns for file in runs.glob(f"*/{NAME}/*")}
    again = interpreted(planted, runs, dry_run=True)
    assert (len(again.to_do), len(again.already)) == (0, 8)
    again = interpreted(planted, runs, subjects=(1,), seeds=(0,), models=("early",))
    assert (len(again.to_do), len(again.already)) == (0, 1)
    assert {file: file.stat().st_mtime_ns for file in runs.glob(f"*/{NAME}/*")} == before


def test_gradient_x_input_finds_the_same_place(planted, runs, report):
    found = interpreted(planted, runs, method="gradient-x-input", seeds=(0,), subjects=(1,), models=("early",))
    assert found.profiles[0].time[within(EARLY)].sum() > 0.4
    assert any("contributions of gradient x input" in note and "% off" in note for note in found.notes)


def test_what_cannot_be_asked_is_said(planted, runs, tmp_path):
    with pytest.raises(UnknownName, match="no method"):
        interpreted(planted, runs, method="saliency")
    with pytest.raises(UnknownName, match="no run with the embedding") as problem:
        interpreted(planted, runs, models=("other",))
    assert problem.value.hint == "known: early, late"
    with pytest.raises(EmbedctlError, match="no pairing called 'junk'"):
        interpreted(planted, runs, pairing="junk", dry_run=True)
    with pytest.raises(EmbedctlError, match="no finished run"):
        interpreted(planted, runs, subjects=(9,))
    with pytest.raises(EmbedctlError, match="no results"):
        interpreted(planted, tmp_path)
    with pytest.raises(EmbedctlError, match="defined for NICE, this run has EEGProject") as problem:
        interpreted(planted, runs, method="paper-gradcam")
    assert "--brain-encoder nice" in problem.value.hint


def test_runs_on_other_recordings_are_skipped_with_the_reason(planted, runs, report, tmp_path):
    other = build_workspace(tmp_path)
    asked = {"embeddings": planted.embeddings, "epochs": other.epochs, "runs": runs}
    with pytest.raises(EmbedctlError, match="other epochs"):
        interpret(InterpretRequest(method="gradient-x-input", subjects=(2,), **asked))


def test_damage_beside_a_run_is_an_error_and_not_a_result(planted, runs, report, tmp_path):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    file = next(tmp_path.glob(f"*/{NAME}/time.npy"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedStore):
        interpreted(planted, tmp_path)


def test_paper_gradcam_draws_the_effect_too_early_and_says_so(planted, runs, tmp_path):
    asked = {"brain": "eeg", "brain_encoder": "nice", "subjects": (1,), "models": ("early",), "recipe": planted.recipe}
    train(TrainRequest(**asked, **where(planted, tmp_path)))
    found = interpreted(planted, tmp_path, method="paper-gradcam")
    [profile] = found.profiles
    # One column: what it sees holds the effect, and it is drawn where it sees nothing of the kind.
    assert abs(profile.corrected_peak - np.mean(EARLY)) < 0.148
    column = round((profile.corrected_peak - 0.148) / 0.02)
    half_a_column = 0.019
    assert profile.peak == pytest.approx(stretched_times(16, len(TIMES), SFREQ)[column], abs=half_a_column)
    assert profile.corrected_peak - profile.peak > 0.06
    assert any("wrong time" in note for note in found.notes) and any("no topography" in note for note in found.notes)
    assert profile.sensors == {} and profile.windows == []
    other = next(runs.glob("*eegproject*"))
    shutil.copytree(other, tmp_path / other.name)
    assemble(tmp_path)
    words = ["--embeddings", planted.embeddings, "--epochs", planted.epochs, "--runs", tmp_path]
    shown = CliRunner().invoke(app, ["interpret", "--method", "paper-gradcam", *map(str, words)])
    assert shown.exit_code == 3 and "skipped 1 of 2 runs" in shown.stderr and "EEGProject" in shown.stderr
    assert "peak in truth" in shown.stdout and "wrong time" in shown.stderr


def test_the_command_shows_tables_draws_pictures_and_gives_json(planted, runs, report, monkeypatch):
    words = ["interpret", "--embeddings", planted.embeddings, "--epochs", planted.epochs, "--runs", runs]
    shown = CliRunner().invoke(app, list(map(str, words)))
    assert shown.exit_code == 0, shown.output
    early = next(line for line in shown.stdout.splitlines() if line.startswith("early "))
    assert "occipital" in early and "nats" in early
    assert "images of subject 1, both found" in shown.stdout
    assert "5 Hz" in shown.stderr
    pictures = sorted(path.name for path in runs.glob("interpret/integrated-gradients/*/*.png"))
    assert pictures == ["bands.png", "early-minus-late.png", "sensors.png", "time.png"]
    monkeypatch.setattr("embedctl.commands.interpret._draw", lambda *_: [])
    said = json.loads(CliRunner().invoke(app, [*map(str, words), "--subject", "1", "--json"]).stdout)
    assert said["schema_version"] == 1 and len(said["profiles"]) == 2
    assert np.allclose(said["profiles"][0]["time"], of(report, said["profiles"][0]["embedding"]).time)
    assert "table" not in said["profiles"][0] and said["pairs"][0]["tests"][0]["bands"]["alpha"].keys() == {
        "difference",
        "p",
        "p_holm",
    }
    assert len(read_results(runs)) == 8
    kept = build(ReportRequest(runs=runs, embeddings=planted.embeddings))
    figures = {figure.title: figure for section in kept.sections for figure in section.figures}
    times = figures["When the evidence for the right image comes, % of it per sample"].table
    assert sorted(row[:2] for row in times.rows) == [(name, s) for name in ("early", "late") for s in (1, 2)]
    assert "early minus late: when the evidence comes, % of it per sample" in figures


def test_meg_is_read_by_the_regions_of_its_helmet(tmp_path):
    workspace = build_workspace(tmp_path)
    store = EpochStore.open(workspace.epochs)
    names = ["MLO11-1609", "MRO11-1609", "MZO01-1609", "MLF11-1609", "MRF11-1609", "MLT11-1609"]
    places = [
        [-0.03, -0.1, 0.06],
        [0.03, -0.1, 0.06],
        [0, -0.11, 0.08],
        [-0.03, 0.1, 0.06],
        [0.03, 0.1, 0.06],
        [-0.1, 0, 0],
    ]
    rng, mixing = (
        np.random.default_rng(0),
        np.random.default_rng(1).standard_normal((workspace.planted.shape[1], 3, 20)),
    )
    info = {"ch_names": names, "ch_pos": places, "times": (np.arange(80) / 200).tolist(), "sfreq": 200.0, "units": "sd"}
    arrays = {"scale": np.ones((1, 6)), "shift": np.zeros((1, 6))}
    with store.writer("things-meg", 1, recipe={"name": "clean"}, modality="meg", info=info, arrays=arrays) as writer:
        for split, ids, start in (("train", TRAIN_IDS, 0), ("test", TEST_IDS, len(TRAIN_IDS))):
            out = writer.split(split, ids, [concept(i) for i in ids], 2, (6, 80), "float32", pa.table({"image": ids}))
            values = rng.standard_normal((len(ids), 2, 6, 80))
            target = workspace.planted[start : start + len(ids)]
            values[:, :, :3, 30:50] += np.einsum("nd,dct->nct", target, mixing)[:, None]
            for block in out.missing():
                rows = slice(out.images(block).start, out.images(block).stop)
                shape = values[rows].shape[:2]
                out.write_block(block, values[rows].astype(np.float32), np.ones(shape, bool), np.zeros(shape, np.int16))
        writer.done()
    asked = {"recipe": workspace.recipe, "models": ("planted",)}
    train(TrainRequest(brain="meg", **asked, **where(workspace, tmp_path / "runs")))
    found = interpreted(workspace, tmp_path / "runs")
    [profile] = found.profiles
    assert list(profile.groups) == ["frontal", "temporal", "occipital"] and profile.groups["occipital"] > 0.7
    assert profile.time[30:50].sum() > 0.5 and 0.15 <= profile.half <= 0.25
    assert any("each channel is its own sensor" in note for note in found.notes)
    assert not any("Hz" in note for note in found.notes)
    [picture] = [axes for axes in sensors_figure(found.profiles).axes if axes.images]
    assert picture.get_title() == "planted"


@pytest.fixture(scope="module")
def voxels(tmp_path_factory):
    """Voxels of which those of one region carry the embedding."""
    folder = tmp_path_factory.mktemp("voxels")
    workspace = build_workspace(folder)
    store, rng = EpochStore.open(workspace.epochs), np.random.default_rng(0)
    info = {"rois": {"V1": list(range(10)), "FFA": list(range(10, 30))}, "units": "z"}
    with store.writer("nsd", 1, recipe={"name": "clean"}, modality="fmri", info=info, arrays={}) as writer:
        for split, ids, start in (("train", TRAIN_IDS, 0), ("test", TEST_IDS, len(TRAIN_IDS))):
            out = writer.split(split, ids, [concept(i) for i in ids], 2, (30,), "float32", pa.table({"image": ids}))
            target = workspace.planted[start : start + len(ids)]
            values = 0.5 * rng.standard_normal((len(ids), 2, 30))
            values[:, :, :10] += (target @ np.random.default_rng(1).standard_normal((target.shape[1], 10)))[:, None] / 2
            for block in out.missing():
                rows = slice(out.images(block).start, out.images(block).stop)
                shape = values[rows].shape[:2]
                out.write_block(block, values[rows].astype(np.float32), np.ones(shape, bool), np.zeros(shape, np.int16))
        writer.done()
    return workspace


def test_voxels_are_read_by_region_of_interest(voxels, tmp_path):
    recipe = tmp_path / "voxels.toml"
    recipe.write_text('base = "modern"\nbatch = 32\npasses = 8\nlr = 1e-3\n')
    train(TrainRequest(brain="fmri", recipe=str(recipe), **where(voxels, tmp_path / "runs")))
    found = interpret(InterpretRequest(**where(voxels, tmp_path / "runs")))
    profile = of(found, "planted")
    assert profile.groups["V1"] > 0.5 and list(profile.groups) == ["V1", "FFA"]
    assert (profile.bands, profile.windows, profile.half) == ({}, [], None)
    assert [part["part"] for part in profile.occlusion] == ["V1", "FFA"]
    assert profile.occlusion[0]["lost"] > 3 * abs(profile.occlusion[1]["lost"])
    assert found.pairs[0].tests[0].groups.keys() == {"V1", "FFA"}
    words = ["interpret", "--embeddings", voxels.embeddings, "--epochs", voxels.epochs, "--runs", tmp_path / "runs"]
    shown = CliRunner().invoke(app, list(map(str, words)))
    assert shown.exit_code == 0, shown.output
    assert "V1" in shown.stdout and len(OCCIPITAL) == 3
