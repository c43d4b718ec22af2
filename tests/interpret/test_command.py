"""What `embedctl interpret` prints and keeps, from made-up profiles."""

import json
from dataclasses import replace

import pytest

from embedctl import render
from embedctl.commands import interpret as command
from embedctl.interpretation_figures import time_figure
from embedctl.interpretation_tables import show_pairs, show_profiles
from pipelines.interpret.kept import found_at, keep_found
from pipelines.interpret.notes import notes_of
from pipelines.interpret.pairs import paired
from pipelines.interpret.request import InterpretReport
from stores.results import results_schema
from tests.interpret.made_up import CONDITION, profile, sides


@pytest.fixture
def tables(monkeypatch):
    """The tables printed, a dict per row."""
    printed = []

    def table(columns, rows, right=()):
        printed.append([dict(zip(columns, map(str, row), strict=True)) for row in rows])
        assert set(right) <= set(columns)

    monkeypatch.setattr(render, "table", table)
    return printed


@pytest.mark.parametrize(("aligned", "base", "later"), [(0.12, 0.3, -180), (0.3, 0.12, 180)])
def test_the_side_that_has_more_is_named_and_by_how_much_half_of_it_comes_later(tables, aligned, base, later):
    show_pairs([paired(*sides(1, aligned=aligned, base=base))])
    [[everything, matched]] = tables
    more, less = (float(everything[column].split()[0]) for column in ("aligned has more", "has less"))
    assert more == pytest.approx(1000 * aligned, abs=80) and less == pytest.approx(1000 * base, abs=80)
    assert float(everything["half by, ms"]) == pytest.approx(later, abs=1) and not matched["half by, ms"]


def test_of_what_is_not_found_no_band_and_no_sensor_is_named(tables):
    """One of many bands may pass its own test by chance."""
    found, nothing = (profile("hog", 1, 0.1, is_found=is_found, band_p={"alpha": 0.01}) for is_found in (True, False))
    show_profiles([found, nothing], "integrated-gradients")
    [[one, other]] = tables
    assert (one["strongest band"], other["strongest band"]) == ("alpha 70 %", "none")
    assert (one["strongest sensors"], other["strongest sensors"]) == ("occipital 90 %", "none")


def test_weights_that_are_not_the_published_ones_are_marked_as_in_the_ranking(tables, capsys):
    """Else the bands of a network that learned nothing read as those of the one that has its name."""
    odd = profile("resnet18-tv", 1, 0.1, weights="random:0", is_found=False)
    show_profiles([odd], "integrated-gradients")
    ours, theirs = sides(1)
    show_pairs([paired([replace(one, weights="file:sha256:00") for one in ours], theirs)])
    [[one], [pair, _]] = tables
    assert one["embedding"] == "resnet18-tv (random:0)"
    assert (pair["aligned"], pair["base"]) == ("aligned (own weights)", "base")
    [note] = [note for note in notes_of([vars(odd)]) if "no evidence" in note]
    assert "resnet18-tv (random:0)" in note
    [axes] = time_figure([odd]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["resnet18-tv (random:0) (nothing found)"]


def test_over_six_subjects_the_mean_of_their_halves_is_shown(tables):
    show_pairs([paired(*sides(6))])
    [[everything, _]] = tables
    assert everything["over"] == "subjects" and float(everything["half by, ms"]) == pytest.approx(-180, abs=1)


def kept(runs, *profiles):
    """What is kept after one more call."""
    for one in profiles:
        for run_id in one.run_ids:
            (runs / run_id).mkdir(exist_ok=True)
    keep_found(InterpretReport(method="integrated-gradients", runs=runs, profiles=list(profiles)))
    return json.loads(found_at(runs, "integrated-gradients").read_text())


def test_whether_anything_is_found_is_kept_and_is_over_subjects_of_earlier_calls_too(tmp_path):
    assert [one["is_found"] for one in kept(tmp_path, profile("hog", 1, 0.1, p=0.03))["profiles"]] == [True]
    both = kept(tmp_path, profile("hog", 2, 0.1, p=0.04))["profiles"]
    assert [(one["subject"], one["is_found"]) for one in both] == [(2, False), (1, False)]


def test_what_limits_a_profile_is_kept_with_it_when_others_are_asked_about(tmp_path):
    kept(tmp_path, profile("hog", 1, 0.1, similarity=0.8, notes=["means alone"]))
    said = kept(tmp_path, profile("hog", 2, 0.1))
    assert "means alone" in said["notes"] and sum("do not trust" in note for note in said["notes"]) == 1
    assert [one["notes"] for one in said["profiles"]] == [[], ["means alone"]]


def test_an_interpretation_that_cannot_be_read_is_replaced(tmp_path):
    kept(tmp_path, profile("hog", 1, 0.1))
    found_at(tmp_path, "integrated-gradients").write_text('{"profiles": [{}], "pairs": []}')
    assert [one["subject"] for one in kept(tmp_path, profile("hog", 2, 0.1))["profiles"]] == [2]


def test_a_call_for_one_seed_leaves_what_all_seeds_said_in_place(tmp_path):
    kept(tmp_path, profile("hog", 1, 0.1, run_ids=("a", "b")))
    [one] = kept(tmp_path, profile("hog", 1, 0.3, run_ids=("a",)))["profiles"]
    assert (one["peak"], one["run_ids"]) == (0.1, ["a", "b"])


def test_pictures_of_a_narrower_call_lie_beside_those_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("embedctl.drawing.png", lambda figure: b"")
    monkeypatch.setattr("stores.results.read_results", lambda runs: results_schema().empty_table())
    of = CONDITION | {"recipe": "modern", "config_key": "0a1b"}
    one = profile("hog", 1, 0.1, condition=of, sensors={}, positions=[])
    report = InterpretReport(method="integrated-gradients", runs=tmp_path, profiles=[one])
    whole, narrow = command._draw(report, []), command._draw(report, ["timm:a/b", "subject-1"])
    assert len(whole) == len(narrow) == 2 and not set(whole) & set(narrow)
    assert narrow[0].parent == whole[0].parent / "only-timm~a-b_subject-1"
    assert len(command._draw(report, ["x" * 300])[0].parent.name) < 60
