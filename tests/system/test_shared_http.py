"""Questions over kept-open connections: they decide what Git would, and say what Git says."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import pytest

from jens.errors import GitError
from jens.git import web, wrapper
from jens.git.process import GitOptions
from jens.git.remotes import Remotes
from tests.conftest import git
from tests.system.gitweb import PASSWORD, TOKEN, USER, Asked, Certificates, GitWeb, Proxy, certificates
from tests.system.services import required

JOBS = 4
#: A user and a password as they stand in a URL.
QUOTED = "ann%40corp:p%40ss%3Aw0rd"


@dataclass
class World:
    """All servers of the tests here, and the repositories behind each of them."""

    root: Path
    certificates: Certificates
    http: GitWeb
    ipv6: GitWeb | None
    https: GitWeb
    expired: GitWeb
    wants_client: GitWeb
    proxy: Proxy

    def servers(self) -> list[GitWeb]:
        found = [self.http, self.ipv6, self.https, self.expired, self.wants_client]
        return [server for server in found if server]

    def forget(self) -> None:
        for server in self.servers():
            server.forget()
        self.proxy.used.clear()

    def asked(self) -> list[Asked]:
        return [asked for server in self.servers() for asked in server.asked]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    top = tmp_path_factory.mktemp("gitweb")
    root, secrets = top / "repositories", top / "certificates"
    for directory in (root, secrets):
        directory.mkdir()
    made = certificates(secrets, required("openssl", "openssl"))
    _make_repositories(root)
    ipv6 = None
    with contextlib.suppress(OSError):  # the machine has no IPv6
        ipv6 = GitWeb(root, "::1")
    found = World(
        root,
        made,
        GitWeb(root),
        ipv6,
        GitWeb(root, context=made.good),
        GitWeb(root, context=made.expired),
        GitWeb(root, context=made.wants_client),
        Proxy(),
    )
    yield found
    for server in found.servers():
        server.close()
    found.proxy.close()


def _make_repositories(root: Path) -> None:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    for name in ("a.git", "group/b.git"):
        git("init", "-q", "-b", "master", str(root / name), directory=root)
        git(*identity, "commit", "-q", "--allow-empty", "-m", name, directory=root / name)
        for branch in ("qa", "feature/ä", "x" * 100):
            git("branch", branch, directory=root / name)
        git("tag", "v1", directory=root / name)
    git("clone", "-q", "--bare", "--no-tags", str(root / "a.git"), str(root / "tagged.git"), directory=root)
    for name in ("v1", "v10", "release/2"):
        git(*identity, "tag", "-a", "-m", name, name, "master", directory=root / "tagged.git")
    git("tag", "light", "master", directory=root / "tagged.git")
    (root / "many").mkdir()
    for number in range(24):
        (root / "many" / f"r{number}.git").symlink_to("../a.git")
    git("init", "-q", "--bare", str(root / "empty.git"), directory=root)
    git("init", "-q", "--object-format=sha256", "-b", "master", str(root / "sha256.git"), directory=root)
    git(*identity, "commit", "-q", "--allow-empty", "-m", "x", directory=root / "sha256.git")


def ask(
    urls: Sequence[str], *, share: bool, timeout: int = 20, jobs: int = JOBS, many: int = 0
) -> dict[str, bytes | str]:
    """What asking says of each URL: what Git printed, or the complaint."""
    found: dict[str, bytes | str] = {}
    with Remotes(GitOptions(timeout=timeout, share=share), jobs, many) as remotes:
        for question in remotes.replies_to(map(wrapper.question, urls)):
            try:
                found[question[-1]] = remotes.reply(question)
            except GitError as error:
                found[question[-1]] = f"{type(error).__name__} {error}"
    return found


@dataclass(frozen=True)
class Row:
    """A URL, with HTTP, HTTPS and so on in it; settings of Git, variables, and the file ``.netrc``.

    ``alone``: how many requests the server gets at most when Git is not asked; None: Git is asked.
    """

    url: str
    alone: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    netrc: str = ""
    more_settings: Sequence[tuple[str, str]] = ()
    says: str = ""
    proxied: bool = False
    same_words: bool = True


STORE = {"credential.helper": "store --file={home}/passwords"}
CA = {"http.sslCAInfo": "{ca}"}
NETRC = f"machine 127.0.0.1\nlogin {USER}\npassword {PASSWORD}\n"

ROWS = {
    # Answers
    "200": Row("{http}/ok/a.git", 1),
    "a path with a slash at its end": Row("{http}/ok/a.git/", 1),
    "a group": Row("{http}/ok/group/b.git", 1),
    "301": Row("{http}/301/a.git"),
    "302": Row("{http}/302/a.git"),
    "307": Row("{http}/307/a.git"),
    "308": Row("{http}/308/a.git"),
    "403": Row("{http}/403/a.git", says="403"),
    "404": Row("{http}/404/a.git", says="not found"),
    "429": Row("{http}/429/a.git", says="429"),
    "500": Row("{http}/500/a.git", says="500"),
    "no such repository": Row("{http}/ok/none.git", says="not found"),
    "an empty repository": Row("{http}/ok/empty.git"),
    "SHA-256": Row("{http}/ok/sha256.git"),
    "HTML": Row("{http}/html/a.git"),
    "HTML that claims to be Git": Row("{http}/lie/a.git", says="rotocol error"),
    "cut off": Row("{http}/cut/a.git", says="transfer closed"),
    "more than a reply": Row("{http}/more/a.git"),
    "protocol 0": Row("{http}/v0/a.git"),
    "protocol 1": Row("{http}/v1/a.git"),
    "gzip": Row("{http}/gzip/a.git"),
    "chunked": Row("{http}/chunked/a.git", 1),
    "slow bytes": Row("{http}/drip/a.git", 1),
    "one request a connection": Row("{http}/close/a.git", 1),
    "only programs named git": Row("{http}/agent/a.git", 1),
    "nobody there": Row("http://127.0.0.1:9/a.git", says="Failed to connect"),
    "no such host": Row("http://nowhere.invalid/a.git", says="Could not resolve host"),
    "IPv6": Row("{ipv6}/ok/a.git", 1),
    # Passwords
    "401, nobody knows": Row("{http}/private/a.git", says="terminal prompts disabled"),
    "401, digest": Row("{http}/digest/a.git", says="terminal prompts disabled"),
    "401, in the URL": Row(f"{{http_at:{QUOTED}}}/private/a.git", 2),
    "401, a user in the URL": Row("{http_at:ann%40corp}/private/a.git", 2, STORE),
    "401, another user in the URL": Row("{http_at:bob}/private/a.git", None, STORE, says="terminal prompts disabled"),
    "401, wrong in the URL": Row("{http_at:bob:wrong}/private/a.git", says="Authentication failed"),
    "401, a helper": Row("{http}/private/a.git", 2, STORE),
    "401, a helper of the server": Row(
        "{http}/private/a.git", 2, {"credential.{http}.helper": STORE["credential.helper"]}
    ),
    "401, a helper of a group": Row(
        "{http}/private/group/b.git", None, {"credential.{http}/private/group.helper": STORE["credential.helper"]}
    ),
    "401, a helper for each path": Row("{http}/private/a.git", None, {**STORE, "credential.useHttpPath": "true"}),
    "401, .netrc": Row("{http}/private/a.git", 2, netrc=NETRC),
    "401, .netrc of another host": Row("{http}/private/a.git", 2, STORE, netrc=NETRC.replace("127.0.0.1", "h")),
    "401, .netrc with a default": Row(
        "{http}/private/a.git", None, netrc=NETRC.replace("machine 127.0.0.1", "default")
    ),
    "401, wrong in .netrc": Row("{http}/private/a.git", None, netrc=NETRC.replace(PASSWORD, "wrong")),
    "401, GIT_ASKPASS": Row("{http}/private/a.git", 2, variables={"GIT_ASKPASS": "{home}/askpass"}),
    "401, a header with it": Row(
        "{http}/private/a.git", 1, {"http.extraHeader": "Authorization: Basic YW5uQGNvcnA6cEBzczp3MHJk"}
    ),
    "401, a header with a wrong one": Row(
        "{http}/private/a.git", None, {"http.extraHeader": "Authorization: Basic Ym9iOndyb25n"}
    ),
    "a password that nobody wants": Row(f"{{http_at:{QUOTED}}}/ok/a.git", 1),
    # Settings
    "http.extraHeader": Row("{http}/header/a.git", 1, {"http.extraHeader": f"X-Token: {TOKEN}"}),
    "http.<url>.extraHeader": Row("{http}/header/a.git", 1, {"http.{http}.extraHeader": f"X-Token: {TOKEN}"}),
    "http.<url with a path>.extraHeader": Row(
        "{http}/header/a.git", 1, {"http.{http}/header.extraHeader": f"X-Token: {TOKEN}"}
    ),
    "http.<another path>.extraHeader": Row(
        "{http}/header/a.git", None, {"http.{http}/head.extraHeader": f"X-Token: {TOKEN}"}, says="403"
    ),
    "http.<another server>.extraHeader": Row(
        "{http}/header/a.git", None, {"http.http://h.example.org.extraHeader": f"X-Token: {TOKEN}"}, says="403"
    ),
    "http.<wildcard>.extraHeader": Row(
        "{http}/header/a.git", None, {"http.http://*.0.0.1.extraHeader": f"X-Token: {TOKEN}"}, says="403"
    ),
    "http.extraHeader, taken back": Row(
        "{http}/header/a.git",
        None,
        more_settings=[("http.extraHeader", f"X-Token: {TOKEN}"), ("http.extraHeader", "")],
        says="403",
    ),
    "http.extraHeader, less specific": Row(
        "{http}/header/a.git",
        None,
        more_settings=[("http.{http}.extraHeader", "X-Token: no"), ("http.extraHeader", f"X-Token: {TOKEN}")],
        says="403",
    ),
    "http.cookieFile": Row("{http}/cookie/a.git", None, {"http.cookieFile": "{home}/cookies"}),
    "http.userAgent": Row("{http}/agent/a.git", None, {"http.userAgent": "Mozilla"}, says="403"),
    "http.followRedirects": Row("{http}/301/a.git", None, {"http.followRedirects": "false"}),
    "http.lowSpeedLimit": Row("{http}/ok/a.git", None, {"http.lowSpeedLimit": "1"}),
    "protocol.version": Row("{http}/ok/a.git", None, {"protocol.version": "0"}),
    "insteadOf": Row("http://h.example.org/a.git", 1, {"url.{http}/ok/.insteadOf": "http://h.example.org/"}),
    "insteadOf, two of them": Row(
        "http://h.example.org/x/a.git",
        1,
        {"url.{http}/404/.insteadOf": "http://h.example.org/", "url.{http}/ok/.insteadOf": "http://h.example.org/x/"},
    ),
    "insteadOf, a path": Row("http://h.example.org/a.git", None, {"url.{root}/.insteadOf": "http://h.example.org/"}),
    "pushInsteadOf": Row("{http}/ok/a.git", 1, {"url.http://h.example.org/.pushInsteadOf": "{http}/"}),
    "remote.<url>": Row("{http}/ok/a.git", None, {"remote.{http}/ok/a.git.url": "{http}/ok/group/b.git"}),
    # TLS
    "an unknown authority": Row("{https}/ok/a.git", says="ertificate"),
    "http.sslCAInfo": Row("{https}/ok/a.git", 1, CA),
    "http.<url>.sslCAInfo": Row("{https}/ok/a.git", 1, {"http.{https}/.sslCAInfo": "{ca}"}),
    "GIT_SSL_CAINFO": Row("{https}/ok/a.git", 1, variables={"GIT_SSL_CAINFO": "{ca}"}),
    "GIT_SSL_NO_VERIFY": Row("{https}/ok/a.git", None, variables={"GIT_SSL_NO_VERIFY": "1"}),
    "http.sslVerify": Row("{https}/ok/a.git", None, {"http.sslVerify": "false"}),
    "another name": Row("{https_by_name}/ok/a.git", None, CA, says="ertificate"),
    "an expired certificate": Row("{expired}/ok/a.git", None, CA, says="ertificate"),
    "a client certificate": Row(
        "{wants_client}/ok/a.git", None, {**CA, "http.sslCert": "{client}", "http.sslKey": "{client}"}
    ),
    "no client certificate": Row("{wants_client}/ok/a.git", None, CA, same_words=False, says="unable to access"),
    "401 over https": Row("{https}/private/a.git", 2, {**CA, **STORE}),
    # Proxies
    "http.proxy": Row("{http}/ok/a.git", 1, {"http.proxy": "http://127.0.0.1:{proxy}"}, proxied=True),
    "http.proxy without a scheme": Row("{http}/ok/a.git", 1, {"http.proxy": "127.0.0.1:{proxy}"}, proxied=True),
    "http.proxy, empty": Row("{http}/ok/a.git", 1, {"http.proxy": ""}, {"http_proxy": "http://127.0.0.1:9"}),
    "http.proxy with a user": Row(
        "{http}/ok/a.git", None, {"http.proxy": "http://u:p@127.0.0.1:{proxy}"}, proxied=True
    ),
    "http_proxy": Row("{http}/ok/a.git", 1, variables={"http_proxy": "http://127.0.0.1:{proxy}"}, proxied=True),
    "HTTP_PROXY": Row("{http}/ok/a.git", 1, variables={"HTTP_PROXY": "http://127.0.0.1:9"}),
    "https_proxy": Row("{https}/ok/a.git", 1, CA, {"https_proxy": "http://127.0.0.1:{proxy}"}, proxied=True),
    "all_proxy": Row("{https}/ok/a.git", 1, CA, {"all_proxy": "127.0.0.1:{proxy}"}, proxied=True),
    "a proxy that is down": Row("{https}/ok/a.git", None, CA, {"https_proxy": "http://127.0.0.1:9"}, says="connect"),
    "no_proxy": Row(
        "{local}/ok/a.git", 1, variables={"http_proxy": "http://127.0.0.1:9", "no_proxy": "h.example.org, localhost"}
    ),
    "no_proxy, all": Row("{http}/ok/a.git", 1, variables={"http_proxy": "http://127.0.0.1:9", "no_proxy": "*"}),
    "no_proxy, another": Row(
        "{local}/ok/a.git",
        1,
        variables={"http_proxy": "http://127.0.0.1:{proxy}", "no_proxy": "host,ocalhost"},
        proxied=True,
    ),
    "no_proxy, an address": Row(
        "{http}/ok/a.git", None, variables={"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.0/8"}
    ),
}


def _places(world: World, home: Path) -> Callable[[str], str]:
    """Fills in what stands in braces."""
    port = world.http.port
    places = {
        "http": f"http://127.0.0.1:{port}",
        "local": f"http://localhost:{port}",
        "ipv6": f"http://[::1]:{world.ipv6.port if world.ipv6 else 9}",
        "https": f"https://localhost:{world.https.port}",
        "https_by_name": f"https://127.0.0.1:{world.https.port}",
        "expired": f"https://localhost:{world.expired.port}",
        "wants_client": f"https://localhost:{world.wants_client.port}",
        "ca": str(world.certificates.authority),
        "client": str(world.certificates.client),
        "proxy": str(world.proxy.port),
        "home": str(home),
        "root": str(world.root),
    }

    def fill(text: str) -> str:
        for name, value in places.items():
            text = text.replace(f"{{{name}}}", value)
        if "{http_at:" in text:
            before, _, rest = text.partition("{http_at:")
            user, _, rest = rest.partition("}")
            text = f"{before}http://{user}@127.0.0.1:{port}{rest}"
        return text

    return fill


@pytest.fixture
def fill(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A home with passwords; fills in what stands in braces."""
    world.forget()
    for name in [each for each in os.environ if re.match(r"(?i)GIT_(SSL|HTTP|PROXY)_|SSL_CERT|.*_PROXY\Z", each)]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    found = _places(world, home)
    urls = (found("{http}"), found("{https}"))
    (home / "passwords").write_text("".join(f"{url.replace('://', f'://{QUOTED}@')}\n" for url in urls))
    (home / "cookies").write_text(f"Set-Cookie: token={TOKEN}\n")
    script = f"#!/bin/sh\ncase $1 in Username*) echo {USER} ;; Password*) echo {PASSWORD} ;; esac\n"
    (home / "askpass").write_text(script)
    (home / "askpass").chmod(0o755)
    return found


