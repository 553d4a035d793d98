"""Names, refs and URLs are checked where they enter; for branch names, Git itself confirms the results."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jens.model import Branch, Commit, Prefixes, Ref, Tag
from jens.names import is_branch_name, is_environment_name, is_repository_name, parse_ref, resembled
from jens.text import one_line
from jens.urls import endpoint_of, location_of, redact, server_of, url_problem
from tests.conftest import git

_TRICKY_BRANCHES = [
    *("master", "qa", "feature/x", "a/b/c/d", "ai456", "v1.2", "a.b", "a-b", "a_b", "+x", "=x", "%41", "x!", "$(id)"),
    *("`id`", "a;b", "a&b", "a|b", "a'b", 'a"b', "a<b", "a>b", "a(b)", "a,b", "#x", "{", "}", "a{b}", "{@", "a]"),
    *("HEAD", "head", "HEAD/x", "x/HEAD", "heads", "FETCH_HEAD", "refs/heads/x", "refs/tags/x", "origin/master"),
    *("@", "@@", "@/x", "x/@", "a@b", "master@", "a@{b", "@{b}", "a@{", "a@}", "@{", "}@{"),
    *("a.lock", "a.lock/b", "b/a.lock", ".lock", "a.lockx", "alock", "a.LOCK", "a.lock.b"),
    *("a..b", "..", "...", ".", "a.", "a./b", ".a", "a/.b", "a/..", "a/../b", "../a", "./a"),
    *("/", "/a", "a/", "a//b", "//", "-", "-a", "--all", "a/-b", "a-"),
    *("a b", " a", "a ", "a~b", "a~1", "a^b", "a^", "a:b", ":a", "a?b", "a*b", "*", "a[b", "a\\b", "\\", "~"),
    *("a\tb", "a\nb", "a\r", "a\x01b", "a\x1fb", "a\x7fb", "\x7f"),
    *("äöü", "日本語", "é/ü", "a\u00a0b", "a\u0085b", "a\u2028b", "\ufeffa", "ａ", "🐙", "\udcff"),  # noqa: RUF001
    *("0", "4f0c2ab", "a" * 40, "x" * 300, "a/" * 50 + "a"),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which Git would expand shorthands: it has an earlier branch to go back to."""
    path = tmp_path_factory.mktemp("repository")
    git("init", "-q", "-b", "before", directory=path)
    git(
        "-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "--allow-empty", "-qm", "x", directory=path
    )
    git("checkout", "-q", "-b", "now", directory=path)
    return path


def _git_accepts(name: str, directory: Path) -> bool:
    command = [b"git", b"check-ref-format", b"--branch", os.fsencode(name)]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", _TRICKY_BRANCHES, ids=ascii)
def test_a_branch_name_is_what_git_accepts(name: str, tmp_path: Path) -> None:
    assert is_branch_name(name) == _git_accepts(name, tmp_path)


def test_the_table_of_branch_names_has_both_verdicts() -> None:
    verdicts = [is_branch_name(name) for name in _TRICKY_BRANCHES]
    assert verdicts.count(True) > 30
    assert verdicts.count(False) > 30


def test_every_character_is_judged_as_git_does_at_the_begin_in_the_middle_and_at_the_end(tmp_path: Path) -> None:
    characters = [chr(number) for number in range(1, 128)]
    names = [name for c in characters for name in (f"{c}a", f"a{c}b", f"a{c}", c)]
    assert [name for name in names if is_branch_name(name) != _git_accepts(name, tmp_path)] == []


@pytest.mark.parametrize("name", ["", "a\0b"], ids=["empty", "with a NUL"])
def test_what_cannot_be_an_argument_is_no_branch_name(name: str) -> None:
    assert not is_branch_name(name)


@pytest.mark.parametrize("name", ["@{-1}", "@{u}", "@{upstream}", "@{push}", "now@{u}", "@{0}", "@{yesterday}"])
def test_shorthands_are_refused_and_not_expanded(name: str) -> None:
    assert not is_branch_name(name)


