"""Rankings and pairs: seeds are averaged first, subjects are the unit, and only matched pairs get a verdict."""

import csv
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from embedctl.captions import said
from embedctl.cli import app
from embedctl.decisive import as_csv
from pipelines.encoders.registry import registry
from pipelines.train.cells import hits_interval
from pipelines.train.compare import left_out, pairs, ranking
from pipelines.train.depths import AtDepth, DepthRow
from pipelines.train.origin import doubt
from pipelines.train.request import TrainRequest
from pipelines.train.settings import what_differs
from pipelines.train.statistics import Interval
from pipelines.train.sweep import train
from pipelines.train.unpaired import unpaired
from stores.again import note_command
from stores.embedding import IMPORTED
from stores.errors import EmbedctlError
from stores.results import read_results, results_schema, write_run
from tests.summaries import summary_of

HUMAN, PLAIN = "dreamsim-dino-vitb16", "dreamsim-dino-vitb16-base"  # whose weights the registry vouches for
SECOND, THIRD = "dreamsim-clip-vitb32", "dreamsim-synclr-vitb16"
ALIGNED = {"aligned_by": "dreamsim", "base": "paper-base", "matched_base": PLAIN, "match": "exact"}


def row(embedding, subject, seed, top1, **changes):
    said = {"embedding": embedding, "encoder": embedding.split(":")[0].split("@")[0], "subject": subject, "seed": seed}
    said |= {"top1": top1, "dataset": "things-eeg2", "embedding_key": "k", "n_way": 200}
    said |= {"weights": f"sha256:{registry()[PLAIN].weights[0].sha256}" if said["encoder"] == PLAIN else "sha256:00"}
    return summary_of(f"{embedding}-{subject}-{seed}-{changes}", **said) | changes


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=results_schema())


def two_encoders(n_subjects, lead=0.1, seeds=(0, 1), **aligned):
    rng = np.random.default_rng(0)
    rows = []
    for subject in range(1, n_subjects + 1):
        level = 0.3 + 0.1 * rng.random()
        for seed in seeds:
            rows.append(row(PLAIN, subject, seed, level + 0.01 * seed))
            rows.append(row(HUMAN, subject, seed, level + lead * (1 + 0.1 * rng.random()), **ALIGNED | aligned))
    return table(*rows)


def test_seeds_are_averaged_before_subjects():
    first, second = ranking(
        table(row("a", 1, 0, 0.0), row("a", 1, 1, 0.2), row("a", 1, 2, 0.4), row("a", 2, 0, 1.0), row("b", 1, 0, 0.3))
    )
    assert (first.embedding, first.top1, first.rank) == ("a", pytest.approx(0.6), 1)
    assert first.per_subject == {1: pytest.approx(0.2), 2: 1.0}
    assert (first.n_seeds, first.subjects) == (1, (1, 2))
    assert (second.embedding, second.rank) == ("b", 2)


def test_runs_under_other_conditions_are_not_ranked_together():
    rows = ranking(table(row("a", 1, 0, 0.1), row("a", 1, 0, 0.9, config_key="other"), row("b", 1, 0, 0.5)))
    assert [(r.embedding, r.rank) for r in rows] == [("b", 1), ("a", 2), ("a", 1)]


def test_one_name_with_two_keys_is_two_embeddings():
    rows = ranking(table(row("a", 1, 0, 0.1), row("a", 1, 0, 0.9, embedding_key="q", weights="random:7")))
    assert [r.embedding for r in rows] == ["a#q", "a#k"]


def test_runs_on_images_that_were_replaced_are_not_ranked_with_those_on_the_new_ones():
    old = [row(name, 1, 0, 0.9, images_key="old", started="2026-01-01") for name in ("a", "b")]
    new = row("a", 1, 0, 0.1, images_key="new", started="2026-02-01")
    assert [(r.embedding, r.top1) for r in ranking(table(*old, new))] == [("a", 0.1)]
    assert left_out(table(*old, new))[0].startswith("left out: 2 runs of things-eeg2, subject 1; ")


