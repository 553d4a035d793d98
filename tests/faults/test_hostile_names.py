"""Hostile names, refs and URLs, which everyone at the site can push: none leads out of Jens, none stops a run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Sequence

import pytest

from tests.conftest import MODULE, Outcome, Site, definition, faults_of, git
from tests.faults.decoy import Decoy, push_tree

# The tables hold texts for double quotes in YAML. CANARY is a file that nothing may make.

#: Names that no repository may have.
_NAMES = (
    *("..", ".", "../..", "../../../canary", "../x", "/etc", "/etc/passwd", "//x", "x/", "a/b", "a/../b", "..."),
    *(".git", ".hidden", ".new-1", ".trash-1", "." + "4f0c" * 10, "~", "~root", "a~b", "-x", "--", "-rf"),
    *("--upload-pack=touch CANARY", "--exec=touch CANARY", "-oProxyCommand=touch CANARY", "-c", "--git-dir=/etc"),
    *(r"a\0b", r"\0", r"a\nb", r"\n", r"a\r", r"a\tb", r"\e[2J", r"\a", r"a\x7f", r"\u2028", r"a\u0085b", r"\uFEFFa"),
    *("", " ", " a", "a ", "a b", "*", "?", "[a]", "a:b", "a@b", "a@{0}", "a^", "a%b", "%s%n", "{0}", "$HOME"),
    *("$(touch CANARY)", "`touch CANARY`", "a;touch CANARY", "a|touch CANARY", "a&b", "a>CANARY", "a'b", r"a\"b"),
    *(r"a\\b", r"..\\..", r"C:\\x", r"d\u00fcmmy", r"\u0434ummy", r"dumm\u0443", r"\uff44ummy", r"dummy\u200b"),
    *(r"\u202edummy", r"dum\u00admy", r"\u0661\u0662", r"\U0001f600", r"dummy\u0301", r"\u2024\u2024", r"a\u2215b"),
    *(r"a\uff0fb", "a" * 201, "a" * 300, "a" * 100_000),
)

#: Unacceptable URLs.
_URLS = (
    *("ext::sh -c 'touch CANARY'", "ext::sh -c touch% CANARY", "ext::touch CANARY", "fd::0", "EXT::touch CANARY"),
    *("file::/etc", "https::https://git.example.org/x", "ext://touch CANARY", "testgit::x", "::x", "x::y"),
    *("--upload-pack=touch CANARY", "-utouch CANARY", "-", "--", "--help", "--config=core.fsmonitor=touch CANARY"),
    *("-oProxyCommand=touch CANARY", "-oProxyCommand=touch CANARY:x", "git@-oProxyCommand=touch CANARY:x"),
    *("ssh://-oProxyCommand=touch CANARY/x", "ssh://-oProxyCommand=touch%20CANARY/x", "ssh://git@-F/etc/passwd/x"),
    *("ssh://-oProxyCommand=x@git.example.org/x", "git.example.org:-x", "git://-x/y", "https://-x.example.org/y"),
    *(r"/srv/x\0", r"/srv/x\n", r"https://git.example.org/x\r\nHost: y", r"/srv/\e[2J", r"/srv/\u2028", r"\0", r"a:\0"),
    *("", " ", ".", "..", "../..", "../../etc", "etc", "./x", "~/x", "~root/x", "x", "x/y:z", "a b:c", "*", "$HOME"),
    *(":x", "ftp://git.example.org/x", "ftps://git.example.org/x", "rsync://git.example.org/x", "gopher://a/x"),
    *("javascript:", "data://x/y", "FILE:///etc", "HTTPS://git.example.org/x", "git+ssh://git.example.org/x"),
    *("https://", "https:///x", "https://git.example.org", "ssh://", "ssh:///x", "git://", "file://", "http://:80/x"),
    *("https://a b/x", "ssh://a b/x", "https://[::1/x", "https://x:y:z/x", "https://x:port/x"),
)

#: Acceptable URLs that lead to no repository.
_VAIN_URLS = (
    *("file:///etc", "file:///etc/passwd", "/etc", "/etc/passwd", "/", "//", "/.", "/../..", "/dev/null", "/dev/zero"),
    *("file:///../../etc", "/proc/self/fd/0", "/nowhere; touch CANARY", "/nowhere$(touch CANARY)"),
    *("/`touch CANARY`", "/--upload-pack=touch CANARY", "file:///%00", "file:///nowhere?upload-pack=touch CANARY"),
    *("/nowhere#x", r"/nowhere\u00fc", "/" + "a" * 255, "/" + "a" * 256, "/" + "a/" * 5000, "/" + "a" * 200_000),
    *("http://127.0.0.1:1/x", "git://127.0.0.1:1/x", "git://127.0.0.1:1/x%0ahost=y", "https://127.0.0.1:1/.."),
    *("http://a:b@127.0.0.1:1/x", "http://127.0.0.1:99999/x", "ssh://$(touch${IFS}$MARK)/x", "`touch${IFS}$MARK`:x"),
    *("git.example.org:x';touch CANARY;'", r"ssh://git.example.org/x\\';touch CANARY;'", r"https://x\\y@127.0.0.1:1/z"),
    *("ssh://git.example.org/$(touch CANARY)", "ssh://git.example.org:22/~root/x", "a;touch${IFS}$MARK:x"),
)

#: Unacceptable refs.
_REFS = (
    *("../..", "..", ".", "../../../neighbour", "/etc", "/", "/master", "master/", "a//b", "master/../..", "a/./b"),
    *("-x", "-", "--", "--upload-pack=touch CANARY", "-utouch CANARY", "--exec=touch CANARY", "-oProxyCommand=CANARY"),
    *("HEAD", "@{-1}", "@{u}", "master@{0}", "master@{upstream}", "master^", "master^{}", "^master", "master~1", "~"),
    *("feature~x", "master:code", ":/x", ":", "+master:master", "+refs/heads/*:refs/heads/*", "master..qa", "a...b"),
    *("*", "mas*", "?", "[m]aster", r"a\\b", ".git", ".git/hooks/x", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a/b."),
    *("." + "4f0c" * 10, ".4f0c", ".new-1", ".trash-1", "", " ", " master", "master ", "a b", "master; touch CANARY"),
    *(r"\0", r"master\0", r"master\n", r"\nmaster", r"a\tb", r"a\e[2J", r"a\x7f", "a" * 256, "a/" * 128 + "a"),
    *(r"\u00e9" * 128, "commit/", "commit/4f0", "commit/" + "a" * 41, "commit/../..", "commit/-x", "commit/HEAD"),
    *("COMMIT/master", r"commit/4f0c\n", r"commit/\uff144f0c", "commit/4f0c^", "commit/4f0c:code", "commit/ 4f0c"),
    *("commit/" + "4f0c" * 10 + "/..", "commit/" + "a" * 100_000, "a" * 100_000),
)

#: Ill-formed definitions, without the mandatory key, which the tests put in front.
_LINES = (
    # In the place of a branch name
    *("default: on", "default: yes", "default: 1.10", "default: 5", "default: 0x10", "default: 12:30:45"),
    *("default: 2015-01-01", "default: .inf", "default: .nan", "default: null", "default: ~", "default:"),
    *(
        "default: [qa, [qa]]",
        "default: {qa: master}",
        "default: &a [*a]",
        "default: *nowhere",
        "default: !!binary bWFzdGVy",
    ),
    *("default: !!python/object/apply:os.system ['touch CANARY']", "default: !!python/name:os.system ''"),
    *("default: !!python/object/new:os.system ['touch CANARY']", "default: !!python/module:antigravity ''"),
    *("default: !!python/object/apply:subprocess.Popen [['touch', CANARY]]", "default: !!set {qa}", "default: !x qa"),
    *("default: !!str [master]", "default: commit/4f0c", "default: |\n  master", "default: >\n  master"),
    # In the place of overrides
    *("overrides:", "overrides: []", "overrides: text", "overrides: on", "overrides: 1.10", "overrides: *nowhere"),
    *("overrides: {module: {}}", "overrides: {'../..': {}}", "overrides: {'': {}}", "overrides: {1: {}}"),
    *("overrides: {on: {}}", "overrides: {Modules: {}}", r'overrides: {"modules\0": {}}', "overrides: {[modules]: {}}"),
    *("overrides: {modules: }", "overrides: {modules: []}", "overrides: {modules: on}", "overrides: {modules: dummy}"),
    *("overrides: {modules: {dummy: on}}", "overrides: {modules: {dummy: 1.10}}", "overrides: {modules: {dummy: }}"),
    *("overrides: {modules: {dummy: [qa]}}", "overrides: {modules: {dummy: {qa: qa}}}", "overrides: &a {modules: *a}"),
    *("overrides: {modules: {dummy: 1234567}}", "overrides: {modules: {dummy: 4.0e+10}}", "overrides: {<<: on}"),
    *("overrides: {modules: {dummy: !!python/object/apply:os.system ['touch CANARY']}}",),
    *("overrides: {modules: !!python/object/apply:os.system ['touch CANARY']}",),
    *(
        "overrides: {modules: {<<: text}}",
        "overrides: {modules: {dummy: qa, dummy: on}}",
        "overrides: {modules: {dummy",
    ),
    # In the place of a value for environment.conf
    *("parser: past", "parser: on", "parser: ''", "parser:", r'parser: "future\nmanifest = /etc"', "parser: [future]"),
    *(r'parser: "current\0"', "parser: ../../etc", "parser: Future"),
    # In the place of an address
    *("notifications: !!python/object/apply:os.system ['touch CANARY']", "notifications: [!!python/name:os.system x]"),
    *("notifications: !ann x", "notifications: !!python/object/new:os.system [touch CANARY]"),
    # In the place of the whole definition
    *(
        "<<: text",
        "<<: [on]",
        "\tdefault: master",
        "---\nnotifications: x",
        "default: master\n  more: x",
        "}",
        "a: b: c",
    ),
    *(
        "x: [" + "[" * 5000,
        "x: " + "{a: " * 200,
        "x:\n" + "".join(" " * n + "-\n" for n in range(1, 150)),
        "\0",
        "x: \x01",
    ),
    *(
        "default: master\ndefault: on",
        "%TAG ! tag:yaml.org,2002:python/\n",
        "x: &a\ny: *b",
        "# " + "x" * 1024 * 1024,
    ),
)

#: Ill-formed definitions, complete.
_TEXTS = (
    *("", "\n", "# nothing\n", "---\n", "null", "on", "1.10", "text", "- a\n", "[]", "{}", "default: master\n"),
    *("'notifications: x'", "notifications", "Notifications: x\ndefault: master\n", "{notifications: x"),
    *("!!set {notifications}", "notifications: x\n", "notifications: x\ndefault: master\noverride: {}\n"),
    *(
        "!!python/object/apply:os.system ['touch CANARY']\n",
        "!!python/object:jens.model.Definition {notifications: x, default: master}\n",
    ),
    *(
        "%YAML 9.9\n---\nnotifications: x\ndefault: master\n",
        "%x",
        "&a [*a]",
        "*a",
        "<<: &a {<<: *a}\n",
        "\0" * 100,
        "\x1b[2J",
        "]",
        "\udcff",
    ),
    *(
        "\udcff\udcfen\0o\0",
        "default: master\nnotifications: \udce4\n",
        "\x7fELF\0\udcff",
        "<?xml version='1.0'?>",
        "{" * 50_000,
        "-" * 10_000,
    ),
)

#: File names that no definition may have.
_FILES = (
    *(
        "a-b",
        "a.b",
        "",
        ".",
        "..",
        "...",
        ".x",
        ".git-x",
        "-x",
        "--help",
        "-rf",
        "--upload-pack=touch $MARK",
        "~",
        "a~b",
    ),
    *(
        "a b",
        " ",
        "a\nb",
        "\n",
        "a\n2015-01-01 00:00:00,000 [1] ERROR forged",
        "a\tb",
        "a\rb",
        "\x1b[2J",
        "\x7f",
        "\udcff",
    ),
    *(
        "$(touch $MARK)",
        "`touch $MARK`",
        "a;b",
        "a'b",
        'a"b',
        "a\\b",
        "..\\..",
        "*",
        "?",
        "[a]",
        "a:b",
        "a@{0}",
        "%s%n",
    ),
    *(
        "\u0440roduction",
        "\uff50roduction",
        "production\u200b",
        "product\u0456on",
        "\u202eproduction",
        "\u0661",
        "pr\u00f6d",
    ),
    *(
        "production ",
        "production\x01",
        "production.yaml",
        "production.yml",
        "a" * 249 + ".",
        "123-",
        "null ",
        "\U0001f600",
    ),
)


_OURS = ["common/hieradata", "common/site", "hostgroups/myapp", "modules/dummy"]


def _entries(rows: Iterable[str], written: str) -> str:
    """Lines of a library, or of overrides: one for each row of a table."""
    return "".join(written.format(number=number, row=row) for number, row in enumerate(rows))


def _library(site: Site, entries: str) -> str:
    """The library with more entries in two partitions."""
    urls = {repo.replace("/", "_"): f"'{url}'" for repo, url in site.urls.items()}
    return (
        "repositories:\n  common: {{hieradata: {common_hieradata}, site: {common_site}}}\n"
        "  hostgroups:\n    myapp: {hostgroups_myapp}\n{entries}  modules:\n    dummy: {modules_dummy}\n{entries}"
    ).format(entries=entries, **urls)


@pytest.fixture
def decoy(site: Site, monkeypatch: pytest.MonkeyPatch) -> Decoy:
    """A site after its first run; its replacement for ssh starts a shell, as sshd does."""
    ssh = site.root / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(ssh)
    site.settings["git.timeout"] = site.settings["git.clonetimeout"] = "20"
    assert site.update("--strict").code == 0
    decoy = Decoy(site)
    monkeypatch.setenv("MARK", str(decoy.canary))  # for commands that cannot have a slash
    return decoy


def _push_something(site: Site) -> None:
    """Push as other teams do meanwhile."""
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    site.remotes["hostgroups/myapp"].push({"code/manifests/init.pp": "# new\n"})
    site.define("another")


def _evil(rows: Sequence[str]) -> list[str]:
    return [f"{partition}/evil{number}" for partition in ("hostgroups", "modules") for number in range(len(rows))]


def _update(decoy: Decoy, repos: Iterable[str] = _OURS) -> Outcome:
    """Run, and check that only the hostile repositories had errors."""
    _push_something(decoy.site)
    outcome = decoy.update()
    assert outcome.code == 0
    assert decoy.repositories("clone") == decoy.repositories("bare") == sorted(repos)
    for name in ("production", "another"):
        assert decoy.site.read(f"{name}/modules/dummy/manifests/init.pp") == "# new\n"
        assert decoy.site.read(f"{name}/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
        assert [link for link in decoy.site.dangling(name) if "evil" not in link] == []
    return outcome


# The library


def test_a_name_that_no_repository_may_have_is_one_error_and_makes_nothing(decoy: Decoy) -> None:
    site = decoy.site
    # Explicit keys, because implicit ones end at 1024 characters.
    entries = _entries(_NAMES, '    ? "{row}"\n    : ' + site.urls["modules/dummy"] + "\n")
    site.publish(_library(site, decoy.of(entries)))
    errors = _update(decoy).lines("ERROR")
    assert len(errors) == 2 * len(_NAMES)
    assert all("bad name" in error for error in errors)


def test_a_url_that_no_repository_may_have_is_one_error_and_is_never_asked(decoy: Decoy) -> None:
    site = decoy.site
    site.publish(_library(site, decoy.of(_entries(_URLS, '    evil{number}: "{row}"\n'))))
    errors = _update(decoy).lines("ERROR")
    assert sorted(error.split(" ")[4] for error in errors) == sorted(_evil(_URLS))
    assert all("unusable" in error for error in errors)


def test_a_url_that_leads_to_no_repository_is_one_error_and_gives_nothing_away(decoy: Decoy) -> None:
    site = decoy.site
    site.publish(_library(site, decoy.of(_entries(_VAIN_URLS, '    evil{number}: "{row}"\n'))))
    errors = _update(decoy).lines("ERROR")
    assert sorted(error.split("(")[1].split(":")[0] for error in errors) == sorted(_evil(_VAIN_URLS))
    assert all(error.startswith("ERROR Unable to clone 'evil") for error in errors)
    assert not [error for error in errors if "root:x:" in error or "a:b@" in error]


def test_a_known_repository_whose_url_turns_hostile_stays_as_it_was(decoy: Decoy) -> None:
    site = decoy.site
    rows = (*_URLS[::8], *_VAIN_URLS[::2])
    known = "".join(f"    evil{number}: '{site.urls['modules/dummy']}'\n" for number in range(len(rows)))
    site.publish(_library(site, known))
    assert site.update("--strict").code == 0
    before = site.listing("clone")
    site.publish(_library(site, decoy.of(_entries(rows, '    evil{number}: "{row}"\n'))))
    outcome = _update(decoy, [*_OURS, *_evil(rows)])
    assert len(outcome.lines("ERROR")) == 2 * len(rows)
    after = site.listing("clone")
    assert {path: after[path] for path in before if "/evil" in path} == {
        path: what for path, what in before.items() if "/evil" in path
    }
    assert site.read("production/modules/evil0/manifests/init.pp") == MODULE["code/manifests/init.pp"]


# Definitions


def _definitions(decoy: Decoy, texts: dict[str, str]) -> None:
    files = {f"{name}.yaml": ("100644", decoy.of(text)) for name, text in texts.items()}
    push_tree(decoy.site.definitions, files)


def _ill_formed() -> dict[str, str]:
    begin = "default: master\nnotifications: ann@example.org\n"
    texts = {f"line{number}": f"{begin}{row}\n" for number, row in enumerate(_LINES)}
    texts.update((f"text{number}", row) for number, row in enumerate(_TEXTS))
    for number, row in enumerate(_REFS):
        texts[f"default{number}"] = f'notifications: x\ndefault: "{row}"\n'
        texts[f"ref{number}"] = f'notifications: x\ndefault: master\noverrides: {{modules: {{dummy: "{row}"}}}}\n'
    return texts


def _assert_each_is_one_error(outcome: Outcome, names: Iterable[str]) -> None:
    errors = outcome.lines("ERROR")
    assert [error.split("'")[1] for error in errors] == sorted(names)
    assert all(f"ill-formed: {error.split(chr(39))[1]}.yaml: " in error for error in errors)


def test_a_hostile_definition_is_one_error_and_makes_no_environment(decoy: Decoy) -> None:
    texts = _ill_formed()
    _definitions(decoy, texts)
    _assert_each_is_one_error(_update(decoy), texts)
    assert decoy.site.environments() == ["another", "production"]


def test_an_environment_whose_definition_turns_hostile_stays_as_it_was(decoy: Decoy) -> None:
    texts = dict([*_ill_formed().items()][::3])
    _definitions(decoy, dict.fromkeys(texts, definition(overrides={"hostgroups/myapp": "master"})))
    decoy.site.update()
    before = decoy.site.listing("environments", "cache/environments")
    _definitions(decoy, texts)
    _assert_each_is_one_error(_update(decoy), texts)
    after = decoy.site.listing("environments", "cache/environments")
    assert {path: after[path] for path in before} == before


def test_a_file_of_a_hostile_name_is_one_error_and_makes_no_environment(decoy: Decoy) -> None:
    _definitions(decoy, dict.fromkeys(map(decoy.of, _FILES), definition()))
    outcome = _update(decoy)
    hidden = [name for name in _FILES if f"{name}.yaml".startswith(".")]  # these are no definitions
    assert len(outcome.lines("ERROR")) == len(_FILES) - len(hidden)
    assert all("bad name" in error for error in outcome.lines("ERROR"))
    assert decoy.site.environments() == ["another", "production"]


def test_an_override_of_a_hostile_name_is_worth_a_warning_and_makes_nothing(decoy: Decoy) -> None:
    entries = _entries(_NAMES, '    ? "{row}"\n    : master\n')
    text = f"{definition()}overrides:\n  modules:\n{entries}  hostgroups:\n{entries}  common:\n{entries}"
    _definitions(decoy, {"evil": text})
    outcome = _update(decoy)
    assert outcome.lines("ERROR") == []
    told = [line for line in outcome.lines("WARNING") if "'evil'" in line]
    assert (
        len([line for line in told if "which the library does not have" in line]) == 20
    )  # and how many more there are
    assert f"{3 * len(_NAMES) - 20} more" in told[-1]
    assert decoy.site.links("evil") == decoy.site.links("production")


# One at a time, so that no error hides another


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c 'touch CANARY'",
        "--upload-pack=touch CANARY",
        "ssh://-oProxyCommand=touch CANARY/x",
        r"/srv/x\0",
        "/etc",
    ],
)
def test_one_hostile_url_alone_spoils_nothing_else(url: str, decoy: Decoy) -> None:
    decoy.site.publish(_library(decoy.site, decoy.of(f'    evil: "{url}"\n')))
    assert len(_update(decoy).lines("ERROR")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "default: !!python/object/apply:os.system ['touch CANARY']\nnotifications: x\n",
        "default: master\nnotifications: !!python/object/apply:os.system ['touch CANARY']\n",
        "default: ../..\nnotifications: x\n",
        "notifications: x\noverrides: {modules: {dummy: --upload-pack=touch CANARY}}\n",
        "\0",
        "notifications: x\nx1: &x1 [*x0, *x0]\nx2: &x2 [*x1, *x1]\n",
    ],
    ids=["tag", "tagged address", "way out", "option", "NUL", "alias to nothing"],
)
def test_one_hostile_definition_alone_spoils_nothing_else(text: str, decoy: Decoy) -> None:
    _definitions(decoy, {"evil": text})
    _assert_each_is_one_error(_update(decoy), ["evil"])
    assert decoy.site.environments() == ["another", "production"]


# Odd, but well-formed


def _ten(level: int) -> str:
    """Ten references to the level below."""
    return ", ".join([f"*x{level - 1}"] * 10)


_BOMB = "x0: &x0 [x]\n" + "".join(f"x{level}: &x{level} [{_ten(level)}]\n" for level in range(1, 60))
_MERGES = "x0: &x0 {dummy: qa}\n" + "".join(f"x{level}: &x{level} {{<<: [{_ten(level)}]}}\n" for level in range(1, 60))

#: Definitions that use branch qa of module dummy, written in odd ways.
_ODD = {
    "duplicate": "notifications: x\ndefault: on\ndefault: master\noverrides: {modules: {dummy: ../.., dummy: qa}}\n",
    "anchors": "notifications: &a qa\ndefault: master\noverrides: {modules: {dummy: *a}}\n",
    "merge": "notifications: x\ndefault: master\nx: &a {dummy: qa}\noverrides: {modules: {<<: *a}}\n",
    "itself": "notifications: &a [*a]\ndefault: master\nx: &x {<<: *x}\noverrides: {modules: {dummy: qa}}\n",
    "bomb": f"{_BOMB}notifications: *x59\ndefault: master\noverrides: {{modules: {{dummy: qa}}}}\n",
    "merges": f"{_MERGES}notifications: x\ndefault: master\noverrides: {{modules: {{<<: *x59}}}}\n",
    "forger": 'notifications: "x\\n2015-01-01 00:00:00,000 [1] ERROR forged"\ndefault: master\n'
    "overrides: {modules: {dummy: qa}}\n",
    "tags": "notifications: x\ndefault: !!str master\noverrides: !!map {modules: {!!str dummy: !!str qa}}\n",
    "unread": "notifications: x\ndefault: master\nx: !!python/object/apply:os.system ['touch CANARY']\n"
    "overrides: {modules: {dummy: qa}}\n",
    "on": "notifications: x\ndefault: 'master'\n"
    "overrides: {modules: {dummy: 'qa', on: master, 1.10: 'on', null: master}}\n",
    "1_10": "notifications: x\ndefault: master\noverrides: {modules: {dummy: qa}}\n",
    "many": "notifications: x\ndefault: master\noverrides:\n  modules:\n    dummy: qa\n"
    + "".join(f"    m{number}: '{number}'\n" for number in range(5000)),
    "long_" + "x" * 245: "notifications: x\ndefault: master\noverrides: {modules: {dummy: qa}}\n",
}


def test_odd_definitions_mean_what_they_say(decoy: Decoy) -> None:
    site = decoy.site
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# qa\n"}, "qa", onto="master")
    names = ("1", "1.10", "null", "on")
    for name in names:
        site.add(f"modules/{name}", branches=("on",))
    site.publish()
    _definitions(decoy, _ODD)
    outcome = _update(decoy, [*_OURS, *(f"modules/{name}" for name in names)])
    assert outcome.lines("ERROR") == []
    for name in _ODD:
        assert site.read(f"{name}/modules/dummy/manifests/init.pp") == "# qa\n"
        assert site.dangling(name) == []
    assert site.links("on")["modules/1.10"] == "../../../clone/modules/1.10/on/code"


# Refs that look like paths


def test_no_ref_leads_into_a_checkout(decoy: Decoy) -> None:
    site = decoy.site
    deep = {"code/code/code/manifests/init.pp": "# trap\n", "code/manifests/init.pp": "# feature\n"}
    site.remotes["modules/dummy"].push(deep, "feature", onto="master")
    site.remotes["modules/dummy"].push({"code/code/manifests/init.pp": "# trap\n"})
    for name in ("master", "feature"):
        site.define(name, definition(overrides={"modules/dummy": name}))
    refs = ("master/code", "feature/code", "feature/code/code", "master/master", "feature/x", "code")
    for number, ref in enumerate(refs):
        site.define(f"evil{number}", definition(overrides={"modules/dummy": ref}))
    outcome = _update(decoy)
    assert outcome.lines("ERROR") == []
    assert site.read("feature/modules/dummy/manifests/init.pp") == "# feature\n"
    for number, ref in enumerate(refs):
        assert site.dangling(f"evil{number}") == ["hieradata/module_names/dummy", "modules/dummy"]
        assert outcome.has(f"Environment 'evil{number}' (ann@example.org): dangling links, there is no branch '{ref}'")


def test_a_branch_that_becomes_a_directory_of_branches_and_back_moves_nothing_else(decoy: Decoy) -> None:
    site = decoy.site
    remote = site.remotes["modules/dummy"]
    refs = {"one": "feature", "two": "feature/x", "three": "feature/x/code"}
    for name, ref in refs.items():
        site.define(name, definition(overrides={"modules/dummy": ref}))
    before = ""
    for now in ("feature", "feature/x", "feature/x/code", "feature", "feature/x/code", "feature/x", "feature"):
        if before:
            remote.delete(before)
        remote.push({"code/manifests/init.pp": f"# {now}\n"}, now, onto="master")
        decoy.before = decoy.around()
        outcome = site.update()
        decoy.check(outcome)
        assert outcome.code == 0
        assert faults_of(site.root) == {"dangling link"}
        for name, ref in refs.items():
            assert bool(site.dangling(name)) == (ref != now)
        assert site.read(f"{next(n for n in refs if refs[n] == now)}/modules/dummy/manifests/init.pp") == f"# {now}\n"
        before = now


def test_a_branch_named_like_a_pinned_commit_or_its_abbreviation_is_another_ref(decoy: Decoy) -> None:
    site = decoy.site
    remote = site.remotes["modules/dummy"]
    pinned = remote.commit()
    names = (pinned, pinned[:7], pinned[:4], pinned.upper(), f"commit/{pinned}", f"commit/{pinned[:7]}")
    for name in names:
        git(
            "update-ref",
            f"refs/heads/{name}",
            remote.push({"code/manifests/init.pp": "# trap\n"}, "trap"),
            directory=remote.path,
        )
    for number, ref in enumerate((f"commit/{pinned}", f"commit/{pinned[:7]}", f"Commit/{pinned[:4].upper()}")):
        site.define(f"pin{number}", definition(overrides={"modules/dummy": ref}))
    for number, ref in enumerate(names[:4]):
        site.define(f"branch{number}", definition(overrides={"modules/dummy": f"'{ref}'"}))
    assert _update(decoy).lines("ERROR") == []
    for number in range(3):
        assert site.read(f"pin{number}/modules/dummy/manifests/init.pp") == MODULE["code/manifests/init.pp"]
    for number in range(4):
        assert site.read(f"branch{number}/modules/dummy/manifests/init.pp") == "# trap\n"


def test_names_that_differ_in_case_alone_are_different_names(decoy: Decoy) -> None:
    site = decoy.site
    for name in ("apache", "Apache", "APACHE"):
        site.add(f"modules/{name}", {"code/name": name, "data/x": ""}, branches=("qa", "QA"))
    for branch in ("qa", "QA"):
        site.remotes["modules/apache"].push({"code/name": branch}, branch)
    site.publish()
    for name in ("prod", "Prod", "PROD"):
        site.define(name, definition(overrides={"modules/apache": "qa" if name == "prod" else "QA"}))
    outcome = _update(decoy, [*_OURS, "modules/APACHE", "modules/Apache", "modules/apache"])
    assert outcome.lines("ERROR") == []
    assert [site.read(f"{name}/modules/apache/name") for name in ("prod", "Prod", "PROD")] == ["qa", "QA", "QA"]
    assert [site.read(f"prod/modules/{name}/name") for name in ("Apache", "APACHE")] == ["Apache", "APACHE"]


# Large numbers


def test_five_thousand_bad_entries_are_an_error_each_and_hold_nobody_up(decoy: Decoy) -> None:
    entries = "".join(f"    '../{number}': {number}\n    evil{number}: 'ext::{number}'\n" for number in range(1250))
    decoy.site.publish(_library(decoy.site, entries))
    begin = time.process_time()
    assert len(_update(decoy).lines("ERROR")) == 5000
    assert time.process_time() - begin < 20


def test_two_thousand_definitions_most_of_them_ill_formed(decoy: Decoy) -> None:
    texts = {f"evil{number}": "default: ../..\nnotifications: x\n" for number in range(1900)}
    texts.update({f"good{number}": definition(None, {"modules/dummy": "master"}) for number in range(100)})
    _definitions(decoy, texts)
    begin = time.process_time()
    assert len(_update(decoy).lines("ERROR")) == 1900
    assert time.process_time() - begin < 20
    assert len(decoy.site.environments()) == 102


@pytest.mark.parametrize(
    "name", ["a" * 251, "a" * 4096, "a/" * 2500, "README" + "b" * 300], ids=["251", "4096", "deep", "300"]
)
def test_a_file_whose_name_is_too_long_for_the_disk_stops_nobody(name: str, decoy: Decoy) -> None:
    site = decoy.site
    push_tree(site.definitions, {f"{name}.yaml": ("100644", definition())})
    push_tree(site.library, {f"{name}.yaml": ("100644", "")})
    site.add("modules/new")
    site.publish()
    for _ in range(2):
        errors = _update(decoy, [*_OURS, "modules/new"]).lines("ERROR")
        assert site.exists("production/modules/new")
        assert all("bad name" in error for error in errors), errors
    assert git("rev-parse", "HEAD", directory=site.root / "metadata" / "environments") == site.definitions.commit()
    subprocess.run(["rm", "-rf", site.root], check=True)  # too deep for pytest to remove
