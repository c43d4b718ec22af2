"""What an extraction decides before it computes anything."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.encoders.key import embedding_key, versions_that_matter
from pipelines.encoders.registry import find
from pipelines.extract.changes import Changes, find_changes
from pipelines.extract.plan import batches, plan_blocks, rows_to_do
from pipelines.extract.request import ExtractRequest
from pipelines.extract.stamps import Stamp
from pipelines.extract.targets import DEFAULT_BATCH_SIZE, NOT_FLOAT16, choose_targets, resolve_names
from stores.embedding import Entry
from stores.errors import EmbedctlError, StoreMismatch, UnknownName
from stores.images import ImageRecord
from stores.names import EmbeddingName

masks = st.dictionaries(
    st.sampled_from("abc"), st.sets(st.integers(0, 299)).map(lambda r: np.isin(range(300), list(r)))
)


@given(masks, st.sampled_from([64, 128]), st.integers(1, 70))
def test_every_row_to_do_is_in_exactly_one_batch_at_the_place_its_index_gives(to_do, block_rows, batch_size):
    seen = {group: [] for group in to_do}
    for task in plan_blocks(to_do, block_rows):
        for batch in batches(task, block_rows, batch_size):
            within = batch.rows - task.block * block_rows
            assert len(set(within // batch_size)) == 1
            assert np.array_equal(within % batch_size, batch.places)
            for group in to_do:
                lacking = np.intersect1d(batch.rows, task.rows.get(group, []))
                assert (group in batch.groups) == bool(len(lacking))
                seen[group] += lacking.astype(int).tolist()
    assert seen == {group: np.flatnonzero(mask).tolist() for group, mask in to_do.items()}


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1), st.integers(0, 5))
def test_a_row_is_to_do_when_its_image_is_here_and_it_is_neither_committed_nor_absent_or_the_image_changed(rows, new):
    here, committed, absent, again = map(np.array, zip(*rows, strict=True))
    more = np.concatenate([here, np.ones(new, bool)])
    to_do = rows_to_do(more, committed, np.flatnonzero(absent), np.flatnonzero(again))
    assert to_do.tolist() == (here & (again | ~(committed | absent))).tolist() + [True] * new


def entry_of(request: ExtractRequest, batch_size: int, n_committed: int = 10, **provenance) -> Entry:
    """Return the entry that ``request`` would have left in a store."""
    name = EmbeddingName.parse(request.models[0])
    spec, weights = find(name.encoder), "none" if request.models[0] in ("pixels", "hog") else request.weights
    versions = versions_that_matter(spec, weights)
    key, _ = embedding_key(spec, name, weights, request.exact, batch_size, request.dtype, versions)
    facts = {"weights": weights, "batch_size": batch_size, **provenance}
    return Entry(name, key, spec.dim, request.dtype, name.group(key), facts, n_committed, 0)


def one_target(request: ExtractRequest, *entries: Entry):
    return choose_targets(request, entries)[0]


PIXELS = ExtractRequest(models=("pixels",))


def test_a_recorded_batch_size_is_adopted_with_its_key():
    stored = entry_of(PIXELS, batch_size=7)
    target = one_target(PIXELS, stored)
    assert (target.batch_size, target.key, target.entry) == (7, stored.key, stored)
    assert one_target(PIXELS).batch_size == DEFAULT_BATCH_SIZE and one_target(PIXELS).entry is None


def test_another_batch_size_than_the_recorded_one_is_refused_with_the_way_out():
    with pytest.raises(StoreMismatch, match="batch size 7, not 8") as problem:
        one_target(ExtractRequest(models=("pixels",), batch_size=8), entry_of(PIXELS, batch_size=7))
    assert problem.value.exit_code == 2 and "--batch-size" in problem.value.hint
    again = one_target(ExtractRequest(models=("pixels",), batch_size=8, overwrite=True), entry_of(PIXELS, batch_size=7))
    assert again.batch_size == 8 and len(again.stored) == 1


def test_embeddings_that_are_new_take_the_batch_size_the_others_have_so_that_one_pass_is_enough():
    both = ExtractRequest(models=("pixels", "hog"))
    assert [t.batch_size for t in choose_targets(both, [entry_of(PIXELS, batch_size=7)])] == [7, 7]


def test_of_two_stored_batch_sizes_the_fuller_is_adopted():
    stored = [entry_of(PIXELS, 7, n_committed=10), entry_of(PIXELS, 9, n_committed=20)]
    assert one_target(PIXELS, *stored).batch_size == 9


@pytest.mark.parametrize(
    "other",
    [
        ExtractRequest(models=("resnet18-tv",), weights="random:8"),
        ExtractRequest(models=("resnet18-tv",), weights="random:7", dtype="float32"),
        ExtractRequest(models=("resnet18-tv",), weights="random:7", exact=True),
    ],
)
def test_another_recipe_lends_no_batch_size(other):
    mine = ExtractRequest(models=("resnet18-tv",), weights="random:7")
    assert one_target(mine, entry_of(mine, batch_size=7)).batch_size == 7
    assert one_target(mine, entry_of(other, batch_size=7)).batch_size == DEFAULT_BATCH_SIZE


def test_an_embedding_that_float16_once_could_not_hold_stays_float32():
    wide = ExtractRequest(models=("pixels",), dtype="float32")
    target = one_target(PIXELS, entry_of(wide, 32, note=NOT_FLOAT16))
    assert (target.dtype, target.note) == ("float32", NOT_FLOAT16)
    assert one_target(PIXELS, entry_of(wide, 32)).dtype == "float16"


def test_layers_are_put_on_every_model_that_names_none():
    request = ExtractRequest(models=("resnet18-tv", "resnet50-tv:layer1"), layers=("layer2.gap", "layer3"))
    assert [str(name) for name in resolve_names(request)] == [
        "resnet18-tv:layer2.gap",
        "resnet18-tv:layer3",
        "resnet50-tv:layer1",
    ]


def test_a_layer_may_be_given_by_its_depth():
    request = ExtractRequest(models=("resnet18-tv",), layers=("depth:0.25", "0.5"))
    assert [str(name) for name in resolve_names(request)] == ["resnet18-tv:layer1", "resnet18-tv:layer2"]


def test_views_are_put_on_every_model_that_names_none():
    request = ExtractRequest(models=("pixels", "hog@noise-10"), views=("blur-9", "grey"))
    assert [str(name) for name in resolve_names(request)] == ["pixels@blur-9", "pixels@grey", "hog@noise-10"]


def test_a_view_is_in_the_key_and_noise_brings_the_library_that_draws_it():
    plain, blurred, noisy = choose_targets(ExtractRequest(models=("pixels", "pixels@blur-9", "pixels@noise-10")), [])
    assert len({plain.key, blurred.key, noisy.key}) == 3
    assert (blurred.recipe["view"], noisy.recipe["view"]) == ("blur-9", "noise-10")
    assert set(noisy.recipe["versions"]) - set(plain.recipe["versions"]) == {"numpy"}


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"models": ()}, EmbedctlError, "no model"),
        ({"models": ("resnet81-tv",)}, UnknownName, "resnet81-tv"),
        ({"models": ("pixels@blur-0",)}, EmbedctlError, "blur-0"),
        ({"models": ("pixels",), "views": ("gray",)}, UnknownName, "gray"),
        ({"models": ("pixels",), "dtype": "bfloat16"}, EmbedctlError, "bfloat16"),
        ({"models": ("pixels",), "batch_size": 0}, EmbedctlError, "0"),
        ({"models": ("resnet18-tv",), "weights": "random:x"}, EmbedctlError, "random:x"),
        ({"models": ("pixels",), "weights": "random:x"}, EmbedctlError, "random:x"),
    ],
)
def test_what_cannot_be_asked_is_an_expected_problem_with_a_way_out(asked, error, says):
    with pytest.raises(error, match=says) as problem:
        choose_targets(ExtractRequest(**asked), [])
    assert problem.value.hint and problem.value.exit_code == 2


class Source:
    """Images in memory, counting how often one is read."""

    def __init__(self, **contents: tuple[bytes, int]) -> None:
        self.contents = {f"{name}.jpg": data for name, (data, _) in contents.items()}
        self.stamps = {f"{name}.jpg": Stamp(len(data), time) for name, (data, time) in contents.items()}
        self.n_read = 0

    def read(self, image_id: str) -> bytes:
        self.n_read += 1
        return self.contents[image_id]


def record(name: str, data: bytes, time: int) -> ImageRecord:
    import hashlib

    return ImageRecord(f"{name}.jpg", hashlib.sha256(data).hexdigest(), len(data), time, 4, 4, "RGB")


def test_images_are_new_unchanged_touched_or_changed_and_the_unchanged_are_not_opened():
    source = Source(new=(b"n", 1), same=(b"s", 1), touched=(b"t", 2), changed=(b"c2", 2))
    known = [record("same", b"s", 1), record("touched", b"t", 1), record("changed", b"c1", 1), record("gone", b"g", 1)]
    found = find_changes(source, {r.id: r for r in known})
    assert found.new == ["new.jpg"]
    assert found.touched == [record("touched", b"t", 2)]
    assert found.changed == [record("changed", b"c2", 2)]
    assert source.n_read == 2


def test_content_that_changed_under_the_old_size_and_time_is_found_when_all_are_hashed():
    source = Source(a=(b"2", 1))
    known = {"a.jpg": record("a", b"1", 1)}
    assert not find_changes(source, known).changed
    assert find_changes(source, known, hash_all=True).changed == [record("a", b"2", 1)]


def test_an_image_that_was_never_read_cannot_have_changed():
    never_read = ImageRecord("a.jpg", "", 1, 1, 0, 0, "")
    source = Source(a=(b"22", 5))
    assert find_changes(source, {"a.jpg": never_read}, hash_all=True) == find_changes(source, {"a.jpg": never_read})
    assert source.n_read == 0


def test_hashes_already_known_are_not_computed_again():
    source, hashes = Source(a=(b"2", 2)), {}
    known = {"a.jpg": record("a", b"1", 1)}
    assert find_changes(source, known, hashes=hashes) == find_changes(source, known, hashes=hashes)
    assert source.n_read == 1


def test_hashing_everything_waits_for_a_few_images_at_a_time_however_many_there_are(monkeypatch):
    source, waiting = Source(**{f"n{n}": (b"same", 1) for n in range(200)}), []
    submit, begun = ThreadPoolExecutor.submit, iter(range(1000))

    def counted(self, work, image_id):
        waiting.append(next(begun) - source.n_read)
        return submit(self, lambda: (sleep(0.0005), work(image_id))[1])

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    known = {record.id: record for record in (record(f"n{n}", b"same", 1) for n in range(200))}
    assert find_changes(source, known, hash_all=True) == Changes()
    assert len(waiting) == 200 and max(waiting) < 20


def test_planning_imports_no_torch():
    code = "import sys, pipelines.extract.extract; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
