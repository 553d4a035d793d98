"""The configuration: ConfigObj and validate in, one frozen Config out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from configobj import ConfigObj, ConfigObjError, flatten_errors

from jens.errors import ConfigError
from jens.names import is_branch_name

try:  # configobj before 5.0.7 ships it as a top-level module
    from configobj.validate import ValidateError, Validator, VdtTypeError
except ImportError:  # pragma: no cover - depends on the version installed
    from validate import ValidateError, Validator, VdtTypeError

DEFAULT_PATH = Path("/etc/jens/main.conf")

#: Below this many seconds NFS clients may still look for a checkout that is gone.
SHORTEST_SAFE_RETENTION = 120

#: Entries of an environment's hieradata/ that Jens itself makes.
RESERVED_HIERADATA_ITEMS = ("fqdns", "hostgroups", "module_names")


class _Key(NamedTuple):
    """A key: its check in ConfigObj's language, and that check in words."""

    section: str
    name: str
    check: str
    expected: str


def _path(section: str, name: str, default: str) -> _Key:
    return _Key(section, name, f"path(default={default!r})", "an absolute path")


def _seconds(section: str, name: str, default: int) -> _Key:
    return _Key(
        section, name, f"integer(min=0, max=31536000, default={default})", "a whole number of seconds, 0 or more"
    )


_KEYS = (
    _path("main", "baredir", "/var/lib/jens/bare"),
    _path("main", "clonedir", "/var/lib/jens/clone"),
    _path("main", "cachedir", "/var/lib/jens/cache"),
    _path("main", "environmentsdir", "/var/lib/jens/environments"),
    _path("main", "logdir", "/var/log/jens"),
    _Key("main", "debuglevel", "option('DEBUG', 'INFO', 'ERROR', default='INFO')", "DEBUG, INFO or ERROR"),
    _Key("main", "mandatorybranches", "branches(default=list('master', 'qa'))", "a list of branch names"),
    _Key("main", "protectedenvironments", "names(default=list())", "a list of environments"),
    _path("main", "environmentsmetadatadir", "/var/lib/jens/metadata/environments"),
    _path("main", "repositorymetadatadir", "/var/lib/jens/metadata/repository"),
    _path("main", "repositorymetadata", "/var/lib/jens/metadata/repository/repositories.yaml"),
    _Key("main", "hashprefix", "prefix(default='commit/')", "a string that is not empty"),
    _Key("main", "directory_environments", "boolean(default=False)", "True or False"),
    _Key(
        "main",
        "common_hieradata_items",
        "items(default=list())",
        f"a list of names without slashes, other than {', '.join(RESERVED_HIERADATA_ITEMS)}",
    ),
    _Key("main", "mode", "option('POLL', 'ONDEMAND', default='POLL')", "POLL or ONDEMAND"),
    _Key("main", "purgelimit", "integer(min=0, max=100, default=50)", "a percentage, 0 to 100"),
    _seconds("main", "retention", 300),
    _Key("lock", "type", "option('FILE', 'DISABLED', default='FILE')", "FILE or DISABLED"),
    _Key("lock", "name", "filename(default='jens')", "a file name without slashes"),
    _path("filelock", "lockdir", "/run/lock/jens"),
    _path("messaging", "queuedir", "/var/spool/jens-update"),
    _Key("git", "ssh_cmd_path", "optional_path(default='')", "an absolute path"),
    _seconds("git", "timeout", 120),
    _seconds("git", "clonetimeout", 1800),
    _Key("git", "jobs", "integer(min=0, max=256, default=0)", "a whole number, 0 to 256"),
    _Key("gitlabproducer", "secret_token", "string(default='')", "a string (in quotes when it has a comma)"),
)


@dataclass(frozen=True)
class Main:
    """[main]; ``retention`` in seconds, ``purgelimit`` in percent."""

    baredir: Path
    clonedir: Path
    cachedir: Path
    environmentsdir: Path
    logdir: Path
    debuglevel: str
    mandatorybranches: tuple[str, ...]
    protectedenvironments: tuple[str, ...]
    environmentsmetadatadir: Path
    repositorymetadatadir: Path
    repositorymetadata: Path
    hashprefix: str
    directory_environments: bool
    common_hieradata_items: tuple[str, ...]
    mode: str
    purgelimit: int
    retention: int


@dataclass(frozen=True)
class Lock:
    """[lock]."""

    type: str
    name: str


@dataclass(frozen=True)
class FileLock:
    """[filelock]."""

    lockdir: Path


