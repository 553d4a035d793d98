"""Measure the producer under load (200 pushes a second for ten seconds), beside a server that only replies OK.

Both are real servers on loopback, and get the same load in turn. Compare the ratio, not the milliseconds: these depend
on the machine. Exits 1 when a hint was lost.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jens.config import load_config
from jens.messaging.queue import Queue
from jens.tools import instance

_TREE = Path(__file__).resolve().parent.parent
_CLIENTS = 16
_OK = (
    "import waitress\n"
    "def application(environ, start_response):\n"
    "    environ['wsgi.input'].read()\n"
    "    start_response('201 Created', [('Content-Type', 'text/plain'), ('Content-Length', '2')])\n"
    "    return [b'OK']\n"
    "server = waitress.create_server(application, host='127.0.0.1', port=0)\n"
    "import sys\n"
    "print(f'Listening on http://127.0.0.1:{server.effective_port}', file=sys.stderr, flush=True)\n"
    "server.run()\n"
)


@contextmanager
def listening(*command: str) -> Iterator[int]:
    """Run a server in a process of its own; yield its port."""
    with started(*command) as (port, _):
        yield port


@contextmanager
def started(*command: str) -> Iterator[tuple[int, int]]:
    """Run a server in a process of its own; yield its port, and the id of the process."""
    environment = {**os.environ, "PYTHONPATH": str(_TREE)}
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r":(\d+)$", line.strip())
        if match is None:
            raise SystemExit(f"The server did not start: {line}{process.stderr.read()}")
        yield int(match[1]), process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


class _Load:
    """Sends requests at a steady rate, even if responses are late."""

    def __init__(self, port: int, body: str, rate: int, seconds: int) -> None:
        self._port, self._body, self._rate = port, body, rate
        self._numbers = iter(range(rate * seconds))
        self._guard = threading.Lock()
        self.statuses: dict[int, int] = {}
        self.latencies: list[float] = []
        self._begin = time.monotonic() + 0.1

    def run(self) -> float:
        """Send all requests; return the seconds from the first request to the last response."""
        clients = [threading.Thread(target=self._client) for _ in range(_CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return time.monotonic() - self._begin

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while True:
            with self._guard:
                number = next(self._numbers, None)
            if number is None:
                return connection.close()
            due = self._begin + number / self._rate
            time.sleep(max(0, due - time.monotonic()))
            connection.request("POST", "/gitlab", self._body, {"X-Gitlab-Event": "Push Hook"})
            answer = connection.getresponse()
            answer.read()
            with self._guard:
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                self.latencies.append(time.monotonic() - due)


def _row(name: str, load: _Load, seconds: float) -> str:
    cuts = [cut * 1000 for cut in statistics.quantiles(load.latencies, n=100)]
    rate = len(load.latencies) / seconds
    return f"{name:12}{rate:12.1f}{cuts[49]:12.2f}{cuts[98]:12.2f}{max(load.latencies) * 1000:12.2f}  {load.statuses}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=200, help="requests a second (default: 200)")
    parser.add_argument("--seconds", type=int, default=10, help="how long (default: 10)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        path = instance.lay_out_example(Path(scratch) / "instance")
        url = f"file://{scratch}/instance/example-repositories/module-dummy"
        body = json.dumps({"object_kind": "push", "project": {"git_ssh_url": url}})
        runner = str(_TREE / "bin" / "jens-gitlab-producer-runner")
        print(f"{arguments.rate} requests a second for {arguments.seconds} s, {_CLIENTS} clients\n")
        print(f"{'':12}{'answers/s':>12}{'median ms':>12}{'p99 ms':>12}{'worst ms':>12}  statuses")
        loads = []
        for name, command in (("says OK", ("-c", _OK)), ("producer", (runner, "-c", str(path), "-p", "0"))):
            with listening(*command) as port:
                loads.append(_Load(port, body, arguments.rate, arguments.seconds))
                print(_row(name, loads[-1], loads[-1].run()))
        hints = len(Queue(load_config(path).messaging.queuedir).names())
        expected = arguments.rate * arguments.seconds
        floor, ours = (statistics.median(load.latencies) for load in loads)
        print(f"\nmedian, producer / says OK: {ours / floor:.1f}; hints in the queue: {hints} of {expected}")
        return 0 if hints == expected and loads[-1].statuses == {201: expected} else 1


if __name__ == "__main__":
    sys.exit(main())
