"""The workspace that the promises are tried on, made once by the commands themselves."""

from types import SimpleNamespace

import pytest

from tests.promises.harness import Inputs, make_world, shared_memory


@pytest.fixture(scope="session")
def world():
    """Return ``inputs``, ``whole``, the workspace made of them, and the name of a ``run`` in it."""
    with shared_memory() as folder:
        make_world(folder)
        whole = folder / "whole"
        run = min(path.parent.name for path in (whole / "runs").glob("*/receipt.json"))
        yield SimpleNamespace(folder=folder, inputs=Inputs(folder / "inputs"), whole=whole, run=run)


@pytest.fixture
def scratch():
    """Return a folder for thousands of small files."""
    with shared_memory() as folder:
        yield folder


@pytest.fixture(scope="session")
def large(request) -> bool:
    """Return whether the promises are tried in the larger size."""
    return request.config.getoption("--size") == "large"
