"""What definitions say, as runs have parsed it: a text that has not changed is not parsed again.

Everyone at a site can push definitions, and parsing takes a thousand times as long as reading. So what a text says is
saved under its digest. A text that is ill-formed has the reason there.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jens import names, statefile
from jens.layout import Layout, entry_ref, ref_entry
from jens.metadata import definition as definitions
from jens.metadata import values, yamlnodes
from jens.metadata.definition import (
    MOST_OVERRIDES_IN_ALL,
    SUFFIX,
    ill_formed,
    inspect_definition,
    notifications_of,
    parse_definition,
    read_definition,
)
from jens.metadata.yamlnodes import YamlError
from jens.model import Commit, Declared, Definition, Moving, Prefixes, Ref, RepoId
from jens.statefile import DEFINITIONS, StateError

#: Texts of definitions that older versions accepted are read with less rules, and saved under another key.
_LENIENT = "lenient "


class Parsed:
    """Reads definitions from their texts, and remembers what each text says."""

    def __init__(self, prefixes: Prefixes, known: Mapping[str, Any] | None = None) -> None:
        self._prefixes = prefixes
        self._known = known or {}
        self._used: dict[str, Any] = {}
        self._repos: dict[tuple[str, str], RepoId] = {}
        self._overrides = 0
        self._has_parsed = False

    @classmethod
    def load(cls, layout: Layout, prefixes: Prefixes) -> Parsed:
        """With what earlier runs have parsed; nothing when that is lost, or was parsed by other rules."""
        try:
            content = statefile.load(layout, DEFINITIONS)
            known = content["texts"] if content["rules"] == _rules(prefixes) else {}
            return cls(prefixes, known if isinstance(known, dict) else {})
        except (StateError, KeyError, TypeError):
            return cls(prefixes)

    def save(self, layout: Layout) -> None:
        """Save what all texts say that were read, if any of them is new. Raises OSError."""
        if self._has_parsed:
            statefile.save(layout, DEFINITIONS, {"rules": _rules(self._prefixes), "texts": self._used})

    def read(self, file: str, content: bytes | None) -> Declared:
        """``read_definition``, and not too many overrides in all."""
        name = file[: -len(SUFFIX)]
        if content is None or not names.is_environment_name(name):
            return read_definition(file, content, self._prefixes)
        try:
            found = self._definition("", name, content)
        except YamlError as problem:
            return ill_formed(file, str(problem), self._told_of(content))
        self._overrides += len(found.overrides)
        if self._overrides > MOST_OVERRIDES_IN_ALL:
            too_many = f"with the definitions before it, more than {MOST_OVERRIDES_IN_ALL} overrides"
            return ill_formed(file, too_many, found.notifications)
        return found

    def _told_of(self, content: bytes) -> tuple[str, ...]:
        """Whom an ill-formed definition says to tell."""
        return _strings(self._used[_digest(content)][3])

    def parse(self, name: str, source: bytes) -> Definition:
        """``parse_definition``. Raises YamlError."""
        return self._definition(_LENIENT, name, source)

    def _definition(self, kind: str, name: str, source: bytes) -> Definition:
        key = kind + _digest(source)
        if key not in self._used:
            saved = self._known.get(key)
            if saved is not None:
                self._used[key] = saved
        if key in self._used:
            found = self._decode(name, source, self._used[key])
            if found is not None:
                return found
        self._has_parsed = True
        try:
            if kind:
                found = parse_definition(name, source, self._prefixes)
            else:
                found = inspect_definition(f"{name}{SUFFIX}", source, self._prefixes)
        except YamlError as problem:
            self._used[key] = [problem.text, problem.line, problem.place, notifications_of(source)]
            raise
        self._used[key] = _encode(found)
        return found

    def _decode(self, name: str, source: bytes, saved: Any) -> Definition | None:
        """A definition from what was saved; None when that is of another shape. Raises YamlError if that was saved."""
        try:
            if isinstance(saved, list):
                text, line, place, told = saved
                _strings(told)
                problem = YamlError(str(text), int(line), near=int(place))
            else:
                defaults = tuple(map(_moving, saved["defaults"]))
                return Definition(
                    name,
                    defaults[0] if defaults else None,
                    {
                        self._repo(partition, repo): _ref(entry)
                        for partition, refs in saved["overrides"].items()
                        for repo, entry in refs.items()
                    },
                    _strings(saved["notifications"]),
                    saved["parser"],
                    source,
                    _strings(saved["unknown"]),
                    others=defaults[1:],
                    directories={
                        self._repo(partition, repo): {str(key): path and str(path) for key, path in said.items()}
                        for partition, repo, said in saved["directories"]
                    },
                )
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        raise problem

    def _repo(self, partition: str, name: str) -> RepoId:
        """A repository; one object for all definitions."""
        return self._repos.setdefault((partition, name), RepoId(partition, name))


def _strings(saved: Any) -> tuple[str, ...]:
    return tuple(map(str, saved))


def _encode(definition: Definition) -> dict[str, Any]:
    overrides: dict[str, dict[str, str]] = {}
    for repo, ref in definition.overrides.items():
        overrides.setdefault(repo.partition, {})[repo.name] = ref_entry(ref, None)
    return {
        "defaults": [ref_entry(ref, None) for ref in definition.defaults],
        "directories": [[*repo, said] for repo, said in definition.directories.items()],
        "overrides": overrides,
        "notifications": definition.notifications,
        "parser": definition.parser,
        "unknown": definition.unknown_keys,
    }


def _ref(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def _moving(entry: str) -> Moving:
    ref = _ref(entry)
    if isinstance(ref, Commit):
        raise ValueError(f"unexpected {entry!r}")
    return ref


def _digest(source: bytes) -> str:
    from hashlib import blake2b  # noqa: PLC0415 - readers of the library need none

    return blake2b(source, digest_size=20).hexdigest()


def _rules(prefixes: Prefixes) -> str:
    """What decides how a text is read: the prefixes, and the programs that read it."""
    number = zlib.crc32("\n".join(prefixes).encode("utf-8", "surrogateescape"))
    for module in (definitions, names, values, yamlnodes):
        path = module.__file__
        try:
            number = zlib.crc32(Path(path or "").read_bytes(), number)
        except OSError:  # without sources, a new version has other numbers of versions in STATE_FILES
            continue
    return f"{number:08x}"