def test_an_encoder_that_was_fitted_to_things_or_brains_is_marked_and_leads_nothing(monkeypatch, capsys):
    from embedctl import render
    from embedctl.commands.compare import ranked

    drawn = []
    monkeypatch.setattr(
        render, "table", lambda columns, cells, **how: drawn.append(([c[1] for c in cells], how["best"]))
    )
    fitted, clean = row("realnet-fmri", 1, 0, 0.9), row("dino-vitb16", 1, 0, 0.5)
    assert [r.contaminated for r in ranking(table(fitted, clean))] == [True, False]
    ranked(ranking(table(fitted, clean)))
    assert drawn.pop() == (["realnet-fmri *", "dino-vitb16"], [1])
    assert "* fitted to THINGS or to brain data" in capsys.readouterr().err
    ranked(ranking(table(fitted)))
    assert drawn.pop()[1] == []
    ranked(ranking(table(clean)))
    assert drawn.pop() == (["dino-vitb16"], [0])


def test_subjects_with_different_numbers_of_seeds_are_said_to_have_them():
    found = ranking(table(row("a", 1, 0, 0.1), row("a", 1, 1, 0.3), row("a", 2, 0, 0.6)))[0]
    assert (found.n_seeds, found.most_seeds) == (1, 2)
    assert found.top1 == pytest.approx((0.2 + 0.6) / 2)


def test_a_run_repeated_on_newer_recordings_counts_once_and_the_old_one_is_said_to_be_left_out():
    old, new = row("a", 1, 0, 0.1, started="2026-01-01"), row("a", 1, 0, 0.7, started="2026-02-01", epochs_key="new")
    assert ranking(table(new, old))[0].top1 == 0.7
    assert left_out(table(new, old)) == [
        "left out: 1 run of things-eeg2, subject 1; newer ones were trained on other recordings or images"
    ]
    assert left_out(table(new)) == []


def test_an_encoder_is_never_paired_with_a_base_on_other_recordings():
    old = [row(PLAIN, 1, 0, 0.2, epochs_key="old", started="2026-01-01")]
    new = [row(HUMAN, 1, 0, 0.3, epochs_key="new", started="2026-02-01", **ALIGNED)]
    both = [row(PLAIN, 2, 0, 0.2, epochs_key="two"), row(HUMAN, 2, 0, 0.25, epochs_key="two", **ALIGNED)]
    assert pairs(table(*old, *new)) == []
    (pair,) = pairs(table(*old, *new, *both))
    assert pair.per_subject == {2: pytest.approx(0.05)}
    assert [(r.embedding, r.subjects) for r in ranking(table(*old, *new, *both))] == [(HUMAN, (1, 2)), (PLAIN, (2,))]


def test_the_interval_of_an_accuracy_stays_between_nothing_and_everything():
    found = ranking(table(row("a", 1, 0, 0.02), row("a", 2, 0, 0.3)))[0].interval
    assert found.low == 0
    assert found.high == 1


def test_a_missing_noise_ceiling_stays_missing():
    found = ranking(table(row("a", 1, 0, 0.1, noise_ceiling=None)))[0]
    assert found.figures["noise_ceiling"] is None
    assert found.figures["mrr"] == 0.5


def test_a_clear_lead_of_ten_subjects_is_higher():
    (pair,) = pairs(two_encoders(10))
    assert (pair.embedding, pair.base, pair.match) == (HUMAN, PLAIN, "exact")
    assert pair.difference == pytest.approx(0.1, abs=0.02)
    assert pair.p == pair.p_holm == pair.p_floor == 2 / 2**10
    assert pair.verdict == "higher"
    assert pair.interval.over == "subjects"
    assert pair.interval.low < pair.difference < pair.interval.high


def test_a_clear_lag_is_lower_and_no_lead_is_no_difference():
    assert pairs(two_encoders(10, lead=-0.1))[0].verdict == "lower"
    rng = np.random.default_rng(0)
    rows = [
        r
        for subject in range(10)
        for r in (row(PLAIN, subject, 0, 0.3), row(HUMAN, subject, 0, 0.3 + 0.1 * rng.standard_normal(), **ALIGNED))
    ]
    assert pairs(table(*rows))[0].verdict == "no difference shown"


