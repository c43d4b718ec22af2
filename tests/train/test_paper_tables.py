"""The published numbers are those of the paper, and results stand beside the ones they belong to."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.encoders.registry import registry
from pipelines.paper.beside import beside_paper
from pipelines.paper.tables import ALIGNED, paper_cells
from pipelines.train.recipes import read_recipe
from stores.results import write_run
from tests.train.test_compare import row, table


def test_all_cells_are_there_under_names_that_exist():
    cells = paper_cells()
    assert Counter(cell.table for cell in cells) == {
        "T1": 48, "T2": 132, "T3": 60, "T6": 132, "T7": 60, "T8": 60, "T9": 60, "T10": 24,
    }  # fmt: skip
    assert {cell.embedding for cell in cells} == {
        *ALIGNED.values(),
        *(registry()[name].base for name in ALIGNED.values()),
    }
    assert all(0 < cell.published < 1 for cell in cells)


def test_the_printed_means_are_those_of_their_rows_but_for_two_misprints():
    wrong = []
    for mean in (cell for cell in paper_cells() if cell.row == "Avg"):
        place = (mean.table, mean.column, mean.variant, mean.metric)
        rows = [
            c.published for c in paper_cells() if (c.table, c.column, c.variant, c.metric) == place and c.row != "Avg"
        ]
        assert len(rows) == len(mean.subjects)
        if abs(np.mean(rows) - mean.published) > 0.0011:
            wrong.append((*place[:3], round(100 * float(np.mean(rows)), 1), round(100 * mean.published, 1)))
    assert wrong == [("T2", "DINOv2", "HA", 10.4, 10.2), ("T9", "SynCLR", "HA", 85.7, 86.7)]


def measured(name, subject, seed, top1, **changes):
    said = {
        "protocol": "within",
        "gallery": "test",
        "brain_encoder": "nice+linear",
        "recipe": "paper",
        "config_key": "p",
        "preprocessing": "nice",
    }
    return row(name, subject, seed, top1, **said | {"weights": "sha256:00"} | changes)


HUMAN, BASE = "dreamsim-clip-vitb32", "clip-vitb32"


def found(*rows, place=("T1", "NICE", "CLIP", "top1"), runs=Path("nowhere")):
    return next(r for r in beside_paper(table(*rows), runs) if (r.table, r.row, r.column, r.metric) == place)


def test_seeds_and_subjects_are_averaged_and_the_base_is_the_papers_own():
    ours = [measured(HUMAN, 1, 7, 0.3), measured(HUMAN, 1, 42, 0.5), measured(HUMAN, 2, 7, 0.8)]
    theirs = [measured(BASE, row["subject"], row["seed"], row["top1"] / 2) for row in ours]
    pair = found(*ours, *theirs, measured("dreamsim-clip-vitb32-base", 1, 7, 0.9))
    assert (pair.published, pair.published_base) == (0.4252, 0.2859)
    assert (pair.measured, pair.measured_base) == (pytest.approx(0.6), pytest.approx(0.3))
    assert (pair.chance, pair.noise_ceiling) == (1 / 200, 0.5)
    assert (pair.subjects, pair.n_subjects, pair.recipe, pair.differs) == ((1, 2), 10, "paper (p)", ())


def test_both_sides_are_the_same_people_and_seeds_or_only_one_is_told():
    ours = [measured(HUMAN, 1, 7, 0.3), measured(HUMAN, 1, 42, 0.5), measured(HUMAN, 2, 7, 0.9)]
    pair = found(*ours, measured(BASE, 1, 7, 0.3), measured(BASE, 3, 7, 0.1))
    assert (pair.measured, pair.measured_base, pair.subjects) == (0.3, 0.3, (1,))
    pair = found(*ours, measured(BASE, 1, 191, 0.3), measured(BASE, 3, 7, 0.1))
    assert (pair.measured, pair.measured_base, pair.subjects) == (pytest.approx(0.65), None, (1, 2))


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"simulated": True}, ("T1", "NICE", "CLIP", "top1"), "simulated recordings"),
        ({"preprocessing": "clean"}, ("T1", "NICE", "CLIP", "top1"), "preprocessed with clean, the paper's is nice"),
        (
            {"protocol": "cross", "train_subjects": "1,2,5,6,7,8,9,10"},
            ("T2", "Avg", "CLIP", "top1"),
            "trained on 8 subjects and validated on one, the paper on 9 less a tenth",
        ),
    ],
)
def test_what_is_known_to_differ_from_the_papers_is_told(changes, place, said):
    assert found(measured(HUMAN, 3, 7, 0.3, **changes), place=place).differs == (said,)


def test_settings_asked_for_instead_of_the_recipes_are_told(tmp_path):
    settings = read_recipe("paper", "eeg", "nice+linear").settings()
    for key, had in (("p", settings), ("q", settings | {"loss": "soft-clip"})):
        said = measured(HUMAN, 1, 7, 0.3, modality="eeg", config_key=key, run_id=key)
        write_run(tmp_path, key, config={"settings": had}, summary=said, arrays={}, checkpoint=b"", metrics=[])
        expected = () if key == "p" else ("other settings than the recipe's: loss",)
        assert found(said, runs=tmp_path).differs == expected


def test_both_of_a_pair_are_of_the_same_subjects_and_seeds():
    """Else a subject who sees better, run with the aligned encoder alone, would make it look better."""
    rows = [measured(HUMAN, 1, 7, 0.3), measured(HUMAN, 2, 7, 0.9), measured(HUMAN, 1, 42, 0.8)]
    pair = found(*rows, measured(BASE, 1, 7, 0.3), measured(BASE, 3, 7, 0.1))
    assert (pair.measured, pair.measured_base, pair.subjects) == (0.3, 0.3, (1,))


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "random:7"},
        {"n_way": 40},
        {"gallery": "train+test"},
        {"protocol": "cross"},
        {"brain_encoder": "nice"},
    ],
)
def test_what_was_measured_otherwise_stands_beside_nothing(other):
    pair = found(measured(HUMAN, 1, 7, 0.3, **other))
    assert pair.measured is None and pair.subjects == () and pair.recipe == ""


def test_both_of_a_pair_come_from_one_configuration_the_recipe_paper_if_there_is_one():
    modern = {"recipe": "modern", "config_key": "m"}
    rows = [measured(HUMAN, s, 0, 0.9, **modern) for s in (1, 2, 3)] + [measured(BASE, 1, 0, 0.8, **modern)]
    assert found(*rows).recipe == "modern (m)" and found(*rows).measured == pytest.approx(0.9)
    pair = found(*rows, measured(HUMAN, 1, 7, 0.3))
    assert (pair.measured, pair.measured_base, pair.recipe) == (0.3, None, "paper (p)")


def test_a_row_of_one_subject_takes_that_subject_and_the_other_protocol():
    across = {"protocol": "cross", "train_subjects": "1,2,5,6,7,8,9,10"}
    rows = [measured(HUMAN, 3, 7, 0.1, top5=0.25, **across), measured(HUMAN, 4, 7, 0.3, top5=0.5, **across)]
    assert found(*rows, place=("T2", "S3", "CLIP", "top1")).measured == 0.1
    assert found(*rows, place=("T6", "S4", "CLIP", "top5")).measured == 0.5
    assert found(*rows, place=("T2", "Avg", "CLIP", "top1")).measured == pytest.approx(0.2)
    two = measured(HUMAN, 3, 7, 0.1, protocol="cross", train_subjects="1,2")
    assert found(two, place=("T2", "S3", "CLIP", "top1")).measured is None


def test_the_command_shows_the_pairs_that_have_runs_and_pairs_as_the_paper_did(tmp_path):
    bases = {"aligned_by": "dreamsim", "base": BASE, "matched_base": "dreamsim-clip-vitb32-base", "match": "exact"}
    for name, top1, more in ((HUMAN, 0.5, bases), (BASE, 0.2, {})):
        summary = measured(name, 1, 7, top1, simulated=True, **more) | {"run_id": name}
        write_run(tmp_path, name, config={}, summary=summary, arrays={}, checkpoint=b"", metrics=[])
    said = CliRunner().invoke(app, ["compare", "--paper", "--runs", str(tmp_path)])
    assert said.exit_code == 0, said.stderr
    line = next(line for line in said.stdout.splitlines() if line.startswith("T1"))
    words = "T1 NICE CLIP top1 1 of 10 42.5 % 50.0 % 28.6 % 20.0 % 0.5 % +13.9 points +30.0 points paper (p) †"
    assert line.split() == words.split()
    assert "† simulated recordings (T1" in said.stderr and "split-half reliability 50.0 %" in said.stderr
    assert "the recordings of things-eeg2, subject 1, are simulated" in said.stderr
    assert "1 of 288 published pairs have runs here" in said.stderr
    assert "the paper's own base" in said.stdout
