"""Epochs find their image by how its path ends, and say so when they do not."""

import pytest

from pipelines.train.join import namesakes, resolve
from stores.errors import EmbedctlError

STORE = ["training_images/00001_aardvark/aardvark_01b.jpg", "test_images/00001_ant/ant_09s.jpg", "bear_02s.png"]


def test_the_same_path_joins():
    assert resolve(STORE, STORE).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "name, row",
    [
        ("00001_aardvark/aardvark_01b.jpg", 0),
        ("images/test_images/00001_ant/ant_09s.jpg", 1),
        ("images_meg/aardvark/aardvark_01b.jpg", 0),
        ("bear/bear_02s.png", 2),
    ],
)
def test_paths_that_start_elsewhere_join(name, row):
    assert resolve([name], STORE).tolist() == [row]


def test_the_longest_suffix_decides_between_equal_file_names():
    store = ["low/aardvark/1.jpg", "low/bear/1.jpg", "aardvark/1.jpg"]
    assert resolve(["train/low/aardvark/1.jpg", "train/bear/1.jpg"], store).tolist() == [0, 1]


def test_equal_names_are_ambiguous_and_listed():
    with pytest.raises(EmbedctlError, match=r"cat/1.jpg \(aardvark/1.jpg, bear/1.jpg\)"):
        resolve(["cat/1.jpg"], ["aardvark/1.jpg", "bear/1.jpg"])


@pytest.mark.parametrize("store", [["dog/1.jpg", "dog/2.jpg"], ["1.jpg"]])
def test_an_image_that_is_missing_is_not_joined_to_another_of_its_name(store):
    with pytest.raises(EmbedctlError, match=r"1 image fits one .* cat/1.jpg and dog/1.jpg"):
        resolve(["cat/1.jpg", "dog/1.jpg", "cat/1.jpg"], store)
    assert resolve(["a/dog/1.jpg", "a/dog/1.jpg"], store).tolist() == [0, 0]


def test_equal_names_with_equal_content_are_not_ambiguous():
    content = {"a/1.jpg": "ff", "b/1.jpg": "ff"}
    assert resolve(["c/1.jpg"], list(content), content=content).tolist() == [0]


def test_images_without_a_content_hash_are_like_no_other():
    with pytest.raises(EmbedctlError, match="fits several"):
        resolve(["c/1.jpg"], ["a/1.jpg", "b/1.jpg"], content={"a/1.jpg": "", "b/1.jpg": ""})


def test_a_name_that_two_images_of_different_pixels_share_is_found():
    store = ["full/bear.jpg", "small/bear.jpg", "copy/bear.jpg", "full/ant.jpg", "small/ant.png"]
    content = {
        "full/bear.jpg": "a",
        "small/bear.jpg": "b",
        "copy/bear.jpg": "a",
        "full/ant.jpg": "c",
        "small/ant.png": "d",
    }
    rows = resolve(["x/full/bear.jpg", "x/full/ant.jpg"], store, content=content)
    assert namesakes(rows, store, content) == [("full/bear.jpg", "small/bear.jpg")]
    assert namesakes(rows, store, content, "stem") == [
        ("full/bear.jpg", "small/bear.jpg"),
        ("full/ant.jpg", "small/ant.png"),
    ]
    assert namesakes(rows, store, content | {"small/bear.jpg": "a"}) == []
    assert namesakes(rows, store, content | {"small/bear.jpg": ""}) == []


def test_stems_join_across_extensions_only_when_asked():
    assert resolve(["x/bear_02s.jpg"], STORE, how="stem").tolist() == [2]
    with pytest.raises(EmbedctlError) as problem:
        resolve(["x/bear_02s.jpg"], STORE)
    assert "--join stem" in problem.value.hint


def test_a_name_that_ends_with_another_is_not_that_image():
    with pytest.raises(EmbedctlError):
        resolve(["polar_bear_02s.png"], STORE)


def test_the_first_five_unresolved_are_listed():
    with pytest.raises(EmbedctlError) as problem:
        resolve([f"{i}.jpg" for i in range(8)], STORE)
    assert "8 of 8" in str(problem.value)
    assert str(problem.value).endswith("0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 3 more")


def test_an_unknown_way_of_joining_is_an_error():
    with pytest.raises(EmbedctlError, match="'hash'"):
        resolve([], [], how="hash")
