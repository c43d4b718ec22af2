"""A map like that of random weights is noted, however noisy both are; one that is too noisy to tell, too."""

import numpy as np
import pytest

from pipelines.interpret.notes import notes_of
from pipelines.interpret.run import _sanity
from tests.interpret.made_up import profile


def noisy(rng, map_, noise):
    return map_ + noise * rng.standard_normal((60, *map_.shape))


@pytest.mark.parametrize(
    ("shared", "noise", "said"), [(1, 1, "do not trust"), (1, 7, "do not trust"), (0, 7, ""), (1, 40, "too much")]
)
def test_a_map_that_random_weights_give_too_is_not_trusted(shared, noise, said):
    rng = np.random.default_rng(0)
    trained, other = rng.standard_normal((2, 9, 150))
    maps, random = noisy(rng, trained, noise), noisy(rng, trained if shared else other, noise)
    notes = notes_of([vars(profile("hog", 1, 0.1, windows=[], **_sanity(maps, random)))])
    assert [said in note for note in notes] == [True] * bool(said)


def test_random_weights_that_find_regions_are_counted():
    notes = notes_of([vars(profile("hog", s, 0.1, untrained_groups=["V1"] * (s == 2))) for s in (1, 2, 3)])
    assert any("random weights show something in 1 of 3 profiles" in note for note in notes)
    assert any("no onsets" in note for note in notes)
