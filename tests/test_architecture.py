"""Which folder may import which; found by reading the sources."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from jens import deferred
from tests import TREE

_PACKAGE = TREE / "jens"

#: Files at the top that every folder may import: values, failures, and checks of text.
_GROUND = {"deferred", "errors", "events", "model", "names", "text", "urls"}
#: The other files at the top; they describe an instance.
_TOP = {
    *("config", "configchecks", "configlines", "deliveries", "layout", "lastrun"),
    *("links", "locking", "preflight", "purgeguard", "statefile"),
}

#: What each folder may import, besides itself and the ground. A new folder gets its row here.
_MAY_KNOW: Mapping[str, set[str]] = {
    "ground": set(),
    "system": set(),
    "top": {"system"},
    "git": {"system"},
    "messaging": {"system"},
    "history": {"system", "top"},
    "delivery": {"system", "top", "git", "history"},
    "metadata": {"system", "top", "git"},
    "repositories": {"system", "top", "git"},
    "environments": {"system", "top", "git", "metadata"},
    "web": set(),
    "gitlabproducer": {"system", "top", "messaging", "metadata", "web"},
    "update": {"system", "top", "git", "messaging", "metadata", "repositories", "environments", "history"},
    "tools": {"system", "top", "git", "messaging", "metadata", "repositories", "environments", "history"},
    "status": {
        "system",
        "top",
        "git",
        "messaging",
        "metadata",
        "repositories",
        "environments",
        "history",
        "tools",
        "web",
    },
    "commands": {
        *("system", "top", "git", "messaging", "metadata", "repositories", "environments", "history"),
        *("delivery", "gitlabproducer", "update", "tools", "status"),
    },
}

#: The folders that may import each library.
_IMPORTERS = {
    "argparse": {"commands"},
    "configobj": {"top", "tools"},
    "dirq": {"messaging"},
    "fcntl": {"top", "git"},
    "flask": {"gitlabproducer", "status"},
    "git": {"git"},
    "pickle": {"messaging"},
    "pickletools": {"messaging"},
    "sqlite3": {"history"},
    "subprocess": {"git", "system"},
    "waitress": {"web"},
    "yaml": {"metadata"},
}


def _modules() -> dict[str, Path]:
    """Every source file of the package, by its dotted name."""
    return {
        ".".join(path.relative_to(TREE).with_suffix("").parts): path
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path != _PACKAGE / "__init__.py"
    }


_MODULES = _modules()


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_MODULES[module].read_text("utf-8"))


def _folder(module: str) -> str:
    """The folder of one of our modules; for files at the top, ground or top."""
    _, first, *rest = module.split(".")
    if rest or first in _MAY_KNOW:
        return first
    return "ground" if first in _GROUND else "top"


@functools.cache
def _imported(module: str) -> frozenset[str]:
    return frozenset(_imports_of(module))


def _imports_of(module: str) -> Iterator[str]:
    """The dotted names of all that a file imports, at any place in it; for our packages, the name of the file.

    Modules that it uses from ``jens.deferred`` count as imported.
    """
    for node in ast.walk(_tree(module)):
        if module == "jens.deferred":
            return
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "deferred":
            yield deferred.MODULES[node.attr]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import in line {node.lineno}"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in _MODULES else str(node.module)


def _ours(module: str) -> set[str]:
    return {name for name in _imported(module) if name in _MODULES}


def test_every_file_at_the_top_is_known() -> None:
    at_top = {module.split(".")[1] for module in _MODULES if module.count(".") == 1}
    assert at_top <= _GROUND | _TOP


def test_every_folder_has_its_row() -> None:
    assert {_folder(module) for module in _MODULES} <= set(_MAY_KNOW)


@pytest.mark.parametrize("module", _MODULES)
def test_a_folder_knows_only_what_it_may(module: str) -> None:
    folder = _folder(module)
    known = _MAY_KNOW[folder] | {folder, "ground"}
    assert {name for name in _ours(module) if _folder(name) not in known} == set()


def test_no_imports_go_in_a_circle() -> None:
    left = {module: _ours(module) - {module} for module in _MODULES}
    while done := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in done}
    assert left == {}


def test_deferred_modules_have_the_types_of_the_table() -> None:
    source = _tree("jens.deferred")
    [block] = [node for node in source.body if isinstance(node, ast.If)]
    typed: dict[str, str] = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            typed |= {str(alias.asname): f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign):
            typed[ast.unparse(node.targets[0])] = ast.unparse(node.value)
    assert typed == deferred.MODULES


def test_no_other_import_of_ours_is_deferred() -> None:
    found = {
        f"{module}:{node.lineno}"
        for module in _MODULES
        for function in ast.walk(_tree(module))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jens")
    }
    assert found == set()


@pytest.mark.parametrize("library", _IMPORTERS)
def test_a_library_is_imported_in_few_folders(library: str) -> None:
    importers = {
        _folder(module) for module in _MODULES if library in {name.split(".")[0] for name in _imported(module)}
    }
    assert importers <= _IMPORTERS[library]


def test_only_commands_print_and_exit() -> None:
    speaking = {
        _folder(module)
        for module in _MODULES
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "sys.exit", "os._exit")
    }
    assert speaking <= {"commands"}
