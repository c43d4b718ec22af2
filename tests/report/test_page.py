"""The page: nothing runs, nothing is asked for, nothing in a name is HTML; and the same as text."""

import base64
import csv
import hashlib
import html
import io
import json
import os
import re
from dataclasses import replace
from itertools import product

import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from embedctl.report.build import build
from embedctl.report.page import page
from embedctl.report.parts import Figure, Report, Section, Table
from pipelines.findings.retrieved import Query
from tests.browser import browser, find_chromium
from tests.report.conftest import BAD, BASE, IMAGES, NASTY, STRENGTH


@pytest.fixture(scope="module")
def report(request_of):
    return build(request_of)


@pytest.fixture(scope="module")
def drawn(report):
    return page(report)


def run(workspace, *words):
    places = [f"--{name}={getattr(workspace, name)}" for name in ("runs", "embeddings", "images")]
    return CliRunner().invoke(app, ["report", *places, *words])


def test_the_policy_lets_nothing_in_but_the_style_sheet_and_the_pictures(drawn):
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', drawn)[1])
    style = re.search(r"<style>(.*?)</style>", drawn, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;") and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "script-src" not in policy
    assert not re.search(r"<script|\son\w+=|\sstyle=|javascript:", drawn)
    assert set(re.findall(r'(?:src|xlink:href|action)="([a-z]+:)', drawn)) == {"data:"}


def test_a_hostile_name_is_shown_and_does_nothing(drawn):
    assert html.escape(NASTY) in drawn and "<script" not in drawn


def test_no_name_of_anything_is_html(hostile):
    assert not re.search(r"<script|<img(?! alt)", hostile)
    for what in ("theta", "frontal", "Fz", "images of subject 1", f"heta is loaded in {BASE}", "pixels", "concept_0"):
        assert re.search(rf"{what}{re.escape(html.escape(BAD))}|{re.escape(html.escape(BAD))}{what}", hostile), what


def test_an_address_that_is_none_is_text():
    table = Table((("cite", "link"),), [("javascript:alert(1)",), ("https://example.org/<b>",)])
    built = Report("t", [], [], [Section("s", [], [Figure("f", table)])], table, "embedctl report")
    assert re.findall(r"<a href=\"(?!#)([^\"]*)\"", page(built)) == ["https://example.org/&lt;b&gt;"]


def test_every_picture_has_a_title_and_its_numbers_behind_it(report, drawn):
    pictures = [figure for section in report.sections for figure in section.figures if figure.picture]
    assert len(pictures) >= 12
    assert all(figure.title and figure.table.rows for figure in pictures)
    assert drawn.count("<details>") == len(pictures)
    assert all(len(row) == len(f.table.columns) for s in report.sections for f in s.figures for row in f.table.rows)


def test_the_page_names_the_command_that_builds_it_again(report, workspace, drawn):
    assert report.command.startswith("embedctl report --runs ") and str(workspace.runs) in report.command
    assert html.escape(report.command) in drawn


def test_the_command_names_the_folder_of_cards_that_was_read(request_of, tmp_path, material, monkeypatch):
    monkeypatch.setattr("embedctl.report.build.gather", lambda request: replace(material, answers=[]))
    built = build(replace(request_of, cards=tmp_path / "my cards"))
    assert built.command.startswith(f"EMBEDCTL_CARDS='{tmp_path}/my cards' embedctl report --runs ")


def test_no_name_turns_the_text_behind_it_around(report):
    turned = replace(report, title="gpj.\u202eevil\u2066")
    assert "gpj.\ufffdevil\ufffd" in page(turned) and "\u202e" not in page(turned)


def test_every_run_has_its_interval_over_images(workspace, answers):
    result = CliRunner().invoke(app, ["results", f"--runs={workspace.runs}"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.stderr
    head, *lines = (re.split(r"\s{2,}", line) for line in result.stdout.splitlines())
    at = head.index("95 % over images")
    assert len(lines) == 40 and all(re.fullmatch(r"\d+\.\d to \d+\.\d", line[at]) for line in lines)
    line = dict(zip(head, next(line for line in lines if line[2] == BASE), strict=False))  # some are empty
    row = answers.cells[BASE].runs[int(line["subject"])][int(line["seed"])]
    mean = (12 * row["top1"] + 2) / 16  # two more hits, two more misses
    reach = 2.201 * (mean * (1 - mean) / 16) ** 0.5
    expected = [100 * max(0, mean - reach), 100 * min(1, mean + reach)]
    assert list(map(float, line["95 % over images"].split(" to "))) == pytest.approx(expected, abs=0.06)


def test_simulated_recordings_are_called_so(request_of, workspace, tmp_path):
    truth = workspace.folder / "planted.json"
    truth.write_text("{}")
    try:
        assert "simulated" in build(request_of).notes[0]
    finally:
        truth.unlink()
    assert build(request_of).notes == []
    elsewhere = tmp_path / "embeddings.zarr"
    (tmp_path / "planted.json").write_text("{}")  # runs that were copied away from the demo are no less simulated
    assert "simulated" in build(replace(request_of, embeddings=elsewhere)).notes[0]


def test_a_second_report_replaces_the_first_in_one_step(workspace, tmp_path):
    out = tmp_path / "answers.html"
    for _ in range(2):
        result = run(workspace, "--out", str(out))
        assert result.exit_code == 0, result.stderr
        assert out.read_text(encoding="utf-8").endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["answers.html"]


def test_csv_is_the_ranking_with_fractions(workspace, report):
    result = run(workspace, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["embedding"] for row in rows} == set(STRENGTH)
    assert [float(row["top-1"]) for row in rows] == pytest.approx([row[12] for row in report.ranking.rows])
    assert all(0 <= float(row["95 % from"]) <= float(row["top-1"]) <= float(row["to"]) <= 1 for row in rows)


def test_json_has_every_table_and_markdown_every_heading(workspace, report):
    found = json.loads(run(workspace, "--format", "json").stdout)
    assert found["schema_version"] == 1
    titles = [figure.title for section in report.sections for figure in section.figures]
    assert [figure["title"] for section in found["sections"] for figure in section["figures"]] == titles
    shown = run(workspace, "--format", "md").stdout
    assert shown.count("\n### ") == len(titles) and "<script" not in shown.replace("\\<script", "")


@pytest.mark.parametrize("form", ["html", "csv", "md", "json"])
def test_a_name_that_is_no_text_or_no_path_stops_no_format(
    request_of, workspace, material, monkeypatch, tmp_path, form
):
    odd = "a\0b\udcff"
    [answers] = material.answers
    ranks = [replace(answers.ranks[0], aligned_by=odd), *answers.ranks[1:]]
    hits = {run_id: replace(run, concepts=[odd] * 12, images=[odd] * 12) for run_id, run in answers.hits.items()}
    strange = replace(material, answers=[replace(answers, ranks=ranks, hits=hits)])
    monkeypatch.setattr("embedctl.report.build.gather", lambda request: strange)
    drawn = [Query(odd, 1, (odd,))]
    monkeypatch.setattr("embedctl.report.gallery.queries", lambda *_: (drawn, []))
    out = tmp_path / f"answers.{form}"
    result = run(workspace, "--format", form, "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes().decode()


def test_a_report_goes_into_no_folder_and_over_nothing_it_is_read_from(workspace, tmp_path):
    table = workspace.runs / "results.parquet"
    before = table.read_bytes()
    some_run = next(workspace.runs.glob("made-up*"))
    inside = [table, some_run / "report.csv", some_run / "summary.json", workspace.embeddings / "report.csv"]
    for out in [*inside, workspace.images / IMAGES[0]]:
        result = run(workspace, "--format", "csv", "--out", str(out))
        assert result.exit_code == 2 and "which the answer is read from" in result.stderr
        assert len(result.stderr.splitlines()) == 2
    assert table.read_bytes() == before
    folder = run(workspace, "--format", "csv", "--out", str(tmp_path))
    assert (folder.exit_code, folder.stderr.splitlines()[0]) == (2, f"error: '{tmp_path}' is a folder")
    (tmp_path / "file").touch()
    for words, name in ((["report", "--format=csv", "--out"], "x.csv"), (["results", "--plot"], "x.png")):
        words = [words[0], f"--runs={workspace.runs}", *words[1:], str(tmp_path / "file" / name)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 7 and result.stderr.startswith("error: cannot write"), result.stderr
        assert len(result.stderr.splitlines()) == 2
    result = CliRunner().invoke(app, ["results", f"--runs={workspace.runs}", "--plot", str(table)])
    assert result.exit_code == 2 and table.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["report", "--format=md", "--out"], "a.html"),
        *((["report", "--out"], name) for name in ("a.txt", "a")),
        *((["results", "--plot"], name) for name in ("a.svg", "a.txt", "a")),
    ],
)
def test_no_file_is_named_as_what_it_is_not(workspace, tmp_path, words, name):
    for file, said in ((tmp_path / name, "would hold"), (tmp_path / "-", "'-' is no name of a file")):
        result = CliRunner().invoke(app, [words[0], f"--runs={workspace.runs}", *words[1:], str(file)])
        assert result.exit_code == 2 and said in result.stderr and not file.exists(), result.stderr


def test_an_unknown_format_and_no_runs_are_two_lines(workspace, tmp_path):
    wrong = run(workspace, "--format", "pdf")
    assert (wrong.exit_code, wrong.stderr.splitlines()[0]) == (2, "error: no format called 'pdf'")
    empty = CliRunner().invoke(app, ["report", f"--runs={tmp_path}"])
    assert empty.exit_code == 2 and "no results in" in empty.stderr


def test_several_settings_are_numbered_wherever_they_are_spoken_of(request_of, material, monkeypatch):
    both = replace(material, answers=material.answers * 2)
    monkeypatch.setattr("embedctl.report.build.gather", lambda request: both)
    built = build(request_of)
    assert [text[:3] for text in built.verdicts] == ["1. ", "1. ", "2. ", "2. "]
    assert sum(section.title.startswith("1. ") for section in built.sections) == 5
    assert len(built.ranking.rows) == 2 * len(STRENGTH)


def test_runs_that_kept_no_hits_still_make_a_report(request_of, material, monkeypatch):
    monkeypatch.setattr("embedctl.report.gather.read_hits", lambda runs, cells: {})
    built = build(request_of)
    assert "The runs kept no scores." in [text for section in built.sections for text in section.text]
    assert {row[13 + 2] for row in built.ranking.rows} == {"subjects"}


@pytest.mark.slow
def test_chromium_complains_of_nothing_and_is_asked_for_nothing(drawn, hostile, tmp_path):
    if not find_chromium():
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium: .ci/run installs it (Debian package chromium)")
        pytest.skip("no Chromium here; with CI=true this is a failure")
    assert NASTY in IMAGES
    files = {"report.html": drawn, "hostile.html": hostile}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    unsafe = tmp_path / "unsafe.html"
    unsafe.write_text('<img src="http://127.0.0.1:1/x"><script>alert(1);nothing()</script>', encoding="utf-8")
    with browser() as opened:
        for file, width in product((tmp_path / name for name in files), (1280, 390)):
            seen = opened(file.as_uri(), width)
            assert (seen.complaints, seen.dialogs, seen.asked_for) == ([], [], [file.as_uri()])
            assert seen.width == width, "something is wider than the screen"
            assert seen.cut == [], "a name reaches beyond its picture"
        seen = opened(unsafe.as_uri(), 390)  # what this test is blind to, it could not fail on
        assert seen.complaints and seen.dialogs == ["1"] and len(seen.asked_for) == 2


def test_results_and_show_write_pictures_that_say_what_they_show(workspace, tmp_path, monkeypatch):
    from embedctl import drawing

    drawn, png = [], drawing.png
    monkeypatch.setattr(drawing, "png", lambda figure: drawn.append(figure) or png(figure))
    one = str(next(workspace.runs.glob("made-up*")))
    for words in (["results", f"--runs={workspace.runs}", "--plot"], ["show", one, "--png"]):
        result = CliRunner().invoke(app, [*words, str(tmp_path / f"{words[0]}.png")])
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / f"{words[0]}.png").read_bytes().startswith(b"\x89PNG")
    ranking, run = drawn
    assert ranking.axes[0].get_title().startswith("Which embeddings are retrieved best, with intervals\nmade-up")
    assert [axes.get_title() for axes in run.axes] == ["Loss after each pass", "Validation after each pass"]


def test_the_best_run_of_each_subject_is_bold_unless_its_encoder_saw_the_answer():
    from embedctl.commands.results import _best

    rows = [("realnet", 1), ("hog", 1), ("pixels", 1), ("hog", 2)]  # realnet was fitted to EEG
    asked = {"dataset": "d", "protocol": "within", "gallery": "test"}
    table = [asked | {"encoder": encoder, "subject": subject} for encoder, subject in rows]
    assert _best(table) == [1, 3]
    # across subjects, or among 16,740 images, is another question
    assert _best([*table, table[3] | {"protocol": "cross"}, table[3] | {"gallery": "train+test"}]) == [1, 3, 4, 5]
