"""Rankings and pairs: seeds are averaged first, subjects are the unit, and only matched pairs get a verdict."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.train.compare import pairs, ranking
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.errors import EmbedctlError
from stores.results import COLUMNS, read_results, results_schema

ALIGNED = {"aligned_by": "dreamsim", "base": "paper-base", "matched_base": "plain", "match": "exact"}


def row(embedding, subject, seed, top1, **changes):
    said = {name: {"string": "", "int64": 0, "float64": 0.5}[kind] for name, kind in COLUMNS.items()}
    said |= {"embedding": embedding, "encoder": embedding.split(":")[0].split("@")[0], "subject": subject, "seed": seed}
    said |= {"top1": top1, "weights": "sha256:00", "dataset": "things-eeg2", "embedding_key": "k", "n_way": 200}
    return said | {"run_id": f"{embedding}-{subject}-{seed}-{changes}"} | changes


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=results_schema())


def two_encoders(n_subjects, lead=0.1, seeds=(0, 1), **aligned):
    rng = np.random.default_rng(0)
    rows = []
    for subject in range(1, n_subjects + 1):
        level = 0.3 + 0.1 * rng.random()
        for seed in seeds:
            rows.append(row("plain", subject, seed, level + 0.01 * seed))
            rows.append(row("human", subject, seed, level + lead * (1 + 0.1 * rng.random()), **ALIGNED | aligned))
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


def test_a_run_repeated_on_newer_recordings_counts_once():
    old, new = row("a", 1, 0, 0.1, started="2026-01-01"), row("a", 1, 0, 0.7, started="2026-02-01", epochs_key="new")
    assert ranking(table(new, old))[0].top1 == 0.7


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
    assert (pair.embedding, pair.base, pair.match) == ("human", "plain", "exact")
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
        for r in (row("plain", subject, 0, 0.3), row("human", subject, 0, 0.3 + 0.1 * rng.standard_normal(), **ALIGNED))
    ]
    assert pairs(table(*rows))[0].verdict == "no difference shown"


@pytest.mark.parametrize("n_subjects, floor", [(1, "1"), (4, "0.125"), (5, "0.0625")])
def test_too_few_subjects_are_refused_plainly(n_subjects, floor):
    (pair,) = pairs(two_encoders(n_subjects))
    assert pair.verdict.endswith(f"cannot show a group difference: no p below {floor} exists")
    assert set(pair.per_subject) == set(range(1, n_subjects + 1))


def test_holm_corrects_over_the_pairs_with_a_verdict_alone():
    first = two_encoders(6).to_pylist()
    second = [
        r | {"embedding": "second", "encoder": "second", "run_id": f"2{r['run_id']}"} for r in first if r["match"]
    ]
    third = [r | {"embedding": "third", "encoder": "third", "match": "architecture"} for r in second]
    human, other, loose = pairs(table(*first, *second, *third))
    assert human.p == other.p == loose.p == 1 / 32
    assert human.p_holm == other.p_holm == 2 / 32
    assert "6 subjects cannot show a group difference in 2 pairs at once" == human.verdict
    assert (loose.p_holm, loose.verdict) == (None, "")
    assert "architecture" in loose.note


def test_only_shared_subjects_and_seeds_are_compared():
    rows = [row("plain", 1, 0, 0.2), row("plain", 2, 0, 0.2), row("plain", 1, 5, 0.9)]
    rows += [row("human", 1, 0, 0.3, **ALIGNED), row("human", 1, 1, 0.9, **ALIGNED), row("human", 3, 0, 0.9, **ALIGNED)]
    (pair,) = pairs(table(*rows))
    assert pair.per_subject == {1: pytest.approx(0.1)}
    assert pair.n_seeds == 1


def test_random_weights_pair_only_with_the_same_seed():
    rows = [row("plain", 1, 0, 0.2), row("plain", 1, 0, 0.2, weights="random:7", embedding_key="p7")]
    rows += [row("plain", 1, 0, 0.2, weights="random:8", embedding_key="p8")]
    rows += [row("human", 1, 0, 0.3, **ALIGNED)]
    rows += [row("human", 1, 0, 0.3, weights="random:7", embedding_key="h7", **ALIGNED)]
    found = {(pair.embedding, pair.base): pair for pair in pairs(table(*rows))}
    assert set(found) == {("human#k", "plain#k"), ("human#h7", "plain#p7")}
    assert "random weights" in found["human#h7", "plain#p7"].note


def test_a_layer_pairs_with_the_same_layer_of_the_base():
    rows = [row("plain:blocks.7.mean@grey", 1, 0, 0.2), row("plain:blocks.3.mean", 1, 0, 0.2)]
    rows += [row("human:blocks.7.mean@grey", 1, 0, 0.4, **ALIGNED)]
    (pair,) = pairs(table(*rows))
    assert pair.base == "plain:blocks.7.mean@grey"


def test_the_papers_pairing_uses_its_bases_and_gives_no_verdict():
    rows = [row("plain", 1, 0, 0.2), row("paper-base", 1, 0, 0.1), row("human", 1, 0, 0.3, **ALIGNED)]
    (pair,) = pairs(table(*rows), pairing="paper")
    assert (pair.base, pair.verdict, pair.match) == ("paper-base", "", "paper")
    with pytest.raises(EmbedctlError, match="'closest'"):
        pairs(table(*rows), pairing="closest")


def test_with_the_runs_at_hand_intervals_are_over_subjects_and_images(workspace, tmp_path):
    asked = {"embeddings": workspace.embeddings, "epochs": workspace.epochs, "recipe": workspace.recipe}
    train(TrainRequest(brain="eeg", runs=tmp_path / "runs", seeds=(0, 1), **asked))
    results = read_results(tmp_path / "runs")
    best, worst = ranking(results, tmp_path / "runs")
    assert (best.embedding, worst.embedding) == ("planted", "unrelated")
    assert best.interval.over == "subjects and images"
    assert best.interval.low < best.top1 < best.interval.high
    (pair,) = pairs(results, runs=tmp_path / "runs")
    assert pair.interval.over == "subjects and images"
    assert pair.difference == pytest.approx(best.top1 - worst.top1)
    assert "2 subjects cannot show" in pair.verdict
    assert ranking(results, tmp_path / "elsewhere")[0].interval.over == "subjects"
