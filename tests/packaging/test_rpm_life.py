"""The RPM on a host, from the tutorial to its removal; each test needs the tests before it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.packaging.conftest import install
from tests.packaging.host import Host, wait_for
from tests.stories.test_tutorial import Step, needs_curl, normalised, steps

CONFIGURATION = "/etc/jens/main.conf"
LOG = "/var/log/jens/jens-update.log"
SHARE = "/mnt/puppet/node1.example.org"
REMOTE = "/tmp/example-repositories/module-dummy"
TIMERS = ("jens-update.timer", "jens-gc.timer", "jens-purge-queue.timer")


@pytest.fixture(scope="module", autouse=True)
def tutorial(host: Host) -> list[tuple[Step, str]]:
    """The tutorial's steps with what they print here; steps that the installed package replaces have no commands.

    The host has no curl.
    """
    installed = ("\nexport PATH=", "mkdir /etc/jens ")
    left = []
    for step in (step for step in steps() if not needs_curl(step)):
        kept = step.commands.split("\nexport PATH=")[-1].partition("\n")[2] if installed[0] in step.commands else ""
        left.append(step if not any(mark in step.commands for mark in installed) else Step(kept, ""))
    assert len([step for step in left if step.commands]) == len(left) - 1
    script = "".join(f"exec >/tmp/{number}.out 2>&1\n{step.commands}" for number, step in enumerate(left))
    host.run("bash", "-e", user="jens", stdin=f"cd /usr/share/doc/puppet-jens\n{script}")
    return [(step, host.read(f"/tmp/{number}.out")) for number, step in enumerate(left)]


def push(host: Host, name: str) -> None:
    """Have a team push a new class to the module."""
    host.run("git", "-C", REMOTE, "checkout", "-q", "master", user="jens")
    host.run("sh", "-c", f"echo 'class dummy::{name} {{}}' >{REMOTE}/code/manifests/{name}.pp", user="jens")
    host.run("git", "-C", REMOTE, "add", ".", user="jens")
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    host.run("git", "-C", REMOTE, *identity, "commit", "-q", "-m", f"Add {name}", user="jens")


def visible(host: Host, name: str, environments: str = f"{SHARE}/environments") -> bool:
    path = f"{environments}/production/modules/dummy/manifests/{name}.pp"
    return host.try_("test", "-e", path).returncode == 0


def test_the_tutorial_works_with_the_installed_files(host: Host, tutorial: list[tuple[Step, str]]) -> None:
    assert [normalised(printed) for _, printed in tutorial] == [normalised(step.output) for step, _ in tutorial]
    assert host.run("sh", "-c", "ls /var/lib/jens/environments").split() == ["production", "test"]
    assert host.run("find", "/var/lib/jens", "/var/log/jens", "-not", "-user", "jens") == ""


def test_a_puppet_server_in_the_group_reads_and_others_do_not(host: Host) -> None:
    manifest = "/var/lib/jens/environments/production/modules/dummy/manifests/init.pp"
    host.run("useradd", "--system", "--groups", "jens", "puppet")
    host.run("useradd", "--system", "outsider")
    assert "class dummy" in host.run("cat", manifest, user="puppet")
    assert "Permission denied" in host.try_("cat", manifest, user="outsider").stdout
    assert "Permission denied" in host.try_("cat", CONFIGURATION, user="outsider").stdout


def test_the_service_works_on_a_share_and_with_remotes_below_tmp(host: Host) -> None:
    host.run("mkdir", "-p", "/mnt/puppet")
    host.run("mount", "-t", "tmpfs", "-o", "mode=0755", "share", "/mnt/puppet")
    host.run("install", "-d", "-o", "jens", "-g", "jens", SHARE, f"{SHARE}/clone", f"{SHARE}/environments")
    text = host.read(CONFIGURATION)
    for name in ("clone", "environments"):
        text = text.replace(f"{name}dir = /var/lib/jens/{name}\n", f"{name}dir = {SHARE}/{name}\n")
    assert text.count(SHARE) == 2
    host.write(CONFIGURATION, text)
    host.start("jens-update.service")
    assert visible(host, "init")
    push(host, "first")
    host.start("jens-update.service")
    assert visible(host, "first")


@pytest.mark.parametrize("service", ["jens-update", "jens-gc", "jens-purge-queue"])
def test_each_service_does_its_work(host: Host, service: str) -> None:
    log = f"/var/log/jens/{service}.log"
    before = host.try_("grep", "-c", "INFO Done", log).stdout
    host.start(f"{service}.service")
    assert host.run("grep", "-c", "INFO Done", log) != before


def test_the_status_page_is_served_from_what_is_installed(host: Host) -> None:
    """It needs no more than to read: the unit leaves it nothing to write to but a directory of its own."""
    ask = "import sys, urllib.request as r; print(r.urlopen('http://127.0.0.1:8001' + sys.argv[1]).read().decode())"
    host.run("systemctl", "start", "jens-status.service")
    wait_for(lambda: host.try_("python3", "-c", ask, "/healthz").stdout.strip() == "OK")
    assert "production" in host.run("python3", "-c", ask, "/environments")
    assert "--page:" in host.run("python3", "-c", ask, "/static/style.css")
    assert "prometheus-client is not installed" in host.try_("jens-stats", "--prometheus", user="jens").stdout
    host.run("systemctl", "stop", "jens-status.service")
    assert host.show("jens-status.service", "Result") == {"Result": "success"}


@pytest.mark.parametrize("service", ["jens-update", "jens-gc", "jens-purge-queue"])
def test_a_service_cannot_write_to_directories_of_the_system(host: Host, service: str) -> None:
    """Not even to those that the user jens may write to because of careless modes."""
    dropin = f"/run/systemd/system/{service}.service.d/probe.conf"
    probe = "touch /usr/careless/x; touch /etc/careless/x; touch /srv/careless/x; grep NoNewPrivs /proc/self/status"
    host.write(dropin, f"[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec >/srv/careless/out 2>&1; {probe}'\n")
    for top in ("/usr", "/etc", "/srv"):
        host.run("install", "-d", "-o", "jens", f"{top}/careless")
    host.run("systemctl", "daemon-reload")
    host.start(f"{service}.service")
    printed = host.read("/srv/careless/out").splitlines()
    assert [line.rpartition(": ")[2] for line in printed[:2]] == ["Read-only file system"] * 2
    assert printed[2:] == ["NoNewPrivs:\t1"]

    host.write(dropin, f"{host.read(dropin)}ReadWritePaths=/etc/careless\n")
    host.run("systemctl", "daemon-reload")
    host.start(f"{service}.service")
    assert [line.split("'")[1] for line in host.read("/srv/careless/out").splitlines()[:-1]] == ["/usr/careless/x"]
    host.run("rm", dropin, "/etc/careless/x")
    host.run("systemctl", "daemon-reload")


def test_runs_never_overlap(host: Host) -> None:
    """A second start of the service joins the first. The service waits for other runs, which end with 50 themselves."""
    began = host.run("grep", "-c", "INFO Done", LOG)
    host.write("/run/systemd/system/jens-update.service.d/slow.conf", "[Service]\nExecStartPre=/bin/sleep 2\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "--no-block", "jens-update.service")
    host.run("systemctl", "start", "jens-update.service")
    now = host.run("grep", "-c", "INFO Done", LOG)
    assert int(now) == int(began) + 1
    host.run("rm", "/run/systemd/system/jens-update.service.d/slow.conf")
    host.run("systemctl", "daemon-reload")

    holding = ("setpriv", "--reuid=jens", "--regid=jens", "--clear-groups", "flock", "/run/lock/jens/jens")
    host.run("systemd-run", "--unit=holder", *holding, "sleep", "60")
    wait_for(lambda: host.try_("flock", "--nonblock", "/run/lock/jens/jens", "true").returncode == 1)
    assert host.try_("jens-update", user="jens").returncode == 50
    assert "is held by another process" in host.run("tail", "-n", "1", LOG)
    host.run("systemctl", "start", "--no-block", "jens-update.service")
    time.sleep(1)
    assert host.show("jens-update.service", "ActiveState") == {"ActiveState": "activating"}
    before = host.run("grep", "-c", "INFO Done", LOG)
    host.run("systemctl", "stop", "holder.service")
    wait_for(lambda: host.show("jens-update.service", "ActiveState") == {"ActiveState": "inactive"})
    assert host.run("grep", "-c", "INFO Done", LOG) != before


WAKE = "/var/spool/jens-update/wake"
#: What a producer does, for each line on stdin: adds a hint for modules/dummy, and asks for a run. Prints when it asks,
#: in seconds by the monotonic clock, which systemd goes by.
HINT = """
import sys
import time
from pathlib import Path
from jens.messaging import wake
from jens.messaging.queue import Queue
from jens.model import RepoId
for line in sys.stdin:
    Queue(Path("/var/spool/jens-update")).add([RepoId("modules", "dummy")])
    print(time.clock_gettime(time.CLOCK_MONOTONIC))
    wake.make(Path("/var/spool/jens-update"))
