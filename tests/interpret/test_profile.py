"""What is made of several seeds and of shares with signs."""

import numpy as np
import pytest

from pipelines.interpret.profile import _averaged, _half

TIMES = np.arange(5) / 10


@pytest.mark.parametrize(
    ("shares", "half"),
    [([1, 0, 0, 0, 1], 0.0), ([1, -0.6, 0, 0, 0.6], 0.4), ([0, 1, 1, 1, 0], 0.2), ([-1, 0, 0, 0, 0], None)],
)
def test_from_half_on_there_is_always_at_least_half(shares, half):
    assert _half(TIMES, np.array(shares)) == half


def test_the_share_that_is_lost_is_of_the_mean_evidence_of_all_seeds():
    """One seed whose evidence is near zero would have a share without bound."""
    seeds = [[{"kind": "band", "part": "alpha", "lost": lost, "share": 9.9, "top1": 0.5}] for lost in (1.0, 0.2)]
    [found] = _averaged(seeds, 2.0)
    assert found == {
        "kind": "band",
        "part": "alpha",
        "lost": pytest.approx(0.6),
        "share": pytest.approx(0.3),
        "top1": 0.5,
    }
    assert _averaged(seeds, -0.1)[0]["share"] is None
