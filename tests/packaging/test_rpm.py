"""The installed RPM: its files, their owners, and what the host's own tools report."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import TREE
from tests.packaging.host import Host

UNITS = sorted(path.name for pattern in ("*.service", "*.timer", "*.path") for path in (TREE / "systemd").glob(pattern))
COMMANDS = sorted(path.name for path in (TREE / "bin").glob("jens-*"))
LIB = "/var/lib/jens"
OWN_DIRECTORIES = [
    LIB,
    *(f"{LIB}/{name}" for name in ("bare", "clone", "cache", "cache/environments", "environments", "metadata")),
    *(f"{LIB}/{top}/{name}" for top in ("bare", "clone") for name in ("modules", "hostgroups", "common")),
    "/var/log/jens",
    "/var/spool/jens-update",
    "/run/lock/jens",
]


def host_tool(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_rpmlint_has_nothing_to_say(rpm_top: Path, rpm: Path) -> None:
    packages = [str(rpm), *map(str, (rpm_top / "SRPMS").glob("*.rpm")), str(TREE / "puppet-jens.spec")]
    printed = host_tool("rpmlint", "--strict", "--config", str(TREE / "packaging" / "rpmlint.toml"), *packages)
    assert "0 errors, 0 warnings" in printed


def test_it_requires_what_setup_py_says_and_no_more(rpm: Path) -> None:
    required = host_tool("rpm", "--query", "--requires", "--package", str(rpm)).splitlines()
    python = {re.sub(r"^python3\.\d+dist", "dist", line) for line in required if "dist(" in line}
    assert python == {
        "dist(configobj) >= 5.0.6",
        "dist(dirq) >= 1.7.1",
        "dist(flask) >= 2.0.3",
        "dist(gitpython) >= 3.1.40",
        "dist(pyyaml) >= 5.4.1",
    }
    assert "git-core >= 2.39" in required


def test_the_user_is_a_system_user_that_nobody_logs_in_as(host: Host) -> None:
    name, _, uid, _, _, home, shell = host.run("getent", "passwd", "jens").strip().split(":")
    assert (name, home, shell) == ("jens", LIB, "/sbin/nologin")
    assert 0 < int(uid) < 1000
    assert host.run("id", "--name", "--groups", "jens") == "jens\n"


@pytest.mark.parametrize("directory", OWN_DIRECTORIES)
def test_a_directory_is_for_jens_and_its_group(host: Host, directory: str) -> None:
    assert host.run("stat", "--format=%A %U:%G", directory) == "drwxr-x--- jens:jens\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/jens", "drwxr-xr-x root:root"),
        ("/etc/jens/main.conf", "-rw-r----- root:jens"),
        ("/etc/logrotate.d/puppet-jens", "-rw-r--r-- root:root"),
        ("/usr/bin/jens-update", "-rwxr-xr-x root:root"),
        ("/usr/lib/systemd/system/jens-update.service", "-rw-r--r-- root:root"),
        ("/var/www/jens/gitlab-producer.wsgi", "-rw-r--r-- root:root"),
        ("/var/www/jens/jens-status.wsgi", "-rw-r--r-- root:root"),
    ],
)
def test_other_files_are_root_s(host: Host, path: str, expected: str) -> None:
    assert host.run("stat", "--format=%A %U:%G", path) == f"{expected}\n"


def test_rpm_verifies_all_files(host: Host) -> None:
    assert host.run("rpm", "--verify", "--nodeps", "puppet-jens") == ""


def test_commands_and_their_man_pages_are_installed(host: Host) -> None:
    for command in COMMANDS:
        assert re.fullmatch(rf"{command} \d+\.\d+\.\d+\n", host.run(command, "--version", user="jens"))
        page = host.root / "usr" / "share" / "man" / "man1" / f"{command}.1.gz"
        assert host_tool("mandoc", "-T", "lint", "-W", "warning", str(page)) == ""


def test_the_shipped_configuration_is_valid_and_documents_are_there(host: Host) -> None:
    assert host.run("jens-config", "-k", "clonedir", user="jens") == f"{LIB}/clone\n"
    documents = host.root / "usr" / "share" / "doc" / "puppet-jens"
    for source in (*TREE.glob("docs/*.*"), *TREE.glob("examples/**/*"), TREE / "README.md"):
        if source.is_file():
            assert (documents / source.relative_to(TREE)).read_bytes() == source.read_bytes()
    license_file = host.run("rpm", "--query", "--licensefiles", "puppet-jens").strip()
    assert (host.root / license_file[1:]).read_bytes() == (TREE / "COPYING").read_bytes()


def test_examples_are_found_by_jens_init(host: Host) -> None:
    host.run("jens-init", "/tmp/instance", "--example", user="jens")
    host.run("jens-update", "-c", "/tmp/instance/main.conf", user="jens")
    host.run("test", "-e", "/tmp/instance/environments/production/modules/dummy/manifests/init.pp")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_no_fault_with_a_unit(host: Host, unit: str) -> None:
    assert host.run("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{unit}") == ""


def test_nothing_is_enabled_before_somebody_enables_it(host: Host) -> None:
    states = {unit: host.try_("systemctl", "is-enabled", unit).stdout.strip() for unit in UNITS}
    started_by_others = {unit for unit in UNITS if unit.endswith(".service")} - {"jens-status.service"}
    assert states == {unit: "static" if unit in started_by_others else "disabled" for unit in UNITS}
    assert {host.show(unit, "ActiveState")["ActiveState"] for unit in UNITS} == {"inactive"}


def test_sysusers_and_tmpfiles_make_the_same(host: Host) -> None:
    """A host that is made from an image needs this, because no scriptlet runs there."""
    other = "/tmp/image"
    host.run("mkdir", "-p", f"{other}/etc")
    host.run("systemd-sysusers", f"--root={other}", "/usr/lib/sysusers.d/puppet-jens.conf")
    host.run("systemd-tmpfiles", f"--root={other}", "--create", "/usr/lib/tmpfiles.d/puppet-jens.conf")
    made = host.read(f"{other}/etc/passwd").strip().split(":")
    installed = host.run("getent", "passwd", "jens").strip().split(":")
    assert [made[0], *made[4:]] == [installed[0], *installed[4:]]
    assert host.run("stat", "--format=%a %u", f"{other}/run/lock/jens") == f"750 {made[2]}\n"


def test_a_boot_makes_the_directory_of_the_lock_anew(host: Host) -> None:
    host.run("rm", "-rf", "/run/lock/jens")
    host.run("systemd-tmpfiles", "--create", "--boot")
    assert host.run("stat", "--format=%A %U:%G", "/run/lock/jens") == "drwxr-x--- jens:jens\n"


def test_logs_are_rotated_under_a_writer(host: Host) -> None:
    assert "error" not in host.run("logrotate", "--debug", "/etc/logrotate.d/puppet-jens")
    host.run("jens-purge-queue", user="jens")
    host.run("logrotate", "--force", "/etc/logrotate.d/puppet-jens")
    host.run("jens-purge-queue", user="jens")
    names = host.run("sh", "-c", "ls /var/log/jens/jens-purge-queue.log*").split()
    assert names == ["/var/log/jens/jens-purge-queue.log", "/var/log/jens/jens-purge-queue.log.1"]
    assert all(host.read(name).count("INFO Done") == 1 for name in names)


def test_the_crontab_runs_what_is_installed_as_jens(host: Host) -> None:
    text = (TREE / "examples" / "jens.cron").read_text()
    lines = re.findall(r"^#?((?:[\d*-]+ ){5})(\S+) (\S+)(.*)$", text, re.MULTILINE)
    assert len(lines) == 5
    for _, user, command, arguments in lines:
        assert user == "jens"
        host.run(command, *arguments.split(), "--help", user=user)