"""


def hint(host: Host, count: int = 1) -> list[float]:
    """Add so many hints; the times at which they asked for a run."""
    return [*map(float, host.run("/usr/bin/python3", "-c", HINT, user="jens", stdin="x\n" * count).split())]


def last_start(host: Host) -> float:
    """When systemd began to start the last run, by the same clock."""
    return (
        int(host.show("jens-update.service", "InactiveExitTimestampMonotonic")["InactiveExitTimestampMonotonic"]) / 1e6
    )


def seconds_to_start(host: Host) -> float:
    """The seconds between a hint and the start of its run."""
    wait_for(lambda: is_idle(host), 60)
    [asked] = hint(host)
    wait_for(lambda: last_start(host) >= asked, 60)
    return last_start(host) - asked


def is_idle(host: Host) -> bool:
    """Whether no run is under way or asked for."""
    state = host.show("jens-update.service", "ActiveState")["ActiveState"]
    return state in ("inactive", "failed") and host.try_("test", "-e", WAKE).returncode == 1


@pytest.fixture
def told(host: Host) -> Iterator[None]:
    """The path unit at work, in mode ONDEMAND, and no timer."""
    text = host.read(CONFIGURATION)
    host.write(CONFIGURATION, re.sub(r"^mode = .*$", "mode = ONDEMAND", text, count=1, flags=re.MULTILINE))
    assert "\nmode = ONDEMAND\n" in host.read(CONFIGURATION)
    host.run("systemctl", "enable", "--now", "jens-update.path")
    yield
    host.run("systemctl", "disable", "--now", "jens-update.path")
    host.write(CONFIGURATION, text)


@pytest.mark.usefixtures("told")
def test_a_hint_starts_a_run_at_once(host: Host, measured: Callable[[str, str], None]) -> None:
    push(host, "told")
    hint(host)
    wait_for(lambda: visible(host, "told"))
    found = [seconds_to_start(host) for _ in range(9)]
    measured(
        "from a hint to the start of its run", f"median {median(found) * 1000:.0f} ms, worst {max(found) * 1000:.0f}"
    )
    assert median(found) < 0.2
    wait_for(lambda: is_idle(host))


@pytest.mark.usefixtures("told")
def test_a_burst_of_hints_trips_no_limit_and_is_done(host: Host) -> None:
    push(host, "burst")
    hint(host, 300)
    wait_for(lambda: "There are '0' messages in the hints queue" in host.run("jens-stats", "-q", user="jens"), 120)
    wait_for(lambda: is_idle(host))
    assert visible(host, "burst")
    assert host.show("jens-update.path", "ActiveState") == {"ActiveState": "active"}
    assert host.show("jens-update.service", "Result") == {"Result": "success"}


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("command", "status"),
    [("true", 0), ("exit 2", 2), ("exit 3", 3), ("exit 20", 20), ("exit 50", 50), ("exit 70", 70), ("kill -9 $$", 9)],
)
def test_however_a_run_ends_it_does_not_start_again_by_itself(host: Host, command: str, status: int) -> None:
    dropin = "/run/systemd/system/jens-update.service.d/end.conf"
    script = f"echo run >>/tmp/runs; {command.replace('$', '$$')}"
    host.write(dropin, f"[Service]\nPrivateTmp=no\nExecStart=\nExecStart=/bin/sh -c '{script}'\n")
    host.run("systemctl", "daemon-reload")
    host.run("rm", "-f", "/tmp/runs")
    host.run("touch", WAKE, user="jens")
    wait_for(lambda: host.try_("test", "-s", "/tmp/runs").returncode == 0 and is_idle(host))
    time.sleep(1)
    assert host.read("/tmp/runs") == "run\n"
    assert host.show("jens-update.service", "ExecMainStatus") == {"ExecMainStatus": str(status)}
    host.run("rm", dropin)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "reset-failed")


SLOW = "/tmp/slow-remote"
#: A Git server that says nothing until a file is there.
SILENT = """
import os, socket, subprocess, threading, time
server = socket.create_server(("127.0.0.1", 9418))
def serve(connection):
    with connection:
        while not os.path.exists("/tmp/speak"):
            time.sleep(0.1)
        ends = dict(stdin=connection.fileno(), stdout=connection.fileno())
        subprocess.run(["git", "daemon", "--inetd", "--export-all", "--base-path=/tmp"], **ends)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def processes(host: Host, pattern: str) -> str:
    return host.try_("pgrep", "-f", pattern).stdout


