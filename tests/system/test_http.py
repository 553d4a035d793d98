"""Remotes behind a web server: nginx, with git http-backend as its CGI program."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Remote, Site, assert_complaint, git
from tests.system.services import LOOPBACK, required, serving

INIT = "code/manifests/init.pp"
USER, PASSWORD = "jens", "pa55w0rd"

CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log {directory}/access;
    client_body_temp_path {directory}/body;
    fastcgi_temp_path {directory}/fastcgi;
    proxy_temp_path {directory}/proxy;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen {address}:{port};
        fastcgi_param GIT_PROJECT_ROOT {remotes};
        fastcgi_param GIT_HTTP_EXPORT_ALL "";
        fastcgi_param FAULT {directory}/fault;
        fastcgi_param SCRIPT_FILENAME {directory}/backend;
        fastcgi_param QUERY_STRING $query_string;
        fastcgi_param REQUEST_METHOD $request_method;
        fastcgi_param CONTENT_TYPE $content_type;
        fastcgi_param CONTENT_LENGTH $content_length;
        fastcgi_param REMOTE_USER $remote_user;
        fastcgi_param PATH_INFO $repository;
        location ~ ^/git(/.*)$ {{
            set $repository $1;
            fastcgi_pass {address}:{cgi};
        }}
        location ~ ^/private(/.*)$ {{
            auth_basic "Repositories";
            auth_basic_user_file {directory}/users;
            set $repository $1;
            fastcgi_pass {address}:{cgi};
        }}
    }}
}}
"""


@dataclass
class WebServer:
    """A web server with the repositories of a site at /git, and with a password at /private."""

    port: int
    directory: Path
    remotes: Path

    def url(self, remote: Remote, place: str = "git", user: str = "") -> str:
        return f"http://{user}{LOOPBACK}:{self.port}/{place}/{remote.path.relative_to(self.remotes)}"

    def go_wrong(self, fault: str = "") -> None:
        (self.directory / "fault").write_text(fault)

    def let_in(self, password: str) -> None:
        (self.directory / "users").write_text(f"{USER}:{{PLAIN}}{password}\n")

    def requests(self, status: int) -> list[str]:
        """The requested paths with this status."""
        lines = (self.directory / "access").read_text().splitlines()
        return [line.split('"')[1].split(" ")[1] for line in lines if line.split('"')[2].split()[0] == str(status)]


@pytest.fixture
def web(site: Site, tmp_path: Path) -> Iterator[WebServer]:
    nginx, fcgiwrap = required("nginx", "nginx-light"), required("fcgiwrap", "fcgiwrap")
    required("git-http-backend", "git")
    directory, remotes = tmp_path / "web", site.root / "remotes"
    directory.mkdir()
    backend = directory / "backend"
    program = shlex.join([sys.executable, str(Path(__file__).with_name("faulty_backend.py"))])
    backend.write_text(f"#!/bin/sh\nexec {program}\n")
    backend.chmod(0o755)
    with contextlib.ExitStack() as stack:
        cgi = stack.enter_context(
            serving(lambda port: [fcgiwrap, "-c", "4", "-s", f"tcp:{LOOPBACK}:{port}"], directory / "fcgiwrap")
        )

        def command(port: int) -> list[str]:
            text = CONFIGURATION.format(directory=directory, remotes=remotes, address=LOOPBACK, port=port, cgi=cgi.port)
            (directory / "nginx.conf").write_text(text)
            return [nginx, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]

        server = stack.enter_context(serving(command, directory / "output"))
        made = WebServer(server.port, directory, remotes)
        made.go_wrong()
        made.let_in(PASSWORD)
        yield made


@pytest.fixture
def web_site(site: Site, web: WebServer) -> Site:
    """The small site, with the library and both metadata repositories behind the web server; the module is private."""
    for repo, remote in site.remotes.items():
        site.urls[repo] = web.url(remote)
    site.urls["modules/dummy"] = web.url(site.remotes["modules/dummy"], "private", f"{USER}:{PASSWORD}@")
    site.publish()
    shutil.rmtree(site.root / "metadata")
    for remote, name in ((site.definitions, "environments"), (site.library, "repository")):
        git("clone", "-q", web.url(remote), str(site.root / "metadata" / name), directory=site.root)
    return site