@pytest.mark.parametrize("n_subjects, floor", [(1, "1"), (4, "0.125"), (5, "0.0625")])
def test_too_few_subjects_are_refused_plainly(n_subjects, floor):
    (pair,) = pairs(two_encoders(n_subjects))
    assert pair.verdict.endswith(f"cannot show a group difference: no p below {floor} exists")
    assert set(pair.per_subject) == set(range(1, n_subjects + 1))


def test_holm_corrects_over_the_pairs_with_a_verdict_alone():
    first = two_encoders(6).to_pylist()
    second = [r | {"embedding": SECOND, "encoder": SECOND, "run_id": f"2{r['run_id']}"} for r in first if r["match"]]
    third = [r | {"embedding": THIRD, "encoder": THIRD, "match": "architecture"} for r in second]
    human, other, loose = pairs(table(*first, *second, *third))
    assert human.p == other.p == loose.p == 1 / 32
    assert human.p_holm == other.p_holm == 2 / 32
    assert "6 subjects cannot show a group difference in 2 pairs at once" == human.verdict
    assert (loose.p_holm, loose.verdict) == (None, "")
    assert "architecture" in loose.note


def test_only_shared_subjects_and_seeds_are_compared():
    rows = [row(PLAIN, 1, 0, 0.2), row(PLAIN, 2, 0, 0.2), row(PLAIN, 1, 5, 0.9)]
    rows += [row(HUMAN, 1, 0, 0.3, **ALIGNED), row(HUMAN, 1, 1, 0.9, **ALIGNED), row(HUMAN, 3, 0, 0.9, **ALIGNED)]
    (pair,) = pairs(table(*rows))
    assert pair.per_subject == {1: pytest.approx(0.1)}
    assert pair.n_seeds == 1


def test_random_weights_pair_only_with_the_same_seed():
    rows = [row(PLAIN, 1, 0, 0.2), row(PLAIN, 1, 0, 0.2, weights="random:7", embedding_key="p7")]
    rows += [row(PLAIN, 1, 0, 0.2, weights="random:8", embedding_key="p8")]
    rows += [row(HUMAN, 1, 0, 0.3, **ALIGNED)]
    rows += [row(HUMAN, 1, 0, 0.3, weights="random:7", embedding_key="h7", **ALIGNED)]
    found = {(pair.embedding, pair.base): pair for pair in pairs(table(*rows))}
    assert set(found) == {(f"{HUMAN}#k", f"{PLAIN}#k"), (f"{HUMAN}#h7", f"{PLAIN}#p7")}
    assert "random weights" in found[f"{HUMAN}#h7", f"{PLAIN}#p7"].note


@pytest.mark.parametrize("side", [HUMAN, PLAIN])
@pytest.mark.parametrize(
    "weights, said",
    [
        (IMPORTED, "imported, unverified"),
        ("file:sha256:00", "own weights"),
        ("", "own weights"),
        ("none", "says it needs no weights"),
    ],
)
def test_weights_nobody_vouches_for_are_shown_and_decide_nothing(side, weights, said):
    doubtful = [r | ({"weights": weights} if r["embedding"] == side else {}) for r in two_encoders(10).to_pylist()]
    assert [r.weights for r in ranking(table(*doubtful)) if r.embedding == side] == [weights]
    (pair,) = pairs(table(*doubtful))
    assert (pair.weights if side == HUMAN else pair.base_weights) == weights
    assert (pair.verdict, pair.p_holm) == ("", None)
    assert pair.note == f"{side}: {said}: no verdict"


@pytest.mark.parametrize("encoder", ["glocal-dino-vitb16", "realnet-fmri"])
def test_an_encoder_that_was_fitted_to_things_or_brains_gets_no_verdict(encoder):
    rows = [r | ({"encoder": encoder} if r["match"] else {}) for r in two_encoders(10).to_pylist()]
    (pair,) = pairs(table(*rows))
    assert (pair.verdict, pair.note) == ("", "it was fitted to the THINGS images or to brain data: no verdict")


