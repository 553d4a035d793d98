"""The RPM that `make rpm` has made, and a host to install it on."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import TREE
from tests.packaging.host import Host, running


@pytest.fixture(scope="session")
def rpm_top() -> Path:
    """The directory where `make rpm` has built."""
    if "JENS_RPM_TOP" not in os.environ:
        pytest.skip("these run with `make check-rpm`")
    return Path(os.environ["JENS_RPM_TOP"])


@pytest.fixture(scope="session")
def rpm(rpm_top: Path) -> Path:
    [path] = (rpm_top / "RPMS" / "noarch").glob("puppet-jens-*.rpm")
    return path


@pytest.fixture(scope="session")
def newer_rpm(rpm_top: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a next release with another shipped configuration."""
    top = tmp_path_factory.mktemp("newer")
    [archive] = (rpm_top / "SOURCES").glob("jens-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(top)
    [tree] = top.glob("jens-*")
    with (tree / "conf" / "main.conf").open("a") as shipped:
        shipped.write("\n# A remark that is new in this release.\n")
    spec = tree / "puppet-jens.spec"
    spec.write_text(re.sub(r"^(Release: +)1", r"\g<1>2", spec.read_text(), flags=re.MULTILINE))
    (top / "SOURCES").mkdir()
    with tarfile.open(top / "SOURCES" / archive.name, "w:gz") as target:
        target.add(tree, tree.name)
    macros = ["--load", str(TREE / "packaging" / "macros.debian"), "--nodeps"]
    command = ["rpmbuild", "--quiet", "-bb", "--without", "tests", *macros, "--define", f"_topdir {top}", str(spec)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    [path] = (top / "RPMS" / "noarch").glob("puppet-jens-*-2.noarch.rpm")
    return path


@pytest.fixture(scope="module")
def host(rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a freshly installed RPM; all tests of a module use the same one."""
    with running(Path(os.environ["JENS_HOST_ROOT"]), tmp_path_factory.mktemp("host")) as host:
        install(host, rpm, "--install")
        yield host


def install(host: Host, rpm: Path, mode: str) -> None:
    """Install or upgrade with the host's rpm; requirements have other names on Debian, hence ``--nodeps``."""
    (host.root / "srv" / rpm.name).write_bytes(rpm.read_bytes())
    printed = host.run("rpm", "--force-debian", mode, "--nodeps", f"/srv/{rpm.name}")
    harmless = re.compile(r"warning: .*/main\.conf (created|saved) as .*")
    surprising = [line for line in printed.splitlines() if not harmless.fullmatch(line)]
    assert surprising == []
