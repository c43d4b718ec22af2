"""Follow a pickle without obeying it: what it describes, and where its bytes lie.

THINGS-EEG2 and its relatives distribute pickled dictionaries, and unpickling runs whatever the
file asks for. This is a stack machine for the few opcodes that a dictionary of arrays, lists,
text and numbers needs (protocols 2 to 5). It calls nothing: a global is a pair of words, an array
is a description, and the bytes of an array are an offset into the file, never read.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ArrayRecord", "Bytes", "ForeignGlobals", "MalformedPickle", "ShortPickle", "walk"]

_NUMPY_CORE = ("numpy.core", "numpy._core")  # numpy 2 renamed it; files of both ages are around
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype")} | {
    (f"{core}.{module}", name)
    for core in _NUMPY_CORE
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}


class MalformedPickle(ValueError):
    """Not a pickle, or one that uses what a dictionary of arrays has no need for."""


class ShortPickle(ValueError):
    """The file ends before the pickle does; ``needed`` is the size known to be needed."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class ForeignGlobals(ValueError):
    """The pickle names functions or classes that a dictionary of arrays has no need for."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names[:10]) + (", ..." if len(names) > 10 else ""))
        self.names = names


@dataclass(frozen=True, slots=True)
class Bytes:
    """A run of bytes in the file."""

    offset: int
    length: int


@dataclass(slots=True)
class DtypeRecord:
    """A described ``numpy.dtype``: its code (``f8``) and byte order."""

    code: str
    order: str = "="


@dataclass(slots=True)
class ArrayRecord:
    """A described array: shape, element type, order, and its bytes (or a list, for objects)."""

    shape: tuple[int, ...] = ()
    dtype: DtypeRecord | None = None
    fortran: bool = False
    content: Any = None


@dataclass(slots=True)
class ScalarRecord:
    """A described NumPy scalar."""

    dtype: DtypeRecord
    content: Bytes


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str


class _Foreign:
    """What a refused global would have made."""


@dataclass
class _Machine:
    data: Any  # mmap or bytes: anything with a length and slices
    position: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    def read(self, n: int) -> bytes:
        end = self.position + n
        if end > len(self.data):
            raise ShortPickle(end)
        chunk = bytes(self.data[self.position : end])
        self.position = end
        return chunk

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 1000)
        if end < 0:
            raise MalformedPickle("a name without an end")
        text = self.read(end + 1 - self.position)[:-1]
        return text.decode("utf-8", "replace")

    def skip_bytes(self, n: int) -> None:
        self.stack.append(Bytes(self.position, n))
        self.position += n
        if self.position > len(self.data):
            raise ShortPickle(self.position)

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def take(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise IndexError
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items

    def push_global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):  # to hash or print a nest of tuples takes for ever
            raise MalformedPickle("a name that is no text")
        if (module, name) not in _ALLOWED:
            # Names come from a stranger: escaped and cut, so that an error stays one harmless line.
            self.foreign.append(ascii(f"{module[:80]}.{name[:80]}").strip("'")[:80])
            self.stack.append(_Foreign())
        else:
            self.stack.append(_Global(module, name))

    def reduce(self) -> None:
        function, arguments = self.take(2)
        self.stack.append(_describe(function, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, DtypeRecord):
            if not isinstance(state, tuple) or len(state) != 8 or state[3] is not None or state[4] is not None:
                raise MalformedPickle("an array of records")
            if not isinstance(state[1], str):
                raise MalformedPickle("an array whose byte order is no text")
            target.order = state[1]
        elif isinstance(target, ArrayRecord):
            if not isinstance(state, tuple):
                raise MalformedPickle("an array that is described by something else than a tuple")
            _, target.shape, target.dtype, target.fortran, target.content = state
        elif not isinstance(target, _Foreign):
            raise MalformedPickle("state for something that is not an array")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, _Foreign):
            return
        if not isinstance(target, dict) or not all(isinstance(key, str | int) for key in items[::2]):
            raise MalformedPickle("a dictionary whose keys are not text")
        target.update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | _Foreign):
            raise MalformedPickle("items for something that is not a list")
        if isinstance(target, list):
            target.extend(items)

    def memoize(self, key: int) -> None:
        self.memo[key] = self.stack[-1]


def _describe(function: Any, arguments: Any) -> Any:
    """Return the description of what ``function(*arguments)`` would have made."""
    if isinstance(function, _Foreign):
        return _Foreign()
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise MalformedPickle("a call of something that is not a function")
    match function.name, arguments:
        case "dtype", (str(code), *_):
            return DtypeRecord(code)
        case "_reconstruct", (_Global(name="ndarray"), *_):
            return ArrayRecord()
        case "_frombuffer", (Bytes() as content, DtypeRecord() as dtype, tuple(shape), str(order)):
            return ArrayRecord(shape, dtype, order == "F", content)
        case "scalar", (DtypeRecord() as dtype, Bytes() as content):
            return ScalarRecord(dtype, content)
    raise MalformedPickle(f"an unexpected call of {function.module}.{function.name}")


def _two_names(m: _Machine) -> None:
    m.push_global(*m.take(2))


def _long(m: _Machine) -> None:
    m.stack.append(int.from_bytes(m.read(m.number("<B")), "little", signed=True))


def _text(m: _Machine, layout: str) -> None:
    m.stack.append(m.read(m.number(layout)).decode("utf-8", "surrogatepass"))


def _made_of(m: _Machine, items: list[Any]) -> None:
    m.stack.append(_Foreign() if any(isinstance(i, _Foreign) for i in items[:1]) else _describe(items[0], ()))


def _instance(m: _Machine) -> None:
    m.since_mark()
    m.push_global(m.line(), m.line())


def _mark(m: _Machine) -> None:
    m.marks.append(len(m.stack))


_OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x95": lambda m: m.number("<Q"),  # FRAME
    b"(": _mark,
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"K": lambda m: m.stack.append(m.number("<B")),
    b"M": lambda m: m.stack.append(m.number("<H")),
    b"J": lambda m: m.stack.append(m.number("<i")),
    b"\x8a": _long,
    b"G": lambda m: m.stack.append(m.number(">d")),
    b"\x8c": lambda m: _text(m, "<B"),
    b"X": lambda m: _text(m, "<I"),
    b"\x8d": lambda m: _text(m, "<Q"),
    b"C": lambda m: m.skip_bytes(m.number("<B")),
    b"B": lambda m: m.skip_bytes(m.number("<I")),
    b"\x8e": lambda m: m.skip_bytes(m.number("<Q")),
    b"\x96": lambda m: m.skip_bytes(m.number("<Q")),  # BYTEARRAY8: protocol 5 writes arrays so
    b"}": lambda m: m.stack.append({}),
    b"]": lambda m: m.stack.append([]),
    b")": lambda m: m.stack.append(()),
    b"\x85": lambda m: m.stack.append(tuple(m.take(1))),
    b"\x86": lambda m: m.stack.append(tuple(m.take(2))),
    b"\x87": lambda m: m.stack.append(tuple(m.take(3))),
    b"t": lambda m: m.stack.append(tuple(m.since_mark())),
    b"s": lambda m: m.set_items(m.take(2)),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"a": lambda m: m.extend(m.take(1)),
    b"e": lambda m: m.extend(m.since_mark()),
    b"q": lambda m: m.memoize(m.number("<B")),
    b"r": lambda m: m.memoize(m.number("<I")),
    b"\x94": lambda m: m.memoize(len(m.memo)),
    b"h": lambda m: m.stack.append(m.memo[m.number("<B")]),
    b"j": lambda m: m.stack.append(m.memo[m.number("<I")]),
    b"c": lambda m: m.push_global(m.line(), m.line()),
    b"\x93": _two_names,
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
    # The rest only occurs in files that are refused; followed so that every global can be listed.
    b"\x81": lambda m: _made_of(m, m.take(2)),
    b"\x92": lambda m: _made_of(m, m.take(3)),
    b"o": lambda m: _made_of(m, m.since_mark()),
    b"i": _instance,
    b"0": lambda m: m.stack.pop(),
}


def walk(data: Any, start: int = 0) -> Any:
    r"""Return what the pickle at ``start`` describes, calling nothing and reading no array.

    Parameters
    ----------
    data : bytes or mmap.mmap
        The whole file.
    start : int
        Where the pickle begins.

    Returns
    -------
    object
        Plain lists, tuples, dictionaries, text and numbers; arrays and NumPy scalars as records.

    Raises
    ------
    ForeignGlobals
        If it names anything but NumPy's own array functions: all of the names.
    ShortPickle
        If the file ends first.
    MalformedPickle
        If it is not a pickle of protocol 2 to 5, or needs more than these opcodes.

    Examples
    --------
    >>> import pickle
    >>> walk(pickle.dumps({"sfreq": 1000, "ch_names": ["Oz", "stim"]}, protocol=4))
    {'sfreq': 1000, 'ch_names': ['Oz', 'stim']}
    >>> walk(b"cposix\nsystem\n.")
    Traceback (most recent call last):
    pipelines.preprocess.pickle_walk.MalformedPickle: not a pickle of protocol 2 to 5
    """
    machine = _Machine(data, start)
    if machine.read(1) != b"\x80" or machine.number("<B") not in (2, 3, 4, 5):
        raise MalformedPickle("not a pickle of protocol 2 to 5")
    try:
        while (opcode := machine.read(1)) != b".":
            _OPCODES[opcode](machine)
        result = machine.stack.pop()
    except ShortPickle:
        if machine.foreign:
            raise ForeignGlobals(machine.foreign) from None
        raise
    except (KeyError, IndexError, TypeError, ValueError, struct.error) as problem:
        if machine.foreign:
            raise ForeignGlobals(machine.foreign) from None
        if isinstance(problem, MalformedPickle):
            raise
        raise MalformedPickle(f"unreadable at byte {machine.position}") from None
    if machine.foreign:
        raise ForeignGlobals(machine.foreign)
    return result