def test_git_itself_would_have_expanded_a_shorthand(repository: Path) -> None:
    assert _git_accepts("@{-1}", repository)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("master", Branch("master"), id="a branch"),
        pytest.param("feature/x", Branch("feature/x"), id="a branch with a slash"),
        pytest.param("4f0c2ab", Branch("4f0c2ab"), id="digits without the prefix are a branch"),
        pytest.param("commit", Branch("commit"), id="the prefix without its slash is a branch"),
        pytest.param("xcommit/4f0c", Branch("xcommit/4f0c"), id="the prefix counts at the begin only"),
        pytest.param("tag/v1.2.0", Tag("v1.2.0"), id="a tag"),
        pytest.param("TAG/V1/x", Tag("V1/x"), id="a tag's prefix in upper case, and a slash in its name"),
        pytest.param("tags/v1", Branch("tags/v1"), id="nearly the prefix of tags is a branch"),
        pytest.param("commit/" + "4f0c" * 10, Commit("4f0c" * 10), id="a full commit"),
        pytest.param("commit/4f0c", Commit("4f0c"), id="four digits are enough"),
        pytest.param("COMMIT/4f0c", Commit("4f0c"), id="the prefix in upper case"),
        pytest.param("CoMmIt/4F0C2AB", Commit("4f0c2ab"), id="upper case is lowered"),
    ],
)
def test_a_ref_is_a_branch_or_with_a_prefix_a_tag_or_a_commit(text: str, expected: Ref) -> None:
    assert parse_ref(text, Prefixes()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("commit/", "4 to 40", id="no digits"),
        pytest.param("commit/4f0", "4 to 40", id="three digits"),
        pytest.param("commit/" + "a" * 41, "4 to 40", id="forty-one digits"),
        pytest.param("commit/4f0g", "4 to 40", id="not hexadecimal"),
        pytest.param("commit/4f0c/x", "4 to 40", id="more than digits"),
        pytest.param("commit/4f0c\n", "4 to 40", id="a newline behind"),
        pytest.param("commit/４f0c", "4 to 40", id="digits of another script"),  # noqa: RUF001
        pytest.param("commit/-4f0c", "4 to 40", id="a dash"),
        pytest.param("", "Git accepts", id="empty"),
        pytest.param("tag/", "Git accepts", id="no tag"),
        pytest.param("tag/-x", "Git accepts", id="a tag that is an option"),
        pytest.param("tag/../../etc", "Git accepts", id="a tag that leads out of the directory"),
        pytest.param("tag/~x", "Git accepts", id="a tag with the mark of tags"),
        pytest.param("tag/" + "a" * 255, "254 bytes", id="a tag that is longer than a file's name"),
        pytest.param("a..b", "Git accepts", id="no branch name"),
        pytest.param("-x", "Git accepts", id="an option"),
        pytest.param("HEAD", "Git accepts", id="HEAD"),
        pytest.param("../../etc", "Git accepts", id="out of the directory"),
    ],
)
def test_a_ref_that_is_neither_is_refused_with_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_ref(text, Prefixes())


def test_the_prefix_is_the_configured_one() -> None:
    assert parse_ref("sha:4F0C", Prefixes("SHA:")) == Commit("4f0c")
    assert parse_ref("commit/4f0c", Prefixes("sha:")) == Branch("commit/4f0c")
    assert parse_ref("VERSION:1", Prefixes(tag="version:")) == Tag("1")
    assert parse_ref("tag/1", Prefixes(tag="version:")) == Branch("tag/1")


@pytest.mark.parametrize("name", ["a", "apache", "A9", "_x", "x_", "9x", "a.b", "a-b", "a..b", "a.git", "x."])
def test_good_repository_names(name: str) -> None:
    assert is_repository_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".git", "-x", "a/b", "/a", "../x", "a b", "a\n", "a\0", "ä", "a~b", "a:b", "a'b", "٣"],
    ids=ascii,
)
def test_bad_repository_names(name: str) -> None:
    assert not is_repository_name(name)


@pytest.mark.parametrize("name", ["production", "qa", "A_9", "_", "123"])
def test_good_environment_names(name: str) -> None:
    assert is_environment_name(name)


