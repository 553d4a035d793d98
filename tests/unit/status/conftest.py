"""A site with faults and a history, made once, and a client of its status page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jens.commands import hold
from jens.config import load_config
from jens.status import create_app
from tests.conftest import Site, git


class _NoCapture:
    """In the place of pytest's capture, which a site that several tests share cannot have."""

    def readouterr(self) -> SimpleNamespace:
        return SimpleNamespace(out="", err="")


class Client(FlaskClient):
    """A client whose answers have a ``text``, which they have not in old releases of Werkzeug."""

    def open(self, *arguments: Any, **more: Any) -> Any:
        response = super().open(*arguments, **more)
        if not hasattr(response, "text"):
            response.text = response.get_data(as_text=True)
        return response


def app_of(site: Site) -> Flask:
    """The status page of a site."""
    app = create_app(load_config(site.config))
    app.test_client_class = Client
    return app


def client_of(site: Site) -> FlaskClient:
    """A client of the status page of a site."""
    return app_of(site).test_client()


def new_site(root: Path) -> Site:
    """A small site, as the fixture ``site`` has it, which several tests may share."""
    made = Site(root, cast("Any", _NoCapture()))
    for repo in ("common/hieradata", "common/site", "hostgroups/myapp", "modules/dummy"):
        made.add(repo)
    made.publish()
    made.define("production")
    return made


#: What a commit may say of itself: it must stay text.
HOSTILE_AUTHOR = "<script>alert(1)</script> \u202eelttil"
HOSTILE_SUBJECT = "<img src=x onerror=alert(2)> \x07\x1b[31m" + "x" * 10_000
#: Git accepts this name of a branch.
HOSTILE_BRANCH = "<b>&'\"\u202e-branch"


@dataclass
class Busy:
    """A site after several runs: what is pushed last, and what is wrong."""

    site: Site
    first: str
    last: str
    hostile: str


def push_as(site: Site, repo: str, author: str, subject: str, branch: str = "master") -> str:
    """Push a commit with this author and this subject."""
    remote = site.remotes[repo]
    parent = remote.find(branch) or remote.commit()
    body = subject.encode("utf-8", "surrogateescape")
    name = author.replace("<", "").replace(">", "").replace("\n", "")
    lines = f"commit refs/heads/{branch}\nauthor {name} <a@example.org> now\ncommitter B <b@example.org> now\n".encode()
    lines += f"data {len(body)}\n".encode() + body + b"\n" + f"from {parent}\n".encode()
    lines += b"M 100644 inline code/pushed.pp\ndata 2\n#\n\n"
    git("fast-import", "--quiet", "--force", "--date-format=now", directory=remote.path, stdin=lines)
    return remote.commit(branch)


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Busy:
    """A site with two environments that differ, hostile names, a dangling link and an ill-formed definition."""
    with pytest.MonkeyPatch.context() as patched:
        home = tmp_path_factory.mktemp("home")
        patched.setenv("HOME", str(home))
        site = new_site(tmp_path_factory.mktemp("busy") / "site")
        first = site.remotes["modules/dummy"].commit()
        site.update()
        site.remotes["modules/dummy"].branch("test")
        site.define("test", "default: master\nnotifications: team@example.org\noverrides:\n  modules: {dummy: test}\n")
        site.define("frozen")
        site.define("snap", f"notifications: ann@example.org\noverrides:\n  modules: {{dummy: commit/{first}}}\n")
        site.update()
        last = push_as(site, "modules/dummy", "Ann Author", "Add foo")
        hostile = push_as(site, "modules/dummy", HOSTILE_AUTHOR, HOSTILE_SUBJECT, HOSTILE_BRANCH)
        text = "default: master\nnotifications: ['<i>@example.org']\noverrides:\n  modules: {dummy: \"%s\"}\n"
        site.define("odd", text % HOSTILE_BRANCH.replace('"', '\\"'))
        site.update()
        assert hold.main(["-c", str(site.config), "frozen", "--until", "1h", "--reason", "<i>a release</i>"]) == 0
        site.remotes["modules/dummy"].delete("test")
        site.define("broken", "default: master\nnotifications: [bob@example.org]\noverrides: 7\n")
        site.remotes["hostgroups/myapp"].go_away()
        site.update()
        return Busy(site, first, last, hostile)


@pytest.fixture
def client(busy: Busy) -> FlaskClient:
    """A client of the status page of the busy site."""
    return client_of(busy.site)
