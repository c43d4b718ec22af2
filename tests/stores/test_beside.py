"""What is kept beside a run: whole, checked, and gone with the run."""

import numpy as np
import pytest

from stores.beside import read_array_beside, read_beside, write_beside
from stores.errors import DamagedStore, EmbedctlError
from stores.results import read_results, write_run
from tests.summaries import summary_of


@pytest.fixture
def runs(tmp_path):
    put_run(tmp_path)
    return tmp_path


def put_run(folder):
    write_run(folder, "a", config={}, summary=summary_of("a"), arrays={}, checkpoint=b"x", metrics=[])


def put(runs, **arrays):
    return write_beside(runs, "a", "notes", summary={"n": len(arrays)}, arrays=arrays)


def test_it_comes_back_and_is_no_run_of_its_own(runs):
    put(runs, x=np.arange(3))
    assert read_beside(runs, "a", "notes") == {"n": 1}
    assert read_array_beside(runs, "a", "notes", "x").tolist() == [0, 1, 2]
    assert read_results(runs)["run_id"].to_pylist() == ["a"]


def test_where_nothing_was_computed_there_is_none(runs):
    assert read_beside(runs, "a", "notes") is None
    with pytest.raises(EmbedctlError, match="no finished run"):
        put(runs.parent / "nowhere")


def test_writing_again_leaves_nothing_of_before(runs):
    folder = put(runs, x=np.arange(3), y=np.arange(3))
    put(runs, x=np.arange(4))
    assert sorted(file.name for file in folder.iterdir()) == ["receipt.json", "summary.json", "x.npy"]
    assert len(read_array_beside(runs, "a", "notes", "x")) == 4


def test_damage_is_an_error(runs):
    file = put(runs, x=np.arange(3)) / "x.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedStore):
        read_array_beside(runs, "a", "notes", "x")
    file.unlink()
    with pytest.raises(DamagedStore):
        read_array_beside(runs, "a", "notes", "x")


def test_a_run_that_is_trained_anew_loses_it(runs):
    put(runs, x=np.arange(3))
    put_run(runs)
    assert read_beside(runs, "a", "notes") is None
