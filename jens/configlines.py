"""Where sections and keys are in a configuration file, and what a misspelt one was meant to be: for complaints only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

_SECTION = re.compile(r"\s*(?P<open>\[+)\s*(?P<name>.*?)\s*\]+\s*(#.*)?")
_KEY = re.compile(r"""\s*(?P<name>"[^"]*"|'[^']*'|[^'"=\s#\[][^=]*?)\s*=\s*(?P<value>.*)""")
_LONG_QUOTES = ("'''", '"""')
#: The keys of a section that has more are not listed.
_MOST_LISTED = 8


class Place(NamedTuple):
    """A section, or a key in it. The section is () above the first one, and has several names within others."""

    section: tuple[str, ...]
    key: str = ""


def places(lines: Sequence[str]) -> Iterator[tuple[int, Place]]:
    """What each line begins, with the number of the line. ConfigObj does not tell."""
    section: tuple[str, ...] = ()
    ending = ""
    for number, line in enumerate(lines, 1):
        if ending:
            ending = "" if ending in line else ending
        elif found := _SECTION.fullmatch(line):
            section = (*section[: len(found["open"]) - 1], _unquoted(found["name"]))
            yield number, Place(section)
        elif found := _KEY.fullmatch(line):
            quotes = found["value"][:3]
            ending = quotes if quotes in _LONG_QUOTES and quotes not in found["value"][3:] else ""
            yield number, Place(section, _unquoted(found["name"]))


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"" else name


def repeated(lines: Sequence[str], at: int) -> tuple[Place, list[int]] | None:
    """What line ``at`` has that an earlier line has, too, and all lines with it. None when there is no such thing."""
    found: dict[Place, list[int]] = {}
    for number, place in places(lines):
        found.setdefault(place, []).append(number)
    return next(((place, numbers) for place, numbers in found.items() if at in numbers[1:]), None)


def complaint(place: Place, lines: Sequence[str], known: Mapping[str, Collection[str]]) -> str:
    """What is wrong with an unknown key or section, and what was expected; ``known`` has the keys of each section."""
    number = next((number for number, found in places(lines) if found == place), 0)
    line = f" (line {number})" if number else ""
    if not place.section:
        return f"unknown key '{place.key}' outside any section is ignored{line}, {_expected_key(place.key, (), known)}"
    if not place.key and len(place.section) == 1:
        return f"unknown section [{place.section[0]}] is ignored{line}, {_expected_section(place.section[0], known)}"
    first, name = place.section[0], place.key or place.section[1]
    return f"unknown key '{name}' in [{first}] is ignored{line}, {_expected_key(name, known[first], known)}"


def _expected_section(name: str, known: Iterable[str]) -> str:
    meant = _nearest(name, known)
    return f"expected [{meant}]" if meant else f"expected one of {', '.join(f'[{section}]' for section in known)}"


def _expected_key(name: str, here: Collection[str], known: Mapping[str, Collection[str]]) -> str:
    """The key of the section that is nearest, or else that of another section, or else all keys of this one."""
    if meant := _nearest(name, here):
        return f"expected '{meant}'"
    sections = {key: section for section, keys in known.items() for key in keys}
    if meant := _nearest(name, sections):
        return f"expected '{meant}' in [{sections[meant]}]"
    return f"expected {' or '.join(here)}" if 0 < len(here) <= _MOST_LISTED else "no key has such a name"


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like this one; '' when none is. A warning may be bolder than an error."""
    return next(iter(difflib.get_close_matches(name.casefold(), known, 1)), "")
