"""No hint is lost: not by SIGKILL, and not when four producers, a purge and an update work at once."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests import TREE
from tests.conftest import Remote, Site
from tests.warm import warm

INIT = "code/manifests/init.pp"
KILLS = 100


def test_a_hundred_kills_with_hints_pending_lose_none(site: Site) -> None:
    """Each repository gets one push and one hint; if the hint were lost, no run would fetch the push."""
    names = [f"modules/m{number:03}" for number in range(KILLS + KILLS // 2)]
    template = site.remotes["modules/dummy"]
    for name in names:
        remote = Remote(site.root / "remotes" / f"{name}.git")
        shutil.copytree(template.path, remote.path)
        site.remotes[name], site.urls[name] = remote, remote.url
    site.publish()
    site.settings["main.mode"] = "ONDEMAND"
    config = str(site.config)
    chance = random.Random()
    killed, away = 0, ""
    with warm(site.root / "output") as tools:
        assert tools.run("update", "-c", config) == 0
        usual = min(_seconds(lambda: tools.run("update", "-c", config)) for _ in range(2))
        pushed = iter(names)
        while killed < KILLS:
            name = next(pushed)
            site.remotes[name].push({INIT: f"# {name}\n"})
            site.hint(name)
            if away:
                site.remotes[away].come_back()
            away = name if chance.random() < 0.2 else ""
            if away:  # its fetch fails, so the run must add a new hint
                site.remotes[name].go_away()
            run = tools.start("update", "-c", config)
            time.sleep(chance.uniform(0, usual * 1.2))
            os.kill(run.pid, signal.SIGKILL)
            in_time = run.wait() == -signal.SIGKILL
            killed += in_time
            usual *= 1.02 if in_time else 0.8  # the speed of the machine changes
        if away:
            site.remotes[away].come_back()
        assert tools.run("update", "--strict", "-c", config) == 0, site.update().lines("ERROR")
    done = names[: names.index(name) + 1]
    assert [name for name in done if site.expanded(name)["master"] != site.remotes[name].commit()] == []
    assert [name for name in done if site.read(f"production/{name}/manifests/init.pp") != f"# {name}\n"] == []
    assert site.hinted() == []


def _seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


PRODUCERS = 4
HINTS = 1000


def test_four_producers_an_update_and_a_purge_at_once_lose_no_hint(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update().code == 0
    config = str(site.config)
    stop = threading.Event()
    repos = sorted(site.urls)
    with ExitStack() as stack:
        updates, purges = (stack.enter_context(warm(site.root / f"output-{number}")) for number in range(2))
        ports = [stack.enter_context(producer(config)) for _ in range(PRODUCERS)]
        pool = stack.enter_context(ThreadPoolExecutor())
        stack.callback(stop.set)
        updating = pool.submit(_until, stop, lambda: updates.run("update", "--strict", "-c", config))
        purging = pool.submit(_until, stop, lambda: purges.run("purge_queue", "-c", config))
        posts = [pool.submit(_post, port, [site.urls[repo] for repo in repos], HINTS // PRODUCERS) for port in ports]
        statuses = [status for post in posts for status in post.result(timeout=120)]
        stop.set()
        codes = {*updating.result(timeout=60), *purging.result(timeout=60)}
    assert statuses == [201] * HINTS
    assert codes == {0}
    assert site.update("--strict").code == 0
    log = (site.root / "log" / "jens-update.log").read_text()
    assert sum(int(found) for found in re.findall(r"INFO (\d+) messages found", log)) == HINTS
    assert site.hinted() == []


def _until(stop: threading.Event, work: Callable[[], int]) -> list[int]:
    codes: list[int] = []
    while not stop.is_set():
        codes.append(work())
    return codes


def _post(port: int, urls: list[str], count: int) -> list[int]:
    statuses = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for number in range(count):
        body = json.dumps({"object_kind": "push", "project": {"git_ssh_url": urls[number % len(urls)]}})
        connection.request("POST", "/gitlab", body)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    return statuses


@contextmanager
def producer(config: str) -> Iterator[int]:
    """Run the producer in a process of its own; yield its port."""
    process = subprocess.Popen(
        [sys.executable, str(TREE / "bin" / "jens-gitlab-producer-runner"), "-c", config, "-p", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r"Listening on http://127\.0\.0\.1:(\d+)$", line.strip())
        assert match, line
        yield int(match[1])
    finally:
        process.terminate()
        process.communicate(timeout=30)
