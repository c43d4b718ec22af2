"""Subjects put together: only what can be, and the rest is said."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from pipelines.interpret import interpret as module
from pipelines.interpret.over_subjects import is_found
from pipelines.interpret.request import InterpretReport, InterpretRequest
from tests.interpret.made_up import CONDITION, TIMES, profile, subject


def test_a_pair_is_compared_on_the_seeds_that_both_have(monkeypatch):
    """Five seeds beside one would have the cleaner map for that alone."""

    def cell(label, seeds):
        row = {"subject": 1}
        return SimpleNamespace(label=label, runs={1: {s: row | {"run_id": f"{label}-{s}"} for s in seeds}})

    def profile_of(runs, rows, condition, label, *_):
        return replace(subject(1, label, 0.1), run_ids=tuple(row["run_id"] for row in rows))

    cells = [cell("aligned", [0, 1, 2]), cell("base", [2, 3])]
    pair = SimpleNamespace(condition=CONDITION, embedding="aligned", base="base", note="")
    monkeypatch.setattr(module, "conditions", lambda results: [(CONDITION, cells)])
    monkeypatch.setattr(module, "profile_of", profile_of)
    monkeypatch.setattr(module, "pairs", lambda results, pairing: [pair])
    report = InterpretReport(method="integrated-gradients", runs=Path("runs"))
    module._read(None, InterpretRequest(), report)
    assert [len(one.run_ids) for one in report.profiles] == [3, 2]
    assert [one.run_ids for one in report.pairs] == [("aligned-2", "base-2")]


def test_a_subject_recorded_at_other_times_is_left_out_and_it_is_said(monkeypatch):
    """There is no mean over courses of different lengths."""
    rows = {s: {0: {"subject": s, "run_id": f"run-{s}"}} for s in (1, 2)}
    cells = [SimpleNamespace(label="hog", runs=rows)]

    def profile_of(runs, rows, *_):
        subject = rows[0]["subject"]
        found = profile("hog", subject, 0.1, run_ids=(rows[0]["run_id"],))
        return found if subject == 1 else replace(found, times=TIMES[:-1], time=found.time[:-1])

    monkeypatch.setattr(module, "conditions", lambda results: [(CONDITION, cells)])
    monkeypatch.setattr(module, "profile_of", profile_of)
    monkeypatch.setattr(module, "pairs", lambda results, pairing: [])
    report = InterpretReport(method="integrated-gradients", runs=Path("runs"), already=["run-1"], to_do=["run-2"])
    module._read(None, InterpretRequest(), report)
    assert [p.subject for p in report.profiles] == [1]
    assert (report.already, report.to_do, list(report.skipped)) == (["run-1"], [], ["run-2"])
    assert "other times" in report.skipped["run-2"]


@pytest.mark.parametrize("n_subjects", [1, 5, 10])
def test_in_subjects_who_show_nothing_nothing_is_found_but_in_one_trial_of_twenty(n_subjects):
    evidence = np.random.default_rng(n_subjects).standard_normal((400, n_subjects, 40))
    p = ttest_1samp(evidence, 0, axis=2, alternative="greater").pvalue
    rate = np.mean([is_found(*both) for both in zip(evidence.mean(axis=2).tolist(), p.tolist(), strict=True)])
    assert 0.02 < rate < 0.085  # 400 trials at 5 %: 3 standard errors are 3.3 %
