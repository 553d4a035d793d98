"""Puppet servers are told which environments changed: once, in order, whatever they answer. The servers are small."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from jens import deliveries
from jens.config import load_config
from jens.delivery import puppetserver
from jens.delivery.deliver import next_due
from jens.layout import Layout
from jens.system import processes
from tests import TREE, tls
from tests.conftest import Site, definition, git
from tests.system.services import free_port, required
from tests.system.test_types import TYPES, of_type
from tests.tls import Authority, Flushes, answer

DUMMY = "modules/dummy"
JENS = "jens.example.org"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that has signed a server, Jens, and some who are not what they should be."""
    required("openssl", "openssl")
    made = Authority(tmp_path_factory.mktemp("tls") / "ca")
    for name in ("server", JENS):
        made.sign(name)
    made.sign("old", days=-1)
    made.sign("elsewhere", names="DNS:puppet9.example.org")
    return made


@pytest.fixture
def server(authority: Authority) -> Iterator[Flushes]:
    with running(authority) as made:
        yield made


@contextlib.contextmanager
def running(authority: Authority, port: int = 0, name: str = "server") -> Iterator[Flushes]:
    cert = authority.top / f"{name}.pem", authority.top / f"{name}.key"
    with tls.flushes(cert, authority.ca, port) as made:
        yield made


