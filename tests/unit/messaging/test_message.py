"""The content of a message: what Jens writes, and whatever others may write."""

from __future__ import annotations

import pickle
import pickletools
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jens.messaging.message import decode, encode, parse_time, timestamp
from jens.model import COMMON, RepoId
from tests.values import MYAPP, modules

_PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
_HIERADATA = RepoId(COMMON, "hieradata")
_M1, _M2 = modules("m1", "m2")


def test_a_message_is_a_pickle_of_lists_by_partition() -> None:
    data = encode([_M2, MYAPP, _M1, _HIERADATA, _M1])
    content = pickle.loads(data)  # noqa: S301 - our own
    assert content["hostgroups"] == ["myapp"]
    assert content["common"] == ["hieradata"]
    assert sorted(set(content["modules"])) == ["m1", "m2"]
    assert set(content) == {"modules", "hostgroups", "common"}


def test_a_message_is_one_that_python_2_reads() -> None:
    assert max(opcode.proto for opcode, _argument, _position in pickletools.genops(encode([_M1, MYAPP]))) <= 2


@pytest.mark.parametrize("repos", [[], [_M1], [_M1, _M2, MYAPP, _HIERADATA]], ids=["none", "one", "many"])
def test_what_was_encoded_is_decoded(repos: list[RepoId]) -> None:
    assert decode(encode(repos)) == (set(repos), [])


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_a_message_of_any_protocol_is_decoded(protocol: int) -> None:
    data = pickle.dumps({"modules": ["m1", "m1", "m2"], "hostgroups": [], "common": ["hieradata"]}, protocol)
    assert decode(data) == ({_M1, _M2, _HIERADATA}, [])


def test_a_message_of_python_2_is_decoded() -> None:
    data = b"(dp0\nS'hostgroups'\np1\n(lp2\nS'myapp'\np3\nasS'modules'\np4\n(lp5\nS'm1'\np6\nas."
    assert decode(data) == ({MYAPP, _M1}, [])


_ENDLESS: list[Any] = ["m1"]
_ENDLESS.append(_ENDLESS)


@pytest.mark.parametrize(
    ("content", "repos", "problems"),
    [
        pytest.param({"modules": ["m1"], "secret": ["m2"]}, {_M1}, 1, id="an unknown partition"),
        pytest.param({"modules": ["m1"], "": ["m2"], "Modules": ["m2"]}, {_M1}, 1, id="two unknown partitions"),
        pytest.param({"modules": ["m1"], "a\nb\x1b[2J\u2028": []}, {_M1}, 1, id="a partition that steers terminals"),
        pytest.param({"modules": ["m1"], "\udc80" * 5: []}, {_M1}, 1, id="a partition that is half a character"),
        pytest.param({"modules": ["m1"], "x" * 10_000: []}, {_M1}, 1, id="a long partition"),
        pytest.param({"modules": ["m1"], 5: ["m2"], None: 1}, {_M1}, 1, id="keys that are no strings"),
        pytest.param({"modules": "secret", "hostgroups": ["myapp"]}, {MYAPP}, 1, id="a string, no list"),
        pytest.param({"modules": {"secret": 1}, "hostgroups": ["myapp"]}, {MYAPP}, 1, id="a dict, no list"),
        pytest.param({"modules": ("secret",), "hostgroups": ["myapp"]}, {MYAPP}, 1, id="a tuple, no list"),
        pytest.param({"modules": None, "hostgroups": 7}, set(), 2, id="nothing and a number, no lists"),
        pytest.param({"modules": ["../secret", "m1"]}, {_M1}, 1, id="a name that leads elsewhere"),
        pytest.param({"modules": ["", "m1"]}, {_M1}, 1, id="an empty name"),
        pytest.param({"modules": ["-secret", "m1"]}, {_M1}, 1, id="a name that is an option"),
        pytest.param({"modules": ["m1\n", "a b", "ä", ".", "..", "a/b", "m1"]}, {_M1}, 1, id="other bad names"),
        pytest.param({"modules": ["x" * 201, "m1"]}, {_M1}, 1, id="a name too long for a file"),
        pytest.param({"modules": [5, "m1"]}, {_M1}, 1, id="a number"),
        pytest.param({"modules": [["secret"], "m1"]}, {_M1}, 1, id="a nested list"),
        pytest.param({"modules": [{"secret": 1}, "m1"]}, {_M1}, 1, id="a dict"),
        pytest.param({"modules": [None, True, 1.5, "m1"]}, {_M1}, 1, id="constants"),
        pytest.param({"modules": _ENDLESS}, {_M1}, 1, id="a list in itself"),
        pytest.param({"modules": ["../secret"], "hostgroups": "x", "y": 1, "common": ["site"]}, 1, 3, id="everything"),
        pytest.param({}, set(), 0, id="nothing at all"),
    ],
)
def test_what_is_ill_formed_spoils_itself_only(content: object, repos: object, problems: int) -> None:
    expected = {RepoId(COMMON, "site")} if repos == 1 else repos
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        found, texts = decode(pickle.dumps(content, protocol))
        assert found == expected
        assert len(texts) == problems
        assert all(text.isprintable() and len(text) < 300 for text in texts)
        for payload in ("../secret", "-secret", "m2", "x" * 50):
            assert not any(payload in text for text in texts)


def test_the_problems_of_a_message_say_where_they_are() -> None:
    content = {"modules": ["a b", 5, "m1"], "hostgroups": "x", "puppet": []}
    problems = decode(pickle.dumps(content))[1]
    assert problems == [
        "unknown partitions (1), such as 'puppet'",
        "modules has bad names (2)",
        "hostgroups is expected to be a list of names",
    ]


@pytest.mark.parametrize("content", [["m1"], "m1", None, 5, (), {"m1"}], ids=repr)
def test_a_message_that_is_no_mapping_is_ill_formed_as_a_whole(content: object) -> None:
    with pytest.raises(ValueError, match="expected a mapping of partitions to lists of names"):
        decode(pickle.dumps(content, 4))


@pytest.mark.parametrize("data", [b"", b"modules: [m1]\n", encode([_M1])[:-1], pickle.dumps({"modules": [Path("m1")]})])
def test_a_message_that_is_no_plain_pickle_is_ill_formed_as_a_whole(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|not for plain data"):
        decode(data)


_ADDED = datetime(2026, 3, 3, 14, 25, 37).timestamp()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(b"2026-03-03T14:25:36.500000", _ADDED - 0.5, id="local, as Jens writes it"),
        pytest.param(b"2026-03-03T14:25:37.400000", _ADDED + 0.4, id="a moment later: clocks are not that exact"),
        pytest.param(b"2026-03-01T14:25:37\n", _ADDED - 2 * 86_400, id="a hint that was renewed"),
        pytest.param(b"2026-03-03T14:25:39", _ADDED, id="the future"),
        pytest.param(b"2025-03-03T14:25:37", _ADDED, id="long ago"),
        pytest.param(b"0001-01-01T00:00:00", _ADDED, id="before there were clocks"),
        pytest.param(b"9999-12-31T23:59:59", _ADDED, id="the end of time"),
        pytest.param(b"yesterday", _ADDED, id="no time"),
        pytest.param(b"\xff", _ADDED, id="no text"),
        pytest.param(b"", _ADDED, id="nothing"),
    ],
)
def test_a_message_tells_its_time_or_else_its_name_does(told: bytes, expected: float) -> None:
    assert parse_time(told, _ADDED) == pytest.approx(expected)


def test_a_time_comes_back() -> None:
    assert parse_time(timestamp(_ADDED - 3).encode(), _ADDED) == pytest.approx(_ADDED - 3)
