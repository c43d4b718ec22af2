"""R2: every write of every command that writes may fail, in every way, and nothing that was committed is lost."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import embedctl.commands
from stores.results import assemble, write_run
from tests.promises.faults import Job, Writes, attack, unflushed
from tests.promises.harness import PROGRAM, TRAINING, Inputs, ended, extract, preprocess, stores_of, train
from tests.train.test_compare import ALIGNED, HUMAN, PLAIN, row

pytestmark = pytest.mark.slow


def damaged(kind):
    """Return what damages the first file of numbers of a store."""

    def damage(folder):
        names = {"embeddings.zarr": "pixels-*/values/c/0/0", "epochs.zarr": "*/sub-01/train/mean/c/0/0/0",
                 "runs": "*/scores.npy"}  # fmt: skip
        file = min((folder / kind).glob(names[kind]))
        file.write_bytes(bytes(len(file.read_bytes())))

    return damage


def jobs(world):
    """Return a job for every command that writes, by name."""
    given, whole, run = world.inputs, world.whole, world.run
    embeddings, epochs, runs = ({name: whole / name} for name in ("embeddings.zarr", "epochs.zarr", "runs"))
    recipe, rows = str(given.folder / "recipe.toml"), str(whole / "embeddings.zarr")
    one_subject = {"epochs.zarr": world.folder / "one-subject" / "epochs.zarr"}
    gone = (0, 2)  # what has been removed cannot be found again
    changed = (TRAINING[0], TRAINING[5])
    theirs = ["--npy", str(given.folder / "theirs.npy"), "--ids", str(given.folder / "ids.txt")]
    return {
        "init": Job(["init"], again=(0, 2)),
        "extract": Job(extract(given, "few")),
        "extract more images": Job(extract(given, "many"), embeddings),
        "extract changed images": Job(extract(given, "changed", "--refresh"), embeddings, takes=changed),
        "extract a shard": Job(extract(given, "many", "--shard", "1/2"), embeddings),
        "import": Job(["import", "--name", "theirs", *theirs, "--images", given.few], embeddings),
        "preprocess": Job(preprocess(given, "1")),
        "preprocess a second subject": Job(preprocess(given, "2"), one_subject),
        "train": Job(train(given, whole)),
        "screen": Job(["screen", "--brain", "eeg", "--test", "--recipe", recipe, *stores_of(whole)], runs),
        "interpret": Job(["interpret", *stores_of(whole)], runs),
        "results": Job(["results", "--plot", "ranking.png"], runs),
        "report": Job(["report", "--format", "md", "--out", "x.md", "--embeddings", rows, "--images", given.few], runs),
        "compare": Job(["compare", "--layers", "--csv", "depth.csv", "--plot", "depth.png"], prepare=compared),
        "show": Job(["show", "embeddings.zarr", "--png", "store.png"], embeddings),
        "predict": Job(["predict", run, *stores_of(whole)], runs),
        "export": Job(["export", "--model", "pixels"], embeddings),
        "merge": Job(["merge", "embeddings.zarr", str(world.folder / "other.zarr")], embeddings),
        "remove an embedding": Job(["remove", "embeddings.zarr", "pixels"], embeddings, takes=("pixels",), again=gone),
        "remove a subject": Job(["remove", "epochs.zarr", "things-eeg2/sub-02"], epochs, takes=("/2",), again=gone),
        "remove a run": Job(["remove", "runs", run], runs, takes=(f"run {run}",), again=gone),
        "repair embeddings": Job(["repair", "."], embeddings, damaged("embeddings.zarr"), then=extract(given, "few")),
        "repair epochs": Job(["repair", "."], epochs, damaged("epochs.zarr"), ("/1",), then=preprocess(given, "1")),
        "repair runs": Job(["repair", "."], runs, damaged("runs"), (f"run {run}",), then=train(given, whole)),
    }  # fmt: skip


def compared(folder):
    """Write runs of an aligned encoder and its base, as `train` leaves them."""
    rows = [row(name, subject, 0, 0.1 * subject, **said) for name, said in ((HUMAN, ALIGNED), (PLAIN, {}))
            for subject in (1, 2)]  # fmt: skip
    for number, one in enumerate(rows):
        summary = {**one, "run_id": f"run-{number}"}
        write_run(folder / "runs", f"run-{number}", config={}, summary=summary, arrays={}, checkpoint=b"", metrics=[])
    assemble(folder / "runs")


NAMES = list(jobs(SimpleNamespace(inputs=Inputs(Path()), whole=Path(), folder=Path(), run="")))
# What writes and is not tried here, and why.
ELSEWHERE = {
    "demo": "calls what the stages call; test_demo.py kills it at every stage",
    "models": "fetches files that are checked by their sha256; test_fetch.py cuts it short",
    "doctor": "tries the disks with files of its own; test_doctor.py sees that none is left",
    "reproduce": "calls extract, preprocess and train",
}
# What writes nothing.
READ = {
    "verify": ["verify", "."],
    "datasets": ["datasets"],
}


def test_every_command_is_tried_here_or_elsewhere_or_writes_nothing():
    named = {words.split()[0] for words in NAMES}
    assert named | set(ELSEWHERE) | set(READ) == set(PROGRAM.commands)
    assert not named & (set(ELSEWHERE) | set(READ))


def test_every_command_that_calls_the_writer_and_every_option_that_names_a_file_to_write_is_tried():
    written, source = {words.split()[0]: [] for words in NAMES}, Path(embedctl.commands.__path__[0])
    for job in jobs(SimpleNamespace(inputs=Inputs(Path()), whole=Path(), folder=Path(), run="")).values():
        written[job.words[0]] += job.words
    calls = {file.stem.strip("_"): set(re.findall(r"\b(?:put_\w+|write_\w+)(?=\()", file.read_text()))
             for file in source.glob("*.py")}  # fmt: skip
    writers = {name for name, found in calls.items() if found}
    assert writers >= {"compare", "init", "interpret", "predict", "report", "show"}
    assert writers <= set(written) | set(ELSEWHERE)
    for name, words in written.items():
        options = (option for option in PROGRAM.commands[name].params if option.metavar == "FILE")
        assert [option.opts for option in options if not set(option.opts) & set(words)] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_flushed_before_anything_that_comes_later(world, name):
    """So a power cut leaves what an end at a write leaves, and no other state has to be tried."""
    assert unflushed(jobs(world)[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_write_that_fails_loses_nothing_and_the_next_run_gives_the_same_bytes(world, name, large):
    """A full disk hits every third write: of every file that is written one of opening, flushing, renaming, in turn.

    A broken one is, to the program, a full one with other words, and hits every thirteenth. Of commands with more than
    100 writes a third of the states they leave are tried. Of `extract`, and of all in the larger size, each fault hits
    every write, and every state is tried.
    """
    full, broken, many = (1, 1, 10**9) if large or name == "extract" else (3, 13, 100)
    tried = attack(jobs(world)[name], full, broken, many)
    assert tried["exit"] == tried["writes"] >= tried["full"] == tried["writes"] // full > 0
    assert tried["broken"] == tried["writes"] // broken


@pytest.mark.parametrize("name", READ)
def test_what_only_reads_writes_nothing(world, scratch, name):
    here = shutil.copytree(world.whole, scratch / "here")
    with Writes(here) as count:
        ended(here, READ[name])
    assert count.n == 0
