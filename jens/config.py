"""The configuration: every key once, read and checked by ConfigObj, returned as one frozen Config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from configobj import ConfigObj, ConfigObjError, DuplicateError, flatten_errors

from jens import deferred
from jens.configchecks import CHECKS, CONF_KEYS, RESERVED_HIERADATA_ITEMS, BadElementError
from jens.errors import ConfigError
from jens.model import Prefixes

try:  # configobj before 5.0.7 ships it as a top-level module
    from configobj.validate import Validator
except ImportError:  # pragma: no cover - depends on the version installed
    from validate import Validator

DEFAULT_PATH = Path("/etc/jens/main.conf")

#: Seconds. With a shorter retention, NFS clients may still look for a checkout that was removed.
SHORTEST_SAFE_RETENTION = 120


# The keys: each key is a field of its section and has the type of its value. The field's default is the declaration
# of the key.


class Key(NamedTuple):
    """A key: its check with the default, in the language of ConfigObj; in words, what is expected and what it means."""

    check: str
    expected: str
    meaning: str


def _key(check: str, expected: str, meaning: str) -> Any:
    return Key(check, expected, meaning)


def _path(default: str, meaning: str) -> Any:
    return Key(f"path(default={default!r})", "an absolute path", meaning)


def _seconds(default: int, meaning: str) -> Any:
    check = f"integer(min=0, max=31536000, default={default})"
    return Key(check, "a whole number of seconds, 0 or more", meaning)


class Main(NamedTuple):
    """[main]; ``retention`` in seconds, ``purgelimit`` in percent, ``maxbytes`` in bytes."""

    baredir: Path = _path("/var/lib/jens/bare", "mirrors")
    clonedir: Path = _path("/var/lib/jens/clone", "files of commits, read by Puppet servers")
    cachedir: Path = _path("/var/lib/jens/cache", "what Jens remembers")
    environmentsdir: Path = _path("/var/lib/jens/environments", "environments, read by Puppet servers")
    logdir: Path = _path("/var/log/jens", "one log for each tool, such as jens-update.log")
    debuglevel: str = _key(
        "option('DEBUG', 'INFO', 'ERROR', default='INFO')", "DEBUG, INFO or ERROR", "DEBUG, INFO, ERROR"
    )
    mandatorybranches: tuple[str, ...] = _key(
        "branches(default=list('master', 'qa'))",
        "a list of branch names, with commas between them",
        "branches that every repository must have (shipped: master,)",
    )
    protectedenvironments: tuple[str, ...] = _key(
        "environments(default=list())",
        "a list of environments (letters, digits, underscores), with commas between them",
        "never deleted (shipped: production, qa)",
    )
    environmentsmetadatadir: Path = _path("/var/lib/jens/metadata/environments", "clone of the environment metadata")
    repositorymetadatadir: Path = _path("/var/lib/jens/metadata/repository", "clone of the repository metadata")
    repositorymetadata: Path = _path(
        "/var/lib/jens/metadata/repository/repositories.yaml", "the library, inside that clone"
    )
    hashprefix: str = _key("prefix(default='commit/')", "a string that is not empty", "marks a ref as a commit")
    tagprefix: str = _key("prefix(default='tag/')", "a string that is not empty", "marks a ref as a tag")
    directory_environments: bool = _key(
        "boolean(default=False)",
        "True or False",
        "write environment.conf; Puppet 4 and later need True (shipped: True)",
    )
    common_hieradata_items: tuple[str, ...] = _key(
        "items(default=list())",
        f"a list of names without slashes, other than {', '.join(RESERVED_HIERADATA_ITEMS)}, with commas between them",
        "entries of the common Hiera data's data/ to link",
    )
    mode: str = _key(
        "option('POLL', 'ONDEMAND', default='POLL')",
        "POLL or ONDEMAND",
        "POLL asks every remote in each run, ONDEMAND those that hints name: see hints.md",
    )
    purgelimit: int = _key(
        "integer(min=0, max=100, default=50)", "a percentage, 0 to 100", "percent, see the purge guard"
    )
    retention: int = _seconds(300, "seconds that files stay after they were in use")
    maxfiles: int = _key(
        "integer(min=1, default=500000)",
        "a whole number, 1 or more",
        "files of a commit; one that has more is not laid out",
    )
    maxbytes: int = _key(
        "integer(min=1, default=8589934592)",
        "a whole number of bytes, 1 or more",
        "bytes of all files of a commit; one that has more is not laid out",
    )
    maxenvironments: int = _key(
        "integer(min=1, max=1000000, default=2000)",
        "a whole number, 1 or more",
        "more environments are not made; those that exist stay",
    )
    versionedenvironments: tuple[str, ...] = _key(
        "versioned(default=list())",
        "a list of environments, or *, with commas between them",
        "each of their states is a directory of its own, see versions.md; *: all; needs directory_environments",
    )
    versionsdir: str = _key(
        "optional_path(default='')",
        "an absolute path",
        "where Puppet servers see environmentsdir/.versions; unset: there",
    )
    config_version: bool = _key(
        "boolean(default=False)", "True or False", "catalogs and reports tell the version, see versions.md"
    )
    environment_hiera: str = _key(
        "common(default='')",
        "site or hieradata",
        "the repository whose hiera.yaml environments get, where it has one, see environments.md: site or hieradata; "
        "unset: none",
    )
    environment_conf: tuple[str, ...] = _key(
        "conf_lines(default=list())",
        f"a list of lines 'key = value', with commas between them, each key once: {', '.join(CONF_KEYS)} (see "
        "environments.md)",
        f"lines for each environment.conf, see environments.md: {', '.join(CONF_KEYS)}; needs directory_environments",
    )

    @property
    def prefixes(self) -> Prefixes:
        """What marks a ref in a definition."""
        return Prefixes(self.hashprefix, self.tagprefix)


class Lock(NamedTuple):
    """[lock]."""

    type: str = _key(
        "option('FILE', 'DISABLED', default='FILE')",
        "FILE or DISABLED",
        "DISABLED: it is up to you that no two runs meet",
    )
    name: str = _key("filename(default='jens')", "a file name without slashes", "name of the lock file")


class FileLock(NamedTuple):
    """[filelock]."""

    lockdir: Path = _path("/run/lock/jens", "on a local disk")


class Messaging(NamedTuple):
    """[messaging]."""

    queuedir: Path = _path("/var/spool/jens-update", "the queue of hints, on a local disk")


class Git(NamedTuple):
    """[git]; time limits in seconds, ``memory`` in MiB, 0 for none; ``jobs`` 0: Jens chooses."""

    ssh_cmd_path: str = _key("optional_path(default='')", "an absolute path", "see SSH")
    share_connections: bool = _key(
        "boolean(default=True)",
        "True or False",
        "ask many repositories of a server over few connections, see performance.md",
    )
    timeout: int = _seconds(
        120,
        "seconds that asking a remote or fetching may take, and that a silent server may cost a run; 0: no limit",
    )
    patience: int = _seconds(20, "seconds that a run waits for one repository, see transfers.md; 0: no limit")
    clonetimeout: int = _seconds(
        1800, "the same for the first clone of a repository, and for each Git that asks no remote"
    )
    gctimeout: int = _seconds(3600, "seconds that packing one mirror may take in jens-gc; 0: no limit")
    memory: int = _key(
        "integer(min=0, max=1048576, default=1024)",
        "a whole number of MiB, 0 or more",
        "MiB of memory that each Git may take; 0: no limit",
    )
    jobs: int = _key(
        "integer(min=0, max=256, default=0)",
        "a whole number, 0 to 256",
        "repositories worked on at once, besides those that only wait for a server; fewer where few files may be open; "
        "0: Jens chooses",
    )


class History(NamedTuple):
    """[history]."""

    days: int = _key(
        "integer(min=0, max=36500, default=90)",
        "a whole number of days, 0 or more",
        "days that the history goes back, see history.md; 0: there is none",
    )


class Hook(NamedTuple):
    """[hook]; ``timeout`` in seconds, 0 for none."""

    command: str = _key(
        "optional_path(default='')",
        "an absolute path",
        "a program that is told what changed, see after-a-run.md; unset: there is none",
    )
    timeout: int = _seconds(60, "seconds that it may take; 0: no limit")


class PuppetServer(NamedTuple):
    """[puppetserver]; ``flush_again`` in seconds."""

    urls: tuple[str, ...] = _key(
        "servers(default=list())",
        "a list of https://HOST or https://HOST:PORT, with commas between them",
        "Puppet servers that are told to read environments anew, see after-a-run.md",
    )
    ssl_cert: str = _key("optional_path(default='')", "an absolute path", "the certificate that Jens shows them")
    ssl_key: str = _key("optional_path(default='')", "an absolute path", "its key")
    ssl_ca: str = _key(
        "optional_path(default='')", "an absolute path", "who signs the servers' certificates; unset: the system knows"
    )
    flush_again: int = _seconds(
        0, "seconds after which servers are told once more, for NFS clients that cache attributes so long; 0: never"
    )
    generate_types: bool = _key(
        "boolean(default=False)", "True or False", "run puppet generate types where types of resources changed"
    )


class Notify(NamedTuple):
    """[notify]; ``interval`` and ``grace`` in seconds."""

    owners: str = _key(
        "owners(default='')",
        "a URL of Apprise with {address} in it (in quotes when it has a comma)",
        "how those are told whom definitions name, see after-a-run.md; unset: nobody is",
    )
    admins: tuple[str, ...] = _key(
        "receivers(default=list())",
        "a list of URLs of Apprise, with commas between them",
        "who is told what is wrong with repositories, metadata, hooks and servers",
    )
    interval: int = _seconds(600, "seconds between two messages to the same receiver")
    grace: int = _seconds(120, "seconds that a fault must last until somebody is told")


class GitlabProducer(NamedTuple):
    """[gitlabproducer]; an empty token accepts every request."""

    secret_token: str = _key(
        "string(default='')",
        "a string (in quotes when it has a comma)",
        "what senders of webhooks must know (hints.md); unset: every request is accepted",
    )


class Config(NamedTuple):
    """Everything configured, nested by section; ``warnings`` are for the log.

    Those about keys and sections that nobody knows are ``unknown``, too: a typo has no effect until it is mended.
    """

    path: Path
    main: Main
    lock: Lock
    filelock: FileLock
    messaging: Messaging
    git: Git
    history: History
    hook: Hook
    puppetserver: PuppetServer
    notify: Notify
    gitlabproducer: GitlabProducer
    warnings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def has_receivers(self) -> bool:
        """Whether somebody is to be told what runs change."""
        servers = self.puppetserver.urls or self.puppetserver.generate_types
        return bool(self.hook.command or servers or self.notify.owners or self.notify.admins)


_SECTIONS: Mapping[str, Any] = {
    "main": Main,
    "lock": Lock,
    "filelock": FileLock,
    "messaging": Messaging,
    "git": Git,
    "history": History,
    "hook": Hook,
    "puppetserver": PuppetServer,
    "notify": Notify,
    "gitlabproducer": GitlabProducer,
}

#: Sections with values that may be secrets: no message repeats them.
_SECRET = ("gitlabproducer", "notify")

#: Every key by section and name, in the order of the shipped file.
KEYS: Mapping[tuple[str, str], Key] = {
    (section, name): key for section, kind in _SECTIONS.items() for name, key in kind._field_defaults.items()
}


# Reading


def load_config(path: Path = DEFAULT_PATH) -> Config:
    """Read and validate a configuration file.

    Raises ConfigError, naming file, section, key and what was expected.
    """
    lines = _read(path)
    raw = _parse(path, lines)
    unknown = tuple(_unknown_keys(path, raw, lines))
    _validate(path, raw)
    sections: dict[str, Any] = {
        section: kind(**{name: raw[section][name] for name in kind._fields}) for section, kind in _SECTIONS.items()
    }
    warnings = (*unknown, *_risks(path, sections["main"]))
    config = Config(path=path, warnings=warnings, unknown=unknown, **sections)
    _check_whole(config)
    return config


def _read(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(path, f"cannot be read: {problem}") from error


def _parse(path: Path, lines: list[str]) -> ConfigObj:
    try:
        return ConfigObj(lines, configspec=_specification(), interpolation=False)
    except ConfigObjError as error:
        # ConfigObj's own message repeats the line, which may hold a secret.
        first = (getattr(error, "errors", None) or [error])[0]
        raise _syntax_error(path, lines, first) from None


def _syntax_error(path: Path, lines: list[str], error: ConfigObjError) -> ConfigError:
    twice = deferred.configlines.repeated(lines, error.line_number) if isinstance(error, DuplicateError) else None
    if twice is not None:
        place, numbers = twice
        *before, last = map(str, numbers)
        problem = f"expected once, it is in the lines {', '.join(before)} and {last}"
        return ConfigError(path, problem, ".".join(place.section), place.key)
    return ConfigError(path, f"syntax error at line {error.line_number}, expected 'key = value' lines in [sections]")


def _specification() -> list[str]:
    """The keys as a specification in the language of ConfigObj."""
    return [
        line
        for section, kind in _SECTIONS.items()
        for line in (f"[{section}]", *(f"{name} = {key.check}" for name, key in kind._field_defaults.items()))
    ]


def _unknown_keys(path: Path, raw: ConfigObj, lines: list[str]) -> list[str]:
    # This must run before the validation, which adds the missing keys.
    unknown: list[tuple[tuple[str, ...], str]] = [((), name) for name in raw.scalars]
    for section in raw.sections:
        if section not in _SECTIONS:
            unknown.append(((section,), ""))
            continue
        extra = [name for name in raw[section] if (section, name) not in KEYS]
        unknown += [((section, name), "") if name in raw[section].sections else ((section,), name) for name in extra]
    known = {section: kind._fields for section, kind in _SECTIONS.items()}
    return [
        f"{path}: {deferred.configlines.complaint(deferred.configlines.Place(*place), lines, known)}"
        for place in unknown
    ]


def _check_shape(path: Path, raw: ConfigObj) -> None:
    for section in _SECTIONS:
        if section in raw.scalars:
            raise ConfigError(path, f"expected a section: [{section}]", "", section)
        for name in raw[section].sections if section in raw else ():
            if (section, name) in KEYS:
                raise ConfigError(path, f"expected {KEYS[section, name].expected}, not a section", section, name)


def _validate(path: Path, raw: ConfigObj) -> None:
    _check_shape(path, raw)
    result = raw.validate(Validator(CHECKS), preserve_errors=True)
    for sections, name, error in flatten_errors(raw, result) if result is not True else ():
        section = ".".join(sections)
        if name is None:
            raise ConfigError(path, "expected a section", section)
        # The value is not repeated when it may be a secret.
        bad = error.element if isinstance(error, BadElementError) else raw[section][name]
        value = "" if section in _SECRET else f", not {bad!r}"
        raise ConfigError(path, f"expected {KEYS[section, name].expected}{value}", section, name)


def _risks(path: Path, main: Main) -> list[str]:
    """What is allowed, but hardly meant."""
    doubts = [
        f"common_hieradata_items: '{item}' is one item, items have commas between them"
        for item in main.common_hieradata_items
        if any(letter.isspace() for letter in item)
    ]
    if main.retention < SHORTEST_SAFE_RETENTION:
        doubts.append(
            f"retention: {main.retention} is less than {SHORTEST_SAFE_RETENTION} seconds, "
            "Puppet servers that read over NFS may miss files"
        )
    if main.environment_conf and not main.directory_environments:
        doubts.append("environment_conf: nothing is written without directory_environments = True")
    return [f"{path}: [main] {doubt}" for doubt in doubts]


def _check_whole(config: Config) -> None:
    main = config.main
    if main.hashprefix.lower() == main.tagprefix.lower():
        raise ConfigError(config.path, "expected another prefix than that of hashprefix", "main", "tagprefix")
    if main.versionedenvironments and not main.directory_environments:
        raise ConfigError(
            config.path, "expected True, as versionedenvironments needs it", "main", "directory_environments"
        )
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
    _check_receivers(config)


def _check_receivers(config: Config) -> None:
    if config.has_receivers and not config.history.days:
        raise ConfigError(
            config.path, "expected 1 or more: what receivers are told is in the history", "history", "days"
        )
    for key in ("ssl_cert", "ssl_key"):
        if config.puppetserver.urls and not getattr(config.puppetserver, key):
            raise ConfigError(config.path, "expected an absolute path, as urls is set", "puppetserver", key)