def test_an_encoder_that_is_in_no_registry_decides_nothing():
    rows = [r | ({"encoder": "mine"} if r["match"] else {}) for r in two_encoders(10).to_pylist()]
    assert pairs(table(*rows))[0].note == "mine: not in the registry: no verdict"


def test_weights_that_contradict_the_registry_decide_nothing():
    assert (
        doubt({"encoder": "clip-vitb32", "weights": "sha256:" + "0" * 64}) == "clip-vitb32: not the published weights"
    )
    assert doubt({"encoder": "clip-vitb32", "weights": f"sha256:{registry()['clip-vitb32'].weights[0].sha256}"}) == ""


def test_a_network_made_robust_is_a_control_and_no_part_of_the_correction():
    robust = {"embedding": "robust-resnet50-l2-eps3", "encoder": "robust-resnet50-l2-eps3"}
    first = two_encoders(6).to_pylist()
    second = [r | robust | {"aligned_by": "adversarial training"} for r in first if r["match"]]
    human, control = pairs(table(*first, *(r | {"run_id": f"2{r['run_id']}"} for r in second)))
    assert (human.p_holm, human.verdict) == (human.p, "higher")
    assert (control.p_holm, control.verdict) == (None, "") and "it is a control" in control.note


def test_pairs_whose_bases_have_a_network_in_common_are_said_to(capsys):
    first, name = two_encoders(6).to_pylist(), "dreamsim-ensemble"
    others = {PLAIN: f"{name}-base", HUMAN: name}
    second = [r | {"encoder": others[r["embedding"]], "embedding": others[r["embedding"]]} for r in first]
    second = [r | {"matched_base": f"{name}-base" if r["match"] else "", "run_id": f"2{r['run_id']}"} for r in second]
    alone = [r | {"encoder": SECOND, "embedding": SECOND, "run_id": f"3{r['run_id']}"} for r in first if r["match"]]
    alone = [r | {"matched_base": f"{SECOND}-base"} for r in alone]
    base = [
        r | {"encoder": f"{SECOND}-base", "embedding": f"{SECOND}-base", "weights": "sha256:00"} for r in first[::2]
    ]
    found = pairs(table(*first, *second, *alone, *(r | {"run_id": f"4{r['run_id']}"} for r in base)))
    shared = {row.embedding: row.shares for row in found}
    assert shared == {HUMAN: (name,), name: (HUMAN,), SECOND: ()}
    from embedctl.commands.compare import _tested

    _tested(found)
    assert f"{HUMAN}, {name} share a network" in capsys.readouterr().err


def test_the_lowest_p_stands_beside_p_and_why_an_interval_may_hold_zero_beside_a_verdict_is_said(capsys):
    from embedctl.commands.compare import _tested

    (pair,) = pairs(two_encoders(6))
    _tested([pair])
    told = capsys.readouterr()
    assert "lowest p" in told.out and told.out.count("0.0312") == 3 and "two questions" not in told.err
    assert "mean ± t x bootstrap standard deviation" in told.err
    for torn in (
        replace(pair, interval=Interval(-0.01, 0.2, "subjects and images")),
        replace(pair, p=0.5, p_holm=0.5, verdict="no difference shown"),
    ):
        _tested([torn, replace(torn, embedding="unjudged", p_holm=None, verdict="", note="no verdict")])
        assert f"interval and p of {HUMAN} answer two questions" in capsys.readouterr().err
    assert float(next(csv.DictReader(as_csv([at_depth(pair)]).decode().splitlines()))["p_floor"]) == 1 / 32


def at_depth(pair):
    side = AtDepth(validation={pair.embedding: 0.5, pair.base: 0.5}, top1=0.5)
    condition = pair.condition | {"preprocessing": "clean"}
    return DepthRow(pair=replace(pair, condition=condition), aligned=side, base=side, noise_ceiling=None)


