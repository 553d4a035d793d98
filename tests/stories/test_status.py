"""The status page as a program: the runner, the WSGI script, a user who may only read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests import TREE
from tests.conftest import Site
from tests.faults.users import NOBODY, as_user, needs_root
from tests.unit.status.conftest import app_of

RUNNER = (sys.executable, str(TREE / "bin" / "jens-status-runner"))


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; its exit status, and what it has printed since it listened."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextlib.contextmanager
def serving(config: Path, *, shadow: Path | None = None) -> Iterator[Server]:
    """The runner as a program; modules in ``shadow`` come before all others."""
    path = os.pathsep.join([*([str(shadow)] if shadow else []), str(TREE)])
    command = [*RUNNER, "-c", str(config), "-p", "0"]
    process = subprocess.Popen(
        command,
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        while not (match := re.search(r"Listening on http://127\.0\.0\.1:(\d+)$", line := process.stderr.readline())):
            assert line, "it does not listen"
        yield Server(process, int(match[1]))
    finally:
        process.kill()
        process.wait()


def test_the_runner_serves_until_it_is_ended(site: Site) -> None:
    site.update()
    with serving(site.config) as server:
        assert server.get("/healthz") == (200, "OK\n")
        assert "All is well" in server.get("/")[1]
        assert json.loads(server.get("/environments.json")[1])["total"] == 1
        assert server.get("/nothing")[0] == 404
        assert server.end() == (0, "")
    with serving(site.config) as server:
        code, errors = server.end(signal.SIGINT)
        assert (code, errors.strip().splitlines()) == (130, ["jens-status-runner: Interrupted"])


def test_without_waitress_it_is_for_tests_only(site: Site, tmp_path: Path) -> None:
    (tmp_path / "waitress.py").write_text("raise ImportError('none')\n")
    with serving(site.config, shadow=tmp_path) as server:
        assert server.get("/")[0] == 200
        assert server.end()[0] == 0


def test_mistakes_are_one_line(site: Site) -> None:
    def complaint(*arguments: str) -> tuple[int, str]:
        environment = {"PYTHONPATH": str(TREE), "PATH": os.environ["PATH"]}
        done = subprocess.run([*RUNNER, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, text = complaint("-c", str(site.config), "-p", port)
    assert code == 10
    assert text.startswith(f"jens-status-runner: Unable to listen on 127.0.0.1 port {port}: Address already in use")
    assert len(text.splitlines()) == 1
    code, text = complaint("-c", "/nothing.conf")
    assert (code, len(text.splitlines())) == (2, 1)
    assert complaint("-p", "65536")[0] == 2


def test_the_wsgi_script_gives_a_working_application(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.update()
    monkeypatch.setenv("JENS_CONFIG", str(site.config))
    app = runpy.run_path(str(TREE / "wsgi" / "jens-status.wsgi"))["application"]
    assert FlaskClient(app).get("/healthz").status_code == 200
    monkeypatch.setenv("JENS_CONFIG", str(site.root / "missing.conf"))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TREE / "wsgi" / "jens-status.wsgi"))
    assert caught.value.code == 3


def read_as(user: int, site: Site, expected: dict[str, int]) -> None:
    """Look at pages as another user, in a process of that user; each must have its status, and name no path."""
    app, other = app_of(site), app_of(site).test_client()
    for name in app.jinja_env.list_templates():
        app.jinja_env.get_template(name)  # our files may be closed to that user
    for path in expected:
        other.get(path)  # and so may be modules that are imported late

    def look() -> int:
        client, wrong = app.test_client(), 0
        for path, status in expected.items():
            response = client.get(path)
            is_told = status == 200 or "cannot be read" in response.text or "ermission" in response.text
            wrong += response.status_code != status or str(site.root) in response.text or not is_told
        return wrong

    assert as_user(user, look) == 0


@needs_root
def test_a_user_who_may_only_read_can_serve_it(site: Site, tmp_path: Path) -> None:
    site.update()
    for top in (tmp_path, *tmp_path.parents):
        if top == tmp_path or top.name.startswith(("pytest-", "popen-")):  # pytest closes these to others
            top.chmod(0o755)
    before = site.listing("bare", "clone", "cache", "environments")
    commit = site.remotes["modules/dummy"].commit()
    pages = ["/", "/environments", "/environments/production", "/repositories", "/repositories/modules/dummy"]
    pages += ["/history", "/history/1", f"/commits/{commit}", "/search?q=dummy", "/metrics", "/healthz"]
    read_as(NOBODY, site, dict.fromkeys(pages, 200))
    assert site.listing("bare", "clone", "cache", "environments") == before
    (site.root / "cache" / "history.sqlite").chmod(0o600)
    (site.root / "environments").chmod(0o700)
    open_ones = {"/", "/repositories", "/metrics"}  # the others need what is closed
    read_as(NOBODY, site, {page: 200 if page in open_ones else 503 for page in pages})
