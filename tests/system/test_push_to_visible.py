"""From a push to the files that Puppet reads: git push, the server's hook, the producer, jens-update."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from tests import TREE
from tests.conftest import Remote, Site, git
from tests.system.services import LOOPBACK, Server, commands, documented, required, serving
from tests.unit.gitlabproducer import test_webhooks

FOO = "hostgroups/foo"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
APACHE_MODULES = Path("/usr/lib/apache2/modules")

#: A post-receive hook that does what a Git server does: it sends a payload with the pushed commits, and signs it.
HOOK = """\
#!/bin/sh
set -eu
secret='{secret}'
while read -r before after ref; do
    body=$(sed "s|{before}|$before|g; s|{after}|$after|g; s|refs/heads/master|$ref|g" {payload})
    hex=$(printf %s "$body" | openssl dgst -sha256 -hmac "$secret" -r | cut -d' ' -f1)
    id=msg_$after now=$(date +%s)
    key=$(printf %s "${{secret#whsec_}}" | base64 -d | od -An -tx1 | tr -d ' \\n')
    base64=$(printf %s "$id.$now.$body" | openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary | base64)
    curl --silent --show-error --fail --max-time 20 --header 'Content-Type: application/json' {headers} \\
        --data-binary "$body" {url}
done
"""


@dataclass(frozen=True)
class GitServer:
    """A kind of Git server: the path and the payload that it sends, and its headers (made of the hook's variables)."""

    path: str
    payload: Mapping[str, Any]
    headers: tuple[str, ...]


SERVERS = {
    "GitLab": GitServer("/gitlab", test_webhooks.GITLAB_PUSH, ("X-Gitlab-Event: Push Hook", "X-Gitlab-Token: $secret")),
    "GitLab, signed": GitServer(
        "/gitlab",
        test_webhooks.GITLAB_PUSH,
        (
            *("X-Gitlab-Event: Push Hook", "webhook-id: $id", "webhook-timestamp: $now"),
            "webhook-signature: v1,$base64",
        ),
    ),
    "GitLab, system hook": GitServer(
        "/gitlab", test_webhooks._SYSTEM_UPDATE, ("X-Gitlab-Event: System Hook", "X-Gitlab-Token: $secret")
    ),
    "GitHub": GitServer(
        "/github", test_webhooks.GITHUB_PUSH, ("X-GitHub-Event: push", "X-Hub-Signature-256: sha256=$hex")
    ),
    "Gitea": GitServer("/gitea", test_webhooks.GITEA_PUSH, ("X-Gitea-Event: push", "X-Gitea-Signature: $hex")),
    "Forgejo": GitServer("/gitea", test_webhooks.GITEA_PUSH, ("X-Forgejo-Event: push", "X-Forgejo-Signature: $hex")),
    "Bitbucket Cloud": GitServer(
        "/bitbucket", test_webhooks.CLOUD_PUSH, ("X-Event-Key: repo:push", "X-Hub-Signature: sha256=$hex")
    ),
    "Bitbucket Data Center": GitServer(
        "/bitbucket", test_webhooks.CENTER_PUSH, ("X-Event-Key: repo:refs_changed", "X-Hub-Signature: sha256=$hex")
    ),
    "Bitbucket Data Center, without URLs": GitServer(
        "/bitbucket", test_webhooks.CENTER_BARE_PUSH, ("X-Event-Key: repo:refs_changed", "X-Hub-Signature: sha256=$hex")
    ),
}


@dataclass
class Developer:
    """Pushes from a clone to a Git server whose hook informs the producer."""

    site: Site
    remote: Remote
    clone: Path
    producer: Server

    def install_hook(self, server: GitServer, secret: str = SECRET) -> None:
        payload = self.clone.with_name("payload.json")
        payload.write_text(json.dumps(server.payload))
        text = HOOK.format(
            secret=secret,
            before=test_webhooks.GITLAB_PUSH["before"],
            after=test_webhooks.GITLAB_PUSH["after"],
            payload=shlex.quote(str(payload)),
            headers=" ".join(f'--header "{header}"' for header in server.headers),
            url=f"http://{LOOPBACK}:{self.producer.port}{server.path}",
        )
        hook = self.remote.path / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(text)
        hook.chmod(0o755)

    def push(self, says: str) -> str:
        """Change the class and push it; return the output of git push, the hook's included."""
        manifest = self.clone / "code" / "manifests" / "init.pp"
        manifest.write_text(f"class hg_foo {{ notice('{says}') }}\n")
        git("commit", "-qam", says, directory=self.clone)
        done = subprocess.run(
            ["git", "push", "-q", "origin", "master"], cwd=self.clone, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def visible(self) -> str:
        """The text of the class where Puppet reads it."""
        match = re.search(r"notice\('(.*)'\)", self.site.read("production/hostgroups/hg_foo/manifests/init.pp"))
        return match[1] if match else ""


def jens_update(site: Site, *arguments: str) -> None:
    """Run jens-update as cron does: as a program."""
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TREE)}


