"""One writer at a time; a dead one does not hold up the living."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stores import locks
from stores.commits import digest, put_bytes
from stores.errors import CannotWrite, EmbedctlError, StoreLocked
from stores.locks import lock
from stores.owners import HOST, PROCESSES, is_running, process_started
from stores.remote import RemotePath

HOLD = """
import sys, time
from pathlib import Path
from stores.locks import lock
with lock(Path(sys.argv[1]), "store"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "e.zarr" / "image" / ".embedctl" / "locks"


@pytest.fixture
def other_process(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_request_that_fails_does_not_end_the_heartbeat(monkeypatch):
    beats, stop = [], threading.Event()

    class Far(RemotePath):
        __slots__ = ()

        def renew(self, data) -> bool:
            beats.append(self)
            if len(beats) == 3:
                stop.set()
            raise EmbedctlError("it took too long")

    monkeypatch.setattr(locks, "HEARTBEAT", 0.001)
    locks._beat(Far("s3://bucket/store.lock"), b"ours", Path("place"), stop)
    assert len(beats) == 3


def test_a_live_writer_keeps_others_out_and_is_named(folder, other_process):
    started = time.monotonic()
    with pytest.raises(StoreLocked) as problem, lock(folder, "store"):
        pass
    assert time.monotonic() - started < 2
    assert problem.value.exit_code == 5 and problem.value.hint
    assert f"process {other_process.pid} on {HOST}" in str(problem.value) and str(folder) in str(problem.value)


def test_a_killed_writer_is_taken_over_at_once(folder, other_process):
    other_process.kill()
    other_process.wait()
    with lock(folder, "store"):
        assert json.loads((folder / "store.lock").read_text())["pid"] == os.getpid()
    assert not list(folder.iterdir())


def test_what_a_killed_writer_has_not_flushed_is_flushed_before_its_lock_goes(folder, other_process, monkeypatch):
    """It may have died between a rename and its flush: everybody sees the file, and a power cut would take it."""
    seen, flush = [], locks.flush_disk
    other_process.kill()
    other_process.wait()
    monkeypatch.setattr(
        locks, "flush_disk", lambda place: (seen.append((folder / "store.lock").exists()), flush(place))
    )
    with lock(folder, "store"):
        assert seen == [True]
    assert seen == [True], "an owner that lives has flushed what it wrote"


def test_a_draft_that_cannot_be_removed_leaves_no_lock_that_nobody_gives_back(folder, monkeypatch):
    def broken(path, missing_ok=False):
        raise OSError(errno.EIO, "Input/output error")

    folder.mkdir(parents=True)
    monkeypatch.setattr(Path, "unlink", broken)
    assert locks._create(folder / "store.lock") == (folder / "store.lock").read_bytes()


def test_the_same_process_does_not_get_it_twice(folder):
    with lock(folder, "store"):
        with pytest.raises(StoreLocked), lock(folder, "store"):
            pass
        with lock(folder, "another thing"):
            pass


def test_waiting_gets_it_when_the_other_is_done(folder, other_process):
    with pytest.raises(StoreLocked), lock(folder, "store", wait=0.2):
        pass
    other_process.kill()
    with lock(folder, "store", wait=20):
        pass


def test_a_writer_on_another_host_lives_as_long_as_its_heart_beats(folder):
    folder.mkdir(parents=True)
    path = folder / "store.lock"
    path.write_text(json.dumps({"host": "node-17", "pid": 1}))
    with pytest.raises(StoreLocked, match="process 1 on node-17"), lock(folder, "store"):
        pass
    silent = time.time() - locks.DEAD_AFTER - 1
    os.utime(path, (silent, silent))
    with lock(folder, "store"):
        pass


def test_a_process_of_another_container_with_our_name_is_not_looked_for_among_ours(folder):
    folder.mkdir(parents=True)
    path = folder / "store.lock"
    path.write_text(json.dumps({"host": HOST, "processes": "another", "pid": 999999999, "started": "1"}))
    with pytest.raises(StoreLocked, match=f"process 999999999 on {HOST}"), lock(folder, "store"):
        pass
    os.utime(path, (0, 0))
    with lock(folder, "store"):
        pass


def test_a_lock_of_a_future_that_no_clock_reaches_is_dead(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_text(json.dumps({"host": "node-17", "pid": 1}))
    os.utime(folder / "store.lock", (time.time() + 10**6,) * 2)
    with lock(folder, "store"):
        pass


def test_a_link_to_nothing_and_a_folder_in_the_place_of_a_lock_hold_up_nobody_for_ever(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").symlink_to("nowhere")
    os.utime(folder / "store.lock", (0, 0), follow_symlinks=False)
    with lock(folder, "store"):
        pass
    (folder / "store.lock").mkdir()
    with pytest.raises(StoreLocked, match="is a folder"), lock(folder, "store"):
        pass


def test_a_process_that_only_inherited_the_number_does_not_count(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_text(json.dumps({"processes": PROCESSES, "pid": os.getpid(), "started": "1"}))
    if not process_started(os.getpid()):
        pytest.skip("this system does not tell when a process started")
    with lock(folder, "store"):
        pass


def test_a_lock_file_nobody_can_read_is_given_up_after_a_while(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_bytes(b"\0")
    with pytest.raises(StoreLocked), lock(folder, "store"):
        pass
    os.utime(folder / "store.lock", (0, 0))
    with lock(folder, "store"):
        pass


def test_the_heart_beats_while_the_lock_is_held(folder, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with lock(folder, "store"):
        os.utime(folder / "store.lock", (0, 0))
        deadline = time.monotonic() + 20
        while (folder / "store.lock").stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (folder / "store.lock").stat().st_mtime > 0


DEAD = json.dumps({"host": HOST, "processes": PROCESSES, "pid": 1, "started": "long ago", "token": "a"}).encode()


def test_who_comes_late_to_a_dead_lock_never_touches_the_live_one_in_its_place(folder, monkeypatch):
    """Two processes see a dead owner; a third must not find the place free while the slower one looks."""
    with lock(folder, "store"):
        path = folder / "store.lock"
        there = path.read_bytes()
        for name in ("unlink", "rename", "replace"):
            real = getattr(os, name)

            def watched(*arguments, real=real, **options):
                done = real(*arguments, **options)
                assert path.read_bytes() == there
                return done

            monkeypatch.setattr(os, name, watched)
        locks._remove(path, DEAD)
        monkeypatch.undo()
        assert [entry.name for entry in folder.iterdir()] == ["store.lock"]


def test_who_died_while_taking_over_is_taken_over_too(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_bytes(DEAD)
    claim = folder / f"store.lock.{digest(DEAD)}"
    for path in (claim, claim.with_name(f"{claim.name}.{digest(DEAD)}")):
        path.write_bytes(DEAD)
    (folder / "store.lock.0123").write_bytes(DEAD)  # a claim on a lock of long ago
    with lock(folder, "store"):
        assert [entry.name for entry in folder.iterdir()] == ["store.lock"]
    assert not list(folder.iterdir())


def test_while_a_live_process_takes_over_the_others_wait(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_bytes(DEAD)
    locks._create(folder / f"store.lock.{digest(DEAD)}")
    assert not locks._remove(folder / "store.lock", DEAD)
    assert (folder / "store.lock").read_bytes() == DEAD


def test_a_full_disk_does_not_keep_the_lock(folder, monkeypatch):
    with lock(folder, "store"):

        def refuse(path):
            raise CannotWrite("the disk is full")

        monkeypatch.setattr(locks, "_create", refuse)
    assert not list(folder.iterdir())


NONSENSE = [
    b"[]",
    b"",
    b"[" * 10**5,
    b'{"pid": 1%s}' % (b"0" * 30),
    b'{"processes": "%s", "pid": "x"}' % PROCESSES.encode(),
]


@pytest.mark.parametrize("content", NONSENSE)
def test_a_lock_file_of_nonsense_is_given_up_after_a_while_too(folder, content):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_bytes(content)
    with pytest.raises(StoreLocked), lock(folder, "store"):
        pass
    os.utime(folder / "store.lock", (0, 0))
    with lock(folder, "store"):
        pass


@pytest.mark.parametrize("target", ["nowhere", "/dev/zero", "store.lock", "pipe"])
def test_a_link_in_the_place_of_a_lock_is_given_up_after_a_while_too(folder, target):
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "store.lock").symlink_to(target)
    with pytest.raises(StoreLocked), lock(folder, "store"):
        pass
    os.utime(folder / "store.lock", (0, 0), follow_symlinks=False)
    with lock(folder, "store"):
        assert not (folder / "store.lock").is_symlink()


INSIDE = "from stores.commits import draft_name; print(draft_name('0'))"


def test_in_another_container_a_process_has_another_list_and_other_names_for_drafts():
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", INSIDE]
    try:
        said = [subprocess.run(unshare, cwd=Path(__file__).parents[2], capture_output=True, text=True) for _ in "ab"]
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if said[0].returncode:
        pytest.skip("may not make a namespace of processes")
    (one, two) = (ran.stdout.strip() for ran in said)
    assert one.partition("!")[2].startswith("1-") and two.partition("!")[2].startswith("1-")
    assert one.partition("!")[2] != two.partition("!")[2], "two containers must not write one draft"
    assert PROCESSES not in one + two


def test_who_lost_its_lock_writes_nothing_more(folder, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    store = folder.parents[2]
    with pytest.raises(StoreLocked, match="has taken over"), lock(folder, "store", shown=store):
        put_bytes(store / "before", b"x")
        theirs = json.dumps({"host": "node-17", "pid": 1}).encode()
        (folder / "store.lock").write_bytes(theirs)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            put_bytes(store / "after", b"x")
    assert (folder / "store.lock").read_bytes() == theirs
    os.unlink(folder / "store.lock")
    with pytest.raises(StoreLocked, match="has taken over"):
        put_bytes(store / "later", b"x")
    with lock(folder, "store", shown=store):
        put_bytes(store / "again", b"x")


# Rounds of eight processes that all find the lock of a process that died; the winner dies with the lock in its hand.
# Every step on the file system is held up at random, so that they get between each other's steps.
ROUNDS = """
import os, random, sys, time
from pathlib import Path
from stores.errors import StoreLocked
from stores import locks
from stores.locks import lock

N, SECONDS = 8, 2

def held_up(function):
    def late(*arguments, **options):
        time.sleep(random.random() ** 8 / 20)
        return function(*arguments, **options)
    return late

for name in ("link", "unlink", "rename", "replace"):
    setattr(os, name, held_up(getattr(os, name)))
locks.read_file = held_up(locks.read_file)

folder, began, rounds = Path(sys.argv[1]), time.monotonic(), 0
while rounds < 12 or time.monotonic() < began + SECONDS:  # on a busy computer a round takes long
    (wait, go), (hold, over), (read, said) = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(N if rounds else 1):
        child = os.fork()
        if not child:
            os.close(go), os.close(over)
            random.seed(os.getpid())
            os.read(wait, 1)  # all at once: until the other end is closed
            try:
                with lock(folder, "store"):
                    os.write(said, b"W")
                    os.read(hold, 1)
                    os._exit(0)
            except StoreLocked:
                os.write(said, b"L")
                os._exit(0)
            os._exit(1)
        children.append(child)
    os.close(go), os.close(said)
    heard = b""
    while len(heard) < len(children) and (more := os.read(read, N)):
        heard += more
    os.close(over)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    for end in (wait, hold, read):
        os.close(end)
    assert sorted(heard) == sorted(b"W" + b"L" * (len(children) - 1)), (rounds, heard)
    rounds += 1
print(rounds)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
def test_of_many_who_find_a_dead_owner_at_once_exactly_one_wins(folder):
    ran = subprocess.run(
        [sys.executable, "-c", ROUNDS, str(folder)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 12
    assert [path.name for path in folder.iterdir()] == ["store.lock"], "no claim and no draft is left behind"


@pytest.mark.parametrize("answer", [FileExistsError("sent again"), OSError(errno.EIO, "lost on the way")])
def test_a_link_that_was_made_though_the_answer_says_no_is_ours(folder, monkeypatch, answer):
    real = os.link

    def answers_twice(draft, path):
        real(draft, path)  # fails where another holds it
        raise answer

    monkeypatch.setattr(os, "link", answers_twice)
    with lock(folder, "store"):
        assert json.loads((folder / "store.lock").read_bytes())["pid"] == os.getpid()
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"), lock(folder, "store"):
            pass
    assert not list(folder.iterdir())


def test_without_hard_links_a_lock_is_still_a_lock(folder, monkeypatch):
    def refuse(*arguments):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    with lock(folder, "store"), pytest.raises(StoreLocked), lock(folder, "store"):
        pass
    assert not list(folder.iterdir())


def test_of_many_who_want_it_at_once_one_at_a_time_gets_it(folder, tmp_path):
    code = """
import sys
from pathlib import Path
from stores.locks import lock
counter = Path(sys.argv[2])
for _ in range(20):
    with lock(Path(sys.argv[1]), "store", wait=60):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", code, str(folder), str(counter)]
    for process in [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(3)]:
        assert process.wait() == 0
    assert counter.read_text() == "60"


def test_a_process_that_ended_does_not_run():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not is_running(process.pid)
    assert is_running(os.getpid(), process_started(os.getpid()))
