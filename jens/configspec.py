"""Every key of the configuration: its section, its check and default, and what is expected, in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from jens.names import is_branch_name

try:  # configobj before 5.0.7 ships it as a top-level module
    from configobj.validate import ValidateError, Validator, VdtTypeError
except ImportError:  # pragma: no cover - depends on the version installed
    from validate import ValidateError, Validator, VdtTypeError

#: Entries of an environment's hieradata/ that Jens itself makes.
RESERVED_HIERADATA_ITEMS = ("fqdns", "hostgroups", "module_names")


class Key(NamedTuple):
    """A key: its check in ConfigObj's language, and that check in words."""

    section: str
    name: str
    check: str
    expected: str


def _path(section: str, name: str, default: str) -> Key:
    return Key(section, name, f"path(default={default!r})", "an absolute path")


def _seconds(section: str, name: str, default: int) -> Key:
    return Key(
        section, name, f"integer(min=0, max=31536000, default={default})", "a whole number of seconds, 0 or more"
    )


KEYS = (
    _path("main", "baredir", "/var/lib/jens/bare"),
    _path("main", "clonedir", "/var/lib/jens/clone"),
    _path("main", "cachedir", "/var/lib/jens/cache"),
    _path("main", "environmentsdir", "/var/lib/jens/environments"),
    _path("main", "logdir", "/var/log/jens"),
    Key("main", "debuglevel", "option('DEBUG', 'INFO', 'ERROR', default='INFO')", "DEBUG, INFO or ERROR"),
    Key("main", "mandatorybranches", "branches(default=list('master', 'qa'))", "a list of branch names"),
    Key("main", "protectedenvironments", "names(default=list())", "a list of environments"),
    _path("main", "environmentsmetadatadir", "/var/lib/jens/metadata/environments"),
    _path("main", "repositorymetadatadir", "/var/lib/jens/metadata/repository"),
    _path("main", "repositorymetadata", "/var/lib/jens/metadata/repository/repositories.yaml"),
    Key("main", "hashprefix", "prefix(default='commit/')", "a string that is not empty"),
    Key("main", "directory_environments", "boolean(default=False)", "True or False"),
    Key(
        "main",
        "common_hieradata_items",
        "items(default=list())",
        f"a list of names without slashes, other than {', '.join(RESERVED_HIERADATA_ITEMS)}",
    ),
    Key("main", "mode", "option('POLL', 'ONDEMAND', default='POLL')", "POLL or ONDEMAND"),
    Key("main", "purgelimit", "integer(min=0, max=100, default=50)", "a percentage, 0 to 100"),
    _seconds("main", "retention", 300),
    Key("lock", "type", "option('FILE', 'DISABLED', default='FILE')", "FILE or DISABLED"),
    Key("lock", "name", "filename(default='jens')", "a file name without slashes"),
    _path("filelock", "lockdir", "/run/lock/jens"),
    _path("messaging", "queuedir", "/var/spool/jens-update"),
    Key("git", "ssh_cmd_path", "optional_path(default='')", "an absolute path"),
    _seconds("git", "timeout", 120),
    _seconds("git", "clonetimeout", 1800),
    Key("git", "jobs", "integer(min=0, max=256, default=0)", "a whole number, 0 to 256"),
    Key("gitlabproducer", "secret_token", "string(default='')", "a string (in quotes when it has a comma)"),
)


NAMES = frozenset((key.section, key.name) for key in KEYS)
SECTIONS = tuple(dict.fromkeys(key.section for key in KEYS))


def lines() -> list[str]:
    """The specification in ConfigObj's own language."""
    sections: dict[str, list[str]] = {}
    for key in KEYS:
        sections.setdefault(key.section, [f"[{key.section}]"]).append(f"{key.name} = {key.check}")
    return [line for section in sections.values() for line in section]


def validator() -> Validator:
    """What knows the checks that the specification uses."""
    return Validator(_CHECKS)


def expected(section: str, name: str) -> str:
    """What a key expects, in words."""
    return next(key.expected for key in KEYS if (key.section, key.name) == (section, name))


def _check_path(value: object) -> Path:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise VdtTypeError(value)
    return Path(os.path.normpath(value))


def _check_optional_path(value: object) -> str:
    return "" if value == "" else str(_check_path(value))


def _check_names(value: object) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise VdtTypeError(value)
    return tuple(entry for entry in entries if entry)


def _check_branches(value: object) -> tuple[str, ...]:
    names = _check_names(value)
    if not all(is_branch_name(name) for name in names):
        raise ValidateError(value)
    return names


def _check_items(value: object) -> tuple[str, ...]:
    names = _check_names(value)
    if any("/" in name or name in (".", "..") or name in RESERVED_HIERADATA_ITEMS for name in names):
        raise ValidateError(value)
    return names


def _check_prefix(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise VdtTypeError(value)
    return value


def _check_filename(value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value or value in (".", ".."):
        raise VdtTypeError(value)
    return value


_CHECKS = {
    "path": _check_path,
    "optional_path": _check_optional_path,
    "names": _check_names,
    "branches": _check_branches,
    "items": _check_items,
    "prefix": _check_prefix,
    "filename": _check_filename,
}