def test_a_slow_repository_is_left_to_a_service_that_goes_on_after_the_run(host: Host) -> None:
    text = host.read(CONFIGURATION)
    host.write(CONFIGURATION, re.sub(r"^patience = .*$", "patience = 2", text, count=1, flags=re.MULTILINE))
    host.write("/tmp/silent.py", SILENT)
    host.run("cp", "-a", REMOTE, SLOW)
    host.run("systemd-run", "--unit=silent", "--property=User=jens", "/usr/bin/python3", "/tmp/silent.py")
    change = """
set -e
cd /tmp/example-repositories/repositories
sed -i 's|^  modules:|  modules:\\n    slow: "git://127.0.0.1/slow-remote"|' repositories.yaml
git -c user.name=Ann -c user.email=ann@example.org commit -qam slow
"""
    host.run("sh", "-c", change, user="jens")
    push(host, "beside")
    host.start("jens-update.service")
    assert visible(host, "beside")
    wait_for(lambda: host.show("jens-transfer.service", "ActiveState") == {"ActiveState": "activating"})
    push(host, "again")
    host.start("jens-update.service")
    assert visible(host, "again")
    host.run("systemctl", "stop", "jens-transfer.service")
    wait_for(lambda: not processes(host, "jens-transfer|git.*slow-remote"))
    host.run("touch", "/tmp/speak")

    def is_there() -> bool:
        host.start("jens-update.service")
        return host.try_("test", "-e", f"{SHARE}/environments/production/modules/slow/manifests").returncode == 0

    wait_for(is_there, 60)
    host.run("systemctl", "stop", "silent.service")
    host.write(CONFIGURATION, text)


