"""Who is writing: a process on a host, and whether it is still alive.

Locks and temporary files both carry an owner, so that what a killed process left behind can be told
from what a live one is using.
"""

import errno
import os
import socket
from hashlib import blake2b
from pathlib import Path

__all__ = ["HOST", "PROCESSES", "is_running", "process_started"]

HOST = socket.gethostname().split(".")[0] or "localhost"


def _process_list() -> str:
    which = socket.gethostname()  # the full name: node1.a and node1.b, or a machine and its copy
    try:  # containers may have the host's name, or one another's, and each has a process 1
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        which += f" {boot.strip()} {os.stat('/proc/self/ns/pid').st_ino}"
    except (OSError, ValueError):  # not Linux
        pass
    return blake2b(os.fsencode(which), digest_size=6).hexdigest()


PROCESSES = _process_list()
"""Which process list the ids of processes here are of: of this host, since it was started, and of this container."""


def process_started(pid: int) -> str:
    """Return when process ``pid`` started, in the kernel's clock ticks; empty where that is not known.

    A process id is reused; together with its start it is not.
    """
    return _state_and_start(pid)[1]


def is_running(pid: int, started: str = "") -> bool:
    """Say whether process ``pid`` of our `PROCESSES` lives, and is the one that began at ``started``.

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