@pytest.mark.parametrize("name", ["", ".", "a.b", "a-b", "a/b", "..", "a b", "a\n", "ä", "-a", "a~", "٣"], ids=ascii)
def test_bad_environment_names(name: str) -> None:
    assert not is_environment_name(name)


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/modules/apache.git",
        "https://ann:secret@git.example.org:8443/modules/apache.git",
        "http://git.example.org/x",
        "ssh://git@git.example.org:2222/x.git",
        "ssh://git.example.org/~ann/x",
        "git://git.example.org/x",
        "file:///srv/git/x.git",
        "git@git.example.org:modules/apache.git",
        "git.example.org:modules/apache.git",
        "alias:x",
        "git@alias:/srv/x",
        "git@[2001:db8::1]:x.git",
        "/srv/git/x.git",
        "/srv/with space/x",
    ],
)
def test_acceptable_urls(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param("ext::sh -c id", "helper", id="ext"),
        pytest.param("git@ext::sh -c id", "two colons", id="almost ext"),
        pytest.param("fd::17", "helper", id="fd"),
        pytest.param("file::/srv/x", "helper", id="a helper named as a scheme"),
        pytest.param("a+b.c::https://example.org/x", "helper", id="a helper in front of a good URL"),
        pytest.param("ftp://example.org/x", "scheme", id="ftp"),
        pytest.param("rsync://example.org/x", "scheme", id="rsync"),
        pytest.param("git+ssh://example.org/x", "scheme", id="git+ssh"),
        pytest.param("-uhttps://example.org/x", "dash", id="an option"),
        pytest.param("--upload-pack=id", "dash", id="a long option"),
        pytest.param("-oProxyCommand=id:x", "dash", id="an option as scp host"),
        pytest.param("ann@-oProxyCommand=id:x", "dash", id="an option as scp host behind a user"),
        pytest.param("ssh://-oProxyCommand=id/x", "dash", id="an option as host"),
        pytest.param("ssh://ann@-oProxyCommand=id/x", "dash", id="an option as host behind a user"),
        pytest.param("ssh://-oProxyCommand=id@example.org/x", "dash", id="an option as user"),
        pytest.param("host:-x", "dash", id="an option as scp path"),
        pytest.param("https://example.org/x\n", "control", id="a newline behind"),
        pytest.param("https://example.org/\x1b[2J", "control", id="an escape"),
        pytest.param("/srv/x\0", "control", id="a NUL"),
        pytest.param("ann@example.org:x\ry", "control", id="a carriage return"),
        pytest.param("/srv/x\x7f", "control", id="DEL"),
        pytest.param("/srv/x\x9b2J", "control", id="a control character beyond ASCII"),
        pytest.param("https://", "host", id="no host"),
        pytest.param("https:///x", "host", id="no host but a path"),
        pytest.param("https://example.org?token=s3cr3t/x", "HOST[:PORT]", id="a query in the place of a path"),
        pytest.param("https://example.org/x?token=a b", "spaces in its query", id="a space in the query"),
        pytest.param("https://example.org", "path", id="no path"),
        pytest.param("file://", "path", id="no path of a file"),
        pytest.param("modules/apache", "neither", id="a relative path"),
        pytest.param("../apache", "neither", id="a relative path upward"),
        pytest.param("./a:b", "neither", id="a relative path with a colon"),
        pytest.param("apache", "neither", id="a word"),
        pytest.param("host:", "neither", id="scp without a path"),
        pytest.param(" https://example.org/x", "neither", id="a space in front"),
    ],
)
def test_unacceptable_urls(url: str, why: str) -> None:
    problem = url_problem(url)
    assert problem is not None
    assert why in problem


