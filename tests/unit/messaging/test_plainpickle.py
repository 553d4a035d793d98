"""Pickles are read as data: plain values are the same as with pickle.loads, anything else is refused and not run."""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import random
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jens.messaging import plainpickle
from jens.messaging.plainpickle import OTHER, NotPlainError, loads

_PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
_SECRET = b"s3cret"
_MESSAGE = {"modules": ["m1", "m2"], "hostgroups": ["h1"], "size": 2**70, "rate": 1.5, "more": [None, True, ["m1"]]}


def _outcome(data: bytes) -> Any:
    """The value, or the NotPlainError that was raised. Any other error fails the test."""
    try:
        return loads(data)
    except NotPlainError as error:
        return error


# Plain data


@pytest.mark.parametrize("protocol", _PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"modules": ["m1"], "hostgroups": ["h1", "h2"]}, id="a message"),
        pytest.param({}, id="empty dict"),
        pytest.param([], id="empty list"),
        pytest.param("", id="empty string"),
        pytest.param([None, True, False], id="constants"),
        pytest.param([0, 1, -1, 255, 256, 65535, 65536, 2**31, -(2**31), 2**63, -(2**64)], id="numbers"),
        pytest.param([2**2000, -(2**2000), 2**4000], id="big numbers"),
        pytest.param([0.5, -1e300, 5e-324, math.inf, -math.inf], id="floats"),
        pytest.param(["é", "日本", "\U0001f600", "\udc80", "\u2028"], id="unicode"),
        pytest.param(["a\nb", "a\r\tb", "\\", "\\u0041", "\x00", "\x1a", "'\"", "."], id="characters with a meaning"),
        pytest.param(["x" * 255, "x" * 256, "x" * 100_000], id="long strings"),
        pytest.param([["x"], {"a": {"b": [{"c": []}]}}, [[[[]]]]], id="nested"),
        pytest.param(list(range(2500)), id="a long list"),
        pytest.param({f"k{number}": number for number in range(2500)}, id="a long dict"),
    ],
)
def test_plain_data_is_what_the_standard_library_reads(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    result = loads(data)
    assert result == pickle.loads(data) == value  # noqa: S301 - our own
    assert repr(result) == repr(value)  # True is not 1, and 1.0 is not 1


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_random_plain_data_is_what_the_standard_library_reads(protocol: int) -> None:
    chance = random.Random(protocol)

    def plain(depth: int) -> Any:
        kind = chance.randrange(7 if depth else 5)
        if kind == 5:
            return [plain(depth - 1) for _ in range(chance.randrange(5))]
        if kind == 6:
            return {str(chance.random()): plain(depth - 1) for _ in range(chance.randrange(5))}
        text = "".join(chr(chance.randrange(0x300)) for _ in range(chance.randrange(9)))
        return (None, chance.random() < 0.5, chance.getrandbits(90) - 2**89, chance.random(), text)[kind]

    for _ in range(50):
        value = plain(5)
        assert repr(loads(pickle.dumps(value, protocol))) == repr(value)


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_what_is_shared_stays_shared(protocol: int) -> None:
    names, partition = ["m1"], "modules"
    result = loads(pickle.dumps([names, names, {partition: names}, partition], protocol))
    assert result == [["m1"], ["m1"], {"modules": ["m1"]}, "modules"]
    assert result[0] is result[1] is result[2]["modules"]


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_a_list_and_a_dict_may_hold_themselves(protocol: int) -> None:
    endless: list[Any] = ["m1"]
    endless.append(endless)
    result = loads(pickle.dumps(endless, protocol))
    assert result[0] == "m1"
    assert result[1] is result
    around: dict[str, Any] = {}
    around["self"] = around
    result = loads(pickle.dumps(around, protocol))
    assert list(result) == ["self"]
    assert result["self"] is result


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            b"(dp0\nS'hostgroups'\np1\n(lp2\nsS'modules'\np3\n(lp4\nS'm1'\np5\naS'm1b'\np6\nas.",
            {"hostgroups": [], "modules": ["m1", "m1b"]},
            id="protocol 0",
        ),
        pytest.param(
            b"}q\x00(U\nhostgroupsq\x01]q\x02U\x07modulesq\x03]q\x04(U\x02m1q\x05U\x03m1bq\x06eu.",
            {"hostgroups": [], "modules": ["m1", "m1b"]},
            id="protocol 1",
        ),
        pytest.param(
            b"\x80\x02}q\x00(U\nhostgroupsq\x01]q\x02U\x07modulesq\x03]q\x04(U\x02m1q\x05U\x03m1bq\x06eu.",
            {"hostgroups": [], "modules": ["m1", "m1b"]},
            id="protocol 2",
        ),
        pytest.param(
            b"(dp0\nVmodules\np1\n(lp2\nVm\xe9\np3\naL1L\naL1180591620717411303424L\naI01\naNaF1.5\nas.",
            {"modules": ["mé", 1, 2**70, True, None, 1.5]},
            id="unicode and numbers, protocol 0",
        ),
        pytest.param(
            b"\x80\x02}q\x00X\x07\x00\x00\x00modulesq\x01]q\x02(X\x03\x00\x00\x00m\xc3\xa9q\x03\x8a\x01\x01"
            b"\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@\x88NG?\xf8\x00\x00\x00\x00\x00\x00es.",
            {"modules": ["mé", 1, 2**70, True, None, 1.5]},
            id="unicode and numbers, protocol 2",
        ),
        pytest.param(b"T\x03\x00\x00\x00m\xe91.", "mé1", id="a long string that is not ASCII"),
        pytest.param(b'S"it\'s"\n.', "it's", id="double quotes"),
        pytest.param(b"(S'a'\nS'b'\nl.", ["a", "b"], id="LIST with its items"),
        pytest.param(b"(S'a'\nI5\nd.", {"a": 5}, id="DICT with its items"),
        pytest.param(b"N(U\x01aU\x01b1.", None, id="POP_MARK"),
        pytest.param(b"U\x01aN0.", "a", id="POP"),
    ],
)
def test_pickles_of_python_2_are_read(data: bytes, expected: Any) -> None:
    assert loads(data) == expected


