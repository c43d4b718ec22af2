"""R1 and R14: a command that is killed, or asked to stop, loses nothing, and its next run ends in the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")]


def kill(*words: str) -> dict:
    command = [sys.executable, "-m", "tests.promises.kills", *words]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_killed_commands_resume_to_the_same_bytes(large):
    """Fifty kills of an extraction of two encoders, 13 of each other stage; 200 of each in the larger size."""
    kills = (
        {"extract": 200, "preprocess": 200, "train": 200} if large else {"extract": 50, "preprocess": 13, "train": 13}
    )
    met = kill(*(f"{name}:{n}" for name, n in kills.items()), "--forgetful")
    assert met.pop("forgetful") == {"noticed": True}  # one that computes again what is committed
    assert {name: found["met"] for name, found in met.items()} == kills
    assert sum(found["at work"] for found in met.values()) >= sum(kills.values()) // 4, met


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGUSR1"])
def test_a_command_that_is_asked_to_stop_does_so_and_goes_on_when_it_is_queued_again(signal, large):
    n = 50 if large else 3
    met = kill(f"extract:{n}", f"preprocess:{n}", f"train:{n}", "--signal", signal)
    assert all(found["met"] == n and found["seconds to stop"] < 10 for found in met.values()), met
