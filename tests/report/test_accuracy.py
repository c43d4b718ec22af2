"""The pictures of accuracy hold the numbers of the ranking, read back by their own axes."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embedctl.report.accuracy import _sides, accuracy, best_said, pairs_said
from embedctl.report.svg import whole
from pipelines.train.compare import pairs, ranking
from pipelines.train.statistics import Interval
from tests.report.conftest import ALIGNED, BASE, STRENGTH, SUBJECTS
from tests.report.drawn import across, marks, texts


@pytest.fixture(scope="module")
def figures(answers):
    return {figure.title: figure for figure in accuracy(answers).figures}


def test_intervals_are_those_of_compare(material, answers):
    assert answers.ranks == ranking(material.results, material.request.runs)
    assert answers.pairs == pairs(material.results, "matched_base", material.request.runs)


def test_dots_and_lines_of_the_ranking_lie_where_their_numbers_are(figures, answers):
    picture = figures["Which embeddings are retrieved best, with intervals"].picture
    value = across(picture)
    dots = {dot["said"]: value(dot["cx"]) for dot in marks(picture, "circle")}
    for row in answers.ranks:
        assert dots[f"{row.embedding}: {100 * row.top1:.1f} %"] == pytest.approx(100 * row.top1, abs=0.5)
        for subject, top1 in row.per_subject.items():
            said = f"{row.embedding}, subject {subject}: {100 * top1:.1f} %"
            assert dots[said] == pytest.approx(100 * top1, abs=0.5)
    lines = {line["said"]: line for line in marks(picture, "line") if line["said"]}
    first = answers.ranks[0]
    drawn = next(line for said, line in lines.items() if said.startswith(f"{first.embedding}: 95 %"))
    assert value(drawn["x1"]) == pytest.approx(100 * first.interval.low, abs=0.5)
    assert value(drawn["x2"]) == pytest.approx(100 * first.interval.high, abs=0.5)
    assert value(lines["chance 8.3 %"]["x1"]) == pytest.approx(100 / 12, abs=0.5)
    assert value(lines["split-half reliability 30.0 %"]["x1"]) == pytest.approx(30, abs=0.5)


def test_aligned_encoders_have_a_colour_of_their_own(figures):
    dots = marks(figures["Which embeddings are retrieved best, with intervals"].picture, "circle")
    colour = {dot["said"].partition(":")[0]: dot["fill"] for dot in dots if dot["r"] == 4}
    assert colour[ALIGNED] != colour[BASE] == colour["pixels"]


def test_the_heatmap_has_every_embedding_and_subject_in_its_colour(figures, answers):
    picture = figures["Top-1 of every embedding and subject, %"].picture
    cells = {cell["said"]: cell for cell in marks(picture, "rect")}
    assert len(cells) == len(STRENGTH) * len(SUBJECTS)
    values = {(row.embedding, s): top1 for row in answers.ranks for s, top1 in row.per_subject.items()}
    for (name, subject), top1 in values.items():
        cell = cells[f"{name}, subject {subject}: {100 * top1:.1f} %"]
        written = [
            text for text, x, y in texts(picture) if cell["x"] < x < cell["x"] + 64 and cell["y"] < y < cell["y"] + 18
        ]
        assert written == [whole(100 * top1)]
        assert (cell["fill"] == "#fde725") == (top1 == max(values.values()))


def test_a_slope_goes_from_the_base_to_the_aligned_encoder(figures, answers):
    picture = figures["Each aligned encoder beside its base, subject by subject"].picture
    value, by_name = across(picture, upwards=True), {row.embedding: row.per_subject for row in answers.ranks}
    slopes = [line for line in marks(picture, "line") if line["said"].startswith("subject")]
    assert len(slopes) == len(SUBJECTS)
    for subject, line in zip(SUBJECTS, slopes, strict=True):
        assert value(line["y1"]) == pytest.approx(100 * by_name[BASE][subject], abs=1)
        assert value(line["y2"]) == pytest.approx(100 * by_name[ALIGNED][subject], abs=1)
        assert line["x1"] < line["x2"]


def test_a_slope_is_over_the_seeds_that_both_have_as_its_difference_is(answers):
    aligned, [pair] = answers.cells[ALIGNED], answers.pairs
    more = {subject: seeds | {7: {"top1": 0.0}} for subject, seeds in aligned.runs.items()}
    cells = answers.cells | {ALIGNED: SimpleNamespace(runs=more)}
    assert _sides(replace(answers, cells=cells), pair) == _sides(answers, pair)
    theirs, ours = _sides(answers, pair)
    assert np.mean([ours[s] - theirs[s] for s in SUBJECTS]) == pytest.approx(pair.difference)


def test_the_verdicts_name_the_leader_its_chance_and_what_four_subjects_cannot_show(answers):
    leader = max(STRENGTH, key=lambda name: next(r.top1 for r in answers.ranks if r.embedding == name))
    assert re.match(rf"{leader} leads 5 embeddings on made-up: the right one of 12 images", best_said(answers))
    assert "by chance in 8.3 %" in best_said(answers)
    assert pairs_said(answers) == (
        "Aligned against base: 4 subjects cannot show a group difference: no p below 0.125 exists."
    )
    alone = replace(answers, ranks=answers.ranks[:1])
    assert "stands alone on made-up" in best_said(alone)


def test_verdicts_on_pairs_are_counted_and_a_refusal_is_said_as_it_is(answers):
    [pair] = answers.pairs
    judged = [replace(pair, verdict=verdict) for verdict in ("higher", "higher", "no difference shown")]
    told = pairs_said(replace(answers, pairs=judged))
    assert (
        told == "Of 3 aligned against base: 2 higher, 1 no difference shown (sign-flip over subjects, Holm-corrected)."
    )
    refused = replace(pair, verdict="4 subjects cannot show a group difference")
    assert pairs_said(replace(answers, pairs=[refused])) == (
        "Aligned against base: 4 subjects cannot show a group difference."
    )
    unjudged = replace(pair, verdict="", note="random weights: alignment has nothing to show here")
    assert pairs_said(replace(answers, pairs=[unjudged])) == f"No verdict on alignment: {unjudged.note}."
    assert pairs_said(replace(answers, pairs=[])) == ""


def test_every_pair_is_counted_once_whatever_its_verdict(answers):
    [pair] = answers.pairs
    few = "4 subjects cannot show a group difference in 2 pairs at once"
    judged = [replace(pair, verdict=verdict) for verdict in ("higher", "no difference shown", few, few, "")]
    told = pairs_said(replace(answers, pairs=judged))
    assert told == (
        "Of 5 aligned against base: 1 higher, 1 no difference shown, 2 not to be judged with so few subjects, "
        "1 without a verdict (sign-flip over subjects, Holm-corrected)."
    )
    assert sum(map(int, re.findall(r"\d+(?= [a-z])", told.partition(": ")[2]))) == len(judged)
    unjudged = [replace(pair, verdict="", note=f"{why}: no verdict") for why in ("no base", "random weights")]
    assert pairs_said(replace(answers, pairs=unjudged)) == "No verdict on alignment: no base; random weights."


def test_nothing_leads_at_chance_and_equals_share_the_lead(answers):
    first, *rest = answers.ranks
    at_chance = [
        replace(row, top1=top1, interval=Interval(0.02, 0.1, "images"))
        for row, top1 in zip(answers.ranks, (0.07, 0.06, 0.05, 0.05, 0.05), strict=True)
    ]
    told = best_said(replace(answers, ranks=at_chance))
    assert told.startswith(
        f"No embedding is shown to be above chance; {first.embedding} is the highest of 5 on made-up"
    )
    assert "lead" not in told
    equal = [first, replace(rest[0], top1=first.top1), *rest[1:]]
    assert f"{first.embedding} shares the lead of 5 embeddings with {rest[0].embedding} on" in best_said(
        replace(answers, ranks=equal)
    )
    wide = [replace(first, interval=Interval(0.01, 0.9, "images")), *rest]
    assert "leads 5 embeddings, though its own interval reaches chance, on" in best_said(replace(answers, ranks=wide))