@pytest.mark.parametrize(
    ("value", "first"),
    [
        pytest.param((), 0, id="empty tuple"),
        pytest.param(("m1",), 0, id="tuple of one"),
        pytest.param(("m1", "m2"), 0, id="tuple of two"),
        pytest.param(("m1", "m2", "m3"), 0, id="tuple of three"),
        pytest.param(tuple("abcdef"), 0, id="long tuple"),
        pytest.param(b"m1", 3, id="bytes"),
        pytest.param(b"m" * 300, 3, id="long bytes"),
        pytest.param({"m1", "m2"}, 4, id="set"),
        pytest.param(set(), 4, id="empty set"),
        pytest.param(frozenset({"m1"}), 4, id="frozenset"),
        pytest.param(bytearray(b"m1"), 5, id="bytearray"),
    ],
)
def test_what_nobody_asks_for_has_a_stand_in_and_spoils_nothing_else(value: Any, first: int) -> None:
    for protocol in _PROTOCOLS[first:]:
        assert loads(pickle.dumps(value, protocol)) is OTHER
        result = loads(pickle.dumps({"a": value, "modules": ["m1", value]}, protocol))
        assert result == {"a": OTHER, "modules": ["m1", OTHER]}


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_keys_that_are_no_strings_have_a_stand_in(protocol: int) -> None:
    value = {1: "a", "modules": ["m1"], None: "b", (1, 2): "c", 2.5: "d", False: "e", "hostgroups": []}
    assert loads(pickle.dumps(value, protocol)) == {"modules": ["m1"], OTHER: "e", "hostgroups": []}


def test_a_later_entry_wins() -> None:
    assert loads(b"}(U\x01aNU\x01aI5\nu.") == {"a": 5}


# More than plain data


