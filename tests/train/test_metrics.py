"""Retrieval scores agree with counting by hand, with every order of ties tried, and with chance."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.train.metrics import centre_scores, csls, retrieve, sinkhorn

# Few distinct values, so that ties are the rule.
tied_scores = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.integers(-2, 2))


def by_trying_every_order(row, target):
    """Ranks of the target in every order of the gallery that sorts the scores, ties in any order."""
    ranks = []
    for order in permutations(range(len(row))):
        if all(row[a] >= row[b] for a, b in zip(order, order[1:], strict=False)):
            ranks.append(order.index(target) + 1)
    return np.array(ranks)


@given(tied_scores, st.randoms(use_true_random=False))
def test_ties_are_worth_their_mean_over_every_order(scores, random):
    target = [random.randrange(scores.shape[1]) for _ in scores]
    found = retrieve(scores, target)
    ranks = [by_trying_every_order(row, t) for row, t in zip(scores, target, strict=True)]
    for k in (1, 3, 5):
        assert found.top(k) == pytest.approx(np.mean([(r <= k).mean() for r in ranks]), abs=1e-12)
    assert found.mrr == pytest.approx(np.mean([(1 / r).mean() for r in ranks]), abs=1e-12)
    assert found.median_rank == pytest.approx(np.median([r.mean() for r in ranks]), abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_without_ties_the_figures_are_those_of_sorting(n_queries, n_gallery, seed):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n_queries, n_gallery))
    target = rng.integers(0, n_gallery, n_queries)
    ranks = np.array([list(np.argsort(-row)).index(t) + 1 for row, t in zip(scores, target, strict=True)])
    found = retrieve(scores, target)
    assert found.ranks.tolist() == ranks.tolist()
    for k in (1, 3, 5):
        assert found.top(k) == pytest.approx((ranks <= k).mean(), abs=1e-12)
        assert found.hits(k).tolist() == (ranks <= k).astype(float).tolist()
    assert found.mrr == pytest.approx((1 / ranks).mean(), abs=1e-12)
    assert found.median_rank == np.median(ranks)


@given(tied_scores, st.integers(0, 2**32 - 1))
def test_the_figures_do_not_depend_on_how_the_gallery_is_ordered(scores, seed):
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    found, moved = (
        retrieve(scores, np.zeros(len(scores), int)),
        retrieve(scores[:, order], [int(np.argmin(order))] * len(scores)),
    )
    assert found.ranks.tolist() == moved.ranks.tolist()
    assert found.hits(1).tolist() == moved.hits(1).tolist()


@given(st.integers(1, 30), st.integers(1, 30), st.floats(-1e6, 1e6))
def test_a_constant_predictor_scores_exactly_chance(n_queries, n_gallery, value):
    found = retrieve(np.full((n_queries, n_gallery), value), np.arange(n_queries) % n_gallery)
    for k in (1, 3, 5):
        assert found.top(k) == pytest.approx(min(k, n_gallery) / n_gallery, abs=1e-15)
    assert found.median_rank == (n_gallery + 1) / 2


def test_the_same_answer_to_every_query_scores_exactly_chance():
    row = np.random.default_rng(1).standard_normal(40)
    assert retrieve(np.tile(row, (40, 1))).top(1) == pytest.approx(1 / 40, abs=1e-15)


@given(tied_scores)
def test_hits_grow_with_k_and_end_at_one(scores):
    found = retrieve(scores, np.zeros(len(scores), dtype=int))
    hits = [found.hits(k) for k in range(1, scores.shape[1] + 1)]
    assert all((a <= b).all() for a, b in zip(hits, hits[1:], strict=False))
    assert (hits[-1] == 1).all()


@given(tied_scores, st.data())
def test_a_score_that_is_not_a_number_is_an_error_wherever_it_stands(scores, data):
    row, column = (data.draw(st.integers(0, size - 1)) for size in scores.shape)
    scores[row, column] = np.nan
    with pytest.raises(ValueError, match="1 scores are not numbers"):
        retrieve(scores, np.zeros(len(scores), int))


@pytest.mark.parametrize("scores, target", [([], None), ([[1.0]], [1]), ([[1.0], [2.0]], None), ([[1.0]], [0, 0])])
def test_a_matrix_and_targets_that_do_not_fit_are_an_error(scores, target):
    with pytest.raises(ValueError):
        retrieve(scores, target)


def test_csls_is_what_its_formula_says():
    scores = np.random.default_rng(2).standard_normal((12, 15))
    expected = np.empty_like(scores)
    for i, j in np.ndindex(scores.shape):
        row, column = sorted(scores[i])[-10:], sorted(scores[:, j])[-10:]
        expected[i, j] = 2 * scores[i, j] - sum(row) / 10 - sum(column) / 10
    assert np.allclose(csls(scores), expected, atol=1e-12)


def test_csls_finds_what_a_hub_hides():
    scores = np.eye(20) * 0.3
    scores[:, 0] = 0.4  # one image is near to every brain embedding
    scores[0, 0] = 0.7
    assert retrieve(scores).top(1) == 1 / 20
    assert retrieve(csls(scores)).top(1) == 1.0


def test_sinkhorn_shares_every_image_out_equally_and_knows_that_each_is_shown_once():
    scores = np.random.default_rng(4).standard_normal((12, 12)) / 5
    shares = np.exp(sinkhorn(scores))
    assert np.allclose(shares.sum(axis=0), 1) and np.allclose(shares.sum(axis=1), 1, atol=1e-3)
    one = np.exp(scores / 0.05)
    assert np.linalg.matrix_rank(np.log(shares / one) - np.log(shares / one)[:1], tol=1e-6) == 1  # rows times columns
    hub = np.eye(20) * 0.3
    hub[:, 0] = 0.4
    hub[0, 0] = 0.7
    assert retrieve(sinkhorn(hub)).top(1) == 1.0
    assert retrieve(sinkhorn(np.full((20, 20), 0.2))).top(1) == pytest.approx(1 / 20)


def test_concept_centres_are_the_means_of_their_images():
    rng = np.random.default_rng(3)
    images = rng.standard_normal((6, 4))
    brain = rng.standard_normal((2, 4))
    scores, own = centre_scores(brain, images, ["b", "a", "b", "a", "c", "b"], ["b", "c"])
    centre = images[[0, 2, 5]].mean(axis=0)
    assert np.allclose(scores[:, 1], brain @ centre / np.linalg.norm(centre))
    assert own.tolist() == [1, 2]
