"""R16: whatever is done to a store in whatever order, it holds what a dictionary would hold."""

import errno
import os
import random
from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.damage import DAMAGE
from tests.promises.faults import Writes, _bury
from tests.promises.harness import committed, content, damages, ended, extract, run, shared_memory

pytestmark = pytest.mark.slow

MODELS = st.sampled_from(["pixels", "colour-histogram", "pixels,colour-histogram"])
IMAGES = st.sampled_from(["few", "many"])


class Died(BaseException):
    """Nothing catches it, as nothing catches a kill; what cleans up after it can write no more."""


class Machine(RuleBasedStateMachine):
    """An embedding store beside a dictionary of the rows that were committed."""

    world, truth = None, {}

    def __init__(self) -> None:
        super().__init__()
        self._memory = ExitStack()
        self.here = self._memory.enter_context(shared_memory()) / "here"
        self.here.mkdir()
        self.rows: dict[str, bytes] = {}
        self.is_damaged = False

    @initialize()
    def begin(self) -> None:
        self.write("pixels", "few")

    def look(self) -> None:
        """Compare the store with the dictionary: nothing committed is gone, and nothing is there that is not true."""
        assert damages(self.here) == []
        there = committed(self.here)
        assert self.rows.items() <= there.items() and there.items() <= self.truth.items()
        self.rows = there

    @precondition(lambda self: not self.is_damaged)
    @rule(models=MODELS, images=IMAGES)
    def write(self, models: str, images: str) -> None:
        run(self.here, extract(self.world.inputs, images, models=models))
        self.look()

    @precondition(lambda self: not self.is_damaged)
    @rule(models=MODELS, images=IMAGES, share=st.floats(0, 1), seed=st.integers(0, 9))
    def crash(self, models: str, images: str, share: float, seed: int) -> None:
        at = 1 + int(share * 150)

        def die(number: int, name: str, what: object) -> None:
            if number >= at:
                raise Died

        try:
            with Writes(self.here, die):
                ended(self.here, extract(self.world.inputs, images, models=models))
        except Died:
            pass
        _bury(self.here)
        self.look()

    @precondition(lambda self: not self.is_damaged)
    @rule(models=MODELS, images=IMAGES, share=st.floats(0, 1), kind=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def fail(self, models: str, images: str, share: float, kind: int) -> None:
        at = 1 + int(share * 150)

        def refuse(number: int, name: str, what: object) -> None:
            if number == at:
                raise OSError(kind, os.strerror(kind), str(what))

        with Writes(self.here, refuse):
            code, said = ended(self.here, extract(self.world.inputs, images, models=models))
        assert code in (0, 7), said
        _bury(self.here)
        self.look()

    @precondition(lambda self: not self.is_damaged)
    @rule(model=st.sampled_from(["pixels", "colour-histogram"]))
    def remove(self, model: str) -> None:
        code, said = ended(self.here, ["remove", "embeddings.zarr", model])
        is_there = any(name.startswith(f"{model}#") for name in self.rows)
        assert code == 0 or not is_there, said
        self.rows = {name: row for name, row in self.rows.items() if not name.startswith(f"{model}#")}
        self.look()

    @precondition(lambda self: not self.is_damaged)
    @rule(seed=st.integers(0, 10**6), way=st.sampled_from(sorted(DAMAGE)))
    def damage(self, seed: int, way: str) -> None:
        run(self.here, extract(self.world.inputs, "few"))  # finishes what a crash left: that is no damage
        self.rows = committed(self.here)
        draw = random.Random(seed)
        names = [name for name, data in content(self.here).items() if data and "/.embedctl/images" not in name]
        file = self.here / draw.choice(names)
        DAMAGE[way](file, draw)
        assert damages(self.here), file
        self.is_damaged = True

    @precondition(lambda self: self.is_damaged)
    @rule(images=IMAGES)
    def repair(self, images: str) -> None:
        run(self.here, ["repair", "."])
        self.is_damaged = False
        lost, self.rows = self.rows, {}
        self.look()
        run(self.here, extract(self.world.inputs, "many" if any("others/" in name for name in lost) else images))
        self.rows = lost  # all of them are back
        self.look()

    def teardown(self) -> None:
        self._memory.close()


def test_a_store_holds_what_a_dictionary_would_hold(world, scratch, large):
    """Two hundred steps; 5,000 in the larger size."""
    run(scratch, extract(world.inputs, "many"))
    Machine.world, Machine.truth = world, committed(scratch)
    n_steps = 20
    chosen = settings(max_examples=(5000 if large else 200) // n_steps, stateful_step_count=n_steps, deadline=None,
                      derandomize=True, database=None)  # fmt: skip
    run_state_machine_as_test(Machine, settings=chosen)
