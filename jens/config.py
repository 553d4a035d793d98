"""The configuration: ConfigObj and validate in, one frozen Config out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from configobj import ConfigObj, ConfigObjError, flatten_errors

from jens import configspec
from jens.errors import ConfigError

DEFAULT_PATH = Path("/etc/jens/main.conf")

#: Below this many seconds NFS clients may still look for a checkout that is gone.
SHORTEST_SAFE_RETENTION = 120


class Main(NamedTuple):
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


class Lock(NamedTuple):
    """[lock]."""

    type: str
    name: str


class FileLock(NamedTuple):
    """[filelock]."""

    lockdir: Path


class Messaging(NamedTuple):
    """[messaging]."""

    queuedir: Path


class Git(NamedTuple):
    """[git]; time limits in seconds, 0 for none; ``jobs`` 0 lets Jens choose; ``ssh_cmd_path`` may be ''."""

    ssh_cmd_path: str
    timeout: int
    clonetimeout: int
    jobs: int


class GitlabProducer(NamedTuple):
    """[gitlabproducer]; an empty token accepts every request."""

    secret_token: str


class Config(NamedTuple):
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
        name: kind(**{key.name: raw[name][key.name] for key in configspec.KEYS if key.section == name})
        for name, kind in _SECTIONS.items()
    }
    config = Config(path=path, warnings=tuple(warnings + _risks(path, sections["main"])), **sections)
    _check_whole(config)
    return config


def _parse(path: Path) -> ConfigObj:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(path, f"cannot be read: {problem}") from error
    try:
        return ConfigObj(lines, configspec=configspec.lines(), interpolation=False)
    except ConfigObjError as error:
        # ConfigObj's own message repeats the line, which may hold a secret.
        line = (getattr(error, "errors", None) or [error])[0].line_number
        raise ConfigError(path, f"syntax error at line {line}, expected 'key = value' lines in [sections]") from None


def _unknown_keys(path: Path, raw: ConfigObj) -> list[str]:
    # Needs no validation, and must come first: validating adds what is missing.
    warnings = [f"{path}: unknown key '{name}' outside any section is ignored" for name in raw.scalars]
    for section in raw.sections:
        if section not in _SECTIONS:
            warnings.append(f"{path}: unknown section [{section}] is ignored")
            continue
        extra = [name for name in raw[section] if (section, name) not in configspec.NAMES]
        warnings += [f"{path}: unknown key '{name}' in [{section}] is ignored" for name in extra]
    return warnings


def _check_shape(path: Path, raw: ConfigObj) -> None:
    for section in configspec.SECTIONS:
        if section in raw.scalars:
            raise ConfigError(path, f"expected a section: [{section}]", "", section)
        for name in raw[section].sections if section in raw else ():
            if (section, name) in configspec.NAMES:
                raise ConfigError(path, f"expected {configspec.expected(section, name)}, not a section", section, name)


def _validate(path: Path, raw: ConfigObj) -> None:
    _check_shape(path, raw)
    result = raw.validate(configspec.validator(), preserve_errors=True)
    for sections, name, _error in flatten_errors(raw, result) if result is not True else ():
        section = ".".join(sections)
        if name is None:
            raise ConfigError(path, "expected a section", section)
        expected = configspec.expected(section, name)
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