@contextlib.contextmanager
def gunicorn(site: Site, directory: Path) -> Iterator[Server]:
    """The documented command, with the test's own paths and port."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    block = commands(documented("hints.md", "### gunicorn"), "gunicorn --bind")
    words = shlex.split(block.partition("\n")[2].replace("\\\n", " "))
    places = {
        "JENS_CONFIG=/etc/jens/main.conf": f"JENS_CONFIG={site.config}",
        "/opt/jens/bin/gunicorn": shlex.join([sys.executable, "-m", "gunicorn"]),
    }
    assert words[:3] == ["sudo", "-u", "jens"]
    assert set(places) <= set(words)
    assert f"{LOOPBACK}:8000" in words

    def command(port: int) -> list[str]:
        found = [f"{LOOPBACK}:{port}" if word == f"{LOOPBACK}:8000" else places.get(word, word) for word in words[3:]]
        return ["env", found[0], *shlex.split(found[1]), *found[2:]]

    with serving(command, directory / "gunicorn", environment()) as server:
        yield server


@contextlib.contextmanager
def apache(site: Site, directory: Path) -> Iterator[Server]:
    """The documented virtual host, with the test's own paths and port and without TLS."""
    program = required("apache2", "apache2")
    module = APACHE_MODULES / "mod_wsgi.so"
    if not module.exists():
        pytest.skip("mod_wsgi is not installed (Debian has it in the package libapache2-mod-wsgi-py3)")
    version = module.resolve().name.rpartition("-")[2]
    if version != f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"mod_wsgi is made for Python {version}, not for the one that runs the tests")
    script = directory / "gitlab-producer.wsgi"
    text = (TREE / "wsgi" / "gitlab-producer.wsgi").read_text()
    assert "= make_application()" in text
    script.write_text(text.replace("= make_application()", f"= make_application({str(site.config)!r})"))

    with tempfile.TemporaryDirectory() as sockets:  # the path of a socket must be short

        def command(port: int) -> list[str]:
            (directory / "apache.conf").write_text(
                f'ServerRoot "{directory}"\nPidFile "{directory}/apache.pid"\nErrorLog "{directory}/error"\n'
                f"Listen {LOOPBACK}:{port}\nServerName {LOOPBACK}\nWSGISocketPrefix {sockets}/wsgi\n"
                + "".join(
                    f'LoadModule {name}_module "{APACHE_MODULES}/mod_{name}.so"\n'
                    for name in ("mpm_event", "authz_core", "reqtimeout", "wsgi")
                )
                + virtual_host(port, directory)
            )
            return [*_as_a_user(), program, "-D", "FOREGROUND", "-f", str(directory / "apache.conf")]

        with serving(command, directory / "apache", environment()) as server:
            yield server


def virtual_host(port: int, directory: Path) -> str:
    section = documented("hints.md", "### Apache with mod_wsgi")
    text = re.search(r"^    <VirtualHost .*^    </VirtualHost>\n", section, re.MULTILINE | re.DOTALL)
    assert text
    lines = [line for line in text[0].splitlines() if not line.strip().startswith("SSL")]
    found = "".join(f"{line}\n" for line in lines)
    for documented_, own in (
        ("*:443", f"{LOOPBACK}:{port}"),
        (" user=jens group=jens ", " "),
        ("python-home=/opt/jens", f'python-home="{sys.prefix}" python-path="{TREE}"'),
        ("/var/www/jens", str(directory)),
    ):
        assert documented_ in found
        found = found.replace(documented_, own)
    return found


def _as_a_user() -> list[str]:
    """A command prefix that gives root another id, in a user namespace: mod_wsgi refuses to run as root."""
    if os.geteuid() != 0:
        return []
    prefix = [required("unshare", "util-linux"), "--user", "--map-user=33", "--map-group=33"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("user namespaces cannot be made here, and mod_wsgi refuses to run as root")
    return prefix


SERVED_BY = pytest.mark.parametrize("served_by", [gunicorn, apache], ids=["gunicorn", "Apache with mod_wsgi"])


@pytest.fixture
def developer(site: Site, tmp_path: Path, served_by: Callable[..., Any]) -> Iterator[Developer]:
    required("curl", "curl")
    required("openssl", "openssl")
    site.settings.update({"main.mode": "ONDEMAND", "gitlabproducer.secret_token": SECRET})
    remote = site.add(FOO, {"code/manifests/init.pp": "class hg_foo {}\n", "data/hostgroup/foo.yaml": "--- {}\n"})
    # The library has the URL of the server's payload; Git replaces it with a path.
    git("config", "--global", f"url.{remote.url}.insteadOf", test_webhooks.SSH, directory=tmp_path)
    site.urls[FOO] = test_webhooks.SSH
    site.publish()
    jens_update(site, "--strict")
    git("clone", "-q", str(remote.path), str(tmp_path / "clone"), directory=tmp_path)
    (tmp_path / "server").mkdir()
    with served_by(site, tmp_path / "server") as producer:
        yield Developer(site, remote, tmp_path / "clone", producer)


@SERVED_BY
def test_a_push_is_visible_after_the_next_run(
    developer: Developer, served_by: Callable[..., Any], measured: Callable[[str, str], None]
) -> None:
    site, took = developer.site, []
    for name, server in SERVERS.items():
        developer.install_hook(server)
        began = time.monotonic()
        said = developer.push(name)
        assert site.hinted() == [FOO], (name, said)
        jens_update(site, "--strict")
        assert developer.visible() == name
        took.append(time.monotonic() - began)
        assert site.hinted() == []
    log = (site.root / "log" / "jens-update.log").read_text()
    assert log.count(f"Fetching {FOO} upon demand...") == len(SERVERS)
    assert log.count("upon demand...") == len(SERVERS), "something was fetched that nobody hinted"
    measured(
        f"from push to visible, jens-update started at once, {served_by.__name__}",
        f"{min(took):.2f} to {max(took):.2f} s, median {statistics.median(took):.2f} s, {len(took)} kinds of hooks",
    )


@SERVED_BY
def test_a_hook_that_does_not_know_the_secret_leaves_no_hint(developer: Developer) -> None:
    site = developer.site
    for number, (name, server) in enumerate(SERVERS.items()):
        developer.install_hook(server, "whsec_" + "QUJD" * 8)
        assert "401" in developer.push(f"forged {number}"), name
    assert site.hinted() == []
    jens_update(site, "--strict")
    assert developer.visible() == ""
    jens_update(site, "--strict", "--poll")
    assert developer.visible().startswith("forged")