@pytest.fixture
def flushed(site: Site, authority: Authority, server: Flushes, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose server knows what there is."""
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    configure(site, authority, server.url)
    site.update()
    assert site.deliver().code == 0
    assert server.news() == [""]
    return site


def configure(site: Site, authority: Authority, *urls: str) -> None:
    site.settings["puppetserver.urls"] = ", ".join(urls)
    site.settings["puppetserver.ssl_ca"] = str(authority.ca)
    use(site, authority, JENS)


def use(site: Site, authority: Authority, name: str) -> None:
    """Let Jens have this certificate."""
    site.settings["puppetserver.ssl_cert"] = str(authority.top / f"{name}.pem")
    site.settings["puppetserver.ssl_key"] = str(authority.top / f"{name}.key")


def push(site: Site, text: str = "# more\n", branch: str = "master") -> str:
    return site.remotes[DUMMY].push({"code/manifests/init.pp": text}, branch)


def push_and_update(site: Site, text: str = "# more\n", branch: str = "master") -> None:
    push(site, text, branch)
    site.update()


def faults(site: Site) -> list[dict[str, Any]]:
    site.update()
    content = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    return [fault for fault in content["faults"] if fault["kind"] == "delivery"]


def test_each_environment_that_changed_is_flushed_once(flushed: Site, server: Flushes) -> None:
    flushed.remotes[DUMMY].branch("dev")
    flushed.define("dev", definition("master", {DUMMY: "dev"}))
    flushed.define("other")
    flushed.update()
    assert flushed.deliver().code == 0
    assert server.news() == ["dev", "other"]
    push_and_update(flushed)
    flushed.retire("other")
    flushed.update()
    assert flushed.deliver().code == 0
    assert server.news() == ["other", "production"]
    assert flushed.deliver().code == 0
    flushed.update()
    assert flushed.deliver().code == 0
    assert server.news() == []


def test_what_is_no_change_of_an_environment_is_no_flush(flushed: Site, server: Flushes) -> None:
    flushed.define("production", definition("master", {"modules/nothing": "dev"}))  # a fault
    flushed.update()
    assert flushed.deliver().code == 0
    assert server.news() == []


def test_what_was_taken_back_meanwhile_is_flushed(flushed: Site, server: Flushes) -> None:
    """A server may have read what was there in between."""
    before = flushed.remotes[DUMMY].commit()
    push_and_update(flushed)
    git("update-ref", "refs/heads/master", before, directory=flushed.remotes[DUMMY].path)
    flushed.update()
    flushed.define("passing")
    flushed.update()
    flushed.retire("passing")
    flushed.update()
    assert flushed.deliver().code == 0
    assert server.news() == ["passing", "production"]


def test_many_environments_are_one_request(flushed: Site, server: Flushes) -> None:
    flushed.definitions.push({f"e{number}.yaml": definition() for number in range(puppetserver.MOST - 1)})
    push_and_update(flushed)
    assert flushed.deliver().code == 0
    assert server.news() == sorted([*(f"e{number}" for number in range(puppetserver.MOST - 1)), "production"])
    flushed.define("one_more")
    push_and_update(flushed, "# even more\n")
    assert flushed.deliver().code == 0
    assert server.news() == [""]


def test_all_and_a_lost_record_flush_everything(flushed: Site, server: Flushes) -> None:
    assert flushed.deliver("--all").code == 0
    assert server.news() == [""]
    (flushed.root / "cache" / "deliveries.json").unlink()
    assert flushed.deliver().code == 0
    assert server.news() == [""]


@dataclass(frozen=True)
class Failure:
    """What goes wrong: with the server, or with the configuration; and what is told of it."""

    problem: str
    does: Callable[..., int | None] | None = None
    certificate: str = "server"
    setting: tuple[str, str] | None = None
    level: str = "WARNING"


OWN = ("puppetserver.ssl_cert", "puppetserver.ssl_key")
FAILURES = {
    "refused": Failure("Connection refused", certificate=""),
    "401": Failure("expected the status 204, not 401 Unauthorized: who are you?", answer(401, "\nwho are you?\n")),
    "403": Failure(f'allow: ["{JENS}"], sort-order: 400, name: "jens"', answer(403), level="ERROR"),
    "500": Failure("expected the status 204, not 500 Internal Server Error", answer(500, "<html>" * 10_000)),
    "200": Failure("expected the status 204, not 200 OK", answer(200, "hello")),
    "a hang": Failure("no answer within 1 seconds", tls.hang),
    "it drips": Failure("it took longer than 60 seconds", tls.drip),
    "rubbish": Failure("its answer is no HTTP: BadStatusLine", tls.rubbish),
    "its certificate has expired": Failure("not accepted: certificate has expired", certificate="old"),
    "its name is another": Failure("not accepted: Hostname mismatch", certificate="elsewhere"),
    "the wrong CA": Failure("not accepted: ", setting=("ssl_ca", "other/ca.pem")),
    "our certificate has expired": Failure("not accept ssl_cert", setting=("ssl_cert", "old")),
    "our certificate is gone": Failure("cannot be used: No such file", setting=("ssl_cert", "nothing")),
    "our key is another's": Failure("cannot be used: key values mismatch", setting=("ssl_key", "server.key")),
    "the CA is gone": Failure("cannot be used: No such file", setting=("ssl_ca", "nothing.pem")),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_server_that_fails_is_told_again_until_it_works(
    site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    failure, port = FAILURES[kind], free_port()
    started: list[list[str]] = []
    monkeypatch.setattr(processes, "start_detached", started.append)
    other = authority.top / "other"
    if not other.exists():
        Authority(other)
    with running(authority) as good:
        configure(site, authority, f"https://localhost:{port}", good.url)
        with running(authority, port) as server:
            site.update()
            assert site.deliver().code == 0
            assert (server.news(), good.news()) == ([""], [""])
        push_and_update(site)
        started.clear()
        if failure.setting:
            key, value = failure.setting
            if value == "old":
                use(site, authority, value)
            else:
                site.settings[f"puppetserver.{key}"] = str(authority.top / value)
        with contextlib.ExitStack() as stack:
            if failure.certificate:
                server = stack.enter_context(running(authority, port, failure.certificate))
                server.does = failure.does or server.does
            with monkeypatch.context() as patched:  # otherwise a busy machine would be a failure
                if kind == "a hang":
                    patched.setattr(puppetserver, "_ANSWER", 1)
                if kind == "it drips":
                    patched.setattr(puppetserver, "_WHOLE", 2)
                outcome = site.deliver()
        assert outcome.code == 60
        concerned = 2 if failure.setting else 1  # they share the settings
        told = [line for line in outcome.lines(failure.level) if "Unable to tell" in line]
        assert len(told) == concerned
        assert failure.problem in told[0]
        assert good.news() == ([] if failure.setting else ["production"])
        found = faults(site)
        assert len(found) == concerned
        assert failure.problem in found[0]["text"]
        assert started  # each run tries again

        configure(site, authority, f"https://localhost:{port}", good.url)
        with running(authority, port) as server:
            assert site.deliver().code == 0
            assert site.deliver().code == 0
            assert server.news() == ["production"]
            assert good.news() == (["production"] if failure.setting else [])
        assert faults(site) == []


def test_what_a_server_was_told_before_it_failed_it_is_not_told_again(flushed: Site, server: Flushes) -> None:
    for name in ("a", "b", "c"):
        flushed.define(name)
    push_and_update(flushed)
    server.does = lambda request, name: answer(500)(request, name) if name == "b" else 204
    assert flushed.deliver().code == 60
    assert server.news() == ["a"]
    push_and_update(flushed, "# even more\n")
    server.does = answer(204)
    assert flushed.deliver().code == 0
    assert server.news() == ["a", "b", "c", "production"]
    flushed.define("d")
    flushed.update()
    server.does = answer(500)
    assert flushed.deliver().code == 60
    flushed.retire("d")
    flushed.update()
    server.does = answer(204)
    assert flushed.deliver().code == 0
    assert server.news() == ["d"]


def test_a_server_that_was_down_for_an_hour_is_told_of_it_in_one_request(
    site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    port = free_port()
    configure(site, authority, f"https://localhost:{port}")
    with running(authority, port):
        site.update()
        assert site.deliver().code == 0
    warnings = 0
    for number in range(puppetserver.MOST):
        site.define(f"e{number}")
        push_and_update(site, f"# {number}\n")
        outcome = site.deliver()
        assert outcome.code == 60
        warnings += len([line for line in outcome.lines("WARNING") if "Unable to tell" in line])
    assert warnings == 1
    with running(authority, port) as server:
        assert site.deliver().code == 0
        assert site.deliver().code == 0
        assert server.news() == [""]


def test_flush_again_repeats_what_may_have_come_too_early(flushed: Site, server: Flushes) -> None:
    flushed.settings["puppetserver.flush_again"] = "2"
    push_and_update(flushed)
    begin = time.monotonic()
    assert flushed.deliver().code == 0
    assert time.monotonic() - begin >= 2
    assert server.news() == ["production", "production"]
    assert flushed.deliver().code == 0
    assert server.news() == []


def test_nobody_waits_for_a_flush_that_is_repeated(flushed: Site, server: Flushes) -> None:
    """What a run asks for meanwhile is done at once."""
    flushed.settings["puppetserver.flush_again"] = "50"
    push_and_update(flushed)
    begin = time.monotonic()
    command = [sys.executable, "-c", "import sys; from jens.commands.deliver import main; sys.exit(main())"]
    process = subprocess.Popen([*command, "-c", str(flushed.config)], env={**os.environ, "PYTHONPATH": str(TREE)})
    try:
        for text in ("# even more\n", "# and more\n"):
            wait_until(lambda: server.told == ["production"])
            server.news()
            push_and_update(flushed, text)
        wait_until(lambda: server.told == ["production"])
        assert time.monotonic() - begin < 50
        process.terminate()
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_flush_again_is_left_to_a_run_when_it_takes_long(
    flushed: Site, server: Flushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed.settings["puppetserver.flush_again"] = "600"
    push_and_update(flushed)
    started: list[list[str]] = []
    monkeypatch.setattr(processes, "start_detached", started.append)
    assert flushed.deliver().code == 0
    assert server.news() == ["production"]
    flushed.update()
    assert started == []
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    flushed.update()
    assert len(started) == 1
    assert flushed.deliver().code == 0
    assert server.news() == ["production"]
    assert next_due(load_config(flushed.config)) is None


def test_who_is_no_longer_configured_leaves_the_record(flushed: Site, authority: Authority) -> None:
    layout = Layout.at(flushed.root)
    record = deliveries.load(layout)
    others = dict.fromkeys(("owner ann@example.org", "hook /etc/jens/hook"), deliveries.Told())
    deliveries.save(layout, record._replace(receivers={**record.receivers, **others}))
    with running(authority) as another:
        configure(flushed, authority, another.url)
        outcome = flushed.deliver()
        assert outcome.code == 0
        assert another.news() == [""]
        assert {*deliveries.load(layout).receivers} == {f"puppetserver {another.url}"}
    assert outcome.has(
        "No longer told: ['hook /etc/jens/hook', 'owner ann@example.org', 'puppetserver https://localhost:"
    )


def test_types_that_could_be_written_only_later_are_flushed_then(
    flushed: Site, server: Flushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    required("puppet", "puppet-agent")
    flushed.settings["puppetserver.generate_types"] = "True"
    flushed.define("other", definition("master", {DUMMY: f"commit/{flushed.remotes[DUMMY].commit()}"}))
    flushed.update()
    assert flushed.deliver().code == 0
    server.news()
    flushed.remotes[DUMMY].push({f"{TYPES}/thing.rb": of_type("thing")})
    flushed.update()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "which", lambda *_, **__: None)
        assert flushed.deliver().code == 60
    assert server.news() == ["production"]
    assert flushed.deliver().code == 0
    assert server.news() == ["production"]
    assert flushed.deliver().code == 0
    assert server.news() == []


def test_the_example_that_copies_to_servers_flushes_them_after_that(
    site: Site, authority: Authority, server: Flushes, tmp_path: Path
) -> None:
    for program in ("rsync", "curl"):
        required(program, program)
    site.update()
    top = tmp_path / "ssl"
    top.mkdir()
    shutil.copy(authority.ca, top / "ca.pem")
    for kind, name in (("pem", "cert"), ("key", "key")):
        shutil.copy(authority.top / f"{JENS}.{kind}", top / f"{name}.pem")
    here = tmp_path / "ssh"
    here.write_text('#!/bin/sh\nshift\nexec "$@"\n')  # the server is this host
    here.chmod(0o755)
    variables = {"CLONE": str(site.root / "clone"), "ENVIRONMENTS": str(site.root / "environments")}
    variables |= {"SERVERS": "localhost", "PORT": str(server.port), "SSL": str(top), "RSYNC_RSH": str(here)}

    def run() -> subprocess.CompletedProcess[str]:
        command = [str(TREE / "examples" / "hooks" / "rsync")]
        environ = {**os.environ, **variables}
        return subprocess.run(command, input="{}", env=environ, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    assert server.news() == [""]
    server.does = answer(403)
    done = run()
    assert done.returncode == 1
    assert "localhost is not up to date" in done.stderr
    here.write_text("#!/bin/sh\nexit 1\n")
    server.does = answer(204)
    assert run().returncode == 1
    assert server.news() == []