def configure(home: Path, row: Row, fill: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (*row.settings.items(), *row.more_settings):
        git("config", "--global", "--add", fill(key), fill(value), directory=home)
    for name, value in row.variables.items():
        monkeypatch.setenv(name, fill(value))
    if row.netrc:
        (home / ".netrc").write_text(row.netrc)


def timeless(replies: Mapping[str, bytes | str]) -> dict[str, bytes | str]:
    """Replies and complaints, without the milliseconds that curl tells."""
    return {url: re.sub(r"after \d+ ms", "", said) if isinstance(said, str) else said for url, said in replies.items()}


@pytest.mark.parametrize("name", ROWS)
def test_the_reply_and_the_complaint_are_those_of_git(
    world: World, fill: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    row = ROWS[name]
    if "{ipv6}" in row.url and world.ipv6 is None:
        pytest.skip("the machine has no IPv6")
    configure(tmp_path / "home", row, fill, monkeypatch)
    url = fill(row.url)
    shared = ask([url], share=True)
    asked, used = world.asked(), list(world.proxy.used)
    world.forget()
    expected = ask([url], share=False)
    assert timeless(shared) == timeless(expected) or not row.same_words
    assert bool(used) == bool(world.proxy.used) == row.proxied
    [said] = expected.values()
    assert row.says in str(said)
    if row.says:
        assert isinstance(said, str)
    if row.alone is None:
        assert "{http}" not in row.url or [each for each in asked if each.method == "GET"], "Git was not asked"
    else:
        assert isinstance(said, bytes)
        assert [each.method for each in asked] == ["POST"] * row.alone
    for secret in (PASSWORD, TOKEN, "wrong", QUOTED):
        assert secret not in str(said)


# Many repositories


def many(fill: Callable[[str], str], kind: str = "ok", count: int = 24) -> list[str]:
    """URLs of that many repositories of one server."""
    return [fill(f"{{http}}/{kind}/many/r{number}.git") for number in range(count)]


def helper(home: Path, password: str, before: str = "") -> Callable[[], list[str]]:
    """Configure a credential helper. Returns what tells which actions it was asked for so far."""
    script = home / "helper"
    script.write_text(
        f"#!/bin/sh\necho $1 >>{home}/actions\n{before}\n"
        f'test "$1" = get && printf "username=%s\\npassword=%s\\n" "{USER}" "{password}"\nexit 0\n'
    )
    script.chmod(0o755)
    git("config", "--global", "credential.helper", str(script), directory=home)
    (home / "actions").touch()
    return lambda: (home / "actions").read_text().split()


def test_many_repositories_are_asked_over_as_many_connections_as_jobs(world: World, fill: Callable[[str], str]) -> None:
    urls = many(fill)
    shared = ask(urls, share=True)
    asked, connections = world.asked(), world.http.connections
    assert {each.method for each in asked} == {"POST"}
    assert len(asked) == len(urls)
    assert connections <= JOBS
    assert shared == ask(urls, share=False)


@pytest.mark.parametrize("tags", [(), ("v1",), ("light", "release/2"), ("none",), ("none", "v1")])
def test_tags_are_asked_for_in_the_same_question_and_read_as_git_reads_them(
    world: World, fill: Callable[[str], str], tags: tuple[str, ...]
) -> None:
    question = wrapper.question(fill("{http}/ok/tagged.git"), tags)
    before, said = len(world.http.asked), {}
    for share in (True, False):
        with Remotes(GitOptions(timeout=20, share=share), JOBS) as remotes:
            [_] = remotes.replies_to([question])
            said[share] = remotes.reply(question)
        if share:
            assert len(world.http.asked) == before + 1
    assert said[True] == said[False]
    found = wrapper.remote_heads(said[True])
    assert {key for key in found if key.startswith("~")} == {f"~{tag}" for tag in tags if tag != "none"}
    assert {*found.values()} == {git("rev-parse", "master", directory=world.root / "tagged.git")}


def test_a_connection_that_the_server_has_closed_meanwhile_is_no_failure(
    world: World, fill: Callable[[str], str]
) -> None:
    urls = many(fill, "vanish")
    found = ask(urls, share=True, jobs=1)
    assert all(isinstance(said, bytes) for said in found.values())
    assert {each.method for each in world.asked()} == {"POST"}


def test_a_credential_helper_is_asked_once_and_told_once(
    world: World, fill: Callable[[str], str], tmp_path: Path
) -> None:
    actions = helper(tmp_path / "home", PASSWORD, f"cat /proc/[0-9]*/cmdline >>{tmp_path}/seen 2>/dev/null")
    urls = many(fill, "private")
    found = ask(urls, share=True)
    seen = (tmp_path / "seen").read_bytes()
    assert b"credential\0approve" in seen
    assert PASSWORD.encode() not in seen, "it was an argument of a process"
    assert all(isinstance(said, bytes) for said in found.values())
    assert actions() == ["get", "store"]
    assert {each.method for each in world.asked()} == {"POST"}
    assert found == ask(urls, share=False)


def test_a_refused_password_is_what_git_says_and_rejects(
    world: World, fill: Callable[[str], str], tmp_path: Path
) -> None:
    actions = helper(tmp_path / "home", "wrong")
    urls = many(fill, "private")
    found = ask(urls, share=True)
    assert "erase" in actions()
    assert all("Authentication failed for" in str(said) for said in found.values())
    assert found == ask(urls, share=False)
    posts = [each for each in world.asked() if each.method == "POST"]
    assert len(posts) <= 4 * JOBS, "after the first refusals Git alone asks"


def test_a_repository_that_wants_a_password_does_not_leave_the_others_to_git(
    world: World, fill: Callable[[str], str]
) -> None:
    good, bad = many(fill), many(fill, "private", 6)
    found = ask([*good[:2], *bad, *good[2:]], share=True, jobs=1)
    assert all(isinstance(found[url], bytes) for url in good)
    assert all("terminal prompts disabled" in str(found[url]) for url in bad)
    assert {each.path.split("/")[1] for each in world.asked() if each.method == "GET"} == {"private"}


def test_a_helper_that_hangs_is_ended(fill: Callable[[str], str], tmp_path: Path) -> None:
    actions = helper(tmp_path / "home", PASSWORD, f"echo $$ >>{tmp_path}/pids; exec sleep 60")
    began = time.monotonic()
    found = ask(many(fill, "private")[:2], share=True, timeout=3)
    assert time.monotonic() - began < 30
    assert all(str(said).startswith("GitTimeoutError") for said in found.values())
    assert "get" in actions()
    while any(map(_is_there, (tmp_path / "pids").read_text().split())):
        assert time.monotonic() - began < 40
        time.sleep(0.05)


def _is_there(pid: str) -> bool:
    try:
        return "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_a_server_that_gives_no_good_answer_is_soon_left_to_git(world: World, fill: Callable[[str], str]) -> None:
    urls = many(fill, "301")
    found = ask(urls, share=True)
    assert all(isinstance(said, bytes) for said in found.values())
    posts = [each for each in world.asked() if each.method == "POST" and each.path.startswith("/301/")]
    assert len(posts) <= 4 + JOBS


def test_refusals_of_some_do_not_leave_the_others_to_git(world: World, fill: Callable[[str], str]) -> None:
    good, bad = many(fill), many(fill, "404", 12)
    found = ask([*good[:4], *bad, *good[4:]], share=True, jobs=1)
    assert all("not found" in str(found[url]) for url in bad)
    gets = [each.path for each in world.asked() if each.method == "GET"]
    assert all(path.startswith("/404/") for path in gets)


def test_a_silent_server_costs_its_time_once(world: World, fill: Callable[[str], str]) -> None:
    urls = many(fill, "silent")
    began = time.monotonic()
    found = ask(urls, share=True, timeout=4)
    assert time.monotonic() - began < 30
    assert {str(found[url]).partition(" ")[0] for url in urls} == {"GitTimeoutError"}
    assert any(each.method == "GET" for each in world.asked()), "Git has asked, too"


def test_a_silent_repository_holds_up_none_of_its_server(fill: Callable[[str], str]) -> None:
    silent, good = many(fill, "silent", 2), many(fill)
    found = ask([*good[:4], *silent, *good[4:]], share=True, timeout=8)
    assert {str(found[url]).partition(" ")[0] for url in silent} == {"GitTimeoutError"}
    assert all(isinstance(found[url], bytes) for url in good)


def test_a_long_list_is_left_to_git(world: World, fill: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_LONGEST", 100)
    url = fill("{http}/ok/a.git")
    assert ask([url], share=True) == ask([url], share=False)
    assert [each.method for each in world.asked()][:2] == ["POST", "GET"]


def test_questions_that_nobody_wants_to_know_any_more_say_nothing_of_a_server(
    world: World, fill: Callable[[str], str]
) -> None:
    urls = many(fill)
    with Remotes(GitOptions(timeout=20, share=True), JOBS) as remotes:
        remotes.ask(map(wrapper.question, many(fill, "silent")))
        remotes.forget()
        assert len([*remotes.replies_to(map(wrapper.question, urls))]) == len(urls)
    assert {each.method for each in world.asked() if not each.path.startswith("/silent/")} == {"POST"}


# Servers that are far away


@pytest.fixture
def far(world: World, fill: Callable[[str], str], tmp_path: Path) -> Iterator[GitWeb]:
    """A server to which a way there and back takes a tenth of a second, and which refuses more than four questions."""
    git("config", "--global", "http.sslCAInfo", fill("{ca}"), directory=tmp_path / "home")
    world.https.delay, world.https.limit = 0.1, 4
    yield world.https
    world.https.delay, world.https.limit = 0.0, 0


def far_urls(fill: Callable[[str], str], kind: str) -> list[str]:
    return [url.replace("{http}", fill("{https}")) for url in many(lambda text: text, kind)]


def test_a_server_that_is_far_away_is_asked_more_at_a_time(far: GitWeb, fill: Callable[[str], str]) -> None:
    urls = far_urls(fill, "ok")
    found = ask(urls, share=True, many=12)
    assert {each.method for each in far.asked} == {"POST"}
    assert JOBS < far.connections <= 12
    far.forget()
    assert found == ask(urls, share=True)
    assert far.connections <= JOBS, "somebody has said how many"


@pytest.mark.parametrize("kind", ["many429", "many503", "many"])
def test_a_server_that_refuses_many_questions_gets_few(far: GitWeb, fill: Callable[[str], str], kind: str) -> None:
    urls = far_urls(fill, kind)
    found = ask(urls, share=True, many=12)
    assert all(isinstance(said, bytes) for said in found.values())
    assert {each.method for each in far.asked} == {"POST"}, "Git was asked"
    assert len(urls) < len(far.asked) <= len(urls) + 12
