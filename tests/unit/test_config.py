"""The configuration: the default of each key, and the error when a value cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jens import config as config_module
from jens.config import Config, load_config
from jens.errors import ConfigError
from tests import TREE

_SHIPPED = TREE / "conf" / "main.conf"

_DEFAULTS: dict[str, Any] = {
    "main.baredir": Path("/var/lib/jens/bare"),
    "main.clonedir": Path("/var/lib/jens/clone"),
    "main.cachedir": Path("/var/lib/jens/cache"),
    "main.environmentsdir": Path("/var/lib/jens/environments"),
    "main.logdir": Path("/var/log/jens"),
    "main.debuglevel": "INFO",
    "main.mandatorybranches": ("master", "qa"),
    "main.protectedenvironments": (),
    "main.environmentsmetadatadir": Path("/var/lib/jens/metadata/environments"),
    "main.repositorymetadatadir": Path("/var/lib/jens/metadata/repository"),
    "main.repositorymetadata": Path("/var/lib/jens/metadata/repository/repositories.yaml"),
    "main.hashprefix": "commit/",
    "main.tagprefix": "tag/",
    "main.directory_environments": False,
    "main.common_hieradata_items": (),
    "main.mode": "POLL",
    "main.purgelimit": 50,
    "main.retention": 300,
    "main.maxfiles": 500000,
    "main.maxbytes": 8589934592,
    "main.maxenvironments": 2000,
    "main.versionedenvironments": (),
    "main.versionsdir": "",
    "main.config_version": False,
    "main.environment_hiera": "",
    "main.environment_conf": (),
    "lock.type": "FILE",
    "lock.name": "jens",
    "filelock.lockdir": Path("/run/lock/jens"),
    "messaging.queuedir": Path("/var/spool/jens-update"),
    "git.ssh_cmd_path": "",
    "git.share_connections": True,
    "git.timeout": 120,
    "git.patience": 20,
    "git.clonetimeout": 1800,
    "git.gctimeout": 3600,
    "git.memory": 1024,
    "git.jobs": 0,
    "history.days": 90,
    "hook.command": "",
    "hook.timeout": 60,
    "puppetserver.urls": (),
    "puppetserver.ssl_cert": "",
    "puppetserver.ssl_key": "",
    "puppetserver.ssl_ca": "",
    "puppetserver.flush_again": 0,
    "puppetserver.generate_types": False,
    "notify.owners": "",
    "notify.admins": (),
    "notify.interval": 600,
    "notify.grace": 120,
    "gitlabproducer.secret_token": "",
}

#: The values of the shipped file, where they differ from the defaults.
_SHIPPED_VALUES = {
    **_DEFAULTS,
    "main.mandatorybranches": ("master",),
    "main.common_hieradata_items": ("environments", "hardware", "operatingsystems", "common.yaml"),
    "main.protectedenvironments": ("production", "qa"),
    "main.directory_environments": True,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "main.conf"


def _load(file: Path, text: str) -> Config:
    file.write_text(text, "utf-8")
    return load_config(file)


def _refuse(file: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        _load(file, text)
    assert str(caught.value).startswith(f"{file}: ")
    return caught.value


def _values(config: Config) -> dict[str, Any]:
    sections = {name: value for name, value in config._asdict().items() if hasattr(value, "_asdict")}
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys._asdict().items()}


def test_an_empty_file_is_valid_and_every_key_has_its_default(file: Path) -> None:
    config = _load(file, "")
    assert _values(config) == _DEFAULTS
    assert config.warnings == ()
    assert config.path == file


def test_the_file_is_the_one_of_the_system_unless_told() -> None:
    assert Path("/etc/jens/main.conf") == config_module.DEFAULT_PATH


def test_the_shipped_file_validates_without_a_warning() -> None:
    config = load_config(_SHIPPED)
    assert _values(config) == _SHIPPED_VALUES
    assert config.warnings == ()


def test_the_shipped_file_has_every_key_with_a_comment_optional_ones_commented_out() -> None:
    section, commented, found = "", False, {}
    for line in _SHIPPED.read_text("utf-8").splitlines():
        header = re.fullmatch(r"\[(\w+)\]", line)
        key = re.fullmatch(r"(#?)(\w+) = .*", line)
        if header:
            section = header.group(1)
        elif key:
            assert commented, f"{section}.{key.group(2)} has no comment"
            found[f"{section}.{key.group(2)}"] = not key.group(1)
        commented = line.startswith("#") or (commented and bool(line))
    assert set(found) == set(_DEFAULTS)
    assert {key for key, is_set in found.items() if not is_set} == {
        *("main.versionedenvironments", "main.versionsdir", "main.environment_hiera", "main.environment_conf"),
        "git.ssh_cmd_path",
        *("hook.command", "notify.owners", "notify.admins", "gitlabproducer.secret_token"),
        *("puppetserver.urls", "puppetserver.ssl_cert", "puppetserver.ssl_key", "puppetserver.ssl_ca"),
    }


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("main.baredir", "/srv/with space/bare", Path("/srv/with space/bare")),
        ("main.debuglevel", "DEBUG", "DEBUG"),
        ("main.debuglevel", "ERROR", "ERROR"),
        ("main.mandatorybranches", "master", ("master",)),
        ("main.mandatorybranches", "master,", ("master",)),
        ("main.mandatorybranches", "main, feature/x", ("main", "feature/x")),
        ("main.mandatorybranches", ",", ()),
        ("main.protectedenvironments", "production, qa", ("production", "qa")),
        ("main.hashprefix", "sha:", "sha:"),
        ("main.tagprefix", "version:", "version:"),
        ("main.directory_environments", "True", True),
        ("main.directory_environments", "yes", True),
        ("main.common_hieradata_items", "common.yaml", ("common.yaml",)),
        ("main.mode", "ONDEMAND", "ONDEMAND"),
        ("main.purgelimit", "0", 0),
        ("main.purgelimit", "100", 100),
        ("main.retention", "3600", 3600),
        ("main.maxenvironments", "1", 1),
        ("main.versionsdir", "/mnt/versions", "/mnt/versions"),
        ("main.config_version", "True", True),
        ("main.environment_hiera", "site", "site"),
        ("main.environment_hiera", "hieradata", "hieradata"),
        ("main.environment_hiera", "''", ""),
        ("main.environment_conf", ",", ()),
        ("lock.type", "DISABLED", "DISABLED"),
        ("lock.name", "jens-2", "jens-2"),
        ("filelock.lockdir", "/tmp/lock", Path("/tmp/lock")),
        ("messaging.queuedir", "/tmp/queue", Path("/tmp/queue")),
        ("git.ssh_cmd_path", "/etc/jens/ssh", "/etc/jens/ssh"),
        ("git.timeout", "0", 0),
        ("git.share_connections", "no", False),
        ("git.patience", "0", 0),
        ("git.clonetimeout", "5", 5),
        ("git.gctimeout", "0", 0),
        ("main.maxfiles", "1", 1),
        ("main.maxbytes", "10000000000000", 10**13),
        ("git.memory", "0", 0),
        ("git.jobs", "4", 4),
        ("history.days", "0", 0),
        ("gitlabproducer.secret_token", "'a, b#%(x)s$y'", "a, b#%(x)s$y"),
    ],
)
def test_a_key_is_what_is_written(file: Path, key: str, written: str, value: object) -> None:
    section, name = key.split(".")
    config = _load(file, f"[{section}]\n{name} = {written}\n")
    assert _values(config) == {**_DEFAULTS, key: value}
    assert config.warnings == ()


_CONF_EXPECTED = (
    "a list of lines 'key = value', with commas between them, each key once: "
    "config_version, environment_timeout, rich_data, static_catalogs (see environments.md)"
)

_BAD_VALUES = [
    *[(key, "relative/path", "an absolute path") for key, value in _DEFAULTS.items() if isinstance(value, Path)],
    *[(key, "''", "an absolute path") for key, value in _DEFAULTS.items() if isinstance(value, Path)],
    ("main.baredir", "/a, /b", "an absolute path"),
    ("main.baredir", "~/bare", "an absolute path"),
    ("main.debuglevel", "info", "DEBUG, INFO or ERROR"),
    ("main.debuglevel", "WARNING", "DEBUG, INFO or ERROR"),
    ("main.mandatorybranches", "master, a..b", "a list of branch names"),
    ("main.mandatorybranches", "-x,", "a list of branch names"),
    ("main.mandatorybranches", "master qa", "a list of branch names, with commas between them, not 'master qa'"),
    ("main.mandatorybranches", "master, a..b, c", "a list of branch names, with commas between them, not 'a..b'"),
    ("main.protectedenvironments", "production qa", "with commas between them, not 'production qa'"),
    ("main.protectedenvironments", "production, my-own, qa", "(letters, digits, underscores), with commas"),
    ("main.protectedenvironments", "production, my-own, qa", ", not 'my-own'"),
    ("main.protectedenvironments", "production; qa", "with commas between them, not 'production; qa'"),
    ("main.hashprefix", "''", "a string that is not empty"),
    ("main.hashprefix", "a, b", "a string that is not empty"),
    ("main.tagprefix", "''", "a string that is not empty"),
    ("main.tagprefix", "Commit/", "another prefix than that of hashprefix"),
    ("main.directory_environments", "maybe", "True or False"),
    ("main.common_hieradata_items", "../secret,", "without slashes"),
    ("main.common_hieradata_items", "..,", "without slashes"),
    ("main.common_hieradata_items", "common.yaml, a/b, c", "with commas between them, not 'a/b'"),
    ("main.common_hieradata_items", "common.yaml, fqdns", "other than fqdns, hostgroups, module_names"),
    ("main.mode", "PUSH", "POLL or ONDEMAND"),
    ("history.days", "-1", "a whole number of days, 0 or more"),
    ("history.days", "90d", "a whole number of days, 0 or more"),
    ("main.purgelimit", "half", "a percentage, 0 to 100"),
    ("main.purgelimit", "101", "a percentage, 0 to 100"),
    ("main.purgelimit", "-1", "a percentage, 0 to 100"),
    ("main.purgelimit", "50%", "a percentage, 0 to 100"),
    ("main.retention", "5m", "a whole number of seconds"),
    ("main.maxenvironments", "0", "a whole number, 1 or more"),
    ("main.versionedenvironments", "production, a/b", "a list of environments, or *"),
    ("main.versionsdir", "versions", "an absolute path"),
    ("main.config_version", "perhaps", "True or False"),
    *[
        ("main.environment_hiera", bad, f"site or hieradata, not {bad!r}")
        for bad in ("modules", "True", "Site", "../site", "common/site", "-x")
    ],
    ("main.environment_hiera", "site, hieradata", "site or hieradata, not ['site', 'hieradata']"),
    *[
        ("main.environment_conf", bad, f"{_CONF_EXPECTED}, not {bad!r}")
        for bad in (
            *("environment_timeout", "environment_timeout =", "= unlimited", "environment_timeout unlimited", "-x"),
            *("modulepath = /etc", "manifest = /etc", "parser = future", "environment_data_provider = hiera"),
            *(
                "Environment_Timeout = 0",
                "environment_timeout = soon",
                "environment_timeout = -1",
                "static_catalogs = no",
            ),
            *("environment_timeout = 5 m", "rich_data = 1", "[main]", "config_version = git rev-parse @{u}"),
        )
    ],
    (
        "main.environment_conf",
        "environment_timeout = 0, rich_data = true, environment_timeout = 5m",
        f"{_CONF_EXPECTED}, not 'environment_timeout = 5m'",
    ),
    ("main.environment_conf", "'''rich_data = true\nmanifest = /etc'''", f"{_CONF_EXPECTED}, not 'rich_data"),
    ("main.environment_conf", "'''config_version = a\nb'''", f"{_CONF_EXPECTED}, not 'config_version"),
    ("main.retention", "-1", "a whole number of seconds"),
    ("main.retention", "1.5", "a whole number of seconds"),
    ("lock.type", "REDIS", "FILE or DISABLED"),
    ("lock.name", "../jens", "a file name without slashes"),
    ("lock.name", "..", "a file name without slashes"),
    ("lock.name", "''", "a file name without slashes"),
    ("git.ssh_cmd_path", "ssh", "an absolute path"),
    ("git.timeout", "-1", "a whole number of seconds"),
    ("git.share_connections", "perhaps", "True or False"),
    ("git.patience", "some", "a whole number of seconds"),
    ("git.clonetimeout", "never", "a whole number of seconds"),
    ("git.gctimeout", "1h", "a whole number of seconds"),
    ("main.maxfiles", "0", "a whole number, 1 or more"),
    ("main.maxbytes", "8G", "a whole number of bytes, 1 or more"),
    ("git.memory", "-1", "a whole number of MiB, 0 or more"),
    ("git.jobs", "-1", "a whole number"),
    ("git.jobs", "many", "a whole number"),
    ("gitlabproducer.secret_token", "a, b", "a string"),
    ("hook.command", "notify.sh", "an absolute path"),
    ("puppetserver.urls", "http://puppet.example.org:8140", "a list of https://HOST"),
    ("puppetserver.urls", "https://puppet.example.org/puppet-admin-api", "a list of https://HOST"),
    ("notify.owners", "mailto://smtp.example.org", "a URL of Apprise with {address} in it"),
    ("notify.admins", "puppet@example.org", "a list of URLs of Apprise"),
    ("notify.interval", "10m", "a whole number of seconds"),
    ("notify.grace", "-1", "a whole number of seconds"),
    ("hook.timeout", "long", "a whole number of seconds"),
    ("puppetserver.ssl_cert", "cert.pem", "an absolute path"),
    ("puppetserver.ssl_key", "key.pem", "an absolute path"),
    ("puppetserver.ssl_ca", "ca.pem", "an absolute path"),
    ("puppetserver.flush_again", "soon", "a whole number of seconds"),
    ("puppetserver.generate_types", "maybe", "True or False"),
]


@pytest.mark.parametrize(("key", "written", "expected"), _BAD_VALUES)
def test_a_bad_value_is_an_error_naming_file_section_key_and_expectation(
    file: Path, key: str, written: str, expected: str
) -> None:
    section, name = key.split(".")
    error = _refuse(file, f"[{section}]\n{name} = {written}\n")
    assert (error.path, error.section, error.key) == (file, section, name)
    assert str(error).startswith(f"{file}: [{section}] {name}: expected ")
    assert expected in str(error)
    assert "\n" not in str(error)


def test_every_key_that_can_be_wrong_has_a_row_of_bad_values() -> None:
    assert {key for key, _, _ in _BAD_VALUES} == set(_DEFAULTS)


@pytest.mark.parametrize("key", ["main.baredir", "main.mandatorybranches", "gitlabproducer.secret_token"])
def test_a_section_in_the_place_of_a_key_is_an_error(file: Path, key: str) -> None:
    section, name = key.split(".")
    error = _refuse(file, f"[{section}]\n[[{name}]]\nx = 1\n")
    assert f"[{section}] {name}" in str(error)


def test_a_key_in_the_place_of_a_section_is_an_error(file: Path) -> None:
    error = _refuse(file, "main = 5\n")
    assert "main" in str(error)
    assert "expected" in str(error)


@pytest.mark.parametrize(
    "text",
    ["[main\n", "[main]\nbaredir /srv\n", "[main]\nmode = 'POLL\n", "[[main]]\n"],
    ids=["bracket", "no equals sign", "quote", "nesting"],
)
def test_a_syntax_error_is_named_with_its_line(file: Path, text: str) -> None:
    error = _refuse(file, text)
    assert "syntax error" in str(error)
    assert re.search(r"at line \D*\d", str(error))


_LONG = "[main]\nhashprefix = '''x\nmode = no key\n[git]\n'''\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("[main]\nmode = POLL\n\nmode = POLL\n", "[main] mode: @ 2 and 4", id="key"),
        pytest.param("[main]\nmode = A\nmode = B\n'mode' = C\n", "[main] mode: @ 2, 3 and 4", id="three times"),
        pytest.param("[main]\nx = 1\n[git]\nx = 1\n  x=2\n", "[git] x: @ 4 and 5", id="in the second section"),
        pytest.param("[main]\n[git]\n# x\n[ main ]\nx = 1\n", "[main] @ 1 and 4", id="section"),
        pytest.param("x = 1\nx = 2\n[main]\n", "x: @ 1 and 2", id="outside any section"),
        pytest.param("[main]\n[[x]]\na = 1\na = 1\n[git]\n", "[main.x] a: @ 3 and 4", id="in a section in a section"),
        pytest.param(f"{_LONG}mode = POLL\nmode = POLL\n", "[main] mode: @ 6 and 7", id="after a long value"),
    ],
)
def test_what_is_there_twice_is_named_with_all_its_lines(file: Path, text: str, expected: str) -> None:
    assert str(_refuse(file, text)) == f"{file}: {expected.replace('@', 'expected once, it is in the lines')}"


@pytest.mark.parametrize("kind", ["missing", "directory", "not UTF-8"])
def test_an_unreadable_file_is_an_error(file: Path, kind: str) -> None:
    if kind == "directory":
        file.mkdir()
    elif kind == "not UTF-8":
        file.write_bytes(b"[main]\nbaredir = /srv/\xff\n")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: ")


_SECTIONS = (
    "[main], [lock], [filelock], [messaging], [git], [history], [hook], [puppetserver], [notify], [gitlabproducer]"
)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[main]\n\nbarredir = /srv\n", "key 'barredir' in [main] is ignored (line 3), expected 'baredir'"),
        ("[main]\nBareDir = /srv\n", "key 'BareDir' in [main] is ignored (line 2), expected 'baredir'"),
        ("[mian]\nbaredir = /srv\n", "section [mian] is ignored (line 1), expected [main]"),
        ("[main]\n[alarm]\ndays = 5\n", f"section [alarm] is ignored (line 2), expected one of {_SECTIONS}"),
        ("baredir = /srv\n", "key 'baredir' outside any section is ignored (line 1), expected 'baredir' in [main]"),
        ("x = 1\n[main]\n", "key 'x' outside any section is ignored (line 1), no key has such a name"),
        ("[main]\n[[nested]]\nx = 1\n", "key 'nested' in [main] is ignored (line 2), no key has such a name"),
        ("[git]\nbaredir = /srv\n", "key 'baredir' in [git] is ignored (line 2), expected 'baredir' in [main]"),
        ("[lock]\ncolour = red\n", "key 'colour' in [lock] is ignored (line 2), expected type or name"),
        (f"{_LONG}[lock]\n'naem' = x\n", "key 'naem' in [lock] is ignored (line 7), expected 'name'"),
        ("[lock]\nname\t=x # = y\n lokdir=/x\n", "key 'lokdir' in [lock] is ignored (line 3), expected 'lockdir' in "),
    ],
)
def test_what_is_unknown_is_a_warning_that_says_where_it_is_and_what_was_expected(
    file: Path, text: str, warning: str
) -> None:
    config = _load(file, text)
    [found] = config.warnings
    assert found.startswith(f"{file}: unknown {warning}")
    assert _values(config)["main.baredir"] == _DEFAULTS["main.baredir"]


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("environment_timeout = unlimited", ("environment_timeout = unlimited",)),
        ("environment_timeout=5m,", ("environment_timeout = 5m",)),
        (
            "static_catalogs = False, rich_data =  true, environment_timeout = 0",
            ("static_catalogs = False", "rich_data = true", "environment_timeout = 0"),
        ),
        (
            '"config_version = /usr/bin/env a,b = $environment # c",',
            ("config_version = /usr/bin/env a,b = $environment # c",),
        ),
    ],
)
def test_lines_for_environment_conf(file: Path, written: str, lines: tuple[str, ...]) -> None:
    config = _load(file, f"[main]\ndirectory_environments = True\nenvironment_conf = {written}\n")
    assert (config.main.environment_conf, config.warnings) == (lines, ())


def test_lines_for_an_environment_conf_that_nobody_writes_are_a_warning(file: Path) -> None:
    config = _load(file, "[main]\nenvironment_conf = rich_data = true\n")
    expected = "environment_conf: nothing is written without directory_environments = True"
    assert config.warnings == (f"{file}: [main] {expected}",)


def test_an_item_with_a_space_in_it_is_a_warning(file: Path) -> None:
    config = _load(file, "[main]\ncommon_hieradata_items = common.yaml hardware, other\n")
    assert config.main.common_hieradata_items == ("common.yaml hardware", "other")
    expected = "common_hieradata_items: 'common.yaml hardware' is one item, items have commas between them"
    assert config.warnings == (f"{file}: [main] {expected}",)


@pytest.mark.parametrize("seconds", [0, 119])
def test_a_retention_below_two_minutes_is_a_warning(file: Path, seconds: int) -> None:
    config = _load(file, f"[main]\nretention = {seconds}\n")
    assert config.main.retention == seconds
    (warning,) = config.warnings
    assert "retention" in warning
    assert "120" in warning


def test_a_retention_of_two_minutes_is_none(file: Path) -> None:
    assert _load(file, "[main]\nretention = 120\n").warnings == ()


_SERVER = "[puppetserver]\nurls = https://puppet.example.org:8140\n"


@pytest.mark.parametrize(
    ("text", "section", "key"),
    [
        (f"{_SERVER}ssl_key = /etc/jens/key.pem\n", "puppetserver", "ssl_cert"),
        (f"{_SERVER}ssl_cert = /etc/jens/cert.pem\n", "puppetserver", "ssl_key"),
        ("[history]\ndays = 0\n[hook]\ncommand = /etc/jens/hook\n", "history", "days"),
        ("[history]\ndays = 0\n[notify]\nadmins = json://chat.example.org,\n", "history", "days"),
    ],
)
def test_whom_to_tell_needs_a_history_and_servers_a_certificate(file: Path, text: str, section: str, key: str) -> None:
    error = _refuse(file, text)
    assert (error.section, error.key) == (section, key)


def test_a_password_in_the_url_of_a_receiver_is_not_repeated(file: Path) -> None:
    assert "hunter2" not in str(_refuse(file, "[notify]\nowners = mailto://jens:hunter2@smtp.example.org\n"))


@pytest.mark.parametrize(
    "library",
    ["/m/other/r.yaml", "/m/repository", "/m/repository/", "/m/repository-2/r.yaml", "/m/repository/../r.yaml"],
)
def test_a_library_outside_its_directory_is_an_error(file: Path, library: str) -> None:
    error = _refuse(file, f"[main]\nrepositorymetadatadir = /m/repository\nrepositorymetadata = {library}\n")
    assert (error.section, error.key) == ("main", "repositorymetadata")
    assert "/m/repository" in str(error)


@pytest.mark.parametrize(
    ("directory", "library"),
    [
        ("/m/repository", "/m/repository/r.yaml"),
        ("/m/repository/", "/m/repository/sub/r.yaml"),
        ("/m/repository", "/m/repository/sub/../r.yaml"),
        ("/m/x/../repository", "/m/repository/r.yaml"),
    ],
)
def test_a_library_inside_its_directory_can_be_named_relative_to_it(file: Path, directory: str, library: str) -> None:
    main = _load(file, f"[main]\nrepositorymetadatadir = {directory}\nrepositorymetadata = {library}\n").main
    assert ".." not in main.repositorymetadata.relative_to(main.repositorymetadatadir).parts


@pytest.mark.parametrize("key", ["clonedir", "cachedir", "environmentsdir"])
def test_two_of_the_directories_cannot_be_one(file: Path, key: str) -> None:
    error = _refuse(file, f"[main]\nbaredir = /srv/x\n{key} = /srv/y/../x\n")
    assert (error.section, error.key) == ("main", key)


@pytest.mark.parametrize(
    "line",
    [
        "secret_token = hunter2, x",
        "secret_token = 'hunter2",
        'secret_token "hunter2"',
        "secret_token: hunter2",
        "secret_token = a\nsecret_token = hunter2",
        "[[secret_token]]\nhunter2 = 1",
    ],
)
def test_a_secret_is_never_repeated(file: Path, line: str) -> None:
    assert "hunter2" not in str(_refuse(file, f"[gitlabproducer]\n{line}\n"))
