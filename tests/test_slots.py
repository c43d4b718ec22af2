"""Repetitions are assigned from events alone, as the public pipelines do or in the order seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import shuffle

from pipelines.preprocess.slots import Presentations, assign

SEED = 20200220
SESSIONS = st.dictionaries(st.integers(1, 4), st.lists(st.integers(1, 6), min_size=1, max_size=40), min_size=1)


def presented(sessions):
    return {n: Presentations(np.arange(len(codes)) * 200, np.array(codes)) for n, codes in sessions.items()}


@settings(max_examples=60)
@given(SESSIONS)
def test_without_a_limit_every_presentation_has_exactly_one_slot_in_the_order_seen(sessions):
    slots = assign(presented(sessions), None, 0)
    assert slots.surplus == 0
    taken = list(zip(slots.session[slots.filled].tolist(), slots.presentation[slots.filled].tolist(), strict=True))
    assert len(taken) == len(set(taken)) == sum(map(len, sessions.values()))
    for code, session, presentation in zip(slots.codes, slots.session, slots.presentation, strict=True):
        here = [(s, p) for s, p in zip(session.tolist(), presentation.tolist(), strict=True) if s >= 0]
        assert here == sorted(here)
        assert all(sessions[s][p] == code for s, p in here)


@settings(max_examples=60)
@given(SESSIONS, st.integers(1, 4))
def test_with_a_limit_no_session_gives_more_and_nothing_is_lost_unseen(sessions, limit):
    slots = assign(presented(sessions), limit, SEED)
    assert int(slots.filled.sum()) + slots.surplus == sum(map(len, sessions.values()))
    for code, session, presentation in zip(slots.codes, slots.session, slots.presentation, strict=True):
        for number, codes in sessions.items():
            mine = presentation[session == number].tolist()
            assert len(mine) == len(set(mine)) == min(limit, codes.count(code))
            assert all(codes[p] == code for p in mine)


@pytest.mark.parametrize(("n", "limit"), [(2, 2), (3, 2), (4, 2), (20, 20), (21, 20)])
def test_the_draw_is_scikit_learns_shuffle(n, limit):
    slots = assign(presented({1: [1] * n}), limit, SEED)
    drawn = shuffle(np.arange(n), random_state=SEED, n_samples=limit)
    merged = shuffle(np.arange(limit), random_state=SEED)
    assert slots.presentation[0].tolist() == drawn[merged].tolist()


def test_four_repetitions_from_two_sessions_come_in_the_published_order():
    slots = assign(presented({1: [1, 1], 3: [1, 1]}), 2, SEED)
    # First [1, 0] of each session, sessions in order, then the permutation [2, 1, 3, 0].
    assert slots.session.tolist() == [[3, 1, 3, 1]]
    assert slots.presentation.tolist() == [[1, 0, 0, 1]]


def test_no_presentations_give_no_images():
    slots = assign({}, None, 0)
    assert len(slots.codes) == 0 and slots.n_repetitions == 0
