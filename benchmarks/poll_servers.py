"""Measure a POLL of the reference site behind a real web server and a real sshd, beside what bare Git needs.

The floor is ``git ls-remote --heads`` of each repository, eight at a time. Each is measured as it is, and through a
relay that delays everything by 50 ms each way. The servers' logs tell how many connections there were. Needs nginx,
fcgiwrap, sshd and openssl; listens on loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import site_scale
from benchmarks.site import Site
from benchmarks.site_scale import ENVIRONMENT, PYTHON, TREE, Row, run

_AT_ONCE = 8
_DELAY = 0.05
_GOAL = 0.15
_HOST, _LOOPBACK = "git.example.org", "127.0.0.1"
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/lib/git-core"))
_IDENTITY = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")

_NGINX = """\
daemon off;
user root;
worker_processes 2;
pid {top}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    log_format connections '$connection $request_method';
    access_log {top}/access connections;
    client_body_temp_path {top}/body;
    fastcgi_temp_path {top}/fastcgi;
    proxy_temp_path {top}/proxy;
    scgi_temp_path {top}/scgi;
    uwsgi_temp_path {top}/uwsgi;
    server {{
        listen {loopback}:{port} ssl;
        ssl_certificate {top}/server.crt;
        ssl_certificate_key {top}/server.key;
        location / {{
            fastcgi_param GIT_PROJECT_ROOT {remotes};
            fastcgi_param GIT_HTTP_EXPORT_ALL "";
            fastcgi_param SCRIPT_FILENAME {backend};
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param PATH_INFO $uri;
            fastcgi_pass unix:{top}/cgi;
        }}
    }}
}}
"""


def _found(name: str) -> str:
    path = shutil.which(name, path=_PLACES)
    if path is None:
        raise SystemExit(f"{name} is not installed")
    return path


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _started(command: Sequence[str], output: Path, port: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a group of its own; wait until it listens. The group ends with the block."""
    with open(output, "ab") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while port and not _listens(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{command[0]} does not listen: {output.read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((_LOOPBACK, port), timeout=1):
        return True
    return False


# A relay that delays


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what arrives, each part after the delay; parts do not wait for each other."""
    parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def deliver() -> None:
        while True:
            due, part = await parts.get()
            await asyncio.sleep(due - loop.time())
            if not part:
                writer.close()
                return
            writer.write(part)

    delivering = asyncio.ensure_future(deliver())
    with suppress(OSError):
        while part := await reader.read(1 << 16):
            parts.put_nowait((loop.time() + _DELAY, part))
    parts.put_nowait((loop.time() + _DELAY, b""))
    with suppress(OSError):
        await delivering


async def _relay(port: int, to: int) -> None:
    """Listen at a port, and pass everything on to another one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(_DELAY)  # a connection takes a way there and back, too
        there, back = await asyncio.open_connection(_LOOPBACK, to)
        await asyncio.sleep(_DELAY)
        await asyncio.gather(_carry(reader, back), _carry(there, writer))

    server = await asyncio.start_server(serve, _LOOPBACK, port)
    await server.serve_forever()


def _relaying(to: int, output: Path, stack: ExitStack) -> int:
    port = _free_port()
    command = [sys.executable, __file__, "--relay", str(port), str(to)]
    stack.enter_context(_started(command, output, port))
    return port


# Servers


class Servers:
    """A web server and an sshd with the repositories of a site, each also behind a relay."""

    def __init__(self, top: Path, remotes: Path, stack: ExitStack) -> None:
        self._top = top
        top.mkdir()
        self._make_keys()
        self._remotes = remotes
        web = self._web(stack)
        ssh = self._ssh(stack)
        slow_web, slow_ssh = (_relaying(port, top / "relay", stack) for port in (web, ssh))
        self.prefixes = {
            "https": f"https://localhost:{web}/",
            "https, 50 ms each way": f"https://localhost:{slow_web}/",
            "ssh": f"ssh://{_HOST}{remotes}/",
            "ssh, 50 ms each way": f"ssh://far.{_HOST}{remotes}/",
        }
        self._configure({_HOST: ssh, f"far.{_HOST}": slow_ssh})

    def connections(self, kind: str) -> int:
        """How many connections the server's own log has so far, without those of ``_listens``."""
        if kind.startswith("https"):
            return len({line.split()[0] for line in (self._top / "access").read_text().splitlines()})
        return (self._top / "sshd").read_text("utf-8", "replace").count("Accepted publickey")

    def _make_keys(self) -> None:
        new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", "server.key", "-out", "server.crt"]
        subprocess.run([_found("openssl"), *new, *names, *files], cwd=self._top, check=True, capture_output=True)
        for name in ("host_key", "id_ed25519"):
            command = [_found("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self._top / name)]
            subprocess.run(command, check=True)

    def _web(self, stack: ExitStack) -> int:
        top, port = self._top, _free_port()
        backend = _found("git-http-backend")
        text = _NGINX.format(top=top, loopback=_LOOPBACK, port=port, remotes=self._remotes, backend=backend)
        (top / "nginx.conf").write_text(text)
        cgi = [_found("fcgiwrap"), "-c", str(_AT_ONCE), "-s", f"unix:{top}/cgi"]
        stack.enter_context(_started(cgi, top / "fcgiwrap"))
        command = [_found("nginx"), "-p", str(top), "-c", "nginx.conf", "-e", "stderr"]
        stack.enter_context(_started(command, top / "nginx", port))
        return port

    def _ssh(self, stack: ExitStack) -> int:
        top, port = self._top, _free_port()
        shutil.copy(top / "id_ed25519.pub", top / "authorized_keys")
        (top / "sshd_config").write_text(
            f"HostKey {top}/host_key\nAuthorizedKeysFile {top}/authorized_keys\nPidFile none\nStrictModes no\n"
            f"UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv HOME={top}\n"
        )
        command = [_found("sshd"), "-D", "-e", "-f", f"{top}/sshd_config", "-o", f"ListenAddress={_LOOPBACK}"]
        command += ["-p", str(port)]
        if os.geteuid() == 0:  # then it wants a directory in /run, and the machine's must not change
            script = 'mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && exec "$@"'
            command = [_found("unshare"), "--mount", "sh", "-c", script, "sh", *command]
        stack.enter_context(_started(command, top / "sshd", port))
        return port

    def _configure(self, ports: dict[str, int]) -> None:
        """Give Git and ssh a home of their own: certificates, keys and ports."""
        top, text = self._top, ""
        for host, port in ports.items():
            text += f"Host {host}\n  HostName {_LOOPBACK}\n  Port {port}\n  HostKeyAlias {_HOST}\n"
        text += f"Host *\n  IdentityFile {top}/id_ed25519\n  IdentitiesOnly yes\n"
        text += f"  UserKnownHostsFile {top}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        (top / "config").write_text(text)
        (top / "known_hosts").write_text(f"{_HOST} {(top / 'host_key.pub').read_text()}")
        (top / ".gitconfig").write_text(f"[http]\n\tsslCAInfo = {top}/server.crt\n")
        (top / "bin").mkdir()
        wrapper = top / "bin" / "ssh"  # ssh finds ~/.ssh by the password file and not by $HOME
        wrapper.write_text(f'#!/bin/sh\nexec {_found("ssh")} -F {top}/config "$@"\n')
        wrapper.chmod(0o755)
        for name in ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            ENVIRONMENT.pop(name, None)
        ENVIRONMENT.update(HOME=str(top), PATH=f"{top}/bin{os.pathsep}{os.environ['PATH']}")


class Bench:
    """The site, its servers, and the rows."""

    def __init__(self, top: Path, scale: float, stack: ExitStack) -> None:
        self.site = Site(top / "site", scale)
        self.servers = Servers(top / "servers", self.site.root / "remotes", stack)
        self._config = str(self.site.config("POLL", mode="POLL", git_patience="0"))
        self._prefix = f"file://{self.site.root}/remotes/"
        self.rows: list[Row] = []
        self.connections: dict[str, list[int]] = {}
        self._jens()

    def _jens(self, *, watched: bool = False) -> site_scale.Ran:
        return run(*PYTHON, str(TREE / "bin" / "jens-update"), "--strict", "-c", self._config, watched=watched)

    def _move(self, prefix: str) -> None:
        """Have the library say that all repositories are elsewhere, the two of the metadata as well."""
        clone = self.site.root / "metadata" / "repository"
        path = clone / "repositories.yaml"
        path.write_text(path.read_text().replace(self._prefix, prefix))
        push = ["push", "-q", str(self.site.root / "remotes" / "repository.git"), "HEAD:master"]
        for command in (["commit", "-q", "-a", "-m", "moved"], push):
            subprocess.run(["git", *_IDENTITY, *command], cwd=clone, check=True, env=ENVIRONMENT)
        for name in ("environments", "repository"):
            command = ["remote", "set-url", "origin", f"{prefix}{name}.git"]
            subprocess.run(["git", *command], cwd=clone.parent / name, check=True)
        self._prefix = prefix

    def measure(self, kind: str, times: int) -> None:
        """Measure a row: so many pairs of a POLL and its floor."""
        self._move(self.servers.prefixes[kind])
        self._jens()  # which fetches everything from there
        self._jens()
        urls = "".join(f"{self._prefix}{name}.git\n" for name in self.site.repositories).encode()
        row = Row(f"POLL over {kind}", _GOAL)
        for number in range(times):
            before = self.servers.connections(kind)
            ours = self._jens(watched=number == 0)
            self.connections.setdefault(kind, []).append(self.servers.connections(kind) - before)
            floor = run("xargs", f"-P{_AT_ONCE}", "-n1", "git", "ls-remote", "--heads", stdin=urls)
            row.pairs.append((floor.seconds, ours.seconds))
            row.peak = max(row.peak, ours.peak)
        self.rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)


def _show(bench: Bench) -> None:
    """Print the rows. The connections are those in the server's own log; Git makes two for the metadata."""
    print(f"\n{len(bench.site.repositories)} repositories\n")
    heads = ("floor, s", "Jens, s", "ratio", "goal", "memory, MB", "connections")
    print(f"{'work':34}" + "".join(f"{head:>13}" for head in heads))
    for row, counts in zip(bench.rows, bench.connections.values()):
        floor, ours = row.seconds
        missed = "" if row.ratio <= row.reach else "  missed"
        figures = f"{floor:13.2f}{ours:13.2f}{row.ratio:13.3f}{row.reach:13.2f}{row.peak / 1024:13.0f}"
        print(f"{row.work:34}{figures}{max(counts):13}{missed}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the reference site (default: 1)")
    parser.add_argument("--times", type=int, default=3, help="pairs of each row (default: 3)")
    parser.add_argument("--only", default="", help="measure rows whose names begin with this, https or ssh")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--relay", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.relay:
        asyncio.run(_relay(*arguments.relay))
        return 0
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jens-bench-"))).resolve()
        bench = Bench(top, arguments.scale, stack)
        for kind in bench.servers.prefixes:
            if kind.startswith(arguments.only):
                bench.measure(kind, arguments.times)
    _show(bench)
    if arguments.json:
        found = {row.work: {"pairs": row.pairs, "peak": row.peak} for row in bench.rows}
        arguments.json.write_text(json.dumps({"rows": found, "connections": bench.connections}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
