"""The plan of the house: who may know whom. Told from the sources alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).resolve().parent.parent / "jens"

#: From the ground up: a module imports only what stands before it. A new module gets its place here.
_ORDER = (
    "errors",
    "model",
    "names",
    "configspec",
    "config",
    "processes",
    "locking",
    "files",
    "gitlock",
    "ending",
    "gitprocess",
    "gitshells",
    "gitwrapper",
    "pool",
    "steps",
    "workclones",
    "remotes",
    "tracking",
    "soundness",
    "sharing",
    "worktrees",
    "layout",
    "stamps",
    "yamldoc",
    "rules",
    "metadata",
    "state",
    "inventory",
    "answers",
    "guard",
    "refusals",
    "retention",
    "plainpickle",
    "messaging",
    "repositories",
    "mirrors",
    "commits",
    "mending",
    "checkouts",
    "switching",
    "repostage",
    "trees",
    "past",
    "environments",
    "dangling",
    "lastrun",
    "demand",
    "seal",
    "longway",
    "pushes",
    "shortcut",
    "update",
    "preview",
    "maintenance",
    "filesystems",
    "reset",
    "packing",
    "garbage",
    "stats",
    "snapshot",
    "compare",
    "check",
    "checkremote",
    "instance",
    "webhooks",
    "gitlabproducer",
    "commands",
)

_REPOSITORIES = {"repositories", "mirrors", "commits", "mending", "checkouts", "switching", "repostage"}
_ENVIRONMENTS = {"trees", "past", "environments", "dangling"}
_GIT = {"gitlock", "gitprocess", "gitshells", "gitwrapper", "workclones", "git"}

#: What a room never knows about.
_STRANGERS = {
    "model": {*_ORDER, "os", "pathlib", "yaml", "git", "configobj"} - {"model"},
    "errors": set(_ORDER) - {"errors"},
    "configspec": {"logging", "argparse"},
    "config": {"logging", "argparse"},
    "locking": _REPOSITORIES | _ENVIRONMENTS | {"layout", "metadata"},
    "processes": set(_ORDER) - {"processes"},
    "gitlock": {"model", "config", "layout"},
    "gitprocess": {"model", "config", "layout"},
    "gitshells": {"model", "config", "layout"},
    "gitwrapper": {"model", "config", "layout"},
    "layout": _GIT | {"yaml", "yamldoc"},
    "metadata": {"layout", "inventory"},
    "guard": _GIT | {"files", "layout"},
    "messaging": _REPOSITORIES | {"flask"},
    **dict.fromkeys(sorted(_REPOSITORIES), _ENVIRONMENTS | {"messaging"}),
    "repositories": _ENVIRONMENTS | _GIT | {"messaging", "files", "os", "config"},
    **dict.fromkeys(sorted(_ENVIRONMENTS), _REPOSITORIES | _GIT),
    "demand": _GIT | {"config", "layout"},
    "webhooks": _GIT | {"update", "flask"},
    "gitlabproducer": _GIT | {"update"},
}

#: Longer than the house likes, each with the reason why.
_LONG: dict[str, str] = {}


def _modules() -> dict[str, Path]:
    """Every source file of the package, by its name within it."""
    return {
        ".".join(path.relative_to(_PACKAGE).with_suffix("").parts): path
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path != _PACKAGE / "__init__.py"
    }


def _room(module: str) -> str:
    return module.partition(".")[0]


def _imported(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports, wherever in it: ours by their name within the package, others by their first."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _short(alias.name), node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                yield _short(f"{node.module}.{alias.name}" if node.module == "jens" else str(node.module)), node.lineno


def _short(name: str) -> str:
    first, _, rest = name.partition(".")
    return _room(rest) if first == "jens" and rest else first


_MODULES = _modules()


def test_every_module_has_its_place_in_the_order() -> None:
    assert {_room(module) for module in _MODULES} <= set(_ORDER)


@pytest.mark.parametrize("module", _MODULES)
def test_imports_point_downward_only(module: str) -> None:
    below = set(_ORDER[: _ORDER.index(_room(module)) + 1])
    below -= {_room(module)} if _room(module) != "commands" else set()
    upward = [(name, line) for name, line in _imported(_MODULES[module]) if name in _ORDER and name not in below]
    assert upward == []


@pytest.mark.parametrize("room", _STRANGERS)
def test_a_room_does_not_know_its_strangers(room: str) -> None:
    if room in _MODULES:
        assert {name for name, _ in _imported(_MODULES[room])} & _STRANGERS[room] == set()


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("git", {"workclones"}),
        ("yaml", {"yamldoc"}),
        ("configobj", {"configspec", "config", "instance"}),
        ("flask", {"gitlabproducer"}),
        ("dirq", {"messaging"}),
        ("argparse", {"commands"}),
        ("fcntl", {"locking", "gitlock"}),
        ("pickle", {"messaging"}),
        ("pickletools", {"plainpickle"}),
    ],
)
def test_a_library_has_few_importers(library: str, importers: set[str]) -> None:
    found = {_room(module) for module, path in _MODULES.items() if library in {name for name, _ in _imported(path)}}
    assert found <= importers


def test_only_commands_print_and_exit() -> None:
    speaking = {
        _room(module)
        for module, path in _MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "sys.exit", "os._exit")
    }
    assert speaking <= {"commands"}


@pytest.mark.parametrize("module", _MODULES)
def test_a_module_has_no_more_than_three_hundred_lines(module: str) -> None:
    assert module in _LONG or len(_MODULES[module].read_text("utf-8").splitlines()) <= 300
