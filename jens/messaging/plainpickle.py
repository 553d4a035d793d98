"""Reads pickles as data: dicts, lists, strings and numbers. Runs no code that a pickle names.

The standard library's Unpickler can be kept from importing. But it still hashes endlessly nested tuples, and allocates
any size that a pickle claims. So this module follows the opcodes itself, as ``pickletools`` lists them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Sequence
from typing import Any, Callable, Final


class _Other:
    """The type of OTHER."""

    def __str__(self) -> str:
        return "what is no text"


#: Stands for plain values of other types: tuples, sets and bytes.
OTHER: Final = _Other()

#: More than a message of 1 MiB can need; each takes some 80 bytes of memory.
_MOST_MEMOS = 2**19

_VALUES = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
    ]
)


class NotPlainError(ValueError):
    """A pickle that is damaged, or needs more than plain data. The text quotes only the name of an opcode."""

    def __init__(self, reason: str = "it is damaged") -> None:
        super().__init__(reason)


def loads(data: bytes) -> Any:
    """The value in a pickle of any protocol, with OTHER in the place of tuples, sets and bytes.

    A key of a dict that is no string becomes OTHER, too. Raises NotPlainError.
    """
    machine = _Machine()
    try:
        for opcode, argument, _position in pickletools.genops(data):
            if opcode.name in _VALUES:
                machine.stack.append(argument)
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](machine, argument)
            else:
                raise NotPlainError(f"{opcode.name} is not for plain data")
        return machine.stack.pop()
    except NotPlainError:
        raise
    except (IndexError, KeyError, OverflowError, ValueError) as error:
        raise NotPlainError from error


class _Machine:
    """The stack machine that runs a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def top(self, kind: type) -> Any:
        """The object on top of the stack. Raises NotPlainError when it is of another kind."""
        if not isinstance(self.stack[-1], kind):
            raise NotPlainError
        return self.stack[-1]

    def take(self, count: int) -> list[Any]:
        """Take a number of objects off the stack. Raises NotPlainError when there are fewer."""
        if count > len(self.stack):
            raise NotPlainError
        start = len(self.stack) - count
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack."""
        return self.take(len(self.stack) - self.marks.pop())


_Action = Callable[[_Machine, Any], object]


def _fill(target: dict[Any, Any], items: Sequence[Any]) -> None:
    target.update((key if isinstance(key, str) else OTHER, value) for key, value in zip(items[::2], items[1::2]))


def _set_items(machine: _Machine, items: Sequence[Any]) -> None:
    _fill(machine.top(dict), items)


def _make_dict(machine: _Machine, _argument: object) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    _set_items(machine, items)


def _append(machine: _Machine, items: Sequence[Any]) -> None:
    machine.top(list).extend(items)


def _add(machine: _Machine, _items: Sequence[Any]) -> None:
    machine.top(_Other)


def _push(make: Callable[[], Any]) -> _Action:
    return lambda machine, _argument: machine.stack.append(make())


def _other_of(count: int) -> _Action:
    def act(machine: _Machine, _argument: object) -> None:
        machine.take(count)
        machine.stack.append(OTHER)

    return act


def _other_since_mark(machine: _Machine, _argument: object) -> None:
    machine.since_mark()
    machine.stack.append(OTHER)


def _remember(machine: _Machine, key: int) -> None:
    if len(machine.memo) == _MOST_MEMOS:
        raise NotPlainError("it is too complicated")
    machine.memo[key] = machine.stack[-1]


_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _machine, _argument: None),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push(lambda: OTHER)),
    **dict.fromkeys(("EMPTY_TUPLE", "EMPTY_SET"), _push(lambda: OTHER)),
    "EMPTY_LIST": _push(list),
    "EMPTY_DICT": _push(dict),
    "LIST": lambda machine, _argument: machine.stack.append(machine.since_mark()),
    "DICT": _make_dict,
    **dict.fromkeys(("TUPLE", "FROZENSET"), _other_since_mark),
    "TUPLE1": _other_of(1),
    "TUPLE2": _other_of(2),
    "TUPLE3": _other_of(3),
    "APPEND": lambda machine, _argument: _append(machine, machine.take(1)),
    "APPENDS": lambda machine, _argument: _append(machine, machine.since_mark()),
    "ADDITEMS": lambda machine, _argument: _add(machine, machine.since_mark()),
    "SETITEM": lambda machine, _argument: _set_items(machine, machine.take(2)),
    "SETITEMS": lambda machine, _argument: _set_items(machine, machine.since_mark()),
    "MARK": lambda machine, _argument: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _argument: machine.take(1),
    "POP_MARK": lambda machine, _argument: machine.since_mark(),
    "DUP": lambda machine, _argument: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _remember),
    "MEMOIZE": lambda machine, _argument: _remember(machine, len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[key])),
}
