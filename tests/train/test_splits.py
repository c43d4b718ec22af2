"""What is held out is disjoint from what is trained on, and depends on names and the seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train.splits import split_images
from stores.errors import EmbedctlError

# Concepts with uneven numbers of images.
collections = st.lists(st.integers(1, 6), min_size=8, max_size=30).map(
    lambda counts: [f"{c:03d}_x/{i}.jpg" for c, n in enumerate(counts) for i in range(n)]
)


def concepts_of(ids):
    return [i.split("/")[0] for i in ids]


@given(collections, st.integers(0, 5), st.sampled_from(["concept", "image"]))
def test_no_image_is_trained_on_and_validated_on(ids, seed, kind):
    split = split_images(ids, concepts_of(ids), kind, share=0.2, at_most=200, seed=seed)
    held = np.concatenate(split.rounds)
    assert len(set(held)) == len(held)
    assert not set(held) & set(split.train)


@given(collections, st.integers(0, 5))
def test_no_concept_is_trained_on_and_validated_on(ids, seed):
    concepts = np.array(concepts_of(ids))
    split = split_images(ids, list(concepts), "concept", share=0.2, at_most=200, seed=seed)
    for rows in split.rounds:
        assert len(set(concepts[rows])) == len(rows)
        assert not set(concepts[rows]) & set(concepts[split.train])


@given(collections, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(ids, seed, random):
    shuffled = random.sample(ids, len(ids))
    a = split_images(ids, concepts_of(ids), "concept", share=0.2, at_most=200, seed=seed)
    b = split_images(shuffled, concepts_of(shuffled), "concept", share=0.2, at_most=200, seed=seed)
    assert {ids[r] for r in a.train} == {shuffled[r] for r in b.train}
    assert [{ids[r] for r in rows} for rows in a.rounds] == [{shuffled[r] for r in rows} for rows in b.rounds]


def test_a_subject_with_images_missing_holds_the_same_concepts_out():
    ids = [f"{c:04d}_x/{i}.jpg" for c in range(400) for i in range(4)]
    some = [i for n, i in enumerate(ids) if n % 7]
    whole = split_images(ids, concepts_of(ids), "concept", share=0.125, at_most=200, seed=3)
    part = split_images(some, concepts_of(some), "concept", share=0.125, at_most=200, seed=3)
    assert set(concepts_of([some[r] for r in np.concatenate(part.rounds)])) == set(
        concepts_of([ids[r] for r in np.concatenate(whole.rounds)])
    )


def test_things_holds_two_hundred_concepts_out_in_ten_rounds_of_two_hundred():
    ids = [f"{c:05d}_x/{i}.jpg" for c in range(1654) for i in range(10)]
    split = split_images(ids, concepts_of(ids), "concept", share=0.125, at_most=200, seed=0)
    assert [len(rows) for rows in split.rounds] == [200] * 10
    assert len(split.train) == 14540


def test_seeds_hold_different_concepts_out():
    ids = [f"{c:05d}_x/0.jpg" for c in range(100)]
    a, b = (split_images(ids, concepts_of(ids), "concept", share=0.1, at_most=200, seed=s) for s in (0, 1))
    assert set(a.rounds[0]) != set(b.rounds[0])


def test_trials_of_one_image_stay_on_one_side():
    ids = ["a/1.jpg", "a/1.jpg", "b/1.jpg", "c/1.jpg", "d/1.jpg", "b/1.jpg"]
    split = split_images(ids, concepts_of(ids), "image", share=0.5, at_most=200, seed=0)
    assert not {ids[r] for r in split.train} & {ids[r] for r in split.rounds[0]}


@pytest.mark.parametrize("concepts", [["a", "a", "a"], ["a", "b", "b"]])
def test_too_few_concepts_are_an_error(concepts):
    with pytest.raises(EmbedctlError, match="too few"):
        split_images(["1", "2", "3"], concepts, "concept", share=0.1, at_most=200, seed=0)


def test_images_without_concepts_cannot_be_split_by_concept():
    with pytest.raises(EmbedctlError) as problem:
        split_images(["1", "2"], ["", ""], "concept", share=0.1, at_most=200, seed=0)
    assert "--split image" in problem.value.hint


def test_an_unknown_split_is_an_error():
    with pytest.raises(EmbedctlError, match="'time'"):
        split_images(["1"], ["a"], "time", share=0.1, at_most=200, seed=0)


def test_single_images_held_out_can_be_dealt_into_rounds_that_mix_the_concepts():
    ids = [f"{c:02d}/{i}.jpg" for c in range(30) for i in range(10)]
    concepts = [i[:2] for i in ids]
    asked = {"share": 0.5, "at_most": 1000, "seed": 0}
    whole = split_images(ids, concepts, "image", **asked)
    dealt = split_images(ids, concepts, "image", **asked, round_of=64)
    assert [len(rows) for rows in dealt.rounds] == [64, 64, 22]
    assert sorted(np.concatenate(dealt.rounds)) == whole.rounds[0].tolist()
    assert np.array_equal(dealt.train, whole.train)
    assert len({concepts[row] for row in dealt.rounds[0]}) > 20


def test_rounds_of_concepts_are_dealt_into_smaller_ones_too():
    ids = [f"{c:03d}/{i}.jpg" for c in range(165) for i in range(3)]
    asked = {"share": 0.99, "at_most": 150, "seed": 0}
    whole, dealt = (split_images(ids, concepts_of(ids), "concept", **asked, round_of=n) for n in (0, 64))
    assert [len(rows) for rows in dealt.rounds] == [64, 64, 22] * 3
    assert [sorted(np.concatenate(dealt.rounds[3 * n : 3 * n + 3])) for n in range(3)] == [
        rows.tolist() for rows in whole.rounds
    ]


def test_who_holds_too_much_out_is_told_to_hold_out_less():
    ids = [f"{c}/0.jpg" for c in range(40)]
    with pytest.raises(EmbedctlError) as caught:
        split_images(ids, concepts_of(ids), "concept", share=0.99, at_most=200, seed=0)
    assert caught.value.hint.startswith("lower held_out")
