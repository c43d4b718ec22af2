"""Four writers on one store, round after round: `python -m tests.promises.writers ROUNDS`.

Forks of a process that has run the command before, so that all four are at work together.
"""

import shutil
import sys
from pathlib import Path

from tests.promises import harness
from tests.promises.harness import Inputs, content, damages, differing, extract, put_image
from tests.promises.kills import end, forked

N_WRITERS = 4


def crowd(folder: Path) -> Path:
    """Write as many images as make four blocks, and a store that begins with few: its blocks are the smallest."""
    for n in range(200):
        put_image(folder / "inputs" / "crowd" / f"{n:03d}.png", n)
    begun = folder / "begun"
    begun.mkdir()
    (folder / "inputs" / "first").mkdir()
    for n in range(4):
        put_image(folder / "inputs" / "first" / f"{n:03d}.png", n)
    harness.run(begun, extract(Inputs(folder / "inputs"), "first"))
    return begun


def main(n_rounds: int) -> None:
    """Let four processes write a quarter each, and see that the files are those of one command alone."""
    with harness.shared_memory() as folder:
        begun, words = crowd(folder), extract(Inputs(folder / "inputs"), "crowd")
        alone = shutil.copytree(begun, folder / "alone")
        harness.run(alone, words)
        expected = content(alone)
        for number in range(n_rounds):
            here = shutil.copytree(begun, folder / "here")
            writers = [forked(here, [*words, "--shard", f"{part}/{N_WRITERS}"]) for part in range(N_WRITERS)]
            codes = [end(writer) for writer in writers]
            assert codes == [0] * N_WRITERS, (number, codes)
            assert not damages(here)
            different = differing(content(here), expected)
            assert not different, (number, different)
            shutil.rmtree(here)
    print(n_rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]))