_REFUSED = {
    "GLOBAL": b"cos\nsystem\n.",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93.",
    "REDUCE": b"N)R.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(NNo.",
    "NEWOBJ": b"N)\x81.",
    "NEWOBJ_EX": b"N)}\x92.",
    "BUILD": b"]}b.",
    "PERSID": b"Pabc\n.",
    "BINPERSID": b"NQ.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\x00\x00\x00.",
    "NEXT_BUFFER": b"\x97.",
    "READONLY_BUFFER": b"N\x98.",
}


@pytest.mark.parametrize(("opcode", "data"), _REFUSED.items(), ids=_REFUSED)
def test_an_opcode_that_is_not_for_plain_data_is_refused_by_name(opcode: str, data: bytes) -> None:
    for prefix in (b"", b"\x80\x02", b"\x80\x04"):
        with pytest.raises(NotPlainError, match=f"^{opcode} is not for plain data$"):
            loads(prefix + data)


def test_every_opcode_there_is_is_either_plain_or_refused() -> None:
    known = plainpickle._VALUES | set(plainpickle._ACTIONS)
    assert known.isdisjoint(_REFUSED)
    assert known | set(_REFUSED) == {opcode.name for opcode in pickletools.opcodes}


class _Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_nothing_that_a_pickle_asks_for_is_done(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    for value in (_Evil(canary), {"modules": ["m1", _Evil(canary)]}, {"modules": ["m1"], "x": (_Evil(canary), 1)}):
        data = pickle.dumps(value, protocol)
        with pytest.raises(NotPlainError, match="is not for plain data"):
            loads(data)
        assert not canary.exists()
        pickle.loads(data)  # noqa: S301 - that is what would happen
        canary.rmdir()


@pytest.mark.parametrize("value", [Path("m1"), 1j, range(3), ValueError("m1"), len, str], ids=repr)
def test_objects_of_the_standard_library_are_no_plain_data(value: Any) -> None:
    for protocol in _PROTOCOLS:
        with pytest.raises(NotPlainError):
            loads(pickle.dumps({"modules": ["m1", value]}, protocol))


# Damaged pickles


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b".", id="nothing to return"),
        pytest.param(b"N", id="no end"),
        pytest.param(b"\xff.", id="no opcode"),
        pytest.param(b"modules: [m1]\n", id="no pickle"),
        pytest.param(b"0.", id="underflow of POP"),
        pytest.param(b"2.", id="underflow of DUP"),
        pytest.param(b"a.", id="underflow of APPEND"),
        pytest.param(b"Na.", id="APPEND to nothing"),
        pytest.param(b"U\x01as.", id="underflow of SETITEM"),
        pytest.param(b"NNs.", id="SETITEM to nothing"),
        pytest.param(b"N\x86.", id="underflow of TUPLE2"),
        pytest.param(b"NN\x87.", id="underflow of TUPLE3"),
        pytest.param(b"q\x00.", id="underflow of BINPUT"),
        pytest.param(b"\x94.", id="underflow of MEMOIZE"),
        pytest.param(b"t.", id="no mark for TUPLE"),
        pytest.param(b"l.", id="no mark for LIST"),
        pytest.param(b"d.", id="no mark for DICT"),
        pytest.param(b"]Ne.", id="no mark for APPENDS"),
        pytest.param(b"}NNu.", id="no mark for SETITEMS"),
        pytest.param(b"\x8fN\x90.", id="no mark for ADDITEMS"),
        pytest.param(b"\x91.", id="no mark for FROZENSET"),
        pytest.param(b"1.", id="no mark for POP_MARK"),
        pytest.param(b"(e.", id="APPENDS to nothing"),
        pytest.param(b"g7\n.", id="unknown memo of GET"),
        pytest.param(b"h\x07.", id="unknown memo of BINGET"),
        pytest.param(b"j\x07\x00\x00\x00.", id="unknown memo of LONG_BINGET"),
        pytest.param(b"}Na.", id="APPEND to a dict"),
        pytest.param(b"NNa.", id="APPEND to None"),
        pytest.param(b"U\x01aNa.", id="APPEND to a string"),
        pytest.param(b")Na.", id="APPEND to a tuple"),
        pytest.param(b"}(NNe.", id="APPENDS to a dict"),
        pytest.param(b"]NNs.", id="SETITEM to a list"),
        pytest.param(b"](NNu.", id="SETITEMS to a list"),
        pytest.param(b"](N\x90.", id="ADDITEMS to a list"),
        pytest.param(b"Ix\n.", id="INT that is none"),
        pytest.param(b"I1.", id="INT without an end"),
        pytest.param(b"L5X\n.", id="LONG that is none"),
        pytest.param(b"F1,5\n.", id="FLOAT that is none"),
        pytest.param(b"S'a\n.", id="STRING without a quote"),
        pytest.param(b"Sa\n.", id="STRING without quotes"),
        pytest.param(b"S'\\x'\n.", id="STRING with half an escape"),
        pytest.param(b"V\\u12\n.", id="UNICODE with half an escape"),
        pytest.param(b"X\x01\x00\x00\x00\xff.", id="BINUNICODE that is no UTF-8"),
        pytest.param(b"T\xff\xff\xff\xff.", id="BINSTRING of negative length"),
        pytest.param(b"\x8b\xff\xff\xff\xff.", id="LONG4 of negative length"),
        pytest.param(b"px\n.", id="PUT without a number"),
    ],
)
def test_what_is_damaged_is_refused_and_said_so(data: bytes) -> None:
    with pytest.raises(NotPlainError, match=r"^it is damaged$"):
        loads(data)


