"""One writer at a time; a dead one does not hold up the living."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stores import locks
from stores.errors import StoreLocked
from stores.locks import lock
from stores.owners import HOST, is_running, process_started

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


def test_a_process_that_only_inherited_the_number_does_not_count(folder):
    folder.mkdir(parents=True)
    (folder / "store.lock").write_text(json.dumps({"host": HOST, "pid": os.getpid(), "started": "1"}))
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


def test_a_live_lock_taken_by_mistake_is_given_back(folder):
    """Two processes see a dead owner; the slower one must not bury the faster one's lock."""
    dead = {"host": HOST, "pid": 1, "started": "long ago"}
    with lock(folder, "store"):
        locks._bury(folder / "store.lock", dead)
        assert json.loads((folder / "store.lock").read_text())["pid"] == os.getpid()


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
