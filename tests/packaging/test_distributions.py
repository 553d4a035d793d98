"""The archive of the sources and the wheel: their content, and that the archive is enough to build the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import TREE

pytest.importorskip("setuptools")

#: Files that only the repository needs.
_REPOSITORY_ONLY = {".gitignore", ".ci/run"}
_NO_SOURCES = shutil.ignore_patterns(".git", ".venv*", "build", "demo", "dist", "__pycache__", ".*_cache", "*.egg-info")


def run_setup(tree: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "setup.py", "--quiet", *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the sources, made and unpacked."""
    top = tmp_path_factory.mktemp("distributions")
    shutil.copytree(TREE, top / "tree", ignore=_NO_SOURCES)
    run_setup(top / "tree", "sdist", "--dist-dir", str(top))
    [archive] = top.glob("jens-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(top)
    return top / archive.name[: -len(".tar.gz")]


@pytest.fixture(scope="module")
def wheel(unpacked: Path) -> Path:
    pytest.importorskip("wheel")
    run_setup(unpacked, "bdist_wheel", "--dist-dir", str(unpacked.parent))
    [path] = unpacked.parent.glob("jens-*.whl")
    return path


def tree_files(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


@pytest.mark.skipif(not (TREE / ".git").exists(), reason="these sources are an archive themselves")
def test_the_archive_has_all_that_git_has(unpacked: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TREE, capture_output=True, text=True, check=True).stdout
    kept = {name for name in listed.split("\0") if name and (TREE / name).exists()}
    assert kept - tree_files(unpacked) == _REPOSITORY_ONLY


@pytest.mark.parametrize("pattern", ["man/*.1", "bin/jens-*", "conf/*.conf", "wsgi/*.wsgi", "systemd/*", "*.spec"])
def test_the_archive_has_what_packagers_need(unpacked: Path, pattern: str) -> None:
    found = {path.name for path in unpacked.glob(pattern)}
    assert found == {path.name for path in TREE.glob(pattern)}
    assert found
    assert (unpacked / "examples" / "example-repositories" / "site" / "code" / "site.pp").is_file()


def test_the_wheel_has_package_commands_pages_and_examples(unpacked: Path, wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = f"{unpacked.name}.data"
    assert {name for name in names if name.startswith("jens/")} == {
        name for name in tree_files(unpacked) if name.startswith("jens/")
    }
    for source, destination in (("bin", "scripts"), ("man", "data/share/man/man1")):
        wanted = {f"{data}/{destination}/{path.name}" for path in (unpacked / source).iterdir()}
        assert wanted <= set(names)
    for name in (
        "main.conf",
        "gitlab-producer.wsgi",
        "jens-status.wsgi",
        "examples/hiera.yaml",
        "examples/environments/production.yaml",
    ):
        assert f"{data}/data/share/doc/puppet-jens/{name}" in names


def test_the_wheel_has_the_pages_of_the_status_page(wheel: Path, tmp_path: Path) -> None:
    """An installed wheel serves the status page: its templates and static files are in it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "main.conf").write_text("".join(f"[main]\ncachedir = {tmp_path}\n"))
    program = (
        "import sys, jens.status; from jens.commands.status_runner import application\n"
        f"assert jens.status.__file__.startswith({str(tmp_path)!r})\n"
        f"client = application({str(tmp_path / 'main.conf')!r}).test_client()\n"
        "page, style = client.get('/'), client.get('/static/style.css')\n"
        "assert (page.status_code, style.status_code) == (200, 200)\n"
        "assert b'Nobody knows yet' in page.data and style.content_type.startswith('text/css')\n"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    assert "Requires-Python: >=3.9" in lines
    assert {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra")} == {
        "completion",
        "metrics",
        "notify",
        "test",
        "waitress",
    }
    needed = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    names = sorted(line.split()[0].split(">")[0] for line in needed)  # only some versions of setuptools sort them
    assert names == ["Flask", "GitPython", "PyYAML", "configobj", "dirq"]


def test_the_lowest_versions_are_those_that_are_tested() -> None:
    """The lowest versions that setup.py allows are those that .ci/run tests with."""
    text = (TREE / "setup.py").read_text("utf-8").split("install_requires=[")[1].split("]")[0]
    lowest = [line.strip('", ').replace(">=", "==") for line in text.split() if ">=" in line]
    tested = (TREE / "packaging" / "oldest.txt").read_text("utf-8").splitlines()
    assert len(lowest) == 5
    assert set(lowest) <= set(tested)


def test_spec_and_package_have_the_same_version() -> None:
    version = (TREE / "jens" / "__init__.py").read_text("utf-8").split('__version__ = "')[1].split('"')[0]
    spec = (TREE / "puppet-jens.spec").read_text("utf-8")
    assert f"\nVersion:        {version}\n" in spec
    assert f" - {version}-" in spec.split("\n%changelog\n")[1].splitlines()[0]
