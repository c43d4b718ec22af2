"""Other stored images of a concept: found by their paths, never one that a query shows."""

import numpy as np
import pytest

from pipelines.train.several import find_target
from pipelines.train.targets import Targets
from stores.embeddings import EmbeddingStore
from stores.images import ImageRecord
from tests.train.conftest import write_embedding

SHOWN = ["test_images/00001_ant/ant_01s.jpg", "test_images/00002_bee/bee_01s.jpg"]
OTHERS = ["things/ant/ant_02b.jpg", "things/bee/bee_02b.jpg", "things/bee/bee_03s.jpg"]
COPIES = ["things/ant/ant_01s.jpg", "things/bee/bee_09s.jpg"]  # of one shown: by name, and by content
NEITHER = ["things/cat/cat_02b.jpg"]
IDS = SHOWN + OTHERS + COPIES + NEITHER


@pytest.fixture
def targets(tmp_path):
    def with_rows(*lacking):
        store = EmbeddingStore.open(tmp_path / "embeddings.zarr", create=True)
        content = {"things/bee/bee_09s.jpg": SHOWN[1]}
        store.add_images([ImageRecord(i, content.get(i, i), 1, 1, 8, 8, "RGB") for i in IDS])
        there = np.array([row for row, name in enumerate(IDS) if name not in lacking])
        write_embedding(store, "hog", np.arange(len(IDS) * 2.0).reshape(-1, 2), there)
        return Targets(store, "suffix"), find_target("hog", store.resolve)

    return with_rows


def test_centres_are_of_the_other_images_of_each_concept(targets):
    known, hog = targets()
    vectors, concepts = known.others(hog, SHOWN, ["ant", "bee"], [0, 1])
    assert vectors[:, 0].tolist() == [2.0 * IDS.index(name) for name in OTHERS] and concepts == ["ant", "bee", "bee"]


def test_an_image_of_the_gallery_that_no_query_shows_is_another(targets):
    known, hog = targets()
    assert known.others(hog, SHOWN, ["ant", "bee"], [0])[1].count("bee") == 4  # with the copy


@pytest.mark.parametrize(("lacking", "concepts"), [(OTHERS[:1], ["ant", "bee"]), ([], ["", "bee"])])
def test_without_one_of_every_concept_there_are_no_centres(targets, lacking, concepts):
    known, hog = targets(*lacking)
    assert known.others(hog, SHOWN, concepts, [0, 1]) == (None, [])
