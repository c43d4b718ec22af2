"""What the tests of the stores share."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Flushing takes most of the time and changes nothing that a test on a running computer could see."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
