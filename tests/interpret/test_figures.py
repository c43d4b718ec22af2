"""What the pictures show is what was found."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from embedctl.drawing import CURVES, flat, png
from embedctl.interpretation_figures import bands_figure, pair_figure, sensors_figure, time_figure
from embedctl.report.gather import Answers
from pipelines.interpret.clusters import Cluster
from pipelines.interpret.pairs import PairedProfile, PairTest
from tests.interpret.made_up import CONDITION, POSITIONS, TIMES, profile


@pytest.fixture
def profiles():
    return [profile("early", 1, 0.1), profile("early", 2, 0.12), profile("late", 1, 0.3)]


def test_courses_are_means_over_subjects_in_milliseconds_and_percent(profiles):
    [axes] = time_figure(profiles).axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["early", "late"]
    assert np.allclose(lines["early"].get_xdata(), 1000 * TIMES)
    assert np.allclose(lines["early"].get_ydata(), 50 * (profiles[0].time + profiles[1].time))
    assert lines["early"].get_color() != lines["late"].get_color()
    assert "2 subjects" in axes.get_title() and "ms" in axes.get_xlabel()


def test_an_embedding_has_the_colour_that_it_has_in_the_report(profiles):
    ranked = ["best", "late", "early"]
    colours = SimpleNamespace(cells=dict.fromkeys(ranked), called=str)
    expected = Answers.colours(colours, ["early", "late"])
    assert expected == {"early": CURVES[2], "late": CURVES[1]}
    [axes] = time_figure(profiles, ranked).axes
    assert {line.get_label(): line.get_color() for line in axes.lines if line.get_label() in expected} == expected
    [axes] = bands_figure(profiles, ranked).axes
    assert [bars[0].get_facecolor() for bars in axes.containers] == [to_rgba(one) for one in expected.values()]


def test_windows_above_zero_are_bars_below_the_courses(profiles):
    [axes] = time_figure(profiles).axes
    bars = [line for line in axes.lines if line.get_linewidth() == 3]
    spans = [tuple(np.round(bar.get_xdata())) for bar in bars]
    assert spans == [(50, 150), (70, 170), (250, 350)]
    lowest = min(np.min(line.get_ydata()) for line in axes.lines if line.get_linewidth() != 3)
    assert all(bar.get_ydata()[0] < lowest for bar in bars)


def test_shares_of_nothing_are_pale_and_said_to_be(profiles):
    nothing = replace(profiles[2], is_found=False)
    for figure in (time_figure, bands_figure):
        [axes] = figure([*profiles[:2], nothing]).axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["early", "late (nothing found)"]
    course = next(line for line in axes.patches if line.get_alpha() == 0.25)
    assert course.get_height() == pytest.approx(-10)
    maps = sensors_figure([*profiles[:2], nothing]).axes
    assert [axes.get_title() for axes in maps if axes.images] == ["early", "late\n(nothing found)"]
    assert [axes.images[0].get_alpha() for axes in maps if axes.images] == [1.0, 0.25]


def test_bands_are_bars_with_a_dot_per_subject(profiles):
    [axes] = bands_figure(profiles).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["offset", "theta", "alpha"]
    early, late = axes.containers
    assert [bar.get_height() for bar in early] == pytest.approx([-10, 21.5, 70])
    assert [bar.get_height() for bar in late] == pytest.approx([-10, 21, 70])
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in dots] == [6, 3]


def test_topographies_hold_every_sensor_on_one_scale(profiles):
    figure = sensors_figure([*profiles[:2], replace(profiles[2], sensors={"Fz": 0.1, "Oz": 0.2, "T8": 0.4, "Cz": 0.3})])
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["early", "late"]
    for axes in maps:
        assert axes.images[0].get_clim() == pytest.approx((-80, 80))
    drawn = maps[0].images[0].get_array()
    rows = np.unravel_index(np.argmax(drawn), drawn.shape)
    assert rows[0] < drawn.shape[0] / 2  # the back is below: the origin of the picture is at the bottom
    assert drawn.max() == pytest.approx(80, rel=0.15)


def test_sensors_of_subjects_are_put_together_by_their_names(profiles):
    turned = replace(
        profiles[1],
        sensors={"Cz": 0.1, "T8": -0.1, "Pz": 0.0, "Oz": 0.8, "Fz": 0.0},
        positions=[POSITIONS[3], POSITIONS[2], [0.0, -0.05, 0.1], POSITIONS[1], POSITIONS[0]],
    )
    one, other = (sensors_figure([profiles[0], second]) for second in (profiles[1], turned))
    assert np.allclose(*(figure.axes[0].images[0].get_array().filled(0) for figure in (one, other)))
    assert "which sensors of all subjects" in other.get_suptitle() and "of all" not in one.get_suptitle()


def test_sensors_lie_where_they_are_seen_from_above():
    places = flat(np.array(POSITIONS))
    assert np.allclose(places, [[0, 0.095], [0, -0.095], [0.095, 0], [0, 0]])


def test_without_positions_groups_are_bars_and_without_groups_the_strongest_sensors(profiles):
    [axes] = sensors_figure([replace(one, positions=[]) for one in profiles]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["frontal", "occipital"]
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx([10, 90])
    [axes] = sensors_figure([replace(one, positions=[], groups={}) for one in profiles]).axes
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["Oz", "T8"]


def test_a_pair_shows_both_comparisons_and_shades_where_they_differ():
    def test(matched, sign):
        return PairTest(
            matched=matched, over="images of subject 1", n=9, time=sign * TIMES, bands={}, groups={},
            windows=[Cluster(0.1, 0.2, sign, 0.01)],
        )  # fmt: skip

    pair = PairedProfile(
        condition=CONDITION, embedding="a", base="b", note="", subjects=(1,), times=TIMES, half={}, notes=[],
        tests=[test(False, 1), test(True, -1)],
    )  # fmt: skip
    [axes] = pair_figure(pair).axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines[1:]}
    assert np.allclose(drawn["all images"], 100 * TIMES)
    assert np.allclose(drawn["images that both found"], -100 * TIMES)
    assert sorted(round(patch.get_x()) for patch in axes.patches) == [100, 100]
    assert "a minus b" in axes.get_title()


def test_of_more_embeddings_than_colours_the_best_are_drawn_and_it_is_said():
    many = [profile(f"e{n:02d}", 1, 0.1, top1=n / 40, positions=[]) for n in range(40)]
    for figure in (time_figure, bands_figure, sensors_figure):
        [axes] = figure(many).axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"e{n}" for n in range(39, 34, -1)]
        assert "the 5 best of 40 embeddings" in axes.get_title()
    maps = sensors_figure([replace(one, positions=POSITIONS) for one in many])
    assert len([axes for axes in maps.axes if axes.images]) == 12
    assert "the 12 best of 40 embeddings" in maps.get_suptitle()


def test_maps_of_the_paper_say_that_their_times_are_not_those_of_the_recording(profiles):
    theirs = [replace(one, corrected_peak=0.2) for one in profiles]
    assert "early peaks at 100 ms, in the recording at 200 ms" in time_figure(theirs).axes[0].get_xlabel()
    assert "no spectrum" in bands_figure(theirs).axes[0].get_xlabel()
    assert "recording" not in time_figure(profiles).axes[0].get_xlabel()


@pytest.mark.parametrize("origin", [(0, 0, 0), (0, 0.02, -0.01)])
def test_a_helmet_is_drawn_about_its_own_middle_whatever_its_coordinates(origin):
    angle, around = (grid.ravel() for grid in np.meshgrid(np.radians([0, 45, 90, 110]), np.linspace(0, 6, 12)))
    unit = np.column_stack([np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)])
    places = flat(0.12 * unit + origin)
    assert np.allclose(np.linalg.norm(places, axis=1), angle / (np.pi / 2) * 0.095)


def test_names_are_no_formulas_and_are_all_in_the_legend(profiles):
    figure = bands_figure([replace(profiles[0], embedding=name) for name in ("cash_$5_or_$10", "_low")])
    assert png(figure).startswith(b"\x89PNG")
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cash_$5_or_$10", " _low"]
