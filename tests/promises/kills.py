"""Kill a command at random moments, or ask it to stop: `python -m tests.promises.kills extract:50 train:13`.

A fork of a process that has run every command once is at its work within milliseconds, so that the kill meets the work
and not the imports; what is killed is a process of its own, by SIGKILL. The moments are drawn from the time that an
undisturbed run takes in such a fork. A killed command is run again, and then the files must be those of a run that
nobody disturbed, bit for bit but for dates; what was committed before the kill must not have been written again, but
for one task. With ``--signal`` the command must have ended with 143 within ten seconds.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from embedctl.group import TERMINATED, end_cleanly_when_terminated
from pipelines.train import runner
from stores.embeddings import EmbeddingStore
from stores.results import finished
from stores.split_writer import SplitWriter
from tests.promises import harness
from tests.promises.harness import Inputs, content, damages, differing, ended, extract, preprocess, times, train

LIGHT = "pixels,colour-histogram,gabor-pyramid"


PATIENCE = 10.0
"""Seconds in which a command that is asked to stop must have stopped."""


def forked(folder: Path, words: list[str]) -> int:
    """Start a command in a process of its own, and return its number; it notes the tasks that it does once more."""
    child = os.fork()
    if not child:
        code = 1
        try:
            end_cleanly_when_terminated()
            redone = note_redone()
            code, said = ended(folder, words)
            folder.with_name(f"{folder.name}.said").write_text(said)
            folder.with_name(f"{folder.name}.redone").write_text(json.dumps(sorted(redone)))
        except SystemExit as end:  # before the command or after it
            code = end.code
        finally:
            os._exit(code)
    return child


def note_redone() -> set[str]:
    """Have this process note each task of which it commits anything that is committed, whether or not bytes change."""
    redone: set[str] = set()
    write_rows, write_epochs, write_run = EmbeddingStore.write_block, SplitWriter.write_block, runner.write_run

    def rows(store, block, parts, absent):
        for group, (given, _) in parts.items():
            if set(np.asarray(given).tolist()) & set(store._groups[group].committed_rows().tolist()):
                redone.add(f"block {block} of embeddings")
        return write_rows(store, block, parts, absent)

    def epochs(split, block, *arrays):
        if block not in split.missing():
            redone.add(f"block {block} of '{split._folder}'")
        return write_epochs(split, block, *arrays)

    def run(runs, run_id, **content):
        if finished(runs, run_id):
            redone.add(f"run {run_id}")
        return write_run(runs, run_id, **content)

    EmbeddingStore.write_block, SplitWriter.write_block, runner.write_run = rows, epochs, run
    return redone


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rounds(words: list[str], start: Path, folder: Path, n: int, seed: int, number: signal.Signals) -> Counter:
    """Kill ``words`` on copies of ``start`` until ``n`` kills have met it; return how often they met it at work."""
    whole = shutil.copytree(start, folder / "whole")
    began = time.perf_counter()
    assert end(forked(whole, words)) == 0, _said(whole)
    seconds = time.perf_counter() - began
    expected, before, draw, met = content(whole), content(start), random.Random(seed), Counter()
    while met["met"] < n:
        assert met["rounds"] < 4 * n, f"too few of the kills met the command: {met}"
        here = shutil.copytree(start, folder / "killed")
        child = forked(here, words)
        time.sleep(draw.uniform(0, seconds))
        os.kill(child, number)
        asked = time.perf_counter()
        code = end(child)
        is_met = code == (-number if number == signal.SIGKILL else TERMINATED)
        assert is_met or code == 0, f"it ended with {code}: {_said(here)}"
        met["seconds to stop"] = max(met["seconds to stop"], round(time.perf_counter() - asked, 2))
        assert met["seconds to stop"] < PATIENCE
        left, there = content(here), times(here)
        met["rounds"] += 1
        met["met"] += is_met
        met["at work"] += is_met and left not in (before, expected)
        found = damages(here)
        assert not found, f"kill {met['rounds']}: verify finds {found}"
        is_done = {name for name in left if _is_committed(here, name)}
        assert end(forked(here, words)) == 0, _said(here)
        different = differing(content(here), expected)
        assert not different, f"kill {met['rounds']}: {different}"
        after = times(here)
        written = {_task(name) for name in is_done if name in after and there[name] != after[name]}
        computed = set(json.loads(here.with_name(f"{here.name}.redone").read_text()))
        met["tasks redone"] = max(met["tasks redone"], len(written), len(computed))
        assert len(written) <= 1 and len(computed) <= 1, (written, computed)
        shutil.rmtree(here)
    return met


def _is_committed(folder: Path, name: str) -> bool:
    """Say whether a file is a chunk of numbers, or of a run, that a receipt speaks of."""
    file = folder / name
    if "runs/" in name:
        return (file.parent / "receipt.json").exists()
    if "/c/" not in name or not {"values", "mean"} & set(file.parts):
        return False
    array = file.parents[len(file.parts) - 1 - file.parts.index("c")]
    return any(name.rpartition(array.name)[2] in one.read_text() for one in array.glob(".embedctl/receipts/*.json"))


def _task(name: str) -> str:
    """Return which task a file is of: a run, or a block of all embeddings or of a split."""
    parts = Path(name).parts
    return parts[1] if parts[0] == "runs" else "/".join((*parts[: -len(parts) + 1], parts[parts.index("c") + 1]))


def _said(folder: Path) -> str:
    return folder.with_name(f"{folder.name}.said").read_text()


def main(what: dict[str, int], seed: int, number: signal.Signals) -> dict[str, Counter]:
    """Make the workspace, and kill each of ``what`` as often as it says."""
    met = {}
    with harness.shared_memory() as folder:
        harness.make_world(folder)
        given, whole = Inputs(folder / "inputs"), folder / "whole"
        begun = folder / "begun"
        begun.mkdir()
        harness.run(begun, extract(given, "few", models=LIGHT))
        empty = folder / "empty"
        empty.mkdir()
        commands = {
            "extract": (extract(given, "many", models=LIGHT), begun),
            "preprocess": (preprocess(given, "1,2"), empty),
            "train": (train(given, whole), empty),
        }
        for name, n in what.items():
            words, start = commands[name]
            (folder / name).mkdir()
            met[name] = rounds(words, start, folder / name, n, seed, number)
            shutil.rmtree(folder / name)
    return met


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("commands", nargs="+")
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--signal", default="SIGKILL")
    asked = given.parse_args()
    wanted = {name: int(n) for name, _, n in (text.partition(":") for text in asked.commands)}
    json.dump(main(wanted, asked.seed, signal.Signals[asked.signal]), sys.stdout)
