"""A real Puppet Server on loopback, with a CA of its own, one JRuby and little memory: one for all tests of a run.

It takes most of a minute to start. So it starts before the first test of any kind, and the tests that need it (those
with the fixture ``puppet_server``) come late. All processes of a run share it: they take turns. Its keeper, a process
of its own, ends it when the last of them has ended, however that was.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import TREE
from tests.system.services import LOOPBACK, end, free_port

#: Seconds that it may take to start on a busy machine.
PATIENCE = 300.0
_SHIPPED = Path("/etc/puppet/puppetserver")
_JAR = Path("/usr/share/puppetserver/puppetserver.jar")
#: Options that let the Java machine start soon rather than run fast.
_JAVA = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djruby.lib=/usr/share/jruby/lib")
#: The name in Jens' certificate, as docs/after-a-run.md has it.
JENS = "jens.example.org"
#: The name in a certificate that the same CA has signed.
OTHER = "other.example.org"
#: The name of the machine that asks for catalogs.
MACHINE = "localhost"
#: The name of a machine whose agent asks: nobody has asked for its catalogs with another environment.
AGENT = "agent.example.org"


def missing() -> str:
    """Why there can be no Puppet Server here, '' when there can."""
    there = _JAR.exists() and shutil.which("puppetserver") and shutil.which("java") and _SHIPPED.is_dir()
    return "" if there else "puppetserver is not installed (Debian has it in the package puppetserver)"


class Certificates:
    """A CA, and the certificates that it signed."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._conf = top / "puppet.conf"

    def set_up(self) -> None:
        """Make the CA and the server's certificate."""
        self.top.mkdir(parents=True)
        self._conf.write_text(f"[main]\nconfdir = {self.top}\nvardir = {self.top}/var\nssldir = {self.top}/ssl\n")
        self._run("setup", "--certname", MACHINE, "--subject-alt-names", f"{MACHINE},IP:{LOOPBACK}")

    @property
    def ca(self) -> Path:
        return self.top / "ssl" / "certs" / "ca.pem"

    def cert(self, name: str) -> Path:
        return self.top / "ssl" / "certs" / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.top / "ssl" / "private_keys" / f"{name}.pem"

    def make(self, *names: str) -> None:
        """Make certificates, while the server is not at work."""
        self._run("generate", "--certname", ",".join(names), "--ca-client", "--force")

    def _run(self, verb: str, *arguments: str) -> None:
        command = ["puppetserver", "ca", verb, "--config", str(self._conf), *arguments]
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.top), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environ)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class PuppetServer:
    """A Puppet Server that reads ``environments``, which is a link: point it to those of an instance."""

    top: Path
    port: int

    @property
    def certificates(self) -> Certificates:
        return Certificates(self.top / "puppet")

    @property
    def url(self) -> str:
        return f"https://{MACHINE}:{self.port}"

    @property
    def environments(self) -> Path:
        return self.top / "environments"

    @property
    def log(self) -> str:
        return (self.top / "output").read_text("utf-8", "replace")

    def read(self, environments: Path) -> None:
        """Read the environments of another instance from now on."""
        self.environments.unlink(missing_ok=True)
        self.environments.symlink_to(environments)
        self.flush()

    def flush(self, name: str = "") -> int:
        """Flush one environment, or all, as an administrator would. Returns the status."""
        query = f"?environment={name}" if name else ""
        return self.ask("DELETE", f"/puppet-admin-api/v1/environment-cache{query}", JENS)[0]

    def ask(self, method: str, path: str, certname: str, body: str = "") -> tuple[int, str]:
        """Ask as somebody who has this certificate. Returns status and text."""
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        context.load_cert_chain(self.certificates.cert(certname), self.certificates.key(certname))
        connection = http.client.HTTPSConnection(MACHINE, self.port, context=context, timeout=PATIENCE)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read().decode("utf-8", "replace")

    def catalog(self, environment: str = "production", facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The catalog of the machine."""
        status, text = self.try_catalog(environment, facts)
        assert status == 200, (status, text, self.log[-3000:])
        made: dict[str, Any] = json.loads(text)
        return made

    def try_catalog(self, environment: str = "production", facts: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """The status and the text of the answer to a request for a catalog."""
        known = {"name": MACHINE, "values": {"networking": {"fqdn": MACHINE}, **(facts or {})}}
        quoted = urllib.parse.quote(urllib.parse.quote(json.dumps(known), safe=""), safe="")
        body = f"environment={environment}&facts_format=application%2Fjson&facts={quoted}"
        return self.ask("POST", f"/puppet/v3/catalog/{MACHINE}?environment={environment}", MACHINE, body)

    def wait(self, deadline: float) -> None:
        """Wait until it works."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if "running" in self.ask("GET", "/status/v1/simple", MACHINE)[1]:
                    return
            assert time.monotonic() < deadline, f"it does not start: {self.log[-5000:]}"
            time.sleep(0.25)


def notices(catalog: Mapping[str, Any]) -> dict[str, str]:
    """The notify resources of a catalog, with their messages."""
    found = [each for each in catalog["resources"] if each["type"] == "Notify"]
    return {each["title"]: each.get("parameters", {}).get("message", "") for each in found}


def lay_out(top: Path, rule: str) -> PuppetServer:
    """Write the configuration: the shipped one, elsewhere, with one more rule in auth.conf."""
    server = PuppetServer(top, free_port())
    server.certificates.set_up()
    server.certificates.make(JENS, OTHER, AGENT)
    conf = top / "conf.d"
    conf.mkdir()
    (top / "none").mkdir()
    server.environments.symlink_to(top / "none")
    settings = f"environmentpath = {server.environments}\nenvironment_timeout = unlimited\ncertname = {MACHINE}\n"
    settings += f"versioned_environment_dirs = true\nhiera_config = {TREE}/examples/versioned/hiera.yaml\n"
    with open(top / "puppet" / "puppet.conf", "a") as file:
        file.write(settings)
    auth = (_SHIPPED / "conf.d" / "auth.conf").read_text()
    (conf / "auth.conf").write_text(auth.replace("rules: [", f"rules: [\n{rule}", 1))
    for name in ("web-routes.conf", "metrics.conf"):
        shutil.copy(_SHIPPED / "conf.d" / name, conf)
    (conf / "global.conf").write_text(f"global: {{ logging-config: {top}/logback.xml }}\n")
    (conf / "webserver.conf").write_text(
        f"webserver: {{ client-auth: want, ssl-host: {LOOPBACK}, ssl-port: {server.port} }}\n"
    )
    puppet = top / "puppet"
    (conf / "puppetserver.conf").write_text(
        "jruby-puppet: {\n"
        "  ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby]\n"
        f"  gem-home: {top}/gems\n"
        f'  gem-path: ["{top}/gems", /usr/lib/puppetserver/vendored-jruby-gems]\n'
        f"  server-conf-dir: {puppet}\n  server-code-dir: {top}/code\n  server-var-dir: {puppet}/var\n"
        f"  server-run-dir: {top}/run\n  server-log-dir: {top}/log\n  max-active-instances: 1\n"
        "}\nhttp-client: {}\nprofiler: { enabled: false }\n"
    )
    (top / "logback.xml").write_text(
        "<configuration><appender name='STDOUT' class='ch.qos.logback.core.ConsoleAppender'><encoder>"
        "<pattern>%d %-5p [%c{2}] %m%n</pattern></encoder></appender>"
        "<root level='info'><appender-ref ref='STDOUT'/></root></configuration>\n"
    )
    services = (_SHIPPED / "services.d" / "bootstrap.cfg").read_text().splitlines()
    disabled = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service"
    spared = re.compile(r"analytics")
    wanted = [line for line in services if line and not line.startswith("#") and not spared.search(line)]
    (top / "bootstrap.cfg").write_text("\n".join([*wanted, disabled]) + "\n")
    return server


@contextlib.contextmanager
def serving(top: Path, rule: str) -> Iterator[PuppetServer]:
    """Run a Puppet Server until the end of the block. It is not ready yet: ``wait`` waits for that."""
    server = lay_out(top, rule)
    command = ["java", *_JAVA, "-jar", str(_JAR), "--config", str(top / "conf.d")]
    command += ["--bootstrap-config", str(top / "bootstrap.cfg")]
    environ = {"PATH": os.environ["PATH"], "HOME": str(top), "LC_ALL": "C.UTF-8"}
    with open(top / "output", "ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ, start_new_session=True, cwd=top
        )
    try:
        yield server
    finally:
        process.kill()
        end(process)


# One for all processes of a run


class Shared:
    """The Puppet Server of a run of tests, by the directory that all its processes know."""

    def __init__(self, top: Path) -> None:
        self._top = top
        top.mkdir(exist_ok=True)
        self._users = os.open(top / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self._users, fcntl.LOCK_SH)  # as long as this process lives
        with contextlib.suppress(FileExistsError):
            (top / "started").mkdir()
            command = [sys.executable, "-m", "tests.system.puppetserver", str(top)]
            with open(top / "keeper", "wb") as file:
                subprocess.Popen(
                    command, cwd=TREE, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
                )

    @contextlib.contextmanager
    def turn(self) -> Iterator[PuppetServer]:
        """The server, for nobody else until the end of the block. It reads an empty directory, until it is told."""
        with open(self._top / "turn", "wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            server = self._server()
            server.read(server.top / "none")
            try:
                yield server
            finally:
                server.read(server.top / "none")

    def _server(self) -> PuppetServer:
        deadline = time.monotonic() + PATIENCE
        place = self._top / "port"
        while not place.exists():
            assert time.monotonic() < deadline, (self._top / "keeper").read_text()
            time.sleep(0.1)
        server = PuppetServer(self._top / "server", int(place.read_text()))
        server.wait(deadline)
        return server


def keep(top: Path) -> None:
    """Run the server until the last process of the run has ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    section = (TREE / "docs" / "after-a-run.md").read_text("utf-8")
    rule = section.split("```hocon\n")[1].split("```")[0]
    with open(top / "users", "rb") as users, serving(top / "server", rule) as server:
        (top / ".port").write_text(str(server.port))
        (top / ".port").rename(top / "port")
        fcntl.flock(users, fcntl.LOCK_EX)
    shutil.rmtree(top)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