def test_configurations_of_one_heading_are_told_apart_by_the_settings_that_differ(tmp_path):
    plain = {"loss": "info-nce", "image_head": "linear", "train_on": "mean", "split": "concept", "lr": 0.001}
    other = plain | {"loss": "soft-clip", "image_head": "mlp", "train_on": "random-2"}
    rows = [
        row("a", 1, 0, 0.5, run_id="one", config_key="1", recipe="quick"),
        row("a", 1, 0, 0.5, run_id="two", config_key="2", recipe="quick"),
        row("a", 1, 0, 0.5, run_id="three", config_key="3", recipe="modern"),
    ]
    for of, settings in zip(rows, (plain, other, other), strict=True):
        config = {"settings": settings, "preprocessing": {"name": "clean"}, "own": {}}
        write_run(tmp_path, of["run_id"], config=config, summary=of, arrays={}, checkpoint=b"", metrics=[])
    found = what_differs(read_results(tmp_path), tmp_path)
    assert found == {"1": "linear head, info-nce, trained on mean", "2": "mlp head, soft-clip, trained on random-2"}
    (heading,) = {said(r.condition, found["2"]) for r in ranking(table(*rows)) if r.condition["config_key"] == "2"}
    assert "recipe quick (mlp head, soft-clip, trained on random-2, 2)" in heading
    assert what_differs(table(*rows[1:]), tmp_path / "elsewhere") == {}


def test_a_loss_of_ones_own_is_told_apart_by_its_name_and_two_of_one_name_by_their_text(tmp_path):
    one, other = "../lab/mine/good.py:loss", "info-nce"
    for run_id, loss, own in (("a", one, {one: "0a1b2c3d4e"}), ("b", one, {one: "ff00ff00ff"}), ("c", other, {})):
        of = row("hog", 1, 0, 0.5, run_id=run_id, config_key=run_id)
        config = {"settings": {"loss": loss}, "preprocessing": {"name": "clean"}, "own": own}
        write_run(tmp_path, run_id, config=config, summary=of, arrays={}, checkpoint=b"", metrics=[])
    found = read_results(tmp_path)
    assert what_differs(found, tmp_path) == {
        "a": "mine/good.py:loss, text 0a1b2c of mine/good.py:loss",
        "b": "mine/good.py:loss, text ff00ff of mine/good.py:loss",
        "c": "info-nce",
    }
    assert what_differs(found.slice(1), tmp_path) == {"b": "mine/good.py:loss", "c": "info-nce"}


def test_who_has_no_pair_is_said_and_what_trains_its_partner(tmp_path):
    papers, seeds = registry()[HUMAN].base, (0, 1)
    rows = [row(HUMAN, 1, s, 0.3, **ALIGNED | {"base": papers}, run_id=f"h{s}", modality="eeg") for s in seeds]
    rows += [row(PLAIN, 1, 0, 0.2, modality="eeg", run_id="p0")]
    for of in rows:
        write_run(tmp_path, of["run_id"], config={}, summary=of, arrays={}, checkpoint=b"", metrics=[])
    note_command(tmp_path / ".embedctl", "h0", ["train", "--runs", "{store}", "--brain", "eeg"], "--model", HUMAN)
    done = CliRunner().invoke(app, ["compare", "--paper", "--runs", str(tmp_path)])
    assert f"{HUMAN} has no pair: the paper's base, {papers}, was not run" in done.stderr
    words = f"embedctl extract --model {papers}; embedctl train --model {papers} --runs {tmp_path} --brain eeg"
    assert f"{words} --subject 1 --seed 0,1" in " ".join(done.stderr.split())
    assert "has no pair" not in CliRunner().invoke(app, ["compare", "--runs", str(tmp_path)]).stderr
    (alone,) = [one for one in unpaired(table(rows[-1])) if one.missing == HUMAN]
    assert (alone.embedding, alone.lacks, alone.run_id) == (PLAIN, "aligned", "p0")


def test_a_layer_pairs_with_the_same_layer_of_the_base():
    rows = [row(f"{PLAIN}:blocks.7.mean@grey", 1, 0, 0.2), row(f"{PLAIN}:blocks.3.mean", 1, 0, 0.2)]
    rows += [row(f"{HUMAN}:blocks.7.mean@grey", 1, 0, 0.4, **ALIGNED)]
    (pair,) = pairs(table(*rows))
    assert pair.base == f"{PLAIN}:blocks.7.mean@grey"


