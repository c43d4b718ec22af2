"""Who is writing: a process on a host, and whether it is still alive.

Locks and temporary files both carry an owner, so that what a killed process left behind can be told
from what a live one is using. A process number means something only where one process list holds: two containers on
one host, or two hosts of one name, each have a list of their own.
"""

import errno
import os
import socket
from hashlib import blake2b
from pathlib import Path

__all__ = ["HOST", "PROCESSES", "is_running", "process_started"]

HOST = socket.gethostname().split(".")[0] or "localhost"
"""What people call this host."""


def _process_list(proc: Path = Path("/proc"), host: str = socket.gethostname()) -> str:
    """Return a name of the list of processes that this one is in: of the host, its boot and its process namespace.

    Examples
    --------
    >>> _process_list() == PROCESSES, _process_list(host="node1.a") == _process_list(host="node1.b")
    (True, False)
    """
    said = [host]
    try:
        said.append((proc / "sys/kernel/random/boot_id").read_text(encoding="ascii"))
        said.append(str((proc / "self/ns/pid").stat().st_ino))
    except (OSError, ValueError):  # not Linux: the full name of the host must do
        pass
    return blake2b(" ".join(said).encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


PROCESSES = _process_list()
"""Twelve letters that only processes share that see each other in one list of processes."""


def process_started(pid: int) -> str:
    """Return when process ``pid`` started, in the kernel's clock ticks; empty where that is not known.

    A process id is reused; together with its start it is not.
    """
    return _state_and_start(pid)[1]


def is_running(pid: int, started: str = "") -> bool:
    """Say whether process ``pid`` of this list lives, and is the one that began at ``started``.

    Examples
    --------
    >>> is_running(os.getpid(), process_started(os.getpid()))
    True
    >>> is_running(os.getpid(), "long ago") and bool(process_started(os.getpid()))
    False
    """
    if os.name == "nt":  # there, signal 0 is a signal that ends the process: only the heartbeat can tell
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # it lives and belongs to somebody else
    state, start = _state_and_start(pid)
    # A zombie has ended and waits for a parent that does not ask, as in many containers.
    return state not in ("Z", "X") and started in ("", start or started)


def _state_and_start(pid: int) -> tuple[str, str]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return "", ""
    # The second field is the command in parentheses and may contain spaces; what follows is counted from the end of it.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
