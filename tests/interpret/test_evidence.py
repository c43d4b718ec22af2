"""The evidence is the log odds of the right image, and contributions add up to it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipelines.interpret.evidence import average_gradient, evidence, retrieval_evidence
from pipelines.train.losses import unit


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_the_evidence_is_the_log_odds_of_the_right_image(seed, n):
    logits = 5 * torch.randn(4, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    own = torch.arange(4) % n
    p = logits.softmax(dim=1)[torch.arange(4), own].tolist()
    for found, share in zip(evidence(logits, own).tolist(), p, strict=True):
        if 1e-12 < share < 1 - 1e-12:
            assert found == pytest.approx(math.log(share) - math.log1p(-share), abs=1e-6)


@pytest.mark.parametrize("integrated", [True, False])
def test_for_a_linear_readout_both_methods_equal_the_closed_form(integrated):
    weights = torch.randn(3, 7, dtype=torch.float64)
    x, change = torch.randn(2, 5, 3, 7, dtype=torch.float64)
    found = average_gradient(lambda e, own: (weights * e).sum((1, 2)), x, change, torch.zeros(5), integrated=integrated)
    assert torch.allclose(found.values, weights.expand(5, 3, 7))
    assert torch.allclose(found.explained, (weights * change).sum((1, 2)))
    assert found.gap < 1e-12


@pytest.fixture
def network():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.GELU(), nn.Linear(16, 8), nn.LayerNorm(8)).eval()
    gallery = unit(torch.randn(10, 8))
    return retrieval_evidence(lambda e: unit(net(e)), gallery, 15.0)


def test_integrated_gradients_are_complete_where_gradient_x_input_is_not(network):
    x = torch.randn(10, 4, 6)
    own = torch.arange(10)
    complete = average_gradient(network, x, x - x.mean(0), own, integrated=True)
    assert complete.gap <= 0.01
    added = (complete.values * (x - x.mean(0))).sum((1, 2))
    assert (added - (network(x, own) - network(x.mean(0).expand_as(x), own))).abs().mean() < 0.02
    assert average_gradient(network, x, x - x.mean(0), own, integrated=False).gap > 0.1


def test_integrated_gradients_equal_a_fine_sum_along_the_path(network):
    x, own = torch.randn(3, 4, 6), torch.arange(3)
    found = average_gradient(network, x, x, own, integrated=True).values
    total = torch.zeros_like(x)
    for step in range(200):
        point = ((step + 0.5) / 200 * x).requires_grad_()
        total += torch.autograd.grad(network(point, own).sum(), point)[0] / 200
    assert torch.allclose(found, total, atol=0.02 * total.abs().max())


def test_more_steps_are_taken_until_contributions_add_up():
    def steep(e, own):
        return torch.sigmoid(200 * (e.sum((1, 2)) - 0.5))

    x = torch.full((1, 1, 1), 1.0)
    found = average_gradient(steep, x, x, torch.tensor([0]), integrated=True)
    assert found.steps > 16 and found.gap <= 0.01