def test_the_papers_pairing_uses_its_bases_and_gives_no_verdict():
    rows = [row(PLAIN, 1, 0, 0.2), row("paper-base", 1, 0, 0.1), row(HUMAN, 1, 0, 0.3, **ALIGNED)]
    (pair,) = pairs(table(*rows), pairing="paper")
    assert (pair.base, pair.verdict, pair.match) == ("paper-base", "", "paper")
    with pytest.raises(EmbedctlError, match="'closest'"):
        pairs(table(*rows), pairing="closest")


def test_with_the_runs_at_hand_and_few_subjects_intervals_are_over_images(workspace, tmp_path):
    asked = {"embeddings": workspace.embeddings, "epochs": workspace.epochs, "recipe": workspace.recipe}
    runs = tmp_path / "runs"
    train(TrainRequest(brain="eeg", runs=runs, seeds=(0, 1), **asked))
    results = read_results(runs)
    best, worst = ranking(results, runs)
    assert (best.embedding, worst.embedding) == ("planted", "unrelated")
    assert best.condition["preprocessing"] == "clean"
    assert best.interval.over == worst.interval.over == "images"
    assert 0 <= worst.interval.low < worst.top1 < worst.interval.high < best.interval.low < best.top1
    (pair,) = pairs(results, runs=runs)
    assert pair.interval.over == "images"
    assert 0 < pair.interval.low < pair.difference < pair.interval.high
    assert pair.difference == pytest.approx(best.top1 - worst.top1)
    assert "planted: not in the registry" in pair.note
    assert ranking(results, tmp_path / "elsewhere")[0].interval.over == "subjects"


@pytest.mark.parametrize("n_subjects", [2, 5])
def test_an_interval_is_about_the_accuracy_that_it_stands_beside_also_where_subjects_lost_other_images(n_subjects):
    images = [f"{i}.jpg" for i in range(30)]
    lost = dict(enumerate(images))  # each subject another, and it had been a hit
    hits = {f"r{s}": [(i, float(i in images[:12])) for i in images if i != lost[s]] for s in range(n_subjects)}
    cells = {s: {0: {"run_id": f"r{s}"}} for s in range(n_subjects)}
    top1 = [float(np.mean([hit for _, hit in kept])) for kept in hits.values()]
    found = hits_interval(
        [(cells, 1), (cells, -1)], lambda run: tuple(zip(*hits[run], strict=True)), [0.0] * n_subjects
    )
    assert found.low == pytest.approx(-found.high)
    found = hits_interval([(cells, 1)], lambda run: tuple(zip(*hits[run], strict=True)), top1)
    elsewhere = hits_interval([(cells, 1)], lambda run: tuple(zip(*hits[run], strict=True)), [0.9] * n_subjects)
    assert found.over == ("images" if n_subjects == 2 else "subjects and images")
    assert elsewhere.low - found.low == pytest.approx(0.9 - np.mean(top1)) == pytest.approx(elsewhere.high - found.high)
    if n_subjects == 5:
        assert (found.low + found.high) / 2 == pytest.approx(np.mean(top1))


def test_from_four_subjects_on_intervals_are_over_subjects_and_images(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row("a", subject, 0, 0.5, run_id=f"r{subject}") for subject in range(4)]
    for r in rows:
        hits = rng.integers(0, 2, 20).astype(float)
        config = {"gallery_ids": [f"{i}.jpg" for i in range(20)]}
        arrays = {"hits": hits, "target": np.arange(20)}
        write_run(tmp_path, r["run_id"], config=config, summary=r, arrays=arrays, checkpoint=b"", metrics=[])
    results = read_results(tmp_path)
    assert ranking(results, tmp_path)[0].interval.over == "subjects and images"
    assert ranking(results.slice(0, 3), tmp_path)[0].interval.over == "images"
    assert ranking(results.slice(0, 1), tmp_path)[0].interval.over == "images"
    assert ranking(results.slice(0, 1))[0].interval.over == "nothing"
