"""Fail every write of a command once: the computer dies there, the disk is full there, the disk is broken there.

Dying is seen from the disk: one undisturbed run, and before each of its writes a copy of what is there. That is what
a killed process leaves; of a file that was being flushed the second half is missing, as after a power cut. Then its
locks are those of a dead process. The other faults are raised in place of the write, once, and the command goes on as
it can. What is left is looked at, and the command is run again. The same files left by two faults are tried once.
"""

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stores.commits import digest
from tests.promises.harness import committed, content, damages, differing, ended, passing, run, shared_memory

CALLS = ("fsync", "replace", "rename", "mkdir", "link", "unlink", "rmdir")
EXIT = "exit"


@dataclass(frozen=True)
class Job:
    """A command that writes.

    Parameters
    ----------
    words : sequence of str
        The command.
    start : mapping of str to Path
        What is in its workspace before: names, and where to copy them from.
    prepare : callable
        What else is done to the workspace before.
    takes : collection of str
        Parts of the names, as `committed` gives them, of what the command takes away or computes anew.
    again : collection of int
        Codes of running it once more: what has been removed cannot be found again.
    then : list of str
        Where the workspace is damaged, and the command is to undo that: what computes what it dropped.
    """

    words: list[str]
    start: dict[str, Path] = field(default_factory=dict)
    prepare: Callable[[Path], Any] = lambda folder: None
    takes: tuple[str, ...] = ()
    again: tuple[int, ...] = (0,)
    then: list[str] = field(default_factory=list)

    def begin(self, folder: Path) -> Path:
        """Make the workspace as it is before the command."""
        folder.mkdir()
        for name, source in self.start.items():
            shutil.copytree(source, folder / name)
        self.prepare(folder)
        return folder


class Writes:
    """Counts the writes of this process below ``folder``; before each, ``act`` is called with its number and name."""

    def __init__(self, folder: Path, act: Callable[[int, str, Any], None] = lambda n, name, what: None) -> None:
        self.n, self._folder, self._act = 0, os.path.realpath(folder), act
        self.target = ""  # of the last rename

    def __enter__(self) -> "Writes":
        places = [*((os, name) for name in (*CALLS, "open")), (builtins, "open"), (io, "open")]
        self._true = {(place, name): getattr(place, name) for place, name in places}
        for (place, name), function in self._true.items():
            setattr(place, name, self._counting(name, function))
        return self

    def __exit__(self, *problem: object) -> None:
        for (place, name), function in self._true.items():
            setattr(place, name, function)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Give the true functions back for a moment."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def _counting(self, name: str, function: Callable) -> Callable:
        def write(*arguments, **options):
            if self._is_write(name, arguments, options):
                self.n += 1
                self.target = str(arguments[1]) if name in ("replace", "rename", "link") else ""
                self._act(self.n, name, arguments[0])
            return function(*arguments, **options)

        return write

    def _is_write(self, name: str, arguments: tuple, options: dict) -> bool:
        if name == "open":
            mode = arguments[1] if len(arguments) > 1 else options.get("mode", options.get("flags", "r"))
            writes = mode & (os.O_CREAT | os.O_WRONLY) if isinstance(mode, int) else set(mode) & set("wax+")
            if not writes:  # asked first: most openings are to read
                return False
        what = arguments[0] if arguments else options.get("path", options.get("file"))
        if isinstance(what, int):
            what = os.readlink(f"/proc/self/fd/{what}")
        return os.path.realpath(os.fspath(what)).startswith(self._folder)


def attack(job: Job, full: int = 1, broken: int = 1, many: int = 10**9) -> Counter:
    """Try every fault at every write of ``job``; return how many of each.

    A full and a broken disk at every so-manieth write; of a job that takes ``many`` writes every third of the states
    that faults leave.
    """
    with shared_memory() as folder:
        before = job.begin(folder / "before")
        there = committed(before).items()
        kept = {name: value for name, value in there if not any(part in name for part in job.takes)}
        # Always in a folder of one name: an answer may say where it was computed.
        whole = shutil.copytree(before, folder / "here")
        with Writes(folder) as count:
            code, said = ended(whole, job.words)
        assert code == 0, said
        states = 3 if count.n > many else 1
        if job.then:
            run(whole, job.then)
        expected = content(whole)
        assert differing(content(before), expected), "it wrote nothing"
        shutil.rmtree(whole)
        tried, seen = Counter(writes=count.n), set()
        for where, left in _each(job, before, folder, count.n, (full, broken), tried):
            state = _state(left)
            is_new = state not in seen
            seen.add(state)
            if is_new and len(seen) % states == 0:
                tried["states"] += 1
                try:
                    _look(left, kept, bool(job.then), with_zarr=len(seen) % broken == 0)
                    code, said = ended(left, job.words)
                    assert code in job.again, f"the next run ended with {code}: {said}"
                    if job.then:
                        assert not damages(left)
                        run(left, job.then)
                    different = differing(content(left), expected)
                    assert not different, different
                    assert not damages(left)
                except Exception as problem:
                    raise AssertionError(f"after {where}, of {count.n} writes: {problem}") from problem
            shutil.rmtree(left)
        return tried


