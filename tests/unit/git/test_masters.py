"""Which questions share a connection of ssh, and where its socket is. A script takes the place of ssh."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.git import masters as git_masters
from jens.git.masters import Masters, State, arguments_of
from jens.git.process import GitOptions
from jens.git.settings import Entry, rewritten

ARGUMENTS: dict[str, list[str] | None] = {
    "ssh://git.example.org/a.git": ["git.example.org"],
    "ssh://git@git.example.org/a.git": ["git@git.example.org"],
    "ssh://git@git.example.org:2222/a.git": ["-p", "2222", "git@git.example.org"],
    "git@git.example.org:a.git": ["git@git.example.org"],
    "gitlab:group/a.git": ["gitlab"],
    "ssh://git:secret@git.example.org/a.git": None,
    "ssh://ann@corp@git.example.org/a.git": None,
    "ssh://[::1]/a.git": None,
    "ssh://-oProxyCommand=x/a.git": None,
    "ssh://-x@git.example.org/a.git": None,
    "-oProxyCommand=x:a": None,
    "git@[git.example.org:2222]:a.git": None,
    "ssh://$(x)/a.git": None,
    "https://git.example.org/a.git": None,
    "git://git.example.org/a.git": None,
    "/srv/git/a.git": None,
    "file:///srv/git/a.git": None,
}


@pytest.mark.parametrize("url", ARGUMENTS)
def test_how_git_names_the_server_to_ssh(url: str) -> None:
    assert arguments_of(url) == ARGUMENTS[url]


REWRITTEN: list[tuple[list[Entry], str]] = [
    ([], "ssh://git.example.org/a.git"),
    ([("url.https://git.example.org/.insteadof", "ssh://git.example.org/")], "https://git.example.org/a.git"),
    ([("url.x/.insteadof", "ssh://"), ("url.y/.insteadof", "ssh://git.")], "y/example.org/a.git"),
    ([("url.x/.insteadof", "ssh://"), ("url.y/.insteadof", "ssh://")], "x/git.example.org/a.git"),
    (
        [("url.x/.pushinsteadof", "ssh://"), ("url.x/.insteadof", ""), ("url.x/.insteadof", None)],
        "ssh://git.example.org/a.git",
    ),
]


@pytest.mark.parametrize(("settings", "url"), REWRITTEN)
def test_the_longest_instead_of_counts(settings: list[Entry], url: str) -> None:
    assert rewritten("ssh://git.example.org/a.git", settings) == url


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A script in the place of ssh; its calls are lines of ``calls``."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(prefix="j-", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield program


def script(program: Path, text: str) -> None:
    log = program.parent.parent / "calls"
    program.write_text(f'#!/bin/sh\necho "$*" >>{log}\ntest "$1" = -G && {{ echo "host x"; exit; }}\n{text}\n')
    program.chmod(0o755)


#: What makes the socket that the option -oControlPath=… names, and stays.
OPENS = 'for word; do case $word in -oControlPath=*) >"${word#*=}";; esac; done; exec sleep 60'


def states(masters: Masters, url: str) -> State:
    """What becomes of a master that is opening."""
    master = masters.of(url, is_worth=True)
    assert master is not None
    end = time.monotonic() + 30
    while (state := master.look()) is State.OPENING:
        assert time.monotonic() < end
        time.sleep(0.01)
    return state


def test_a_master_is_opened_once_for_many_questions(ssh: Path) -> None:
    script(ssh, OPENS)
    masters = Masters(GitOptions(), [])
    url, other = "ssh://git@git.example.org:2222/a.git", "ssh://git@git.example.org:2222/b.git"
    assert masters.of(url) is None
    assert states(masters, url) is State.OPEN
    assert masters.of(other) is masters.of(url)
    assert masters.of("ssh://ann@git.example.org:2222/a.git") is None
    [place] = Path(tempfile.gettempdir()).iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    masters.close()
    assert not place.exists()
    asked, opened = (ssh.parent.parent / "calls").read_text().splitlines()
    assert asked == "-G -p 2222 git@git.example.org"
    assert opened.startswith(f"-oBatchMode=yes -oControlMaster=yes -oControlPath={place}/master ")
    assert opened.endswith(" -N -T -p 2222 git@git.example.org")


@pytest.mark.parametrize(
    "text", ["exit 255", 'echo no; exit 0; test "$1" = -G && echo "controlpath /x"'], ids=["refused", "ended"]
)
def test_a_master_that_fails_is_not_opened_again(ssh: Path, text: str) -> None:
    script(ssh, text)
    masters = Masters(GitOptions(), [])
    url = "git@git.example.org:a.git"
    assert states(masters, url) is State.GONE
    first = masters.of(url, is_worth=True)
    assert first is not None
    assert first.has_ended(is_likely=False)
    assert masters.of(url, is_worth=True) is first
    masters.close()


def test_no_master_where_the_user_has_a_control_path(ssh: Path) -> None:
    ssh.write_text(f'#!/bin/sh\ntest "$1" = -G && {{ echo "controlpath /home/ann/.ssh/x"; exit; }}\n{OPENS}\n')
    ssh.chmod(0o755)
    masters = Masters(GitOptions(), [])
    assert states(masters, "git@git.example.org:a.git") is State.GONE
    masters.close()


def test_no_master_without_a_place_for_its_socket(ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(ssh, OPENS)
    monkeypatch.setattr(git_masters, "_LONGEST", 10)
    masters = Masters(GitOptions(), [])
    assert masters.of("git@git.example.org:a.git", is_worth=True) is None
    assert masters.of("git@git.example.org:a.git", is_worth=True) is None
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("name", ["x" * 100, "a b", "$(a)", "%h"])
def test_a_directory_that_ssh_cannot_use_is_not_used(
    ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script(ssh, OPENS)
    monkeypatch.setattr(git_masters, "_LONGEST", len(str(tmp_path)) + 60)
    long = tmp_path / name
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    masters = Masters(GitOptions(), [])
    assert states(masters, "git@git.example.org:a.git") is State.OPEN
    master = masters.of("git@git.example.org:a.git")
    assert master is not None
    assert len(str(master.path)) < 80
    assert [*long.iterdir()] == []
    masters.close()
    assert not master.path.parent.exists()


@pytest.mark.parametrize("name", ["GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT"])
def test_no_master_where_a_variable_says_how(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert Masters(GitOptions(), []).of("git@git.example.org:a.git", is_worth=True) is None


def test_no_master_where_the_configuration_says_how() -> None:
    url = "git@git.example.org:a.git"
    assert Masters(GitOptions("/etc/jens/ssh"), []).of(url, is_worth=True) is None
    assert Masters(GitOptions(), None).of(url, is_worth=True) is None
    assert Masters(GitOptions(), [("url.https://h/.insteadof", "git@git.example.org:")]).of(url, is_worth=True) is None
