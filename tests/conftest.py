"""Settings that hold for every test."""

import ctypes
import functools
import gc
import ipaddress
import os
import socket
import sys
from unittest import mock

import pytest
import typer.testing
from hypothesis import settings

# A property says nothing about speed, and a busy machine must not make it fail.
settings.register_profile("embedctl", deadline=None)
settings.load_profile("embedctl")


def pytest_addoption(parser):
    parser.addoption("--size", choices=("small", "large"), default="small", help="of tests/promises")


def pytest_collection_finish():
    """Let the garbage collector look at what tests make, not at libraries: half a million objects that stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def offline():
    """Refuse connections to other computers: the tests need none, and neither do the demo and the control encoders."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _only_here(getattr(socket.socket, name)))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """Flush nothing: it takes a fifth of the time, and a computer that goes on running cannot tell the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_program():
    """Make the program of its functions once, not whenever a test runs a command: it takes longer than many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.testing._get_command))
        yield


@pytest.fixture(autouse=True)
def variables_go_back():
    """Leave the environment as it was: a command tells the processes it starts from where not to import."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def memory_goes_back(request):
    """Give the memory of a large network back before the next one is built: networks are cyclic, and glibc hoards."""
    yield
    if request.node.get_closest_marker("slow") or request.node.get_closest_marker("large"):
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


def _only_here(connect):
    def connect_here(self, address):
        # A datagram socket that "connects" sends nothing: dask asks so for the address of this computer.
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM == socket.SOCK_STREAM:
            host = address[0]
            if host not in ("localhost", "", socket.gethostname()) and not _is_loopback(host):
                raise ConnectionRefusedError(f"the tests are offline, and something asked for {host}")
        return connect(self, address)

    return connect_here


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
