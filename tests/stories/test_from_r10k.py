"""examples/puppetfile: a site that comes from r10k, as docs/from-r10k.md tells it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jens.commands import check, update
from tests import TREE
from tests.conftest import git

EXAMPLE = TREE / "examples" / "puppetfile"


def make_site(top: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Run make-site, and jens-update once. Returns the directory that it has made, and what it printed."""
    commands = top / "bin"
    commands.mkdir()
    (commands / "jens-init").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TREE}/bin/jens-init" "$@"\n')
    (commands / "jens-init").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(TREE))
    said = subprocess.run([EXAMPLE / "make-site", "try"], cwd=top, capture_output=True, text=True, check=True)
    assert update.main(["-c", str(top / "try" / "jens" / "main.conf"), "--strict"]) == 0
    return top / "try", said.stdout


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that make-site has made, after a run."""
    directory, said = make_site(tmp_path, monkeypatch)
    config = directory / "jens" / "main.conf"
    assert said == f"The site is made. Bring it up to date with: jens-update -c {config}\n"
    return directory


def links(made: Path, environment: str) -> list[str]:
    """The links to modules, as find prints them in docs/from-r10k.md."""
    modules = made / "jens" / "environments" / environment / "modules"
    return [f"modules/{link.name} -> {os.readlink(link)}" for link in sorted(modules.iterdir())]


def test_the_example_gives_what_the_page_shows(made: Path) -> None:
    page = (TREE / "docs" / "from-r10k.md").read_text()
    shown = re.findall(r"^modules/.*", page, re.MULTILINE)
    assert links(made, "test") == links(made, "production") == shown
    banner = made / "remotes" / "puppet-banner"
    git("branch", "test", directory=banner)
    assert update.main(["-c", str(made / "jens" / "main.conf"), "--strict"]) == 0
    assert "modules/banner -> ../../../clone/modules/banner/test" in links(made, "test")
    assert "\n../../../clone/modules/banner/test\n" in page
    assert links(made, "production") == shown
    git("branch", "-D", "test", directory=banner)
    assert update.main(["-c", str(made / "jens" / "main.conf"), "--strict"]) == 0
    assert links(made, "test") == shown


def test_jens_check_finds_nothing_in_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remotes = made / "remotes"
    arguments = ["--environments", str(remotes / "environments"), "--remote", "-c", str(made / "jens" / "main.conf")]
    capsys.readouterr()
    assert check.main([*arguments, "--repositories", str(remotes / "repositories" / "repositories.yaml")]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "default branch 'main'" not in line] == []


def test_the_library_says_what_the_puppetfile_says() -> None:
    entries = yaml.safe_load((EXAMPLE / "library.yaml").read_text())["repositories"]["modules"]
    blocks = (EXAMPLE / "Puppetfile").read_text().split("\nmod ")[1:]
    for block in blocks:
        name = block.split("'")[1]
        said = dict(re.findall(r"(\w+): +(?:'([^']+)'|:control_branch)", block))
        entry = entries.pop(name)
        assert (entry["url"], entry["code"], entry["data"]) == (said["git"], ".", None)
        if "tag" in said:
            assert entry["ref"] == f"tag/{said['tag']}"
        else:
            assert entry["fallback"] == f"tag/{said['default_branch']}"
    assert list(entries) == ["profile"]


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_make_site_says_how_it_is_used(arguments: list[str]) -> None:
    said = subprocess.run([EXAMPLE / "make-site", *arguments], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (2, "usage: make-site DIR\n")