def unflushed(job: Job) -> list[str]:
    """Return what a power cut could take after something later is there: what nobody flushed before it.

    Where there is none, what a power cut leaves is what an end at a write leaves.
    """
    with shared_memory() as folder:
        whole, flushed, waiting, found = job.begin(folder / "here"), set(), set(), []

        def see(number: int, name: str, what: Any) -> None:
            if name == "fsync":
                file = os.readlink(f"/proc/self/fd/{what}")
                waiting.discard(file) if os.path.isdir(file) else flushed.add(file)
            elif name in ("replace", "rename") and not passing(os.path.relpath(writes.target, whole)):
                source = os.path.realpath(what)
                if os.path.isfile(source) and source not in flushed:
                    found.append(f"the content of {writes.target}")
                found.extend(f"a change of {place}, before {writes.target}" for place in sorted(waiting))
                waiting.add(os.path.dirname(os.path.realpath(writes.target)))
            elif name == "link" and writes.target.endswith(".lock"):  # it tells what was cut short from damage
                waiting.add(os.path.dirname(os.path.realpath(writes.target)))
            elif (
                name in ("mkdir", "unlink", "rmdir")
                and os.path.isabs(what)
                and not passing(os.path.relpath(what, whole))
            ):
                waiting.add(os.path.dirname(os.path.realpath(what)))

        with (writes := Writes(whole, see)):
            code, said = ended(whole, job.words)
        assert code == 0, said
        return [*found, *(f"a change of {place}, at the end" for place in sorted(waiting))]


def _each(
    job: Job, before: Path, folder: Path, n: int, steps: tuple[int, int], tried: Counter
) -> Iterator[tuple[str, Path]]:
    """Yield what every fault leaves."""
    places = []
    here = recorded = shutil.copytree(before, folder / "here")

    def copy(number: int, name: str, what: Any) -> None:
        with writes.paused():
            left = shutil.copytree(recorded, folder / f"exit-{number}", symlinks=True)
            if name == "fsync" and not os.path.isdir(f"/proc/self/fd/{what}"):
                torn = left / os.path.relpath(os.readlink(f"/proc/self/fd/{what}"), recorded)
                os.truncate(torn, torn.stat().st_size // 2)
        places.append((f"an end at write {number} ({name})", left))

    with (writes := Writes(recorded, copy)):
        ended(recorded, job.words)
    tried[EXIT] = len(places)
    shutil.rmtree(recorded)
    for where, left in places:
        left.rename(here)
        _bury(here)
        yield where, here
    for fault, number, step in zip(("full", "broken"), (errno.ENOSPC, errno.EIO), steps, strict=True):
        for at in range(step, n + 1, step):
            left = shutil.copytree(before, here)
            name_at = []

            def fail(number: int, name: str, what: Any, at: int = at, code: int = number, names=name_at) -> None:
                if number == at:
                    names.append(name)
                    raise OSError(code, os.strerror(code), str(what))

            with Writes(left, fail):
                code, said = ended(left, job.words)
            where = f"a {fault} disk at write {at} ({' '.join(name_at)})"
            # Some writes are a convenience, and the command does without.
            assert code in (0, 7), f"{where}: it ended with {code}: {said}"
            tried[fault] += 1
            _bury(left)
            yield where, left


def _gone() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


GONE = _gone()


def _bury(folder: Path) -> None:
    """Let the locks and drafts of this process be those of one that has ended."""
    for path in sorted(folder.rglob("*.lock*")):
        try:
            owner = json.loads(path.read_bytes())
        except ValueError:
            os.utime(path, (0, 0))
            continue
        path.write_text(json.dumps({**owner, "pid": GONE}))
    for path in sorted(folder.rglob(f".*!{os.getpid()}-*"), reverse=True):
        path.rename(path.with_name(path.name.replace(f"!{os.getpid()}-", f"!{GONE}-")))


def _state(folder: Path) -> str:
    """Return a digest of all that counts, and of which locks there are."""
    files = [f"{name} {digest(data)}" for name, data in content(folder).items()]
    locks = {str(path.relative_to(folder)).partition(".lock")[0] for path in folder.rglob("*.lock*")}
    return digest("\n".join([*files, *sorted(locks)]).encode())


def _look(folder: Path, kept: dict[str, Any], is_damaged: bool, with_zarr: bool) -> None:
    """See that nothing is damaged, that what was committed is there, and that other programs can open it."""
    found = damages(folder)
    assert is_damaged or not found, found
    there = committed(folder)
    lost = [name for name, value in kept.items() if there.get(name) != value]
    assert not lost, f"lost: {lost[:5]}"
    if is_damaged or not with_zarr:
        return
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for store in folder.glob("*.zarr"):
            for _, member in zarr.open_group(store, mode="r").members(max_depth=None):
                if isinstance(member, zarr.Array):
                    member[...]
