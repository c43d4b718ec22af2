"""Means over views and concatenations: arithmetic on stored rows, and never a forward pass more than their parts."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.encoders import registry as cards
from pipelines.encoders.build import Encoder
from pipelines.encoders.combinations import is_combination
from pipelines.encoders.registry import add_cards, registry
from pipelines.extract.divide import divide
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, UnknownName
from stores.names import EmbeddingName
from tests.photos import write_photographs

MEAN = "hog@blur-9+grey"

TABLES = """
[both]
family = "concat"
model = { of = ["hog", "pixels@grey", "resnet18-tv:layer1"] }
dim = 1156

[average]
family = "mean"
model = { of = ["hog", "hog@grey"] }
dim = 324

[circle]
family = "concat"
model = { of = ["hog", "square"] }
dim = 1

[square]
family = "concat"
model = { of = ["circle"] }
dim = 1

[wrong-dim]
family = "concat"
model = { of = ["hog", "pixels"] }
dim = 5

[uneven]
family = "mean"
model = { of = ["hog", "pixels"] }
dim = 324

[nothing]
family = "concat"
dim = 5

[typo]
family = "concat"
model = { of = ["hgo"] }
dim = 5
"""


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "_added", [])
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.toml").write_text(TABLES)
    add_cards(tmp_path / "cards")
    yield
    registry.cache_clear()


@pytest.fixture
def request_(tmp_path):
    write_photographs(tmp_path / "images", 6, first=2)
    return ExtractRequest(
        models=(MEAN,),
        images=tmp_path / "images",
        store=tmp_path / "embeddings.zarr",
        weights="random:7",
        batch_size=6,
    )


def opened(request):
    return EmbeddingStore.open(request.store)


def test_a_mean_over_views_is_the_mean_of_their_stored_rows_whichever_were_there(request_):
    extract(replace(request_, models=("hog@grey",)))
    report = extract(request_)
    assert [(line.name, line.written) for line in report.embeddings] == [("hog@blur-9", 6), (MEAN, 6)]
    store = opened(request_)
    parts = [store[f"hog@{view}"].values.astype(np.float32) for view in ("blur-9", "grey")]
    assert store[MEAN].values.tobytes() == ((parts[0] + parts[1]) / 2).astype(np.float16).tobytes()
    told = store[MEAN].provenance
    assert told["view"] == "blur-9+grey" and told["view_definition"].startswith("mean over blur-SIGMA: ")
    assert [source["name"] for source in told["derived_from"]] == ["hog@blur-9", "hog@grey"]
    assert (told["encoder"], told["weights"]) == ("hog", "none")
    again = extract(request_)
    assert (again.written, again.already, again.to_do) == (0, 6, 0)


def test_a_concatenation_is_its_parts_side_by_side_as_stored(request_):
    report = extract(replace(request_, models=("both",)))
    store = opened(request_)
    parts = [store[name].values for name in ("hog", "pixels@grey", "resnet18-tv:layer1")]
    assert store["both"].values.tobytes() == np.concatenate(parts, 1).astype(np.float16).tobytes()
    assert store["both"].image_ids == store["hog"].image_ids and report.embeddings[-1].dim == 1156
    assert store["both"].provenance["weights"] == "random:7"
    assert store["both"].provenance["registry"]["model"] == {"of": ["hog", "pixels@grey", "resnet18-tv:layer1"]}


def test_a_view_of_a_concatenation_is_that_of_every_part_that_names_none(request_):
    extract(replace(request_, models=("both@blur-9",)))
    assert opened(request_).names == ["both@blur-9", "hog@blur-9", "pixels@grey", "resnet18-tv:layer1@blur-9"]


def test_combinations_of_combinations_are_done_in_order(request_):
    extract(replace(request_, models=("glocal-resnet18@grey+blur-9", "average@lowres-20")))
    store = opened(request_)
    views = [store[f"glocal-resnet18@{view}"].values.astype(np.float32) for view in ("grey", "blur-9")]
    mean = store["glocal-resnet18@grey+blur-9"].values
    assert mean.tobytes() == (sum(views) / 2).astype(np.float16).tobytes()
    averaged = [store[name].values.astype(np.float32) for name in ("hog@lowres-20", "hog@grey")]
    assert store["average@lowres-20"].values.tobytes() == (sum(averaged) / 2).astype(np.float16).tobytes()


def test_parts_that_are_there_cost_no_forward_pass_and_need_no_images(request_, monkeypatch):
    extract(replace(request_, models=("hog@blur-9", "hog@grey")))
    monkeypatch.setattr(Encoder, "__call__", lambda *_: pytest.fail("a forward pass"))
    request_.images.rename(request_.images.with_name("gone"))
    assert extract(request_).written == 6


def test_added_and_bad_images_come_to_the_combination_too(request_):
    extract(request_)
    before = opened(request_)[MEAN]
    rows = dict(zip(before.image_ids, before.values, strict=True))
    write_photographs(request_.images, 2, first=20)
    (request_.images / "torn.png").write_bytes(b"no image")
    report = extract(request_)
    assert list(report.skipped) == ["torn.png"] and report.embeddings[-1].written == 2
    after = opened(request_)[MEAN]
    assert len(after) == 8 and list(after.absent) == ["torn.png"]
    for image_id, row in zip(after.image_ids, after.values, strict=True):
        assert image_id not in rows or row.tobytes() == rows[image_id].tobytes()


def test_a_dry_run_tells_parts_and_combination_and_writes_nothing(request_):
    report = extract(replace(request_, models=("both", MEAN), dry_run=True))
    told = {line.name: (line.to_do, line.dim) for line in report.embeddings}
    assert told["both"] == (6, 1156) and told[MEAN] == (6, 324) and told["hog@blur-9"] == (6, 324)
    assert not request_.store.exists()
    planned = {line.name: line.key for line in report.embeddings}
    done = extract(replace(request_, models=("both", MEAN)))
    assert {line.name: line.key for line in done.embeddings} == planned


def test_the_key_changes_with_the_rows_it_is_made_of(request_):
    first = extract(request_).embeddings[-1].key
    other = replace(request_, store=request_.store.with_name("other.zarr"))
    assert extract(replace(other, batch_size=3)).embeddings[-1].key != first
    assert extract(replace(request_, dtype="float32")).embeddings[-1].key != first


def test_tokens_of_a_mean_keep_their_shape(request_):
    extract(replace(request_, models=("resnet18-tv:layer4.tokens@grey+blur-9",)))
    assert opened(request_)["resnet18-tv:layer4.tokens@grey+blur-9"].provenance["token_shape"] == [49, 512]


@pytest.mark.slow
def test_a_file_of_weights_is_that_of_every_view(request_, tmp_path):
    import torch

    from pipelines.encoders.torchvision_import import torchvision

    torch.manual_seed(7)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "mine.pth")
    name = "resnet18-tv@grey+blur-9"
    extract(replace(request_, models=(name,), weights=str(tmp_path / "mine.pth")))
    entry = opened(request_).resolve(name)
    assert entry.provenance["weights"].startswith("sha256:") and not entry.published
    with pytest.raises(EmbedctlError, match="cannot be the weights of 'hog' and of 'pixels'"):
        extract(replace(request_, models=("both",), weights=str(tmp_path / "mine.pth")))


@pytest.mark.parametrize(
    ("model", "what", "kind"),
    [
        ("circle", "'circle' is part of itself", EmbedctlError),
        ("wrong-dim", "the parts of 'wrong-dim' give 1092 numbers, and its table says 5", EmbedctlError),
        ("uneven", "'uneven' is a mean of rows of 324, 768 numbers", EmbedctlError),
        ("nothing", "does not say of what it is made", EmbedctlError),
        ("typo", "'typo' cannot be made of that: no encoder called 'hgo'", UnknownName),
        ("both:layer1", "it has no layers of its own", EmbedctlError),
        ("hog@grey+grey", "has the view 'grey' twice", EmbedctlError),
        ("hog@grey+sepia", "no view called 'sepia'", UnknownName),
        ("hog@grey+", "no view called ''", UnknownName),
    ],
)
def test_what_cannot_be_combined_is_refused(request_, model, what, kind):
    with pytest.raises(kind, match=what) as problem:
        extract(replace(request_, models=(model,)))
    assert problem.value.exit_code == 2 and problem.value.hint


def test_what_is_wrong_with_a_table_is_said_before_an_image_is_read(request_, monkeypatch):
    monkeypatch.setattr("pipelines.extract.loading.decode", lambda *_: pytest.fail("decoded an image"))
    for model in ("circle", "nothing", "typo"):
        with pytest.raises(EmbedctlError):
            extract(replace(request_, models=(model,)))


def test_only_what_is_asked_for_is_written_again(request_):
    extract(request_)
    report = extract(replace(request_, overwrite=True))
    assert [(line.name, line.written) for line in report.embeddings] == [(MEAN, 6)]
    passes, derived = divide(replace(request_, refresh=True))
    assert [part.models for part in passes] == [("hog@blur-9", "hog@grey")] and list(derived) == [
        EmbeddingName.parse(MEAN)
    ]
    assert all(map(is_combination, derived))
