"""Short names for the values in table tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jens.layout import Layout
from jens.model import HOSTGROUPS, MODULES, Branch, Commit, Definition, Ref, RepoId

#: Commits: 40 digits each, told apart by the first.
A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)

DUMMY = RepoId(MODULES, "dummy")
STDLIB = RepoId(MODULES, "stdlib")
MYAPP = RepoId(HOSTGROUPS, "myapp")
MASTER, QA = Branch("master"), Branch("qa")


def modules(*names: str) -> list[RepoId]:
    return [RepoId(MODULES, name) for name in names]


def ref(text: str) -> Ref:
    """A commit when the text begins with a colon, as in ``:4f0c``, a branch otherwise."""
    return Commit(text[1:]) if text.startswith(":") else Branch(text)


def dynamic(name: str, default: str = "master", overrides: Mapping[RepoId, str] | None = None) -> Definition:
    """A dynamic environment; definitions of different content have different sources."""
    refs = {repo: ref(text) for repo, text in (overrides or {}).items()}
    return Definition(name, Branch(default), refs, ("ann@example.org",), source=f"{default} {refs}".encode())


def snapshot(name: str, overrides: Mapping[RepoId, str] | None = None) -> Definition:
    refs = {repo: ref(text) for repo, text in (overrides or {}).items()}
    return Definition(name, None, refs, ("ann@example.org",), source=f"snapshot {refs}".encode())


def layout_in(root: Path, items: tuple[str, ...] = ("common.yaml",)) -> Layout:
    """Make the directories of an instance."""
    layout = Layout(root / "bare", root / "clone", root / "cache", root / "environments", items)
    for path in (*layout.partitions(layout.baredir), *layout.partitions(layout.clonedir), layout.definitions):
        path.mkdir(parents=True)
    layout.environmentsdir.mkdir()
    return layout


#: The text of a well-formed library.
LIBRARY = """\
repositories:
  common:
    hieradata: https://git.example.org/hieradata.git
    site: git@git.example.org:site
  hostgroups:
    aimon: /srv/git/aimon
  modules:
    apache: https://git.example.org/apache.git
"""
