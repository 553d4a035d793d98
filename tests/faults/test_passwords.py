"""Passwords in URLs: no argument of a process has them, and no file that every user of the host can read."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jens.commands import check, init
from tests.conftest import Site, git

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
USER, PASSWORD = "deploy", "pä55 w@rd:'\"$x/%"
ENCODED = "p%C3%A455%20w%40rd%3A%27%22%24x%2F%25"
SECRETS = (PASSWORD.encode(), ENCODED.encode(), b"p%C3%A455", "pä55".encode())


class Server(ThreadingHTTPServer):
    """A Git server that wants a password, and looks at all processes of the host during each request."""

    daemon_threads = True

    def __init__(self, top: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.top = top
        self.looked = 0
        self.served = 0
        self.seen: set[bytes] = set()
        self.gits: set[bytes] = set()

    def url(self, path: Path, user: str = f"{USER}:{ENCODED}@") -> str:
        return f"http://{user}127.0.0.1:{self.server_address[1]}/{path.relative_to(self.top)}"

    def look(self) -> None:
        """Note the arguments of processes that have a secret."""
        self.looked += 1
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                line = Path("/proc", name, "cmdline").read_bytes()
                self.gits |= {line} if b"git" in line and str(self.server_address[1]).encode() in line else set()
                self.seen |= {line for secret in SECRETS if secret in line}


class Handler(BaseHTTPRequestHandler):
    """Hands everything to git-http-backend(1), if the password is right."""

    server: Server

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.server.look()
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {expected}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="Git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.served += 1
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path, _, query = self.path.partition("?")
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.top),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": USER,
            "CONTENT_TYPE": self.headers["Content-Type"] or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
            "HTTP_GIT_PROTOCOL": self.headers["Git-Protocol"] or "",
        }
        command = ["git", "-c", "safe.directory=*", "http-backend"]
        done = subprocess.run(command, input=body, capture_output=True, check=False, env=environment)
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" + done.stdout)


@pytest.fixture
def server(site: Site) -> Iterator[Server]:
    made = Server(site.root / "remotes")
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def private(site: Site, server: Server) -> Site:
    """The small site, with all repositories behind the server, and the password in each URL."""
    for repo, remote in site.remotes.items():
        site.urls[repo] = server.url(remote.path)
    site.publish()
    for name, remote in (("environments", site.definitions), ("repository", site.library)):
        git("remote", "set-url", "origin", server.url(remote.path), directory=site.root / "metadata" / name)
        git("fetch", "-q", str(remote.path), "master", directory=site.root / "metadata" / name)
        git("reset", "-q", "--hard", "FETCH_HEAD", directory=site.root / "metadata" / name)
    return site


def readable(*tops: Path) -> list[str]:
    """The files that every user can read, if the directories above let him, and that have a secret."""
    paths = [path for top in tops for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    opened = [path for path in paths if path.stat().st_mode & 0o004]
    return [str(path) for path in opened if any(secret in path.read_bytes() for secret in SECRETS)]


def parts(site: Site) -> list[Path]:
    """All that Jens writes, the library that it has checked out included."""
    names = ("bare", "clone", "cache", "environments", "log", "lock", "spool", "metadata")
    return [site.root / name for name in names]


def push_and_see(site: Site, text: str) -> None:
    commit = site.remotes[DUMMY].push({INIT: f"# {text}\n"})
    assert site.update("--strict").code == 0
    assert site.expanded(DUMMY)["master"] == commit


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_passwords_are_no_arguments_and_in_no_open_file(private: Site, server: Server, mode: str) -> None:
    private.settings["main.mode"] = mode
    assert private.update("--strict").code == 0
    if mode == "ONDEMAND":
        private.hint(DUMMY)
    push_and_see(private, "pushed")
    private.define("test")
    private.remotes[DUMMY].push({INIT: "# gone\n"}, rewrite=True)
    private.remotes[DUMMY].branch("other")
    private.define(
        "pinned",
        f"default: master\nnotifications: ann@example.org\noverrides:\n  modules:\n"
        f"    dummy: commit/{private.remotes[DUMMY].commit()}\n",
    )
    assert private.update("--poll", "--strict").code == 0
    assert private.update("--dry-run").code == 0
    assert server.served > 10
    assert server.gits, "nothing was looked at"
    assert server.seen == set()
    assert readable(*parts(private)) == []


def test_mirrors_of_earlier_releases_lose_their_passwords(private: Site, server: Server) -> None:
    assert private.update("--strict").code == 0
    config = private.root / "bare" / DUMMY / "config"
    git("config", "remote.origin.url", private.urls[DUMMY], directory=config.parent)
    metadata = private.root / "metadata" / "environments" / ".git" / "config"
    metadata.chmod(0o644)
    assert readable(*parts(private)) != []
    (private.root / "cache" / "baseline.json").unlink()
    assert private.update("--strict").code == 0
    assert readable(*parts(private)) == []
    assert server.seen == set()


def test_a_wrong_password_is_an_error_without_it(private: Site, server: Server) -> None:
    assert private.update("--strict").code == 0
    private.urls[DUMMY] = server.url(private.remotes[DUMMY].path, f"{USER}:0ld-{ENCODED}@")
    private.publish()
    outcome = private.update()
    [error] = outcome.lines("ERROR")
    assert "Authentication failed" in error
    assert not any(secret in outcome.log.encode() for secret in (*SECRETS, b"0ld-"))
    assert server.seen == set()
    private.urls[DUMMY] = server.url(private.remotes[DUMMY].path)
    private.publish()
    push_and_see(private, "the right one again")


def test_a_user_without_a_password_is_no_argument_either(
    private: Site, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token may be the user. The caller's GIT_ASKPASS gives the password."""
    askpass = private.root / "askpass"
    askpass.write_text(f"#!/bin/sh\ncat <<'END'\n{PASSWORD}\nEND\n")
    askpass.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(askpass))
    for repo, remote in private.remotes.items():
        private.urls[repo] = server.url(remote.path, f"{USER}@")
    private.publish()
    assert private.update("--strict").code == 0
    push_and_see(private, "pushed")
    assert server.gits
    assert not any(f"{USER}@".encode() in line for line in server.gits)


def test_an_instance_and_its_check_keep_passwords_for_themselves(
    private: Site, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    place = private.root / "instance"
    urls = ["--environments", server.url(private.definitions.path), "--repositories", server.url(private.library.path)]
    assert init.main([str(place), *urls]) == 0
    assert readable(*(place / "metadata" / name / ".git" for name in ("environments", "repository"))) == []
    library = private.root / "metadata" / "repository" / "repositories.yaml"
    definitions = private.root / "metadata" / "environments"
    assert check.main(["--environments", str(definitions), "--repositories", str(library), "--remote"]) == 0
    assert server.seen == set()
    assert "55" not in capsys.readouterr().out
