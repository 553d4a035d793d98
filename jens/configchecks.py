"""Checks of values in the configuration, for ConfigObj: each returns the value as the program uses it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Callable

from jens.model import ALL, HIERADATA, SITE
from jens.names import is_branch_name, is_environment_name

try:  # configobj before 5.0.7 ships it as a top-level module
    from configobj.validate import ValidateError, VdtTypeError
except ImportError:  # pragma: no cover - depends on the version installed
    from validate import ValidateError, VdtTypeError

#: Entries that Jens itself makes in hieradata/ of an environment.
RESERVED_HIERADATA_ITEMS = ("fqdns", "hostgroups", "module_names")

#: What may be set in environment.conf, besides what the layout decides, and the values that Puppet takes. It would take
#: braces for an owner or a mode of a file, and refuse the whole file.
CONF_KEYS = {
    "config_version": re.compile(r"[^\x00-\x1f\x7f{}]+"),
    "environment_timeout": re.compile(r"[0-9]+[smhdy]?|unlimited"),
    "rich_data": re.compile(r"true|false", re.IGNORECASE),
    "static_catalogs": re.compile(r"true|false", re.IGNORECASE),
}
_CONF_LINE = re.compile(r"\s*(?P<key>\w+)\s*=\s*(?P<value>.*\S)\s*")

#: The address of a Puppet server.
_SERVER = re.compile(r"https://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?")


def _check_path(value: object) -> Path:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise VdtTypeError(value)
    # The bytes on disk are UTF-8 in every locale. A WSGI server may have started Python in another one.
    return Path(os.path.normpath(os.fsdecode(value.encode("utf-8", "surrogateescape"))))


def _check_optional_path(value: object) -> str:
    return "" if value == "" else str(_check_path(value))


class BadElementError(ValidateError):  # type: ignore[misc]  # configobj has no types
    """An element of a list is not what is expected."""

    def __init__(self, element: str) -> None:
        super().__init__(element)
        self.element = element


def _check_list(value: object, is_good: Callable[[str], bool]) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise VdtTypeError(value)
    names = tuple(entry for entry in entries if entry)
    for name in names:
        if not is_good(name):
            raise BadElementError(name)
    return names


def _check_environments(value: object) -> tuple[str, ...]:
    return _check_list(value, is_environment_name)


def _check_versioned(value: object) -> tuple[str, ...]:
    return _check_list(value, lambda name: name == ALL or is_environment_name(name))


def _check_branches(value: object) -> tuple[str, ...]:
    return _check_list(value, is_branch_name)


def _check_items(value: object) -> tuple[str, ...]:
    return _check_list(
        value, lambda name: "/" not in name and name not in (".", "..") and name not in RESERVED_HIERADATA_ITEMS
    )


def _check_common(value: object) -> str:
    names = ("", *(repo.name for repo in (SITE, HIERADATA)))
    if not isinstance(value, str) or value not in names:
        raise VdtTypeError(value)
    return value


def _check_conf_lines(value: object) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for line in _check_list(value, lambda line: _conf_line(line) is not None):
        key, text = _conf_line(line) or ("", "")
        if key in found:
            raise BadElementError(line)
        found[key] = text
    return tuple(f"{key} = {text}" for key, text in found.items())


def _conf_line(line: str) -> tuple[str, str] | None:
    """The key and the value of a line for environment.conf, None when Puppet would not take it."""
    found = _CONF_LINE.fullmatch(line)
    is_good = found and found["key"] in CONF_KEYS and CONF_KEYS[found["key"]].fullmatch(found["value"])
    return (found["key"], found["value"]) if found and is_good else None


def _check_servers(value: object) -> tuple[str, ...]:
    return tuple(url.rstrip("/") for url in _check_list(value, lambda url: _SERVER.fullmatch(url) is not None))


def _check_urls(value: object) -> tuple[str, ...]:
    return _check_list(value, lambda url: "://" in url)


def _check_owners(value: object) -> str:
    if not isinstance(value, str) or (value and not ("{address}" in value and "://" in value)):
        raise VdtTypeError(value)
    return value


def _check_prefix(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise VdtTypeError(value)
    return value


def _check_filename(value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value or value in (".", ".."):
        raise VdtTypeError(value)
    return value


#: The checks, by the names that the declarations of keys use.
CHECKS = {
    "path": _check_path,
    "optional_path": _check_optional_path,
    "environments": _check_environments,
    "versioned": _check_versioned,
    "branches": _check_branches,
    "items": _check_items,
    "common": _check_common,
    "conf_lines": _check_conf_lines,
    "servers": _check_servers,
    "receivers": _check_urls,
    "owners": _check_owners,
    "prefix": _check_prefix,
    "filename": _check_filename,
}
