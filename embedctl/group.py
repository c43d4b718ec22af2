"""Where every ending of the program is decided: exit codes, two-line problems, signals, pipes.

====  ==================================================================
code  when
====  ==================================================================
0     done
1     unexpected: a bug
2     usage or configuration: the request cannot be carried out as written
3     finished, but some items were skipped (they are listed)
4     integrity failure found
5     locked by a live writer
6     weights, an extra or a device is missing
7     disk full, read-only or broken
130   interrupted
143   terminated after a clean commit
====  ==================================================================
"""

import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from embedctl import render
from stores.errors import CannotWrite, EmbedctlError, NotHere, Terminated

__all__ = ["Commands", "DefaultList", "end_cleanly_when_terminated", "end_undisturbed"]

INTERRUPTED, TERMINATED = 130, 143
_STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows: the first

_EXTRA_OF = {
    "matplotlib": "brain",
    "mne": "brain",
    "open_clip": "extract",
    "safetensors": "train",
    "scipy": "train",
    "timm": "extract",
    "torch": "all",
    "torchvision": "extract",
}

SECTIONS = {
    "Start here": ("demo", "init", "doctor"),
    "What there is": ("models", "datasets"),
    "The three stages": ("extract", "import", "preprocess", "train"),
    "Answers": ("screen", "results", "compare", "reproduce", "interpret", "report", "predict", "export", "show"),
    "Keeping it": ("verify", "repair", "remove", "merge"),
}


class Commands(TyperGroup):
    """The program: an expected problem costs two lines on stderr and ends in its own exit code."""

    def main(  # type: ignore[override]  # the rest of Typer's arguments are passed on
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run and leave with the exit code; ``--debug`` may stand anywhere."""
        words = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in words
        words = [word for word in words if word != "--debug"] or ["--help"]
        extra.pop("standalone_mode", None)
        sys.exit(self._run(words, prog_name or "embedctl", debug, extra))

    def _run(self, words: list[str], prog_name: str, debug: bool, extra: dict[str, Any]) -> int:
        try:
            code = super().main(words, prog_name=prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()  # a closed pipe must be noticed here, not while the interpreter ends
        except EmbedctlError as known:
            return _problem(known)
        except typer.TyperException as usage:
            return _problem(_usage(usage))
        except ModuleNotFoundError as missing:
            extra_name = _EXTRA_OF.get((missing.name or "").partition(".")[0])
            if extra_name is None or debug:
                return _bug(missing, debug)
            return _problem(NotHere(f"{missing.name} is not installed", f'pip install "embedctl[{extra_name}]"'))
        except OSError as failure:
            known_failure = _from_the_system(failure)
            return _bug(failure, debug) if known_failure is None or debug else _problem(known_failure)
        except Exception as bug:
            return _bug(bug, debug)
        if code == INTERRUPTED:
            render.note("interrupted; the same command goes on from here")
        return code if isinstance(code, int) else 0

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named; a reader who has left is no problem."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # The reader (`| head`) has seen enough. What is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by what they are for."""
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            limit = formatter.width - width - 6
            present = [name for name in names if name in self.commands]
            if present:
                with formatter.section(title):
                    formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in present])


class DefaultList(TyperGroup):
    """A group whose bare name lists what there is: ``models`` is ``models list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``list`` in front where no command is named."""
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def _problem(error: EmbedctlError) -> int:
    render.problem(error)
    return error.exit_code


def _bug(error: BaseException, debug: bool) -> int:
    if debug:
        raise error
    render.bug(error)
    return 1


def _usage(error: typer.TyperException) -> EmbedctlError:
    """Say a mistake in the command line our way: what, then what to do."""
    what, _, guess = " ".join(error.format_message().split()).partition(" Did you mean ")
    what, _, options = what.partition(" (Possible options: ")
    context = getattr(error, "ctx", None)
    if guess:
        hint = f"did you mean {guess}"
    elif options:
        hint = f"did you mean {options.rstrip(')')}?"
    else:
        hint = f"'{context.command_path if context else 'embedctl'} --help' lists what there is"
    return EmbedctlError(what[:1].lower() + what[1:].rstrip("."), hint)


def _from_the_system(failure: OSError) -> EmbedctlError | None:
    where = f"{failure.filename}: " if failure.filename else ""
    what = f"{where}{(failure.strerror or str(failure)).lower()}"
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotWrite(what, "free some space and run the same command again: it goes on from here")
    if failure.errno == errno.EROFS:
        return CannotWrite(what, "name a folder that can be written")
    if failure.errno in (errno.EACCES, errno.EPERM):
        return EmbedctlError(what, "check who may use it")
    if failure.errno in (errno.EIO, errno.ESTALE):
        return CannotWrite(what, "check the disk or the mount, and run the same command again: it goes on from here")
    return None


def end_cleanly_when_terminated() -> None:
    """Let SIGTERM and SIGUSR1 unwind the program: locks are given back, and what is committed stays.

    SIGUSR1 is what SLURM is asked to send before a job's time is over (``--signal=USR1@60``).
    """

    def stop(number: int, frame: FrameType | None) -> None:
        render.note("terminated; the same command goes on from here")
        raise Terminated(TERMINATED)

    for number in _STOPPING:
        signal.signal(number, stop)


def end_undisturbed() -> None:
    """Let nothing stop a program whose command has ended: Python gives handlers back before it takes itself down.

    A signal would then kill what has done all its work, and a scheduler would take it for failed. Nor does Python look
    for garbage any more, which took half a second with PyTorch: what refers to itself is not finalized.
    """
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
