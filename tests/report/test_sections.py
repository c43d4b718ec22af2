"""Every other section: what is drawn is what the runs and stores hold."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from embedctl.drawing import CURVES
from embedctl.report.embeddings import embeddings
from embedctl.report.evidence import evidence
from embedctl.report.gallery import gallery
from embedctl.report.gather import ReportRequest, gather
from embedctl.report.parts import shown
from embedctl.report.provenance import provenance
from embedctl.report.svg import diverging, sequential
from embedctl.report.training import looks, training
from embedctl.report.variation import variation
from pipelines.findings.retrieved import confusions
from pipelines.train.cells import Cell
from stores.errors import DamagedStore
from stores.results import assemble, read_array
from stores.screens import record_tested
from tests.report.conftest import ALIGNED, BASE, CONCEPTS, IMAGES, LAYERS, SEEDS, STRENGTH, SUBJECTS, write
from tests.report.drawn import across, marks


def by_title(section):
    return {figure.title: figure for figure in section.figures}


def by_row(figure):
    columns = [name for name, _ in figure.table.columns]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in figure.table.rows}


def drawn_chance(figure):
    """Where the picture has its dotted line, by its own axis."""
    [line] = [line for line in marks(figure.picture, "line") if line["said"].startswith("chance")]
    assert line["stroke-dasharray"] == "2 3" and "Dotted: chance" in figure.note
    return across(figure.picture, upwards=True)(line["y1"])


def test_layers_come_in_the_order_of_their_depth(answers):
    figure = by_title(variation(answers))["Top-1 by depth of the layer, %"]
    assert [row[1] for row in figure.table.rows] == ["blocks.2", "blocks.10"]
    first, last = (next(r.top1 for r in answers.ranks if r.embedding == name) for name in LAYERS)
    dots, value = marks(figure.picture, "circle"), across(figure.picture, upwards=True)
    assert [value(dot["cy"]) for dot in dots] == pytest.approx([100 * first, 100 * last], abs=1)
    assert dots[0]["cx"] < dots[1]["cx"]
    assert drawn_chance(figure) == pytest.approx(100 / 12, abs=0.5)
    assert "Rings" not in figure.note, "its conventional embedding was not run"
    ranks = [*answers.ranks, replace(answers.ranks[0], embedding="vitb16-in1k")]
    with_it = by_title(variation(replace(answers, ranks=ranks)))["Top-1 by depth of the layer, %"]
    assert "Rings" in with_it.note and len(marks(with_it.picture, "circle")) == 3


def test_layers_whose_names_do_not_tell_their_order_are_not_drawn_as_if_they_did(answers):
    layers = ("avgpool", "conv1", "layer1", "layer3", "layer20", "stages.0.blocks.2", "stages.1.blocks.0")
    row = answers.ranks[0]
    ranks = [replace(row, embedding=f"resnet18-tv:{layer}", top1=n / 10) for n, layer in enumerate(layers)]
    [figure] = [f for f in variation(replace(answers, ranks=ranks)).figures if "depth" in f.title]
    assert [(layer, top1) for _, layer, top1 in figure.table.rows] == [
        (layer, n / 10) for n, layer in enumerate(layers) if n > 1
    ]
    assert len(marks(figure.picture, "polyline")) == 2
    assert "resnet18-tv:layer*" in figure.picture and "resnet18-tv:stages.*.blocks.*" in figure.picture
    nameless = replace(answers, ranks=ranks[:3])
    assert not [f for f in variation(nameless).figures if "depth" in f.title]


def test_accuracy_over_repetitions_is_a_mean_over_seeds_then_subjects_up_to_all_of_them(answers, monkeypatch):
    from embedctl.report import repetitions as module

    few = replace(answers, cells={name: answers.cells[name] for name in (ALIGNED, BASE)})

    def summary(runs, run_id):
        top1 = 0.1 * int(run_id.split("sub-")[1][:2]) + (0.02 if run_id.endswith("seed-1") else 0)
        kept = {"1": top1 / 4, "2": top1 / 2} if BASE not in run_id else {}
        return {"top1": top1, "test_repetitions": 6, "top1_by_repetitions": kept}

    monkeypatch.setattr(module, "read_summary", summary)
    [figure] = module.repetitions(few, Path("runs")).figures
    assert [name for name, _ in figure.table.columns] == ["embedding", "1", "2", "6"]
    mean = 0.25 + 0.01  # four subjects, two seeds
    assert figure.table.rows == [(ALIGNED, *map(pytest.approx, (mean / 4, mean / 2, mean)))]
    dots, value = marks(figure.picture, "circle"), across(figure.picture, upwards=True)
    assert [value(dot["cy"]) for dot in dots] == pytest.approx([100 * mean / 4, 100 * mean / 2, 100 * mean], abs=1)
    assert drawn_chance(figure) == pytest.approx(100 / 12, abs=0.5)
    assert not module.repetitions(replace(few, cells={BASE: few.cells[BASE]}), Path("runs")).figures


def test_seeds_are_dots_about_their_subjects_mean(answers):
    figure = by_title(variation(answers))["How much the seed alone changes top-1"]
    value = across(figure.picture)
    dots = [dot for dot in marks(figure.picture, "circle") if dot["said"].startswith("pixels")]
    assert len(dots) == len(SUBJECTS) * len(SEEDS)
    runs = answers.cells["pixels"].runs
    squares = []
    for dot, (subject, seed) in zip(dots, ((s, n) for s in SUBJECTS for n in SEEDS), strict=True):
        change = runs[subject][seed]["top1"] - np.mean([row["top1"] for row in runs[subject].values()])
        assert value(dot["cx"]) == pytest.approx(100 * change, abs=0.5)
        squares.append(change**2)
    told = {row[0]: row[3] for row in figure.table.rows}
    assert "+" not in shown(told["pixels"], figure.table.columns[3][1])
    assert told["pixels"] == pytest.approx((sum(squares) / len(SUBJECTS)) ** 0.5)


def test_the_gallery_shows_clear_hits_and_bad_misses_of_one_run(answers, material):
    hits, misses, confused, _ = gallery(answers, material).figures
    leader = answers.ranks[0].embedding
    top1 = answers.ranks[0].per_subject
    middle = sorted(SUBJECTS, key=lambda subject: (top1[subject], subject))[2]
    assert f"({leader}, subject {middle}, seed 0)" in hits.title
    for image, rank, *nearest in hits.table.rows:
        assert rank == 1 and nearest[0] == image
    ranks = [row[1] for row in misses.table.rows]
    assert ranks == sorted(ranks, reverse=True) and all(rank > 1 for rank in ranks)
    assert hits.picture.count("data:image/jpeg;base64,") == 6 * len(hits.table.rows)
    counted = {}
    for seeds in answers.cells[leader].runs.values():
        for row in seeds.values():
            first = read_array(material.request.runs, row["run_id"], "scores").argmax(axis=1)
            for own, place in enumerate(first.tolist()):
                if own != place:
                    counted[IMAGES[own], IMAGES[place]] = counted.get((IMAGES[own], IMAGES[place]), 0) + 1
    assert [row[2] for row in confused.table.rows] == sorted(counted.values(), reverse=True)[: len(confused.table.rows)]
    assert all(counted[row[0], row[1]] == row[2] for row in confused.table.rows)
    assert confused.picture.count("data:image/jpeg;base64,") == 2 * len(confused.table.rows)
    assert "in 1 runs" not in confused.picture and "in 1 run<" in confused.picture


def test_an_image_that_is_right_as_much_as_another_is_not_taken_for_it(tmp_path):
    write(tmp_path, "pixels", 1, 0, np.ones((12, 12), "f4"))
    [row] = assemble(tmp_path).to_pylist()
    assert confusions(tmp_path, [row]) == []


def test_a_concept_is_found_as_often_as_its_images(answers, material):
    figure = gallery(answers, material).figures[-1]
    runs = answers.cells[answers.ranks[0].embedding].runs
    hits = np.array(
        [[read_array(material.request.runs, r["run_id"], "hits") for r in s.values()] for s in runs.values()]
    )
    expected = {c: hits[..., [i for i, of in enumerate(CONCEPTS) if of == c]].mean() for c in CONCEPTS}
    assert dict(figure.table.rows) == pytest.approx(expected)
    value = across(figure.picture)
    for dot in marks(figure.picture, "circle"):
        assert value(dot["cx"]) == pytest.approx(100 * expected[dot["said"].partition(":")[0]], abs=0.5)


def test_without_images_and_store_the_gallery_has_names_alone(answers, material, tmp_path):
    bare = replace(material, store=None, request=replace(material.request, images=tmp_path))
    section = gallery(answers, bare)
    assert "data:image" not in section.figures[0].picture
    assert section.text[-1] == f"There are no images of these names at '{tmp_path}'."
    assert "no embedding store" in embeddings(bare).text[0]


def test_pictures_come_out_of_a_zip(answers, material, tmp_path):
    file = Path(shutil.make_archive(str(tmp_path / "images"), "zip", material.request.images))
    zipped = replace(material, request=replace(material.request, images=file))
    hits = gallery(answers, zipped).figures[0]
    assert hits.picture.count("data:image/jpeg;base64,") == 6 * len(hits.table.rows)


def test_one_image_that_the_store_does_not_know_takes_no_other_picture_along(answers, material, tmp_path):
    shutil.copytree(material.request.images, tmp_path / "set")
    store = SimpleNamespace(image_ids=[f"set/{image}" for image in IMAGES[1:]])
    elsewhere = replace(material, store=store, request=replace(material.request, images=tmp_path))
    assert "data:image/jpeg;base64," in gallery(answers, elsewhere).figures[0].picture


def test_pictures_are_found_where_the_store_has_the_images_that_epochs_name_otherwise(answers, material, tmp_path):
    shutil.copytree(material.request.images, tmp_path / "set")
    store = SimpleNamespace(image_ids=[f"set/{image}" for image in IMAGES])
    elsewhere = replace(material, store=store, request=replace(material.request, images=tmp_path))
    hits = gallery(answers, elsewhere).figures[0]
    assert hits.picture.count("data:image/jpeg;base64,") == 6 * len(hits.table.rows)


def test_learning_curves_are_means_over_runs(answers):
    curves, cost = training(answers).figures
    value = across(curves.picture, upwards=True)
    course = next(line for line in marks(curves.picture, "polyline") if line["said"] == "pixels")
    heights = [value(float(point.split(",")[1])) for point in course["points"].split()]
    assert heights == pytest.approx([10, 20, 30], abs=1)
    assert drawn_chance(curves) == pytest.approx(20, abs=0.5) and by_row(curves)["pixels"]["chance"] == pytest.approx(
        0.2
    )
    assert [row[1:] for row in cost.table.rows] == [(8, 2.0, 16.0)] * len(STRENGTH)
    ends = [across(cost.picture)(bar["x"] + bar["width"]) for bar in marks(cost.picture, "rect")]
    assert ends == pytest.approx([2.0] * len(STRENGTH), abs=0.02)


def test_a_run_that_stopped_early_does_not_cut_the_others(answers):
    """Nor do runs of before chance was kept have a line for it."""
    runs = [row["run_id"] for seeds in answers.cells["pixels"].runs.values() for row in seeds.values()]
    short = [{"pass": 1, "loss": 4.0, "val_top1": 0.2}, {"pass": 2, "loss": 2.0, "val_top1": 0.1}]
    hits = answers.hits | {runs[0]: replace(answers.hits[runs[0]], curve=short)}
    curves = training(replace(answers, hits=hits)).figures[0]
    found = by_row(curves)["pixels"]
    assert found["chance"] is None
    assert found["passes"] == "2 to 3" and found["runs"] == 8
    assert found["best validation top-1"] == pytest.approx((7 * 0.3 + 0.2) / 8)
    assert found["after pass"] == pytest.approx((7 * 3 + 1) / 8)
    assert found["last loss"] == pytest.approx((7 * 1.0 + 2.0) / 8)
    value = across(curves.picture, upwards=True)
    course = next(line for line in marks(curves.picture, "polyline") if line["said"] == "pixels")
    heights = [value(float(point.split(",")[1])) for point in course["points"].split()]
    assert heights == pytest.approx([(7 * 10 + 20) / 8, (7 * 20 + 10) / 8, 30], abs=1)


def test_the_last_step_is_not_kept_quiet_about(material):
    assert "the last step" in " ".join(looks(material).text)


def test_every_configuration_that_saw_the_test_set_is_counted(material, tmp_path):
    record_tested(tmp_path, [("made-up", "hog", "0a1b", "ridge"), ("another", "hog", "0a1b", "ridge")])
    elsewhere = replace(material, request=replace(material.request, runs=tmp_path))
    [figure] = looks(elsewhere).figures
    assert figure.table.rows == [("another", 1, 0, 1, 0, 0), ("made-up", 6, 5, 1, 40, 4)]


def test_health_knows_equal_rows_scale_and_geometry(material):
    section = embeddings(material)
    ranks, likeness = section.figures
    found, table = by_row(ranks), by_row(likeness)
    assert found[ALIGNED]["equal rows"] == 6 and found["pixels"]["equal rows"] == 0
    assert found[BASE]["norm"] == pytest.approx(2 * found["pixels"]["norm"])
    assert found[BASE]["effective rank"] == pytest.approx(found["pixels"]["effective rank"])
    assert any(text.startswith(f"{ALIGNED}: 6 rows equal") for text in section.text)
    table = {
        row[0]: dict(zip([name for name, _ in likeness.table.columns], row, strict=True)) for row in likeness.table.rows
    }
    assert table["pixels"][BASE] == pytest.approx(1)
    assert abs(table["pixels"][ALIGNED]) < 0.9
    value = across(ranks.picture)
    for bar in marks(ranks.picture, "rect"):
        expected = found[bar["said"].partition(":")[0]]["effective rank"]
        assert value(bar["x"] + bar["width"]) == pytest.approx(expected, abs=0.05)
    cells = {cell["said"]: cell for cell in marks(likeness.picture, "rect")}
    assert set(cells) == {f"{one} and {other}: {table[one][other]:.2f}" for one in table for other in table}
    assert {said for said, cell in cells.items() if cell["fill"] == sequential(1.0)[0]} >= {
        f"pixels and {BASE}: 1.00",
        "pixels and pixels: 1.00",
    }
    last = cells["pixels and pixels: 1.00"]
    column, row = cells[f"{BASE} and pixels: {table[BASE]['pixels']:.2f}"], cells[f"pixels and {BASE}: 1.00"]
    assert (last["x"], last["y"]) == (column["x"], row["y"])


def test_an_embedding_too_wide_to_look_at_is_named(material, monkeypatch):
    monkeypatch.setattr("pipelines.findings.health.MOST_FEATURES", 5)
    assert embeddings(material).text == ["The store holds no embedding of a size that is looked at here."]


def test_provenance_has_licence_and_citation_of_every_encoder(material):
    encoders, _, settings = provenance(material).figures
    cells = by_row(encoders)
    assert cells[ALIGNED]["licence"] and cells[ALIGNED]["cite"].startswith("https://")
    assert set(cells) == set(STRENGTH)
    [(*_, n_runs, _, _)] = settings.table.rows
    assert n_runs == 40


def test_random_weights_were_fitted_to_nothing_and_simulated_recordings_are_nobodys(material):
    rows = material.results.to_pylist()
    results = pa.Table.from_pylist(
        [row | {"weights": "random:0", "dataset": "things-eeg2"} for row in rows if row["embedding"] == LAYERS[0]]
    )
    encoders, recordings, _ = provenance(replace(material, results=results, simulated=set())).figures
    assert by_row(encoders)[LAYERS[0]]["fitted on"] == "nothing: random weights"
    assert {row[-1] for row in recordings.table.rows} != {"simulated, in the form of this dataset"}
    made_up = {(row["dataset"], row["subject"], row["epochs_key"]) for row in results.to_pylist()}
    _, recordings, _ = provenance(replace(material, results=results, simulated=made_up)).figures
    assert {row[-2:] for row in recordings.table.rows} == {("", "simulated, in the form of this dataset")}


def test_runs_of_simulated_recordings_say_so_wherever_they_are_copied(tmp_path):
    scores = np.eye(12, dtype="f4")
    write(tmp_path, "pixels", 1, 0, scores, simulated=True)
    assemble(tmp_path)
    request = ReportRequest(runs=tmp_path, embeddings=tmp_path / "no", images=tmp_path / "no")
    assert gather(request).notes[0].startswith("The recordings are simulated")
    write(tmp_path, "pixels", 2, 0, scores)
    assemble(tmp_path)
    both = gather(request)
    assert "made-up subject 1." in both.notes[0] and both.simulated == {("made-up", 1, "e1")}


def test_evidence_of_these_very_runs_is_drawn_in_time_frequency_and_space(answers, material, interpreted):
    section = evidence(answers, material.request.runs)
    time, bands, sensors, lost, pair = section.figures
    assert lost.table.rows == [[BASE, 1, 2.0, "100 to 150 ms", 1.5]], "of what is found alone"
    assert lost.note.endswith(f"Left out, since nothing is shown to be there: {ALIGNED}.")
    ends = {name: (row["peak"], row["half by"]) for name, row in by_row(time).items()}
    assert ends == {BASE: ("200 ms", "200 ms"), ALIGNED: ("", "")}, "as in the terminal"
    assert f"Theta is loaded in {BASE}." in section.text and "Theta is loaded in pixels." not in section.text
    colours = {line["said"]: line["stroke"] for line in marks(time.picture, "polyline")}
    assert colours[ALIGNED] == "#c3c8d0" != colours[BASE], "what is not shown to be there is pale"
    assert {row[0] for row in time.table.rows} == {ALIGNED, BASE}
    course = next(line for line in marks(time.picture, "polyline") if line["said"] == BASE)
    points = [tuple(map(float, point.split(","))) for point in course["points"].split()]
    value, height = across(time.picture), across(time.picture, upwards=True)
    peak = min(points, key=lambda point: point[1])
    assert value(peak[0]) == pytest.approx(200, abs=3) and height(peak[1]) == pytest.approx(100, abs=1)
    bars = {line["said"]: line for line in marks(time.picture, "line") if line["said"]}
    assert value(bars[f"{BASE}: 200 to 250 ms"]["x1"]) == pytest.approx(200, abs=3)
    assert value(bars[f"{ALIGNED}: 100 to 150 ms"]["x2"]) == pytest.approx(150, abs=3)
    assert min(bar["y1"] for bar in bars.values()) > max(y for _, y in points)
    cells = {cell["said"]: cell["fill"] for cell in marks(bands.picture, "rect")}
    assert cells[f"{ALIGNED}, theta: 90.0 %"] == diverging(0.25)[0], "what is not shown to be there is pale"
    assert cells[f"{BASE}, theta: 90.0 %"] == "#5e3c99" != cells[f"{BASE}, offset: -10.0 %"]
    pale, drawn = (f"{one}</svg>" for one in str(sensors.picture).split("</svg>")[:2])
    assert ALIGNED in pale and "nothing is shown" in sensors.note
    dots = {dot["said"]: dot["fill"] for dot in marks(pale, "circle") if dot["said"]}
    assert dots["T8: 80.0 %"] == diverging(0.25)[0], "what is not shown to be there is pale"
    assert [mark["fill"] for mark in marks(pale, "text")] == ["#8a8f98"] and "fill" not in marks(drawn, "text")[0]
    dots = {dot["said"]: dot for dot in marks(drawn, "circle") if dot["said"]}
    assert dots["T8: 80.0 %"]["fill"] == "#5e3c99" and dots["T8: 80.0 %"]["cx"] > dots["T7: -10.0 %"]["cx"]
    assert dots["Fz: 10.0 %"]["cy"] < dots["Oz: 0.0 %"]["cy"]
    assert pair.title.startswith(f"{ALIGNED} minus {BASE}")
    found = by_row(pair)["images of subject 1"]
    assert (found["aligned has more"], found["aligned has less"]) == ("100 to 150 ms", "300 to 350 ms")
    assert found["bands (Holm)"] == "theta +10.0 points"
    assert found["sensor groups or regions (Holm)"] == "frontal -20.0 points"
    value, height = across(pair.picture), across(pair.picture, upwards=True)
    [course] = marks(pair.picture, "polyline")
    assert course["stroke"] not in CURVES, "a difference has no embedding's colour"
    ends = [point.split(",") for point in course["points"].split()]
    assert [value(float(ends[n][0])) for n in (0, -1)] == pytest.approx([0, 490], abs=3)
    assert height(float(ends[0][1])) == pytest.approx(2, abs=0.1)
    bars = [line for line in marks(pair.picture, "line") if line["said"]]
    assert [value(bar["x1"]) for bar in bars] == pytest.approx([100, 300], abs=3)


def relabelled(answers, old, new, weights):
    """The same runs, beside another set of weights of the same encoder: the name got its key."""
    cells = {new if name == old else name: cell for name, cell in answers.cells.items()}
    cell = cells[new]
    cells[new] = Cell([row | {"weights": weights} for s in cell.runs.values() for row in s.values()], new)
    ranks = [replace(r, embedding=new, weights=weights) if r.embedding == old else r for r in answers.ranks]
    return replace(answers, cells=cells, ranks=ranks)


def test_an_embedding_has_one_colour_in_all_pictures(answers, material, interpreted, monkeypatch):
    from embedctl.report import repetitions

    best = list(answers.cells)[0]
    kept = {"top1": 0.5, "test_repetitions": 2, "top1_by_repetitions": {"1": 0.25}}
    none = {"top1": 0.5, "test_repetitions": 2}
    monkeypatch.setattr(repetitions, "read_summary", lambda runs, run_id: none if best in run_id else kept)
    pictures = [
        training(answers).figures[0].picture,
        repetitions.repetitions(answers, Path("runs")).figures[0].picture,
        evidence(answers, material.request.runs).figures[0].picture,
    ]
    seen = {}
    for picture in pictures:
        for line in marks(picture, "polyline"):
            seen.setdefault(line["said"], set()).add(line["stroke"])
    assert {name: colours - {"#c3c8d0"} for name, colours in seen.items()} == {
        name: {CURVES[place]} for place, name in enumerate(answers.cells)
    }
    low = replace(answers, cells={f"e{n}": answers.cells[best] for n in range(7)})
    assert low.colours(["e6", "e1"]) == {"e6": CURVES[0], "e1": CURVES[1]}, "few are never grey"
    assert list(low.colours([f"e{n}" for n in range(7)])) == [f"e{n}" for n in range(5)]


def test_layers_ring_the_conventional_embedding_whatever_their_pooling(answers):
    first, *_ = answers.ranks
    names = ("resnet18-tv:layer1.gap", "resnet18-tv:layer4.gap", "resnet18-tv")
    ranks = [replace(first, embedding=name, top1=0.2 + n / 10) for n, name in enumerate(names)]
    [figure] = [f for f in variation(replace(answers, ranks=ranks)).figures if "depth" in f.title]
    [ring] = [dot for dot in marks(figure.picture, "circle") if dot["fill"] == "#fff"]
    assert across(figure.picture, upwards=True)(ring["cy"]) == pytest.approx(40, abs=1) and "Rings" in figure.note


def test_evidence_stays_where_a_second_set_of_weights_changed_the_name(answers, material, interpreted):
    """Runs tell whose evidence it is: labels change when a namesake is trained."""
    said = json.loads(interpreted.read_text())
    again = [p | {"embedding": f"{BASE}#0a1b"} for p in said["profiles"] if p["embedding"] == BASE]
    interpreted.write_text(json.dumps(said | {"profiles": [*said["profiles"], *again]}))
    changed = relabelled(answers, BASE, f"{BASE}#0a1b", "random:0")
    section = evidence(changed, material.request.runs)
    marked = f"{BASE}#0a1b (random:0)"
    time, bands, sensors, lost, pair = section.figures
    for figure in (time, bands, sensors, lost):
        assert [row[0] for row in figure.table.rows if row[0].startswith(f"{BASE}#")] == [marked], figure.title
    assert marked in time.picture and marked in bands.picture and marked in sensors.picture
    assert pair.title.startswith(f"{ALIGNED} minus {marked}")


def test_what_was_not_interpreted_or_lost_its_runs_is_named(answers, material, interpreted):
    said = json.loads(interpreted.read_text())
    for profile in said["profiles"]:
        profile["run_ids"] += ["a run that was removed"] if profile["embedding"] == ALIGNED else []
    interpreted.write_text(json.dumps(said))
    text = " ".join(evidence(answers, material.request.runs).text)
    assert f"Left out, some of their runs being gone: {ALIGNED}, subject 1: embedctl interpret" in text
    missing = text.partition("Not interpreted, so left out here: ")[2].partition(": embedctl")[0]
    assert set(missing.split(", ")) == set(STRENGTH) - {BASE}


def test_weights_that_are_not_the_published_ones_are_marked_in_every_section(answers, material, monkeypatch):
    from embedctl.report import accuracy, repetitions

    layer = relabelled(answers, LAYERS[0], LAYERS[0], "random:0")
    odd = relabelled(layer, LAYERS[1], LAYERS[1], "random:0")
    kept = {"top1": 0.5, "test_repetitions": 2, "top1_by_repetitions": {"1": 0.25}}
    monkeypatch.setattr(repetitions, "read_summary", lambda runs, run_id: kept)
    sections = [
        accuracy.accuracy(odd), variation(odd), repetitions.repetitions(odd, Path("runs")), training(odd),
        gallery(replace(odd, ranks=[rank for rank in odd.ranks if rank.embedding in LAYERS]), material),
    ]  # fmt: skip
    depth = by_title(sections[1])["Top-1 by depth of the layer, %"]
    assert {row[0] for row in depth.table.rows} == {"vitb16-in1k (random:0)"}
    for figure in (figure for section in sections for figure in section.figures):
        shown_beside = "weights" in dict(figure.table.columns)  # a column of the table says it
        told = f"{figure.title} {figure.picture} {'' if shown_beside else figure.table.rows}"
        for name in LAYERS:
            assert told.count(f"{name} (random:0)") == told.count(name), figure.title


def test_every_sensor_of_a_helmet_lies_in_its_picture(answers, material, interpreted):
    said, angle = json.loads(interpreted.read_text()), np.radians([0, 60, 100, 130])
    places = [
        [0.12 * np.sin(a) * np.cos(b), 0.12 * np.sin(a) * np.sin(b), 0.12 * np.cos(a)]
        for a in angle
        for b in np.linspace(0, 6, 9)
    ]
    sensors = {f"M{n}": 0.01 for n in range(len(places))}
    said["profiles"] = [p | {"sensors": sensors, "positions": places} for p in said["profiles"]]
    interpreted.write_text(json.dumps(said))
    picture = evidence(answers, material.request.runs).figures[2].picture
    dots = [dot for dot in marks(picture, "circle") if dot["said"].startswith("M")]
    assert len(dots) == len(places)
    assert all(dot["r"] < dot["cx"] < 160 - dot["r"] and 14 < dot["cy"] < 174 - dot["r"] for dot in dots)


def test_a_pair_of_voxels_is_a_table_of_regions(answers, material, interpreted):
    said = json.loads(interpreted.read_text())
    none = {"times": [], "time": [], "windows": [], "bands": {}}
    said["profiles"] = [p | none | {"groups": {"V1": 0.6, "FFA": 0.4}, "positions": []} for p in said["profiles"]]
    said["pairs"] = [p | {"times": [], "tests": [t | none for t in p["tests"]]} for p in said["pairs"]]
    interpreted.write_text(json.dumps(said))
    _, _, pair = evidence(answers, material.request.runs).figures
    assert not pair.picture and pair.title.endswith("regions differ")
    assert list(by_row(pair)["images of subject 1"].values())[3:] == ["frontal -20.0 points"]


def test_a_pair_of_another_condition_or_of_removed_runs_is_not_drawn(answers, material, interpreted):
    said = json.loads(interpreted.read_text())
    [mine] = said["pairs"]
    elsewhere = mine | {"run_ids": [f"{run_id}_of-another-recipe" for run_id in mine["run_ids"]]}
    removed = mine | {"run_ids": [*mine["run_ids"], "a run that was removed"]}
    interpreted.write_text(json.dumps(said | {"pairs": [elsewhere, removed]}))
    assert len(evidence(answers, material.request.runs).figures) == 4
    interpreted.write_text(json.dumps(said | {"pairs": [elsewhere, mine, removed]}))
    assert len(evidence(answers, material.request.runs).figures) == 5


def test_without_an_interpretation_the_command_is_named(answers, material):
    assert evidence(answers, material.request.runs).text == [
        "None of these runs has been interpreted: embedctl interpret does it."
    ]


@pytest.mark.parametrize("missing", ["profiles", "times", "run_ids", "bands", "tests"])
def test_a_damaged_interpretation_is_a_problem_with_a_hint(answers, material, interpreted, missing):
    said = json.loads(interpreted.read_text())
    for part in (said, said["profiles"][0], said["pairs"][0]):
        if missing in part:
            part[missing] = 3
    interpreted.write_text(json.dumps(said))
    with pytest.raises(DamagedStore) as problem:
        evidence(answers, material.request.runs)
    assert "embedctl interpret" in problem.value.hint
