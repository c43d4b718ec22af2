"""What is said below a table of pairs: what p and interval tell, and who has nobody to be compared with."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl import render

if TYPE_CHECKING:
    from pipelines.train.compare import PairRow
    from pipelines.train.unpaired import Unpaired

__all__ = ["say_alone", "say_both_true"]

_SHOWN = 5  # encoders without a pair


def say_both_true(rows: "Sequence[PairRow]") -> None:
    """Say what the lowest p is, and why an interval may hold zero beside a verdict, or not hold it beside none."""
    from pipelines.train.compare import LEVEL

    if rows:
        render.note("lowest p: the sign-flip test of so many subjects can give none below, 2 / 2^subjects")
    torn = [
        row.embedding
        for row in rows
        if row.p_holm is not None and row.interval.low is not None and row.interval.high is not None
        if (row.interval.low <= 0 <= row.interval.high) == (row.p_holm <= LEVEL)
    ]
    if torn:
        render.note(
            f"interval and p of {', '.join(dict.fromkeys(torn))} answer two questions, and both are true: p, an exact "
            "sign-flip test over subjects, whether their differences on these images could as well have had other "
            "signs; the interval, how large the difference would be for others like those it is over"
        )


def say_alone(rows: "Sequence[Unpaired]", pairing: str, runs: Path) -> None:
    """Say who has nobody to be compared with, and what trains that."""
    if not rows:
        return
    base = "the paper's base" if pairing == "paper" else "its matched base"
    for row in rows[:_SHOWN]:
        lacking = base if row.lacks == "base" else "what was aligned from it"
        render.note(f"{row.embedding} has no pair: {lacking}, {row.missing}, was not run")
    if len(rows) > _SHOWN:
        render.note(f"and {len(rows) - _SHOWN} more (--json lists them all)")
    models = ",".join(dict.fromkeys(row.missing for row in rows))
    render.note(f"to train what is missing: embedctl extract --model {models}; {_train_line(rows[0], models, runs)}")


def _train_line(row: "Unpaired", models: str, runs: Path) -> str:
    """Return the command that trained a run, for other embeddings and all its subjects and seeds."""
    from stores.again import commands_for

    lines, _ = commands_for(runs / ".embedctl", [row.run_id], runs)
    words = shlex.split(lines[-1]) if lines else ["embedctl", "train", "--brain", row.condition["modality"]]
    asked = {"--model": models, "--subject": _listed(row.subjects), "--seed": _listed(row.seeds)}
    for option, value in asked.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return shlex.join(words)


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
