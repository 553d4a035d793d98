"""jens-init makes a private instance, in which an ordinary user can run Jens. The tests look at the disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jens.commands import init, update
from jens.config import load_config
from jens.tools import instance
from tests import TREE
from tests.conftest import Site, git


def test_an_example_instance_is_brought_up_to_date_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "an example"
    assert init.main([str(place), "--example"]) == 0
    assert f"jens-update -c {place}/main.conf" in capsys.readouterr().out
    config = load_config(place / "main.conf")
    assert config.warnings == ()
    assert config.main.protectedenvironments == ("production", "qa")
    assert update.main(["-c", str(place / "main.conf"), "--strict"]) == 0
    production = place / "environments" / "production"
    assert (production / "modules" / "dummy" / "manifests" / "init.pp").is_file()
    assert (production / "hostgroups" / "hg_myapp" / "manifests" / "init.pp").is_file()
    assert (production / "environment.conf").is_file()
    assert capsys.readouterr() == ("", "")


def test_the_example_repositories_can_be_worked_in(tmp_path: Path) -> None:
    init.main([str(tmp_path / "x"), "--example"])
    module = tmp_path / "x" / "example-repositories" / "module-dummy"
    assert git("symbolic-ref", "HEAD", directory=module) == "refs/heads/master"
    assert git("status", "--porcelain", directory=module) == ""
    git("checkout", "-q", "-b", "test", directory=module)


def test_what_make_demo_says_at_its_end_is_in_the_readme_and_works(tmp_path: Path) -> None:
    begin = "    @echo 'Look next at'\n"
    makefile = (TREE / "Makefile").read_text("utf-8").replace("\t", "    ")
    said = re.findall(r"    @echo '(.*)'\n", makefile[makefile.index(begin) :].split("\n\n", 1)[0] + "\n")
    lines = [line.replace("$(VENV)", ".venv") for line in said]
    assert "\n".join(lines) + "\n```" in (TREE / "README.md").read_text("utf-8")
    program = tmp_path / ".venv" / "bin" / "jens-update"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TREE}/bin/jens-update" "$@"\n')
    program.chmod(0o755)
    assert init.main([str(tmp_path / "demo"), "--example"]) == 0
    assert update.main(["-c", str(tmp_path / "demo" / "main.conf")]) == 0
    for line in lines[1:5]:
        assert (tmp_path / line.split()[0]).exists()
    commands = "\n".join(["set -e", *lines[6:]])
    # A new user has not told Git who they are.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(TREE), "GIT_CONFIG_NOSYSTEM": "1"}
    printed = subprocess.run(["sh", "-c", commands], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE)
    assert printed.stdout.endswith(b"\n# mine\n")


def test_an_instance_around_the_metadata_of_a_site(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    urls = ["--environments", site.definitions.url, "--repositories", site.library.url]
    assert init.main([str(place), *urls]) == 0
    assert update.main(["-c", str(place / "main.conf"), "--strict"]) == 0
    assert (place / "environments" / "production" / "modules" / "dummy" / "manifests" / "init.pp").is_file()


def test_paths_on_this_host_may_be_relative(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.root / "remotes")
    assert init.main(["../mine", "--environments", "environments", "--repositories", "repositories"]) == 0
    place = site.root / "mine"
    clone = place / "metadata" / "environments"
    assert git("config", "remote.origin.url", directory=clone) == str(site.definitions.path)
    assert update.main(["-c", str(place / "main.conf"), "--strict"]) == 0


@pytest.mark.parametrize(
    "occupy",
    [
        pytest.param(lambda place: (place.mkdir(), (place / "thesis.tex").write_text("precious")), id="a file in it"),
        pytest.param(lambda place: place.write_text("precious"), id="a file in its place"),
    ],
)
def test_a_directory_that_is_not_empty_is_refused_and_left_alone(
    occupy: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "home-directory"
    occupy(place)
    before = sorted(place.rglob("*"))
    assert init.main([str(place), "--example"]) == 3
    assert str(place) in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before
    assert place.is_file() or (place / "thesis.tex").read_text() == "precious"


def test_an_empty_directory_is_as_good_as_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o700)
    assert init.main([str(tmp_path / "x"), "--example"]) == 0
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("was_there", [False, True])
def test_a_failed_clone_leaves_nothing_and_says_which_in_one_line(was_there: bool, site: Site, tmp_path: Path) -> None:
    place = tmp_path / "x"
    if was_there:
        place.mkdir()
    lost = "https://ann:s3cr3t@127.0.0.1:1/environments.git"
    assert init.main([str(place), "--environments", lost, "--repositories", site.library.url]) == 20
    error = site.capture.readouterr().err
    assert error.count("\n") == 1
    assert "127.0.0.1:1/environments.git" in error
    assert "s3cr3t" not in error
    assert place.exists() == was_there
    assert not was_there or not os.listdir(place)


@pytest.mark.parametrize(
    "arguments",
    ["", "x", "--example", "x --example --environments u --repositories u", "x --environments u"],
)
def test_arguments_that_make_no_sense_are_exit_2(arguments: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TREE / "bin" / "jens-init"), *arguments.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "usage: jens-init" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_examples_that_are_not_installed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instance, "__file__", str(tmp_path / "nowhere" / "jens" / "tools" / "instance.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(Path, "is_dir", lambda _path: False)
    assert init.main([str(tmp_path / "x"), "--example"]) == 3
    assert "examples" in capsys.readouterr().err