def test_the_error_is_a_value_error() -> None:
    assert issubclass(NotPlainError, ValueError)


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_half_a_pickle_is_refused_wherever_it_ends(protocol: int) -> None:
    data = pickle.dumps(_MESSAGE, protocol)
    for length in range(len(data)):
        with pytest.raises(NotPlainError):
            loads(data[:length])
    assert loads(data + b"what follows is not looked at") == _MESSAGE


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_a_pickle_with_any_byte_changed_gives_a_value_or_is_refused(protocol: int) -> None:
    data = pickle.dumps({"modules": ["m1"], "n": [1, 2.5, None]}, protocol)
    for position in range(len(data)):
        for byte in (*b"\x00\x01\xff.0(]}sateuldq2p\x85\x86\x94", data[position] ^ 1, data[position] ^ 128):
            _outcome(data[:position] + bytes([byte]) + data[position + 1 :])


def test_random_bytes_give_a_value_or_are_refused() -> None:
    chance = random.Random(1)
    opcodes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes if opcode.name not in _REFUSED]
    for _ in range(2000):
        parts = chance.choices([*opcodes, b"(", b"]", b"}", b"N", b"U\x01a", b"q\x00", b"h\x00", b"\n"], k=20)
        _outcome(b"".join(parts) + b".")
        _outcome(bytes(chance.getrandbits(8) for _ in range(20)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"c" + _SECRET + b"\nx\n.", id="GLOBAL"),
        pytest.param(b"P" + _SECRET + b"\n.", id="PERSID"),
        pytest.param(b"(i" + _SECRET + b"\nx\n.", id="INST"),
        pytest.param(b"S" + _SECRET + b"\n.", id="STRING"),
        pytest.param(b"I" + _SECRET + b"\n.", id="INT"),
        pytest.param(b"L" + _SECRET + b"\n.", id="LONG"),
        pytest.param(b"F" + _SECRET + b"\n.", id="FLOAT"),
        pytest.param(b"g" + _SECRET + b"\n.", id="GET"),
        pytest.param(b"V" + _SECRET + b"\\u12\n.", id="UNICODE"),
        pytest.param(b"X\x08\x00\x00\x00" + _SECRET + b"\xff\xff.", id="BINUNICODE"),
        pytest.param(b"U\x06" + _SECRET + b"Na.", id="a wrong target"),
        pytest.param(b"U\x06" + _SECRET, id="no end"),
        pytest.param(_SECRET, id="no pickle"),
    ],
)
def test_the_error_quotes_nothing_of_the_payload(data: bytes) -> None:
    error = _outcome(data)
    assert isinstance(error, NotPlainError)
    assert _SECRET.decode() not in str(error)
    assert str(error).isprintable()