def test_a_hook_is_told_by_a_service_that_no_run_waits_for(host: Host) -> None:
    text = host.read(CONFIGURATION)
    host.write(CONFIGURATION, text.replace("#command = /etc/jens/hook", "command = /etc/jens/hook"))
    host.write(
        "/etc/jens/hook",
        "#!/bin/sh\ncat >/var/log/jens/told.new\nsleep 2\nmv /var/log/jens/told.new /var/log/jens/told\n",
    )
    host.run("chmod", "755", "/etc/jens/hook")
    for name in ("hooked", "hooked_again"):
        host.run("rm", "-f", "/var/log/jens/told")
        push(host, name)
        host.start("jens-update.service")
        assert visible(host, name)
        assert host.try_("test", "-e", "/var/log/jens/told").returncode == 1
        wait_for(lambda: host.try_("test", "-e", "/var/log/jens/told").returncode == 0, 60)
        assert "production" in json.loads(host.read("/var/log/jens/told"))["changed"]
        wait_for(lambda: host.show("jens-deliver.service", "ActiveState") == {"ActiveState": "inactive"})
    host.write(CONFIGURATION, text)
    assert host.show("jens-deliver.path", "ActiveState") == {"ActiveState": "active"}


def test_without_the_path_unit_the_timer_does_the_work(host: Host) -> None:
    push(host, "by_the_clock")
    hint(host)
    host.start("jens-update.service")  # as the timer does
    assert visible(host, "by_the_clock")
    assert is_idle(host)


def test_the_timer_brings_a_push_to_puppet(host: Host) -> None:
    often = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\n"
    host.write("/etc/systemd/system/jens-update.timer.d/often.conf", often)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "enable", "--now", *TIMERS)
    push(host, "second")
    wait_for(lambda: visible(host, "second"))
    for timer in TIMERS:
        assert host.show(timer, "ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}


def test_an_upgrade_keeps_an_edited_configuration_and_what_runs(host: Host, newer_rpm: Path) -> None:
    edited = host.read(CONFIGURATION)
    install(host, newer_rpm, "--upgrade")
    assert host.run("rpm", "--query", "--queryformat", "%{release}", "puppet-jens") == "2"
    assert host.read(CONFIGURATION) == edited
    assert "A remark that is new in this release." in host.read(f"{CONFIGURATION}.rpmnew")
    assert host.run("stat", "--format=%A %U:%G", CONFIGURATION) == "-rw-r----- root:jens\n"
    for timer in TIMERS:
        assert host.show(timer, "ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
    push(host, "third")
    wait_for(lambda: visible(host, "third"))


def test_a_removal_leaves_data_and_configuration_but_nothing_that_runs(host: Host) -> None:
    edited = host.read(CONFIGURATION)
    printed = host.run("rpm", "--force-debian", "--erase", "puppet-jens")
    assert f"warning: {CONFIGURATION} saved as {CONFIGURATION}.rpmsave" in printed
    assert host.read(f"{CONFIGURATION}.rpmsave") == edited
    time.sleep(3)  # longer than the interval of the timer
    assert host.run("systemctl", "list-units", "--all", "--no-legend", "--plain", "jens-*") == ""
    assert host.try_("systemctl", "list-unit-files", "--no-legend", "jens-*").stdout == ""
    left = host.run("find", "/etc/systemd", "/usr", "/var/www", "/etc/logrotate.d", "-iname", "*jens*").split()
    assert left == ["/etc/systemd/system/jens-update.timer.d"]  # the administrator's
    assert visible(host, "third")
    assert re.match(r"jens:", host.run("getent", "passwd", "jens"))
    host.run("test", "-d", "/var/lib/jens/bare/modules/dummy")