def test_clone_and_fetch_with_a_password_and_without(web_site: Site, web: WebServer) -> None:
    outcome = web_site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert web_site.read("production/modules/dummy/manifests/init.pp") == "class dummy {}\n"
    dummy, myapp = web_site.remotes["modules/dummy"], web_site.remotes["hostgroups/myapp"]
    dummy.push({INIT: "class dummy { notice('over http') }\n"})
    myapp.push({"code/manifests/new.pp": "class hg_myapp::new {}\n"}, "feature/x", onto="master")
    web_site.define(
        "test", "default: master\nnotifications: ann@example.org\noverrides: {hostgroups: {myapp: feature/x}}\n"
    )
    outcome = web_site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert "over http" in web_site.read("production/modules/dummy/manifests/init.pp")
    assert web_site.exists("test/hostgroups/hg_myapp/manifests/new.pp")
    dummy.push({INIT: "class dummy { notice('rewritten') }\n"}, rewrite=True)
    myapp.delete("feature/x")
    assert web_site.update().code == 0
    assert "rewritten" in web_site.read("production/modules/dummy/manifests/init.pp")
    assert not web_site.exists("test/hostgroups/hg_myapp/manifests/new.pp")
    assert any(path.startswith("/private/modules/dummy.git/") for path in web.requests(200))
    assert PASSWORD not in (web_site.root / "log" / "jens-update.log").read_text()


def test_the_users_own_store_of_passwords_counts(web_site: Site, web: WebServer, tmp_path: Path) -> None:
    web_site.urls["modules/dummy"] = web.url(web_site.remotes["modules/dummy"], "private")
    web_site.publish()
    outcome = web_site.update()
    [line] = [line for line in outcome.lines("ERROR") if "terminal prompts disabled" in line]
    assert line.startswith("ERROR Unable to clone 'dummy' from remote (")
    assert not web_site.exists("production/modules/dummy")
    (tmp_path / "home" / ".git-credentials").write_text(f"http://{USER}:{PASSWORD}@{LOOPBACK}:{web.port}\n")
    git("config", "--global", "credential.helper", "store", directory=tmp_path)
    assert web_site.update("--strict").code == 0
    assert web_site.exists("production/modules/dummy/manifests/init.pp")