@dataclass(frozen=True)
class Messaging:
    """[messaging]."""

    queuedir: Path


@dataclass(frozen=True)
class Git:
    """[git]; time limits in seconds, 0 for none; ``jobs`` 0 lets Jens choose; ``ssh_cmd_path`` may be ''."""

    ssh_cmd_path: str
    timeout: int
    clonetimeout: int
    jobs: int


@dataclass(frozen=True)
class GitlabProducer:
    """[gitlabproducer]; an empty token accepts every request."""

    secret_token: str


@dataclass(frozen=True)
class Config:
    """Everything configured, nested by section; ``warnings`` are for the log."""

    path: Path
    main: Main
    lock: Lock
    filelock: FileLock
    messaging: Messaging
    git: Git
    gitlabproducer: GitlabProducer
    warnings: tuple[str, ...] = ()


_SECTIONS = {
    "main": Main,
    "lock": Lock,
    "filelock": FileLock,
    "messaging": Messaging,
    "git": Git,
    "gitlabproducer": GitlabProducer,
}


def load_config(path: Path = DEFAULT_PATH) -> Config:
    """Read and validate a configuration file.

    Raises ConfigError, naming file, section, key and what was expected.
    """
    raw = _parse(path)
    warnings = _unknown_keys(path, raw)
    _validate(path, raw)
    sections: dict[str, Any] = {
        name: kind(**{key.name: raw[name][key.name] for key in _KEYS if key.section == name})
        for name, kind in _SECTIONS.items()
    }
    config = Config(path=path, warnings=tuple(warnings + _risks(path, sections["main"])), **sections)
    _check_whole(config)
    return config


def _parse(path: Path) -> ConfigObj:
    sections: dict[str, list[str]] = {}
    for key in _KEYS:
        sections.setdefault(key.section, [f"[{key.section}]"]).append(f"{key.name} = {key.check}")
    spec = [line for lines in sections.values() for line in lines]
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(path, f"cannot be read: {problem}") from error
    try:
        return ConfigObj(lines, configspec=spec, interpolation=False)
    except ConfigObjError as error:
        raise ConfigError(path, f"syntax error: {error}, expected 'key = value' lines in [sections]") from error


def _unknown_keys(path: Path, raw: ConfigObj) -> list[str]:
    # Needs no validation, and must come first: validating adds what is missing.
    known = {(key.section, key.name) for key in _KEYS}
    warnings = [f"{path}: unknown key '{name}' outside any section is ignored" for name in raw.scalars]
    for section in raw.sections:
        if section not in _SECTIONS:
            warnings.append(f"{path}: unknown section [{section}] is ignored")
            continue
        extra = [name for name in raw[section] if (section, name) not in known]
        warnings += [f"{path}: unknown key '{name}' in [{section}] is ignored" for name in extra]
    return warnings


def _validate(path: Path, raw: ConfigObj) -> None:
    result = raw.validate(Validator(_CHECKS), preserve_errors=True)
    for sections, name, _error in flatten_errors(raw, result) if result is not True else ():
        section = ".".join(sections)
        if name is None:
            raise ConfigError(path, "expected a section", section)
        expected = next(key.expected for key in _KEYS if (key.section, key.name) == (section, name))
        # The value is not repeated when it may be a secret.
        value = "" if section == "gitlabproducer" else f", not {raw[section][name]!r}"
        raise ConfigError(path, f"expected {expected}{value}", section, name)


def _risks(path: Path, main: Main) -> list[str]:
    if main.retention >= SHORTEST_SAFE_RETENTION:
        return []
    return [
        (
            f"{path}: [main] retention: {main.retention} is less than {SHORTEST_SAFE_RETENTION} seconds, "
            "Puppet servers that read over NFS may miss files"
        )
    ]


def _check_whole(config: Config) -> None:
    main = config.main
    inside = os.path.normpath(main.repositorymetadata)
    if not inside.startswith(os.path.normpath(main.repositorymetadatadir) + os.sep):
        raise ConfigError(
            config.path,
            f"expected a file inside '{main.repositorymetadatadir}', not '{main.repositorymetadata}'",
            "main",
            "repositorymetadata",
        )
    taken: dict[str, str] = {}
    for key in ("baredir", "clonedir", "cachedir", "environmentsdir"):
        directory = os.path.normpath(getattr(main, key))
        if directory in taken:
            raise ConfigError(
                config.path, f"expected a directory of its own, not that of {taken[directory]}", "main", key
            )
        taken[directory] = key


def _check_path(value: object) -> Path:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise VdtTypeError(value)
    return Path(value)


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
