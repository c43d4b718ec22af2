"""Batches are drawn from the rows that are trained on, and random repetitions are averaged as they should be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train.course import gather
from pipelines.train.draws import Draws


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 2**31))
def test_every_image_gets_k_different_repetitions_of_its_own_or_all_it_has(n_repetitions, k, seed):
    shown = torch.repeat_interleave(torch.arange(len(n_repetitions)), torch.tensor(n_repetitions))
    shown = shown[torch.randperm(len(shown), generator=torch.Generator().manual_seed(seed))]
    draws = Draws(shown, torch.arange(len(shown)), k)
    picked, share = draws.of_pass(torch.Generator().manual_seed(seed))
    assert len(draws) == len(picked) == len(n_repetitions)
    for image, n, rows, parts in zip(draws.images.tolist(), n_repetitions, picked, share, strict=True):
        used = rows[parts > 0].tolist()
        assert len(used) == len(set(used)) == min(k, n)
        assert (shown[used] == image).all()
        assert parts[parts > 0].tolist() == pytest.approx([1 / min(k, n)] * min(k, n))


def test_rows_that_are_not_trained_on_are_never_drawn():
    shown = torch.arange(20) // 4
    rows = torch.nonzero((shown != 2) & (shown != 4)).flatten()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        picked, share = Draws(shown, rows, 3).of_pass(generator)
        assert not (set(shown[picked[share > 0]].tolist()) & {2, 4})


def test_repetitions_are_drawn_anew_in_every_pass():
    draws, generator = Draws(torch.arange(80) // 4, torch.arange(80), 2), torch.Generator().manual_seed(0)
    assert not torch.equal(draws.of_pass(generator)[0], draws.of_pass(generator)[0])


def test_without_random_repetitions_every_row_stands_for_itself():
    rows = torch.tensor([1, 3, 4])
    picked, share = Draws(torch.zeros(6, dtype=torch.long), rows, 0).of_pass(torch.Generator())
    assert picked.flatten().tolist() == [1, 3, 4]
    assert (share == 1).all()


def test_a_batch_is_the_weighted_mean_of_what_was_picked():
    rows = torch.randn(9, 3, 5)
    picked, share = torch.tensor([[0, 4, 8], [2, 1, 0]]), torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    out = torch.empty(2, 3, 5)
    gather(rows, picked, share, out)
    assert torch.allclose(out[0], rows[[0, 4, 8]].mean(dim=0), atol=1e-6)
    assert torch.allclose(out[1], rows[[2, 1]].mean(dim=0), atol=1e-6)