# Pickles that are made to be expensive


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"}(" + b")" + b"\x85" * 2**20 + b"Nu.", id="a key that is a tuple nested a million times"),
        pytest.param(b"}(" + b")" + b"2\x86" * 100 + b"Nu.", id="a key of 2**100 tuples"),
        pytest.param(b"}(" + b")q\x00" + b"h\x000h\x00h\x00\x86q\x00" * 100 + b"Nu.", id="the same by the memo"),
        pytest.param(b"}" + b"(" * 100 + b")" + b"2\x91" * 100 + b"Ns.", id="frozensets of frozensets"),
        pytest.param(b"}(" + b"]" * 2**18 + b"a" * (2**18 - 1) + b"Nu.", id="a key that is a deep list"),
    ],
)
def test_what_would_be_hashed_without_end_has_a_stand_in(data: bytes) -> None:
    assert loads(data) == {OTHER: None}


def test_what_would_be_remembered_without_end_is_refused() -> None:
    with pytest.raises(NotPlainError, match="too complicated"):
        loads(b"N" + b"\x94" * 2**20 + b".")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"]" * 2**18 + b"a" * (2**18 - 1) + b".", id="a deep list"),
        pytest.param(b"]q\x00" + b"h\x00a" * 2**17 + b".", id="a list many times in itself"),
        pytest.param(b"]" + b"2\x85a" * 1000 + b".", id="a list in tuples in itself"),
    ],
)
def test_a_list_may_be_as_deep_as_it_likes(data: bytes) -> None:
    assert isinstance(loads(data), list)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x8e" + (2**40).to_bytes(8, "little") + b"x.", id="BINBYTES8"),
        pytest.param(b"\x8d" + (2**40).to_bytes(8, "little") + b"x.", id="BINUNICODE8"),
        pytest.param(b"\x96" + (2**40).to_bytes(8, "little") + b"x.", id="BYTEARRAY8"),
        pytest.param(b"\x8e" + b"\xff" * 8 + b"x.", id="BINBYTES8, more than there can be"),
        pytest.param(b"B\xff\xff\xff\xffx.", id="BINBYTES"),
        pytest.param(b"X\xff\xff\xff\xffx.", id="BINUNICODE"),
        pytest.param(b"T\xff\xff\xff\x7fx.", id="BINSTRING"),
        pytest.param(b"\x8b\xff\xff\xff\x7fx.", id="LONG4"),
    ],
)
def test_a_size_that_is_only_claimed_is_damage_and_costs_nothing(data: bytes) -> None:
    assert _peak(data) < 2**20
    with pytest.raises(NotPlainError, match=r"^it is damaged$"):
        loads(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"Nr\xff\xff\xff\x7f.", id="LONG_BINPUT"),
        pytest.param(b"Nr\xff\xff\xff\xff.", id="LONG_BINPUT, the largest"),
        pytest.param(b"Np99999999999999999999\n.", id="PUT"),
        pytest.param(b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.", id="FRAME"),
    ],
)
def test_a_giant_index_costs_nothing(data: bytes) -> None:
    assert _peak(data) < 2**20
    value = _outcome(data)
    assert value is None or isinstance(value, NotPlainError)


def _peak(data: bytes) -> int:
    """The peak of memory in bytes while a pickle is read."""
    tracemalloc.start()
    try:
        with suppress(NotPlainError):
            loads(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [b"I", b"L"])
def test_a_number_of_a_million_digits_is_a_value_or_refused(opcode: bytes) -> None:
    value = _outcome(opcode + b"9" * 2**20 + b"\n.")
    assert isinstance(value, (int, NotPlainError))