def test_why_a_url_is_unacceptable_does_not_repeat_it() -> None:
    for url in ("ftp://ann:hunter2@example.org/x", "ext::ann:hunter2", "https://ann:hunter2@example.org"):
        problem = url_problem(url)
        assert problem
        assert "ann" not in problem
        assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("https://ann:hunter2@example.org/x", "https://example.org/x", id="user and password"),
        pytest.param("https://ann@example.org/x", "https://example.org/x", id="a user"),
        pytest.param("https://:hunter2@example.org/x", "https://example.org/x", id="a password"),
        pytest.param("https://ann:hunter2@example.org:8443/x", "https://example.org:8443/x", id="a port"),
        pytest.param("https://ann:hun@ter2@example.org/x", "https://example.org/x", id="an @ in the password"),
        pytest.param("https://ann:hunter2?@example.org/x", "https://example.org/x", id="a question mark"),
        pytest.param("https://ann:hun'ter2@example.org/x", "https://example.org/x", id="a quote in the password"),
        pytest.param('https://ann:hun"ter2@example.org/x', "https://example.org/x", id="a double quote"),
        pytest.param("ssh://ann@example.org:22/x", "ssh://example.org:22/x", id="ssh"),
        pytest.param("ann@example.org:x.git", "example.org:x.git", id="scp"),
        pytest.param("ann@alias:x", "alias:x", id="scp with an alias"),
        pytest.param("ann@[2001:db8::1]:x", "[2001:db8::1]:x", id="scp with an address"),
        pytest.param("ann@höst.example.org:x", "höst.example.org:x", id="scp with an international name"),
        pytest.param("https://example.org/a@b:c", "https://example.org/a@b:c", id="a path is left alone"),
        pytest.param("/srv/a@b", "/srv/a@b", id="a local path is left alone"),
        pytest.param(
            "fatal: unable to access 'https://ann:hunter2@example.org/x/': Could not resolve host",
            "fatal: unable to access 'https://example.org/x/': Could not resolve host",
            id="within Git's complaint",
        ),
        pytest.param(
            "fatal: Authentication failed for 'https://ann:hun'ter2@example.org/x/'",
            "fatal: Authentication failed for 'https://example.org/x/'",
            id="within Git's complaint, with a quote in the password",
        ),
        pytest.param(
            "ann@example.org: Permission denied (publickey).; fatal: Could not read from remote repository.",
            "example.org: Permission denied (publickey).; fatal: Could not read from remote repository.",
            id="within ssh's complaint",
        ),
        pytest.param(
            "fatal: 'ann@example.org:x' (ssh://bob@example.org/y), <carol@example.org:z>",
            "fatal: 'example.org:x' (ssh://example.org/y), <example.org:z>",
            id="several in one line",
        ),
        pytest.param(
            "fatal: unable to look up ann:hunter2@example.org (port 9418) (Name or service not known)",
            "fatal: unable to look up example.org (port 9418) (Name or service not known)",
            id="within Git's complaint about a host",
        ),
        pytest.param("https://e.org/x?private_token=s3cr3t&x", "https://e.org/x", id="a query"),
        pytest.param("https://ann@e.org/x?private_token=s3cr3t", "https://e.org/x", id="a user and a query"),
        pytest.param("http://e.org/x#access_token=s3cr3t", "http://e.org/x", id="a fragment"),
        pytest.param("https://e.org/x?t=s3'cr3t/a@b:c", "https://e.org/x", id="a query with all sorts of things"),
        pytest.param(
            "fatal: unable to access 'https://e.org/x?t=s3cr3t/': 403",
            "fatal: unable to access 'https://e.org/x': 403",
            id="a query within Git's complaint",
        ),
        pytest.param(
            "(https://e.org/x?t=s3cr3t), <https://e.org/y?t=s3cr3t>.",
            "(https://e.org/x), <https://e.org/y>.",
            id="several queries",
        ),
        pytest.param("/srv/x?y#z", "/srv/x?y#z", id="a local path has no query"),
        pytest.param("e.org:x?y", "e.org:x?y", id="scp has no query"),
        pytest.param("Is https://e.org/x there? No.", "Is https://e.org/x there? No.", id="a question"),
    ],
)
def test_no_user_name_nor_password_survives(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("password", [*"!#$%&()*+,-.:;<=>?@[]^_`{|}~'\"", " ", "ä"])
def test_whatever_a_password_holds_an_acceptable_url_is_redacted(password: str) -> None:
    url = f"https://ann:hun{password}ter2@example.org/x"
    shown = redact(url) if url_problem(url) is None else ""
    assert not any(secret in shown for secret in ("ann", "hun", "ter2"))


@pytest.mark.parametrize("sign", [*"!#$%&()*+,-./:;<=>?@[]^_`{|}~'\"\\", " ", "ä"])
def test_whatever_a_token_holds_an_acceptable_url_is_redacted(sign: str) -> None:
    for url in (f"https://example.org/x?token=t0p{sign}s3cr3t&x", f"https://ann@example.org/x#t0p{sign}s3cr3t"):
        shown = redact(url) if url_problem(url) is None else ""
        assert not any(secret in shown for secret in ("ann", "t0p", "s3cr3t"))
        assert url_problem(url) is None or sign == " "


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/x", "example.org"),
        ("https://ann:secret@Example.ORG:8443/x", "example.org:8443"),
        ("ssh://git@example.org:2222/x", "example.org:2222"),
        ("git://example.org/x/y@z", "example.org"),
        ("git@example.org:x/y", "example.org"),
        ("Alias:x", "alias"),
        ("ann@[2001:db8::1]:x", "[2001:db8::1]"),
        ("file:///srv/x", ""),
        ("/srv/a:b", ""),
    ],
)
def test_the_server_of_a_url_has_no_user_and_a_local_path_has_none(url: str, expected: str) -> None:
    assert server_of(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("git@example.org:g/p.git", "example.org/g/p"),
        ("example.org:g/p", "example.org/g/p"),
        ("git@example.org:/g/p.git/", "example.org/g/p"),
        ("git@Example.ORG:G/P.git", "example.org/G/P"),
        ("ssh://git@example.org:22/g/p.git", "example.org/g/p"),
        ("https://ann:se@cret@EXAMPLE.org:8443/g/p/", "example.org/g/p"),
        ("http://example.org/p", "example.org/p"),
        ("git://example.org/a/b/c.git", "example.org/a/b/c"),
        ("ann@[2001:DB8::1]:g/p", "[2001:db8::1]/g/p"),
        ("ssh://ann@[2001:db8::1]:22/g/p", "[2001:db8::1]/g/p"),
        ("ssh://[2001:db8::1]/g/p", "[2001:db8::1]/g/p"),
        ("[example.org:2222]:g/p.git", "example.org/g/p"),
        ("[git@Example.org:2222]:g/p.git", "example.org/g/p"),
        ("git@[2001:db8::1]:g/p", "[2001:db8::1]/g/p"),
        ("alias:p", "alias/p"),
        ("https://ann@example.org/g/p.git?private_token=s3cr3t", "example.org/g/p"),
        ("https://ann:se?cret@example.org/g/p.git#x", "example.org/g/p"),
        ("/srv/x?y", "/srv/x?y"),
        ("https://example.org/g/p.github", "example.org/g/p.github"),
        ("https://example.org/g/p@1:2", "example.org/g/p@1:2"),
        ("file:///srv/x.git", "/srv/x"),
        ("/srv/x.git/", "/srv/x"),
        ("/srv/a:b", "/srv/a:b"),
        ("g/p", "/g/p"),
        ("", "/"),
    ],
)
def test_where_a_url_leads_is_host_and_path_however_it_is_written(url: str, expected: str) -> None:
    assert location_of(url) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, ä and 日本", "plain text, ä and 日本"),
        ("a\nb\r\nc", "a\\nb\\r\\nc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\tb\0", "a\\tb\\x00"),
        ("a\u2028b\u0085c", "a\\u2028b\\x85c"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udcffb", "a\\udcffb"),
    ],
    ids=ascii,
)
def test_a_message_stays_one_line_and_steers_no_terminal(text: str, expected: str) -> None:
    assert one_line(text) == expected


