"""Environments on disk are read, made and changed."""

from __future__ import annotations

import os
from pathlib import Path

from jens.environments import tree as environments_tree
from jens.environments.wanted import Found, Tree, conf, plan_changes
from jens.layout import Layout

_CONF = conf(None)

_DIRECTORIES = (
    "modules",
    "hostgroups",
    "hieradata",
    *(f"hieradata/{x}" for x in ("module_names", "hostgroups", "fqdns")),
)


def test_a_new_environment_has_all_directories_even_when_they_are_empty(layout: Layout) -> None:
    path = layout.environment("x")
    environments_tree.create(path, Tree({"site": "s"}, _CONF))
    assert environments_tree.read(path) == Found({"site": "s"}, conf=_CONF)
    assert all((path / directory).is_dir() for directory in _DIRECTORIES)
    assert os.listdir(layout.environmentsdir) == ["x"]


def test_an_environment_takes_the_place_of_whatever_is_there(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    layout.environment("link").symlink_to(tmp_path / "precious")
    layout.environment("file").write_text("x")
    for name in ("link", "file"):
        found = environments_tree.read(layout.environment(name))
        assert "" in found.blocked
        environments_tree.create(layout.environment(name), Tree({"site": "s"}))
        assert environments_tree.read(layout.environment(name)).links == {"site": "s"}
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_what_is_read_of_an_environment(layout: Layout) -> None:
    path = layout.environment("x")
    environments_tree.create(path, Tree({"site": "s", "modules/a": "m", "hieradata/fqdns/a": "f"}))
    (path / "hostgroups").rmdir()
    (path / "hieradata" / "module_names").rmdir()
    (path / "hieradata" / "module_names").symlink_to("modules")
    (path / "modules" / ".new-1").symlink_to("x")
    (path / "modules" / "real").mkdir()
    found = environments_tree.read(path)
    assert found.links == {"site": "s", "modules/a": "m", "hieradata/fqdns/a": "f"}
    assert (found.missing, found.blocked) == (("hostgroups",), ("hieradata/module_names",))
    assert (found.litter, found.conf) == (("modules/.new-1",), None)


def test_an_environment_that_is_not_there_is_all_missing(layout: Layout) -> None:
    assert environments_tree.read(layout.environment("x")).missing == ("", *_DIRECTORIES)


def test_a_changed_environment_keeps_the_links_that_need_no_change(layout: Layout) -> None:
    path = layout.environment("x")
    environments_tree.create(path, Tree({"modules/a": "1", "modules/b": "1", "modules/c": "1"}, _CONF))
    before = os.lstat(path / "modules" / "a")
    (path / "hieradata" / "fqdns").rmdir()
    environments_tree.change(
        path, plan_changes(Tree({"modules/a": "1", "modules/b": "2"}), environments_tree.read(path))
    )
    assert environments_tree.read(path) == Found({"modules/a": "1", "modules/b": "2"})
    assert os.path.samestat(before, os.lstat(path / "modules" / "a"))
