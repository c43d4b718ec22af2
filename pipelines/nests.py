"""Pickles of strangers: refused where what they describe, written out, is far larger than what they weigh.

A pickle can name one part as often as it likes. Forty tuples, each made of the one before, twice, weigh 200 bytes; to
hash, print or copy the last one takes for ever. Whoever unpickles a file, however carefully, hashes keys.
"""

import pickletools
import zipfile
from io import BytesIO
from typing import BinaryIO

__all__ = ["MOST_ITEMS", "refuse_nest", "refuse_nests"]

MOST_ITEMS = 10_000_000
"""Items that a pickle may describe: those of a checkpoint of 10,000 tensors are 200,000."""
_PICKLES = 5  # that torch.save wrote one after the other before version 1.6
_FILL = ("APPEND", "APPENDS", "SETITEM", "SETITEMS")


def refuse_nests(file: BinaryIO) -> None:
    """Refuse a file of ``torch.save``, or TorchScript, of which a pickle describes more than `MOST_ITEMS` items.

    Raises
    ------
    ValueError
        If so, or if there is no pickle.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(_PICKLES):
            refuse_nest(file)
        return
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith("data.pkl"):
                with archive.open(member) as opened:
                    refuse_nest(BytesIO(opened.read()))


def refuse_nest(file: BinaryIO) -> None:
    """Refuse the pickle at which ``file`` stands, and go on behind it; raises as `refuse_nests`.

    Examples
    --------
    >>> import pickle
    >>> nest = "x"
    >>> for _ in range(40):
    ...     nest = (nest, nest)
    >>> refuse_nest(BytesIO(pickle.dumps(nest)))
    Traceback (most recent call last):
    ...
    ValueError: a pickle of more than 10,000,000 items
    """
    # How many items each thing on the unpickler's stack, and in its memo, is made of.
    stack: list[list[int]] = []
    marks: list[int] = []
    memo: dict[int, list[int]] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "MARK":
            marks.append(len(stack))
        elif name.endswith("GET"):
            stack.append(memo.get(int(argument or 0), [1]))
        elif name.endswith("PUT") or name == "MEMOIZE":
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        else:
            taken = _take(stack, marks, opcode)
            n_items = 1 + sum(items for (items,) in taken)
            if n_items > MOST_ITEMS:
                raise ValueError(f"a pickle of more than {MOST_ITEMS:,} items")
            if name in _FILL:  # the container stays the one that the memo holds
                taken[0][0] = n_items
                stack.append(taken[0])
            else:
                stack += [[n_items] for _ in opcode.stack_after]


def _take(stack: list[list[int]], marks: list[int], opcode: pickletools.OpcodeInfo) -> list[list[int]]:
    """Take from the stack what an opcode takes from it."""
    before = opcode.stack_before
    if pickletools.markobject in before:
        first = (marks.pop() if marks else 0) - before.index(pickletools.markobject)
    else:
        first = len(stack) - len(before)
    taken = stack[max(first, 0) :]
    del stack[max(first, 0) :]
    return taken
