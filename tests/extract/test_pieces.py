"""A block that is large or takes long is committed in pieces: the bytes are those of a block committed at once."""

import pytest

from pipelines.extract import compute
from pipelines.extract.block import BlockRows
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from tests.photos import write_photographs
from tests.stored_files import files


@pytest.fixture
def request_for(tmp_path):
    """Ten images of one block, the fifth of them bad."""
    write_photographs(tmp_path / "images", 10, sizes=False)
    sorted((tmp_path / "images").rglob("*.jpg"))[4].write_bytes(b"no image")
    return lambda store: ExtractRequest(
        models=("pixels", "colour-histogram"), images=tmp_path / "images", store=tmp_path / store, batch_size=2
    )


@pytest.mark.parametrize("limit", ["MOST_BYTES", "_MOST_SECONDS"])
def test_pieces_write_the_files_of_a_block_committed_at_once(request_for, monkeypatch, limit):
    commits, commit = [], BlockRows.commit
    monkeypatch.setattr(BlockRows, "commit", lambda self, store: commits.append(self.n_bytes) or commit(self, store))
    whole = extract(request_for("whole.zarr"))
    assert len(commits) == 1 and whole.written == 18
    monkeypatch.setattr(compute, limit, -1)
    pieces = extract(request_for("pieces.zarr"))
    assert len(commits) == 6 and max(commits[1:]) < commits[0] / 3
    assert (pieces.written, pieces.n_read, pieces.skipped) == (18, 10, whole.skipped)
    assert files(pieces.store) == files(whole.store)


def test_a_run_that_is_killed_in_a_long_block_goes_on_behind_the_last_piece(request_for, monkeypatch):
    class Killer:
        n = 0

        def start(self, label, total, unit):
            pass

        def advance(self, n, **figures):
            self.n += n
            if self.n == 8:
                raise KeyboardInterrupt

        def say(self, text):
            pass

    monkeypatch.setattr(compute, "_MOST_SECONDS", -1)
    with pytest.raises(KeyboardInterrupt):
        extract(request_for("killed.zarr"), Killer())
    assert EmbeddingStore.open(request_for("killed.zarr").store).entries()[0].n_committed == 5
    assert extract(request_for("killed.zarr")).n_read == 4
    extract(request_for("whole.zarr"))
    assert files(request_for("killed.zarr").store) == files(request_for("whole.zarr").store)
