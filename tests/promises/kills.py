"""Kill a command at random moments, or ask it to stop: `python -m tests.promises.kills extract:50 train:13`.

A fork of a process that has run every command once is at its work within milliseconds, so that the kill meets the work
and not the imports; what is killed is a process of its own, by SIGKILL. The moments are drawn from the time that an
undisturbed run takes in such a fork. A killed command is run again, and then the files must be those of a run that
nobody disturbed, bit for bit but for dates. Both note what they compute: the second may compute nothing that was
committed, and of what the first had computed one task at most. With ``--signal`` the command must have ended with 143
within ten seconds.
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
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from embedctl.group import TERMINATED, end_cleanly_when_terminated
from pipelines.extract.block import BlockRows
from pipelines.train import runner
from stores.embeddings import EmbeddingStore
from stores.split_writer import SplitWriter
from tests.promises import harness
from tests.promises.harness import Inputs, content, damages, differing, ended, extract, preprocess, put_image, train

LIGHT = "pixels,colour-histogram"
N_IMAGES = {"a_block": 64, "four_blocks": 250}

PATIENCE = 10.0
"""Seconds in which a command that is asked to stop must have stopped."""
ASKED = {signal.SIGTERM, signal.SIGUSR1}


def forked(folder: Path, words: list[str], forgetful: bool = False) -> int:
    """Start a command in a process of its own, and return its number; it notes what it computes (`computed_in`).

    Being asked to stop waits until the process listens, as it does before its first line of work: on a busy computer
    the question may come before the process has run at all.
    """
    _notes(folder).unlink(missing_ok=True)  # what another process noted, if this one ends before it notes anything
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    else:
        code = 1
        try:
            end_cleanly_when_terminated()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
            note_computed(folder)
            if forgetful:
                EmbeddingStore.committed = lambda store, entry: np.zeros(store.n_images, bool)
            code, said = ended(folder, words)
            folder.with_name(f"{folder.name}.said").write_text(said)
        except SystemExit as end:  # before the command or after it
            code = end.code
        finally:
            os._exit(code)
    return child


def note_computed(folder: Path) -> None:
    """Have this process note every row, block of epochs and run when it has its numbers: a kill leaves the note."""
    file = os.open(_notes(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    put, write_epochs, write_run = BlockRows.put, SplitWriter.write_block, runner.write_run

    def note(task: str, items: Iterable[str]) -> None:
        os.write(file, "".join(f"{task}\t{item}\n" for item in items).encode())

    def rows(block, group, given, values):
        note(f"block {block.task.block}", [f"{group} {row}" for row in given.tolist()])
        return put(block, group, given, values)

    def epochs(split, block, *arrays):
        note(split_and_block(split._folder, block), [split_and_block(split._folder, block)])
        return write_epochs(split, block, *arrays)

    def run(runs, run_id, **content):
        note(run_id, [run_id])
        return write_run(runs, run_id, **content)

    BlockRows.put, SplitWriter.write_block, runner.write_run = rows, epochs, run


def computed_in(folder: Path) -> dict[str, str]:
    """Return what the last process in ``folder`` computed: row, block of epochs or run, and the task it is of."""
    lines = _notes(folder).read_text().splitlines() if _notes(folder).exists() else []
    return {item: task for task, item in (line.split("\t") for line in lines)}


def committed_in(folder: Path) -> set[str]:
    """Return the rows, blocks of epochs and runs that receipts in ``folder`` speak of."""
    found = {path.parent.name for path in folder.glob("runs/*/receipt.json")}
    for receipt in folder.glob("epochs.zarr/**/mean/.embedctl/receipts/*.json"):
        found.add(split_and_block(receipt.parents[3], int(receipt.stem)))
    if (store := folder / "embeddings.zarr").exists():
        groups = EmbeddingStore.open(store)._groups
        found |= {f"{name} {row}" for name, group in groups.items() for row in group.committed_rows().tolist()}
    return found


def split_and_block(split: Path, block: int) -> str:
    return f"{'/'.join(split.parts[-3:])} {block}"


def _notes(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.computed")


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undisturbed(words: list[str], start: Path, here: Path) -> float:
    """Run ``words`` on a copy of ``start``, which stays; return the seconds it takes."""
    shutil.copytree(start, here)
    began = time.perf_counter()
    assert end(forked(here, words)) == 0, _said(here)
    return time.perf_counter() - began


def rounds(
    words: list[str], start: Path, folder: Path, n: int, seed: int, number: signal.Signals, forgetful: bool = False
) -> Counter:
    """Kill ``words`` on copies of ``start`` until ``n`` kills have met it; return how often they met it at work."""
    whole = folder / "whole"
    seconds = undisturbed(words, start, whole)
    expected, before, draw, met = content(whole), content(start), random.Random(seed), Counter()
    while met["met"] < n:
        assert met["rounds"] < 4 * n, f"too few of the kills met the command: {met}"
        if met["rounds"] % 10 == 9:  # others may have left the computer, or come to it
            seconds = undisturbed(words, start, folder / "again")
            shutil.rmtree(folder / "again")
        here = shutil.copytree(start, folder / "killed")
        child = forked(here, words)
        if met["rounds"]:  # once before it has begun
            time.sleep(draw.uniform(0, seconds))
        os.kill(child, number)
        asked = time.perf_counter()
        code = end(child)
        is_met = code == (-number if number == signal.SIGKILL else TERMINATED)
        assert is_met or code == 0, f"it ended with {code}: {_said(here)}"
        met["seconds to stop"] = max(met["seconds to stop"], round(time.perf_counter() - asked, 2))
        assert met["seconds to stop"] < PATIENCE
        left = content(here)
        met["rounds"] += 1
        met["met"] += is_met
        met["at work"] += is_met and left not in (before, expected)
        found = damages(here)
        assert not found, f"kill {met['rounds']}: verify finds {found}"
        committed, first = committed_in(here), computed_in(here)
        assert end(forked(here, words, forgetful)) == 0, _said(here)
        different = differing(content(here), expected)
        assert not different, f"kill {met['rounds']}: {different}"
        second = computed_in(here)
        again = sorted(committed & set(second))
        assert not again, f"computed again, though committed: {again[:5]} and others, {len(again)} of {len(second)}"
        redone = {second[item] for item in set(first) & set(second)}
        assert len(redone) <= 1, f"more than one task was computed twice: {redone}"
        met["tasks redone"] = max(met["tasks redone"], len(redone))
        shutil.rmtree(here)
    return met


def _said(folder: Path) -> str:
    return folder.with_name(f"{folder.name}.said").read_text()


def main(what: dict[str, int], seed: int, number: signal.Signals, forgetful: bool) -> dict[str, Counter]:
    """Make the workspace, and kill each of ``what`` as often as it says; then see whether these checks can fail."""
    met = {}
    with harness.shared_memory() as folder:
        harness.make_world(folder)
        given, whole = Inputs(folder / "inputs"), folder / "whole"
        for name, n_images in N_IMAGES.items():  # of fewer blocks, more than one could hardly be computed twice
            for n in range(n_images):
                put_image(folder / "inputs" / name / f"{n:03d}.png", n)
        begun = folder / "begun"
        begun.mkdir()
        harness.run(begun, extract(given, "a_block", models=LIGHT))
        empty = folder / "empty"
        empty.mkdir()
        commands = {
            "extract": (extract(given, "four_blocks", models=LIGHT), begun),
            "preprocess": (preprocess(given, "1,2"), empty),
            "train": (train(given, whole), empty),
        }
        for name, n in what.items():
            words, start = commands[name]
            (folder / name).mkdir()
            met[name] = rounds(words, start, folder / name, n, seed, number)
            shutil.rmtree(folder / name)
        if forgetful:
            words, start = commands["extract"]
            (folder / "forgetful").mkdir()
            try:
                rounds(words, start, folder / "forgetful", 1, seed, number, forgetful=True)
            except AssertionError as noticed:
                met["forgetful"] = Counter(noticed="computed again, though committed" in str(noticed))
    return met


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("commands", nargs="+")
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--signal", default="SIGKILL")
    given.add_argument(
        "--forgetful", action="store_true", help="let what is committed be forgotten, which must be seen"
    )
    asked = given.parse_args()
    wanted = {name: int(n) for name, _, n in (text.partition(":") for text in asked.commands)}
    json.dump(main(wanted, asked.seed, signal.Signals[asked.signal], asked.forgetful), sys.stdout)