# Misspelt names

_KEYS = ("default", "notifications", "overrides", "parser")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, "default") for name in ("defualt", "Default", "DEFAULT", "defaut", "deafult", "dfault", "defaults")),
        *((name, "overrides") for name in ("override", "Overrides", "overides", "overrrides", "ovverides")),
        *((name, "notifications") for name in ("notification", "notifcations", "Notifications", "notifications ")),
        *((name, "parser") for name in ("Parser", "parsers", "praser", "parse")),
        *((name, "") for name in ("x", "colour", "future", "description", "owner", "parent", "overview", "version")),
        *((name, "") for name in ("modules", "branch", "result", "notes", "", " ", "<seq>", "d\u00e9fault" * 9)),
        *((name, "") for name in ("_default", ".overrides", "x-overrides", "default" * 100_000)),
        *((name, "") for name in ("overrides_old", "old-overrides", "Default.1", "parser_")),
        ("over-rides", "overrides"),
    ],
)
def test_a_misspelt_name_resembles_the_right_one(name: str, expected: str) -> None:
    assert resembled(name, _KEYS) == expected


def test_of_several_names_the_nearest_one_is_meant() -> None:
    assert resembled("module", ("models", "modules")) == "modules"
    assert resembled("module", ()) == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://ann:secret@Git.example.org/a/b", "https://git.example.org"),
        ("http://git.example.org:8080/a/b", "http://git.example.org:8080"),
        ("ssh://git@git.example.org:22/a/b", "ssh://git.example.org:22"),
        ("git@git.example.org:a/b", "ssh://git.example.org"),
        ("git://git.example.org/a", "git://git.example.org"),
        ("file:///srv/a", ""),
        ("/srv/a", ""),
    ],
)
def test_each_protocol_of_a_server_answers_for_itself(url: str, expected: str) -> None:
    assert endpoint_of(url) == expected