def test_a_netrc_counts(web_site: Site, web: WebServer, tmp_path: Path) -> None:
    web_site.urls["modules/dummy"] = web.url(web_site.remotes["modules/dummy"], "private")
    web_site.publish()
    (tmp_path / "home" / ".netrc").write_text(f"machine {LOOPBACK}\nlogin {USER}\npassword {PASSWORD}\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert web_site.update("--strict").code == 0
    assert web_site.exists("production/modules/dummy/manifests/init.pp")


def test_the_callers_askpass_program_is_asked(
    web_site: Site, web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web_site.urls["modules/dummy"] = web.url(web_site.remotes["modules/dummy"], "private")
    web_site.publish()
    program = tmp_path / "askpass"
    program.write_text(f"#!/bin/sh\ncase $1 in Username*) echo {USER} ;; Password*) echo {PASSWORD} ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    outcome = web_site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert web_site.exists("production/modules/dummy/manifests/init.pp")
    web_site.remotes["modules/dummy"].push({INIT: "# new\n"})
    assert web_site.update("--strict").code == 0
    assert web_site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    assert PASSWORD not in (web_site.root / "log" / "jens-update.log").read_text()


def test_a_poll_asks_for_repositories_without_git(web_site: Site, web: WebServer) -> None:
    assert web_site.update("--strict").code == 0
    (web.directory / "access").write_text("")
    assert web_site.update("--strict").code == 0
    by_git = {path.partition("/info/refs")[0] for path in web.requests(200) if "service=" in path}
    metadata = {web.url(remote).partition(str(web.port))[2] for remote in (web_site.definitions, web_site.library)}
    assert by_git == metadata, "Git has asked for these only"
    assert len([path for path in web.requests(200) if "service=" not in path]) >= len(web_site.remotes)
    web_site.settings["git.share_connections"] = "False"
    (web.directory / "access").write_text("")
    assert web_site.update("--strict").code == 0
    assert len([path for path in web.requests(200) if "service=" in path]) == len(web_site.remotes) + 2


FAULTS = {
    "401": "Authentication failed for",
    "404": "not found",
    "500": "The requested URL returned error: 500",
    "short": "transfer closed with",
    "cut": "of body are still expected",
}


def _break(site: Site, web: WebServer, fault: str) -> None:
    if fault == "401":
        web.let_in("another")
    elif fault == "404":
        site.remotes["modules/dummy"].go_away()
    else:
        web.go_wrong(fault)


def _mend(site: Site, web: WebServer) -> None:
    web.go_wrong()
    web.let_in(PASSWORD)
    with contextlib.suppress(FileNotFoundError):
        site.remotes["modules/dummy"].come_back()


def _assert_told(site: Site, fault: str, verb: str = "fetch") -> None:
    """Check that one line says what is wrong with the module, and has no password."""
    outcome = site.update()
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    [line] = [line for line in outcome.lines("ERROR") if "dummy" in line]
    assert line.startswith(f"ERROR Unable to {verb} 'dummy' from remote (")
    assert FAULTS[fault] in line
    assert PASSWORD not in outcome.log


@pytest.fixture
def mixed_site(web_site: Site) -> Site:
    """A site where only the module is behind the web server."""
    for repo in ("common/hieradata", "common/site", "hostgroups/myapp"):
        web_site.urls[repo] = web_site.remotes[repo].url
    web_site.publish()
    for remote, name in ((web_site.definitions, "environments"), (web_site.library, "repository")):
        git("remote", "set-url", "origin", remote.url, directory=web_site.root / "metadata" / name)
    return web_site


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_during_a_fetch_leaves_what_was_there(mixed_site: Site, web: WebServer, fault: str) -> None:
    site = mixed_site
    assert site.update("--strict").code == 0
    site.remotes["modules/dummy"].push({INIT: "class dummy { notice('news') }\n"})
    site.remotes["hostgroups/myapp"].push({INIT: "class hg_myapp { notice('news') }\n"})
    _break(site, web, fault)
    _assert_told(site, fault)
    assert site.read("production/modules/dummy/manifests/init.pp") == "class dummy {}\n"
    assert "news" in site.read("production/hostgroups/hg_myapp/manifests/init.pp")
    _mend(site, web)
    outcome = site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert "news" in site.read("production/modules/dummy/manifests/init.pp")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_during_the_first_clone_leaves_nothing(mixed_site: Site, web: WebServer, fault: str) -> None:
    site = mixed_site
    _break(site, web, fault)
    _assert_told(site, fault, "clone")
    assert not site.path("modules/dummy").exists()
    assert [path.name for path in (site.root / "bare" / "modules").glob("*")] == []
    assert site.exists("production/hostgroups/hg_myapp/manifests/init.pp")
    _mend(site, web)
    assert site.update("--strict").code == 0
    assert site.exists("production/modules/dummy/manifests/init.pp")


@pytest.mark.parametrize("fault", ["500", "short", "cut"])
def test_a_fault_during_the_fetch_of_metadata_ends_the_run(web_site: Site, web: WebServer, fault: str) -> None:
    assert web_site.update("--strict").code == 0
    before = web_site.listing("environments", "clone")
    web_site.define("test")
    web.go_wrong(fault)
    assert_complaint(web_site.update(), 20, FAULTS[fault])
    assert web_site.listing("environments", "clone") == before
    web.go_wrong()
    assert web_site.update("--strict").code == 0
    assert "test" in web_site.environments()
