"""jens-check finds every problem of metadata in a work tree, with file and line, before they are pushed."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jens.commands import check
from jens.metadata import reader
from jens.metadata.definition import read_definition
from jens.metadata.library import parse_library
from jens.metadata.yamlnodes import LARGEST, YamlError
from jens.model import Definition, IllFormed, Prefixes
from tests import TREE
from tests.conftest import Remote, Site, definition, git
from tests.faults.decoy import push_bomb, push_tree
from tests.values import LIBRARY

TOOL = TREE / "bin" / "jens-check"
DUMMY = "modules/dummy"
NOBODY = 65534


@dataclass
class Said:
    """What jens-check gives a pipeline: exit code and output."""

    code: int
    lines: list[str]
    stderr: str

    def short(self) -> list[str]:
        """The lines without directories."""
        return [re.sub(r"^.*/(?=[^/]*:\d+: (error|warning): )", "", line) for line in self.lines]


class Tree:
    """A work tree of definitions, and a library beside it."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.definitions = root / "definitions"
        self.definitions.mkdir()
        self.library = root / "repositories.yaml"
        self.library.write_text(LIBRARY)
        self._root = root
        self._capture = capture

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.definitions / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def configure(self, **settings: str) -> list[str]:
        path = self._root / "main.conf"
        path.write_text("[main]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        return ["-c", str(path)]

    def check(self, *more: str, environments: bool = True, repositories: bool = True) -> Said:
        self._capture.readouterr()
        arguments = ["--environments", str(self.definitions)] if environments else []
        arguments += ["--repositories", str(self.library)] if repositories else []
        code = check.main([*arguments, *more])
        captured = self._capture.readouterr()
        return Said(code, captured.out.splitlines(), captured.err)

    def check_definition(self, content: str | bytes, *more: str, name: str = "x.yaml") -> Said:
        self.write(name, content)
        return self.check(*more)

    def check_library(self, content: str | bytes) -> Said:
        self.library.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.check(environments=False)


@pytest.fixture
def tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tree:
    return Tree(tmp_path, capsys)


def assert_clean(said: Said) -> None:
    assert (said.code, said.lines, said.stderr) == (0, [], "")


def assert_found(said: Said, *expected: tuple[str, str]) -> None:
    """Compare the lines with the expected ones: ``FILE:LINE: LEVEL``, and a word in the text."""
    assert said.stderr == ""
    assert len(said.lines) == len(expected), said.lines
    for line, (where, word) in zip(said.short(), expected):
        assert line.startswith(f"{where}: "), (line, where)
        assert word in line, (line, word)
    assert said.code == (1 if any(" error: " in line for line in said.lines) else 0)


# No problems


def test_the_shipped_examples_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    library = TREE / "examples" / "repositories" / "repositories.yaml"
    code = check.main(["--environments", str(TREE / "examples" / "environments"), "--repositories", str(library)])
    assert (code, capsys.readouterr()) == (0, ("", ""))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(definition("qa", {"modules/apache": "ai456", "common/site": "COMMIT/FB96070C"}), id="dynamic"),
        pytest.param(definition(None, {"hostgroups/aimon": "commit/" + "a" * 40}), id="a snapshot"),
        pytest.param("default: qa\nnotifications: [x, y]\nparser: future\n", id="a list of addresses"),
        pytest.param("\ufeffdefault: qa\nnotifications: x\n", id="a byte order mark"),
        pytest.param("default: qa\r\nnotifications: x\r\noverrides:\r\n  modules:\r\n    apache: a\r\n", id="CRLF"),
        pytest.param(
            "notifications: x\noverrides: {modules: &a {apache: b}, hostgroups: {aimon: c}, common: {}}\n",
            id="an anchor",
        ),
        pytest.param("default: qa\nnotifications: x\n#".ljust(1024 * 1024, "#"), id="a mebibyte"),
    ],
)
def test_a_well_formed_definition_is_clean(tree: Tree, text: str) -> None:
    assert_clean(tree.check_definition(text))


def test_a_library_alone_and_definitions_alone_are_checked(tree: Tree) -> None:
    tree.write("x.yaml", definition("qa", {"modules/unknown": "a"}))
    assert_clean(tree.check(environments=False))
    assert_clean(tree.check(repositories=False))


def test_a_directory_without_a_definition_is_an_error(tree: Tree) -> None:
    (tree.definitions / "x.yaml").mkdir()
    (tree.definitions / "README.md").write_text("no definition")
    tree.write(".hidden.yaml", D)
    where = "definitions:1: error"
    assert_found(tree.check(), (where, "there is no definition"), ("x.yaml:1: warning", "directory"))
    tree.write("y.yaml", D)
    assert_found(tree.check(), ("x.yaml:1: warning", "directory"))


def test_partitions_without_repositories_are_clean(tree: Tree) -> None:
    assert_clean(tree.check_library("repositories:\n  common: {}\n  hostgroups:\n  modules: ~\n"))


# Problems of a definition

N = "notifications: x\n"
#: A well-formed definition.
D = N + "default: qa\n"
FAULTS = [
    pytest.param("a: [b\n", 2, "not YAML", id="not YAML"),
    pytest.param(N + "\tdefault: a\n", 2, "tab", id="a tab"),
    pytest.param(N + "---\n" + N, 2, "not YAML", id="two documents"),
    pytest.param(N + "default: *a\n", 2, "alias", id="an alias to nothing"),
    pytest.param("", 1, "empty", id="empty"),
    pytest.param("# nothing\n", 1, "empty", id="only a comment"),
    pytest.param("null\n", 1, "mapping", id="null"),
    pytest.param("\n- a\n", 2, "mapping", id="a list"),
    pytest.param("text\n", 1, "mapping", id="a text"),
    pytest.param("# why\n---\ndefault: qa\n", 3, "'notifications' is missing", id="notifications missing"),
    pytest.param(N + "default:\n", 2, "null", id="default null"),
    pytest.param(N + "default: 5\n", 2, "int", id="default a number"),
    pytest.param(N + "default: yes\n", 2, "bool", id="default a boolean"),
    pytest.param(N + "default: []\n", 2, "a list of 1 to 20", id="default an empty list"),
    pytest.param(N + "default: [[qa]]\n", 2, "seq", id="default a list of lists"),
    pytest.param(N + "default:\n- qa\n- commit/4f0c\n", 4, "not a commit", id="default a list with a commit"),
    pytest.param(N + f"default: [{'a, ' * 21}]\n", 2, "a list of 1 to 20", id="default too long a list"),
    pytest.param(N + "default: a..b\n", 2, "Git", id="default no branch name"),
    pytest.param(N + "default: commit/4f0c\n", 2, "not a commit", id="default a commit"),
    pytest.param(N + "overrides:\n", 2, "null", id="overrides null"),
    pytest.param(N + "overrides:\n  - a\n", 3, "seq", id="overrides a list"),
    pytest.param(N + "overrides: text\n", 2, "str", id="overrides a text"),
    pytest.param(N + "overrides:\n  common: {}\n  module: {a: b}\n", 4, "'module'", id="an unknown partition"),
    pytest.param(N + "overrides:\n  modules:\n", 3, "null", id="a partition null"),
    pytest.param(N + "overrides:\n  modules: [a]\n", 3, "seq", id="a partition a list"),
    pytest.param(N + "overrides:\n  modules:\n    apache:\n", 4, "null", id="a ref null"),
    pytest.param(N + "overrides:\n  modules:\n    apache: 1.0\n", 4, "float", id="a ref a number"),
    pytest.param(N + "overrides:\n  modules:\n    apache: {a: b}\n", 4, "unknown key 'a'", id="an override a mapping"),
    pytest.param(N + "overrides:\n  modules:\n    apache: {code: b}\n", 4, "no 'ref'", id="an override without a ref"),
    pytest.param(
        N + "overrides:\n  modules:\n    apache: {reff: b}\n", 4, "expected 'ref'", id="an override's key misspelt"
    ),
    pytest.param(N + "overrides:\n  modules:\n    apache: {ref: [b]}\n", 4, "seq", id="an override with a list as ref"),
    pytest.param(
        N + "overrides:\n  modules:\n    apache:\n      ref: b\n      code: ../x\n",
        6,
        "relative path",
        id="an override with a way out",
    ),
    pytest.param(N + "overrides:\n  modules:\n    apache: HEAD\n", 4, "Git", id="a ref HEAD"),
    pytest.param(N + "overrides:\n  modules:\n    apache: -x\n", 4, "Git", id="a ref an option"),
    pytest.param(N + "overrides:\n  modules:\n    apache: a b\n", 4, "Git", id="a ref with a space"),
    pytest.param(N + "overrides:\n  modules:\n    apache: commit/4f0\n", 4, "4 to 40", id="a short commit"),
    pytest.param(N + "overrides:\n  modules:\n    apache: commit/main\n", 4, "4 to 40", id="no digits"),
    pytest.param(N + f"overrides: {{modules: {{apache: commit/{'a' * 41}}}}}\n", 2, "4 to 40", id="a long commit"),
    pytest.param(N + "parser: past\ndefault: qa\n", 2, "'parser'", id="another parser"),
    pytest.param(N + "parser:\ndefault: qa\n", 2, "'parser'", id="parser null"),
    pytest.param(N + "defualt: qa\n", 2, "unknown key 'defualt', expected 'default'", id="a misspelt default"),
    pytest.param(D + "override: {}\n", 3, "unknown key 'override', expected 'overrides'", id="misspelt overrides"),
    pytest.param("notification: x\ndefault: qa\n", 1, "expected 'notifications'", id="misspelt notifications"),
    pytest.param(D + "overrides: {module: {}}\n", 3, "'module', expected 'modules'", id="a misspelt partition"),
    pytest.param("\n" + N, 2, "neither 'default' nor an override", id="neither default nor overrides"),
    pytest.param(N + "overrides: {}\n", 1, "neither 'default' nor an override", id="overrides {} alone"),
    pytest.param(N + "overrides: {modules: {}}\n", 1, "neither 'default' nor", id="an empty partition alone"),
    pytest.param("a: b\nnotifications: ä\n".encode("latin-1"), 2, "UTF-8", id="Latin 1"),
    pytest.param(N.encode("utf-16"), 1, "UTF-8", id="UTF-16"),
    pytest.param("a: ä\nnotifications: a\0b\n", 2, "not YAML", id="a NUL"),
    pytest.param(N + "a:\n  " + "[" * 200 + "]" * 200, 3, "levels deep", id="nested deeply"),
    pytest.param(N + "#" * LARGEST, 1, "larger than", id="huge"),
]


@pytest.mark.parametrize(("text", "line", "word"), FAULTS)
def test_a_fault_of_a_definition_is_an_error_in_its_line(tree: Tree, text: str | bytes, line: int, word: str) -> None:
    assert_found(tree.check_definition(text), (f"x.yaml:{line}: error", word))


@pytest.mark.parametrize(("text", "line", "word"), FAULTS)
def test_what_is_an_error_is_ill_formed_for_a_run_too_and_said_alike(
    tree: Tree, text: str | bytes, line: int, word: str
) -> None:
    assert line > 0
    assert word
    declared = read_definition("x.yaml", text if isinstance(text, bytes) else text.encode(), Prefixes())
    assert isinstance(declared, IllFormed)
    said = tree.check_definition(text).lines[0].partition(": error: ")[2]
    assert declared.reason.endswith(said)


def test_the_file_is_named_as_it_was_given(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write("x.yaml", "")
    monkeypatch.chdir(tree.definitions)
    assert check.main(["--environments", "."]) == 1
    said = tree._capture.readouterr().out
    assert said == "x.yaml:1: error: empty, expected a mapping\n"
    assert tree.check().lines == [f"{tree.definitions}/x.yaml:1: error: empty, expected a mapping"]


@pytest.mark.parametrize("name", ["a-b.yaml", "a.b.yaml", "a b.yaml", "ä.yaml", "\udcff.yaml"], ids=ascii)
def test_a_bad_name_is_an_error(tree: Tree, name: str) -> None:
    said = tree.check_definition(D, name=name)
    assert said.code == 1
    assert len(said.lines) == 1
    assert "bad name" in said.lines[0]
    assert said.lines[0].isprintable()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        pytest.param(("qa", "QA", "Qa", "qb"), {"Qa": "QA", "qa": "QA"}, id="three"),
        pytest.param(("a_b", "a_B", "x"), {"a_b": "a_B"}, id="two"),
        pytest.param(("a", "b"), {}, id="none"),
    ],
)
def test_names_of_definitions_that_differ_in_case_only_are_warnings(
    tree: Tree, names: tuple[str, ...], told: Mapping[str, str]
) -> None:
    for name in names:
        tree.write(f"{name}.yaml", D)
    expected = [(f"{name}.yaml:1: warning", f"'{told[name]}.yaml' in upper and lower case") for name in sorted(told)]
    assert_found(tree.check(), *expected)


def test_definitions_that_are_too_large_in_all_are_errors(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LARGEST_SUM", 2 * len(D))
    for name in ("a", "b", "c", "d"):
        tree.write(f"{name}.yaml", D)
    word = "together with the definitions before it, larger than"
    assert_found(tree.check(), ("c.yaml:1: error", word), ("d.yaml:1: error", word))


def test_all_faults_are_found_and_not_only_the_first(tree: Tree) -> None:
    tree.write("empty.yaml", "")
    said = tree.check_definition(
        "default: 5\n"
        "colour: red\n"
        "overrides:\n"
        "  modules:\n"
        "    apache: commit/xyz\n"
        "    nope: a..b\n"
        "    aimon: fine\n"
        "  hostgroup: {}\n"
        "  common: [a]\n"
        "  hostgroups: {aimon: 1.0}\n"
        "parser: past\n"
        "parser: ancient\n"
    )
    assert_found(
        said,
        ("empty.yaml:1: error", "empty"),
        ("x.yaml:1: error", "'default'"),
        ("x.yaml:1: error", "'notifications' is missing"),
        ("x.yaml:2: warning", "'colour'"),
        ("x.yaml:5: error", "4 to 40"),
        ("x.yaml:6: error", "Git"),
        ("x.yaml:6: warning", "'nope'"),
        ("x.yaml:7: warning", "'aimon'"),
        ("x.yaml:8: error", "'hostgroup', expected 'hostgroups'"),
        ("x.yaml:9: error", "common"),
        ("x.yaml:10: error", "float"),
        ("x.yaml:12: error", "'parser' is expected"),
        ("x.yaml:12: error", "already, in line 11"),
    )


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        pytest.param(N + "default: a\ndefault: b\n", 3, "'default' is there already, in line 2", id="at the top"),
        pytest.param(D + "overrides:\n  modules: {apache: a}\n  modules: {}\n", 5, "'modules'", id="a partition"),
        pytest.param(
            N + "overrides:\n  modules:\n    apache: a\n    'apache': b\n", 5, "'apache'", id="an override, in quotes"
        ),
        pytest.param(N + "overrides: {modules: {apache: a, apache: b}}\n", 2, "'apache'", id="in one line"),
    ],
)
def test_a_key_given_twice_is_an_error(tree: Tree, text: str, line: int, word: str) -> None:
    said = tree.check_definition(text)
    assert said.code == 1
    [error] = [found for found in said.short() if " error: " in found]
    assert error.startswith(f"x.yaml:{line}: error: the key ")
    assert word in error


def test_a_key_that_is_merged_and_given_is_not_given_twice(tree: Tree) -> None:
    text = "notifications: &a {apache: a}\noverrides: {modules: {<<: *a, <<: *a, apache: b}}\n"
    assert "already" not in "".join(tree.check_definition(text).lines)


# No files, and no definitions


def test_a_symbolic_link_is_an_error_and_not_followed(tree: Tree) -> None:
    tree.library.with_name("precious").write_text("a: hunter2\n")
    (tree.definitions / "x.yaml").symlink_to("../precious")
    (tree.definitions / "y.yaml").symlink_to("nowhere")
    assert_found(tree.check(), ("x.yaml:1: error", "symbolic link"), ("y.yaml:1: error", "symbolic link"))


def test_a_submodule_is_an_error_and_a_directory_a_warning(tree: Tree) -> None:
    for name in ("x.yaml", "y.yaml"):
        (tree.definitions / name).mkdir()
    (tree.definitions / "x.yaml" / ".git").write_text("gitdir: ../.git/modules/x\n")
    assert_found(tree.check(), ("x.yaml:1: error", "submodule"), ("y.yaml:1: warning", "directory"))


def test_a_pipe_or_a_socket_holds_nobody_up(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tree.definitions / "x.yaml")
    tree.library.unlink()
    os.mkfifo(tree.library)
    with socket.socket(socket.AF_UNIX) as here:
        monkeypatch.chdir(tree.definitions)  # the path of a socket must be short
        here.bind("y.yaml")
        begin = time.perf_counter()
        said = tree.check()
    assert time.perf_counter() - begin < 50
    assert_found(
        said,
        ("x.yaml:1: error", "expected a file, not a pipe"),
        ("y.yaml:1: error", "expected a file, not a socket"),
        ("repositories.yaml:1: error", "expected a file, not a pipe"),
    )


def test_files_that_are_nearly_definitions_are_warnings_and_others_nothing(tree: Tree) -> None:
    hidden = (".gitlab-ci.yml", ".gitignore", ".pre-commit-config.yaml", ".lint.yaml", ".yaml", ".x.YML")
    for name in ("README.md", "LICENSE", "Makefile", "check.sh", "yaml", *hidden):
        tree.write(name, "\0\tno YAML")
    (tree.definitions / "docs").mkdir()
    for name in (".github", ".dir.yaml"):
        (tree.definitions / name).mkdir()
    (tree.definitions / "docs" / "x.yaml").write_text("no definition")
    (tree.definitions / ".link.yaml").symlink_to("nowhere")
    tree.write("x.yaml", D)
    assert_clean(tree.check())
    for name in ("a.yml", "b.YAML", "c.Yml"):
        tree.write(name, D)
    assert_found(
        tree.check(),
        ("a.yml:1: warning", "does not end in .yaml"),
        ("b.YAML:1: warning", "does not end in .yaml"),
        ("c.Yml:1: warning", "does not end in .yaml"),
    )


# Warnings: what is allowed, but hardly meant


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        pytest.param(D + "colour: red\n", 3, "unknown key 'colour'", id="an unknown key"),
        pytest.param(D + "'a\\nb': c\n? [d]\n: e\n", 3, "unknown key 'a", id="an odd key"),
        pytest.param(D + "_overrides: {}\n", 3, "unknown key '_overrides'", id="a key that was put aside"),
        pytest.param(
            N + "overrides:\n  modules:\n    nope: a\n", 4, "overrides modules 'nope'", id="an unknown repository"
        ),
        pytest.param(N + "overrides: {hostgroups: {apache: a}}\n", 2, "'apache'", id="in the wrong partition"),
        pytest.param("default: qa\nnotifications:\n", 2, "without an address", id="null notifications"),
        pytest.param(D + "overrides: {}\n", 3, "without any override", id="overrides {}"),
        pytest.param(D + "overrides:\n  modules: {}\n", 3, "without any override", id="an empty partition"),
    ],
)
def test_a_doubt_is_a_warning_in_its_line(tree: Tree, text: str, line: int, word: str) -> None:
    said = tree.check_definition(text)
    assert said.code == 0
    assert said.short()[0].startswith(f"x.yaml:{line}: warning: ")
    assert word in said.lines[0]
    assert isinstance(read_definition("x.yaml", text.encode(), Prefixes()), Definition)


def test_a_misspelt_key_is_told_once(tree: Tree) -> None:
    said = tree.check_definition("defualt: master\nnotification: x\n")
    assert_found(
        said,
        ("x.yaml:1: error", "unknown key 'defualt', expected 'default'"),
        ("x.yaml:2: error", "unknown key 'notification', expected 'notifications'"),
    )


@pytest.mark.parametrize("name", ["main", "master", "agent", "user"])
def test_a_name_that_puppet_reserves_is_a_warning(tree: Tree, name: str) -> None:
    assert_found(tree.check_definition(D, name=f"{name}.yaml"), (f"{name}.yaml:1: warning", f"'{name}'"))


def test_a_parser_is_a_warning_where_no_environment_has_a_file_for_it(tree: Tree) -> None:
    tree.write("x.yaml", N + "parser: future\ndefault: qa\n")
    assert_clean(tree.check())
    assert_clean(tree.check(*tree.configure(directory_environments="True")))
    warning = ("x.yaml:2: warning", "directory_environments")
    assert_found(tree.check(*tree.configure(directory_environments="False")), warning)
    assert_found(tree.check(*tree.configure()), warning)


def test_the_prefix_of_commits_is_the_configured_one(tree: Tree) -> None:
    tree.write("x.yaml", N + "default: 'sha:4f0c'\n")
    assert_found(tree.check(*tree.configure(hashprefix="sha:")), ("x.yaml:2: error", "not a commit"))
    assert_found(tree.check(), ("x.yaml:2: error", "Git"))


def test_nothing_is_said_of_unknown_repositories_when_the_library_is_broken(tree: Tree) -> None:
    tree.library.write_text("repositories: {modules: {}, common: {}}\n")
    said = tree.check_definition(definition("qa", {"hostgroups/aimon": "a"}))
    assert_found(said, ("repositories.yaml:1: error", "'hostgroups'"))


def test_an_entry_that_cannot_be_used_is_known_all_the_same(tree: Tree) -> None:
    tree.library.write_text(LIBRARY + "    evil: relative\n")
    said = tree.check_definition(definition("qa", {"modules/evil": "a"}))
    assert_found(said, ("repositories.yaml:9: error", "neither"))


# Problems of a library


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        pytest.param("", 1, "'repositories'", id="empty"),
        pytest.param("repositories: {a: b\n", 2, "not YAML", id="not YAML"),
        pytest.param("a: b\n\tc: d\n", 2, "not YAML", id="a tab"),
        pytest.param("\n- a\n", 2, "mapping", id="a list"),
        pytest.param("repositories:\n", 1, "null", id="repositories null"),
        pytest.param("repositories: [a]\n", 1, "seq", id="repositories a list"),
        pytest.param("---\nrepositories: {common: {}, modules: {}}\n", 2, "'hostgroups'", id="a partition missing"),
        pytest.param(LIBRARY.replace("  modules:\n    apache:", "  modules:\n    - apache"), 8, "seq", id="a list in"),
        pytest.param(LIBRARY + "---\n" + LIBRARY, 9, "not YAML", id="two documents"),
        pytest.param(LIBRARY.encode("utf-16"), 1, "UTF-8", id="UTF-16"),
        pytest.param(b"# \n" + "# ä\n".encode("latin-1") + LIBRARY.encode(), 2, "UTF-8", id="Latin 1"),
        pytest.param(LIBRARY + "#" * LARGEST, 1, "larger than", id="huge"),
    ],
)
def test_what_makes_a_library_unusable_is_an_error_in_its_line(
    tree: Tree, text: str | bytes, line: int, word: str
) -> None:
    assert_found(tree.check_library(text), (f"repositories.yaml:{line}: error", word))
    with pytest.raises(YamlError):
        parse_library(text if isinstance(text, bytes) else text.encode(), Prefixes())


def test_all_faults_of_a_library_are_found(tree: Tree) -> None:
    said = tree.check_library("a: b\nrepositories:\n  modulez: {}\n  hostgroups: [a]\n  common:\n    site: ''\n")
    assert_found(
        said,
        ("repositories.yaml:1: warning", "unknown key 'a'"),
        ("repositories.yaml:3: error", "unknown key 'modulez', expected 'modules'"),
        ("repositories.yaml:4: error", "seq"),
        ("repositories.yaml:6: error", "empty"),
    )


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        pytest.param("'../x': /srv/x", "bad name", id="a way out"),
        pytest.param(".x: /srv/x", "bad name", id="a hidden name"),
        pytest.param("-x: /srv/x", "bad name", id="an option as a name"),
        pytest.param("a/b: /srv/x", "bad name", id="a slash"),
        pytest.param("x:", "null", id="no URL"),
        pytest.param("x: 5", "int", id="a number"),
        pytest.param("x: [/srv/x]", "seq", id="a list"),
        pytest.param("x: ''", "empty", id="an empty URL"),
        pytest.param("x: 'ext::sh -c id'", "helper", id="a transport helper"),
        pytest.param("x: fd::17", "helper", id="another one"),
        pytest.param("x: --upload-pack=id", "dash", id="an option"),
        pytest.param("x: ssh://-oProxyCommand=id/x", "dash", id="an option as a host"),
        pytest.param("x: '-host:path'", "dash", id="an option in scp form"),
        pytest.param('x: "https://example.org/a\\nb"', "control", id="a newline"),
        pytest.param("x: ftp://example.org/x", "'ftp'", id="another scheme"),
        pytest.param("x: relative/path", "neither", id="a relative path"),
        pytest.param("x: https:///x", "no host", id="no host"),
        pytest.param("x: https://example.org", "no path", id="no path"),
        pytest.param("x: https://example.org:http/x", "HOST[:PORT]", id="a port that is none"),
        pytest.param("apache: /srv/x", "already, in line 8", id="a name given twice"),
    ],
)
def test_a_bad_entry_of_a_library_is_an_error_in_its_line(tree: Tree, entry: str, word: str) -> None:
    assert_found(tree.check_library(f"{LIBRARY}    {entry}\n"), ("repositories.yaml:9: error", word))


def test_a_partition_given_twice_is_an_error(tree: Tree) -> None:
    said = tree.check_library(LIBRARY + "  modules: {bcache: /srv/bcache}\n")
    assert_found(said, ("repositories.yaml:9: error", "'modules' is there already, in line 7"))


def test_an_entry_of_common_that_nothing_uses_is_a_warning(tree: Tree) -> None:
    said = tree.check_library(LIBRARY.replace("    site:", "    sites:"))
    assert_found(said, ("repositories.yaml:4: warning", "'sites', which nothing uses, expected 'site'"))


def test_a_misspelt_key_beside_the_right_one_is_a_warning(tree: Tree) -> None:
    said = tree.check_library(LIBRARY + "  module: {bcache: /srv/bcache}\n")
    assert_found(said, ("repositories.yaml:9: warning", "unknown key 'module', expected 'modules'"))


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/apache.git",
        "https://ann:hunter2@GIT.example.org/apache/",
        "git@git.example.org:apache.git",
        "ssh://git@git.example.org:22/apache",
    ],
)
def test_one_url_under_two_names_is_a_warning(tree: Tree, url: str) -> None:
    said = tree.check_library(f"{LIBRARY}    apache2: '{url}'\n    other: https://git.example.org/other\n")
    assert_found(
        said, ("repositories.yaml:9: warning", "modules/apache2 has the same URL as modules/apache, in line 8")
    )
    assert "git.example.org" not in said.lines[0]


def test_one_path_under_two_names_in_two_partitions_is_a_warning(tree: Tree) -> None:
    said = tree.check_library(f"{LIBRARY}    aimon: file:///srv/git/aimon.git\n    bad: ''\n    worse: ''\n")
    assert_found(
        said,
        ("repositories.yaml:9: warning", "modules/aimon has the same URL as hostgroups/aimon, in line 6"),
        ("repositories.yaml:10: error", "empty"),
        ("repositories.yaml:11: error", "empty"),
    )


def test_names_of_repositories_that_differ_in_case_only_are_warnings(tree: Tree) -> None:
    said = tree.check_library(f"{LIBRARY}    Apache: /srv/a\n    APACHE: /srv/b\n    Aimon: /srv/c\n")
    assert_found(
        said,
        ("repositories.yaml:9: warning", "modules 'Apache' differs from 'apache' in upper and lower case"),
        ("repositories.yaml:10: warning", "modules 'APACHE' differs from 'apache' in upper and lower case"),
    )


def test_a_library_that_is_a_link_or_a_directory_is_an_error_that_says_so(tree: Tree) -> None:
    tree.library.rename(tree.library.with_name("elsewhere"))
    tree.library.symlink_to("elsewhere")
    assert_found(tree.check(environments=False), ("repositories.yaml:1: error", "symbolic link"))
    tree.library.unlink()
    tree.library.mkdir()
    said = "expected a file such as repositories.yaml, not a directory"
    assert_found(tree.check(environments=False), ("repositories.yaml:1: error", said))
    (tree.library / ".git").mkdir()
    assert_found(tree.check(environments=False), ("repositories.yaml:1: error", said))


# Hostile texts


def _laugh(last: str) -> str:
    lines = ["notifications: x", "x:", "- &l0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"- &l{level} [{','.join([f'*l{level - 1}'] * 10)}]" for level in range(1, 30)]
    return "\n".join([*lines, last, ""])


def test_bombs_cost_nothing(tree: Tree) -> None:
    begin = time.perf_counter()
    tree.write("a.yaml", _laugh("default: *l29"))
    tree.write("b.yaml", _laugh("default: qa").replace("&l0 [x,", "&l0 [*l0,"))
    merges = [f"- &m{level} {{<<: [{','.join([f'*m{level - 1}'] * 10)}]}}" for level in range(1, 30)]
    tree.write("c.yaml", "\n".join([N + "x:", "- &m0 {apache: a}", *merges, "overrides: {modules: {<<: *m29}}", ""]))
    long = "a" * 300_000 + ".."
    tree.write(
        "d.yaml", N + f"x: &x {long}\noverrides:\n  modules:\n" + "".join(f"    m{n}: *x\n" for n in range(20000))
    )
    said = tree.check()
    assert time.perf_counter() - begin < 50
    errors = [line for line in said.short() if " error: " in line]
    assert errors[0].startswith("a.yaml:")
    assert "'default' is expected to be a string" in errors[0]
    assert {line.partition(":")[0] for line in errors} == {"a.yaml", "d.yaml"}
    assert "left out" in errors[-1]
    assert max(map(len, said.lines)) < 1000
    assert len(said.lines) < 100


def test_thousands_of_faults_are_told(tree: Tree) -> None:
    said = tree.check_definition(N + "overrides:\n  modules:\n" + "".join(f"    m{n}: 1.0\n" for n in range(2000)))
    assert len([line for line in said.lines if " error: " in line]) == 2000


def test_credentials_are_never_printed(tree: Tree) -> None:
    url = "ftp://ann:hunter2@git.example.org/x"
    tree.library.write_text(LIBRARY + f"    a: {url}\n    {url}: /srv/x\n  {url}: {{}}\n{url}: 1\n")
    said = tree.check_definition(
        f"default: {url}\nnotifications: {url}\n{url}: 1\noverrides:\n  {url}: 1\n  modules:\n    {url}: {url}\n"
    )
    assert said.code == 1
    assert len(said.lines) >= 8
    for word in ("ann", "hunter2"):
        assert word not in "\n".join(said.lines)
    assert "git.example.org" in "\n".join(said.lines)


def test_a_finding_is_one_line_whatever_it_quotes(tree: Tree) -> None:
    tree.write("a\nb.yaml", D)
    said = tree.check_definition(N + 'default: "a\\nb\\e[31m"\n"c\\rd": 1\n"e\\nf": 1\n"e\\nf": 2\n')
    assert len(said.lines) == 5
    assert all(line.isprintable() for line in said.lines)


# JSON


def test_json_is_a_list_of_what_the_lines_say(tree: Tree) -> None:
    tree.write("x.yaml", N + "default: 5\ncolour: red\n")
    tree.write("\udcff.yaml", D)
    lines = tree.check().lines
    said = tree.check("--json")
    found = json.loads("\n".join(said.lines))
    assert said.code == 1
    assert {tuple(sorted(one)) for one in found} == {("file", "level", "line", "text")}
    assert found[0] == {
        "file": str(tree.definitions / "x.yaml"),
        "level": "error",
        "line": 2,
        "text": "'default' is expected to be a string, not int",
    }
    told = [f"{one['file']}:{one['line']}: {one['level']}: {one['text']}" for one in found]
    assert [line.replace("\udcff", "\\udcff") for line in told] == lines


def test_json_of_nothing_is_an_empty_list(tree: Tree) -> None:
    tree.write("x.yaml", D)
    said = tree.check("--json")
    assert (said.code, said.lines) == (0, ["[]"])


# Exit statuses


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "--environments, --repositories"),
        (["--json"], "--environments, --repositories"),
        (["--environments", ".", "--remote"], "--repositories"),
        (["--environments"], "--environments"),
        (["--environments", ".", "more"], "more"),
        (["--environments", ".", "--mandatory-branches", "qa,a..b"], "'a..b'"),
    ],
)
def test_exit_2_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    with pytest.raises(SystemExit) as caught:
        check.main(arguments)
    assert caught.value.code == 2
    assert word in capsys.readouterr().err.splitlines()[-1]


def test_exit_2_a_configuration_that_cannot_be_used(tree: Tree) -> None:
    said = tree.check(*tree.configure(hashprefix="''"))
    assert (said.code, said.lines, len(said.stderr.splitlines())) == (2, [], 1)
    assert "hashprefix" in said.stderr
    assert tree.check("-c", str(tree.library.with_name("missing"))).code == 2


def test_an_unknown_key_of_the_configuration_is_told(tree: Tree) -> None:
    tree.write("x.yaml", D)
    said = tree.check(*tree.configure(hashprefixx="a"))
    assert (said.code, said.lines, len(said.stderr.splitlines())) == (0, [], 1)
    assert "hashprefixx" in said.stderr


@pytest.mark.parametrize("how", ["no directory", "a file", "no library"])
def test_exit_3_what_is_to_be_checked_is_not_there(tree: Tree, how: str) -> None:
    missing = tree.library if how == "no library" else tree.definitions
    if how == "no library":
        missing.unlink()
    else:
        missing.rmdir()
    if how == "a file":
        missing.write_text("")
    said = tree.check()
    assert (said.code, said.lines, len(said.stderr.splitlines())) == (3, [], 1)
    assert str(missing) in said.stderr


def test_it_knows_its_version_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            check.main([option])
        assert caught.value.code == 0
    assert "--remote" in capsys.readouterr().out


# As a process


def tool(*arguments: str | Path, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def test_nobody_minds_when_the_reader_has_seen_enough(tree: Tree) -> None:
    for number in range(2000):
        tree.write(f"{'long' * 20}{number}.yaml", "")
    command = f"'{sys.executable}' '{TOOL}' --environments '{tree.definitions}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_read_access_is_enough_and_what_cannot_be_read_is_an_error() -> None:
    """In a process without the rights of root, and so in a directory that others may enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "a.yaml").write_text(D)
        for path in (root / "b.yaml", root / "library"):
            path.write_text(N)
            path.chmod(0)
        program = (
            "import encodings.utf_8_sig, locale, os, sys; from jens.commands import check\n"  # not readable later
            f"if os.geteuid() == 0: os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "sys.exit(check.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", program, "--environments", name, "--repositories", str(root / "library")]
        before = sorted(root.iterdir())
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(TREE)}, capture_output=True, text=True, check=False
        )
        assert sorted(root.iterdir()) == before
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        f"{root}/b.yaml:1: error: cannot be read: Permission denied",
        f"{root}/library:1: error: cannot be read: Permission denied",
    ]


# Remotes


class Pipeline:
    """A site with remotes, and its library and definitions as files."""

    def __init__(self, site: Site, root: Path) -> None:
        self.site = site
        self.tree = Tree(root, site.capture)
        self.temporary = root / "temporary"
        self.temporary.mkdir()

    def check(self, overrides: Mapping[str, str] | None = None, default: str | None = "master", **main: str) -> Said:
        self.tree.write("x.yaml", definition(default, overrides))
        self.write_library()
        return self.ask(*self.tree.configure(**{"mandatorybranches": "master,", **main}))

    def write_library(self) -> None:
        text = "repositories:\n"
        for partition in ("common", "hostgroups", "modules"):
            text += f"  {partition}:\n"
            for repo, url in sorted(self.site.urls.items()):
                text += f"    {repo.split('/')[1]}: '{url}'\n" if repo.startswith(partition) else ""
        self.tree.library.write_text(text)

    def ask(self, *arguments: str, environments: bool = True) -> Said:
        said = self.tree.check("--remote", *arguments, environments=environments)
        assert list(self.temporary.iterdir()) == []
        return said

    def line(self, repo: str) -> int:
        """The line of a repository in the library."""
        name = repo.split("/")[1]
        lines = self.tree.library.read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if line.startswith(f"    {name}:"))


@pytest.fixture
def pipeline(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    found = Pipeline(site, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(found.temporary))
    return found


# The line of the first override, below default, notifications, overrides, partition.
OVERRIDE = "x.yaml:5: error"


def test_branches_that_exist_are_clean(pipeline: Pipeline) -> None:
    pipeline.site.remotes[DUMMY].branch("feature/x")
    assert_clean(pipeline.check({DUMMY: "feature/x", "common/site": "master"}))


def test_an_override_with_a_branch_that_does_not_exist_is_an_error(pipeline: Pipeline) -> None:
    git("tag", "v1", "master", directory=pipeline.site.remotes[DUMMY].path)
    assert_found(pipeline.check({DUMMY: "nope"}), (OVERRIDE, "modules/dummy has no branch 'nope'"))
    assert_found(pipeline.check({DUMMY: "v1"}), (OVERRIDE, "modules/dummy has no branch 'v1'"))


def test_a_default_branch_is_an_error_only_when_no_repository_has_it(pipeline: Pipeline) -> None:
    assert_found(pipeline.check(default="qa"), ("x.yaml:1: error", "no repository of the library has a branch 'qa'"))
    pipeline.site.remotes[DUMMY].branch("qa")
    assert_clean(pipeline.check(default="qa"))


def test_a_repository_that_lacks_a_mandatory_branch_is_an_error(pipeline: Pipeline) -> None:
    for repo, remote in pipeline.site.remotes.items():
        if repo != DUMMY:
            remote.branch("qa")
    said = pipeline.check(mandatorybranches="master, qa")
    assert_found(said, (f"repositories.yaml:{pipeline.line(DUMMY)}: error", "modules/dummy has no branch 'qa'"))


@pytest.mark.parametrize(
    ("given", "configured", "lacking"),
    [
        pytest.param(None, None, (), id="none without a configuration"),
        pytest.param(None, "master, qa", ("qa",), id="the configured ones"),
        pytest.param(None, "", (), id="an empty configuration"),
        pytest.param("qa", None, ("qa",), id="the given one"),
        pytest.param(" master , qa,dev", None, ("qa", "dev"), id="the given ones"),
        pytest.param("dev", "master, qa", ("dev",), id="the given ones outrank the configured ones"),
        pytest.param("", "master, qa", (), id="none when none is given"),
    ],
)
def test_the_mandatory_branches_are_those_given_or_configured(
    pipeline: Pipeline, given: str | None, configured: str | None, lacking: tuple[str, ...]
) -> None:
    pipeline.write_library()
    arguments = [] if given is None else ["--mandatory-branches", given]
    arguments += [] if configured is None else pipeline.tree.configure(mandatorybranches=f"{configured},")
    said = pipeline.tree.check("--remote", *arguments, environments=False)
    assert len(said.lines) == 4 * len(lacking)
    assert said.code == bool(lacking)
    assert all(len([line for line in said.lines if f"has no branch '{branch}'" in line]) == 4 for branch in lacking)


def test_a_configuration_that_names_no_mandatory_branches_has_the_default_ones(pipeline: Pipeline) -> None:
    pipeline.write_library()
    said = pipeline.tree.check("--remote", *pipeline.tree.configure(), environments=False)
    assert len([line for line in said.lines if "'qa'" in line]) == 4


def _with_default_branch(remote: Remote, branch: str) -> None:
    remote.branch(branch)
    git("symbolic-ref", "HEAD", f"refs/heads/{branch}", directory=remote.path)


UNUSABLE = "modules/dummy has the default branch 'main', which no environment can use"


def test_a_default_branch_that_no_environment_can_use_is_a_warning(pipeline: Pipeline) -> None:
    _with_default_branch(pipeline.site.remotes[DUMMY], "main")
    pipeline.site.remotes["common/site"].branch("main")
    pipeline.write_library()
    where = f"repositories.yaml:{pipeline.line(DUMMY)}: warning"
    assert_found(pipeline.check(), (where, UNUSABLE))
    assert_found(pipeline.check({"common/site": "main"}), (where, UNUSABLE))
    assert_clean(pipeline.check({DUMMY: "main"}))
    assert_clean(pipeline.check(default="main"))
    assert_clean(pipeline.ask("--mandatory-branches", "master", environments=False))


def test_a_default_branch_that_is_mandatory_can_be_used(pipeline: Pipeline) -> None:
    for remote in pipeline.site.remotes.values():
        remote.branch("main")
    _with_default_branch(pipeline.site.remotes[DUMMY], "main")
    assert_found(pipeline.check(), (f"repositories.yaml:{pipeline.line(DUMMY)}: warning", UNUSABLE))
    assert_clean(pipeline.check(mandatorybranches="main,"))


def test_snapshots_use_the_default_branch_of_the_common_repositories(pipeline: Pipeline) -> None:
    pin = {"hostgroups/myapp": "master", DUMMY: "master"}
    for remote in pipeline.site.remotes.values():
        remote.branch("other")
    assert_clean(pipeline.check(pin, default=None, mandatorybranches="other,"))


def test_nothing_is_said_of_default_branches_while_a_definition_is_not_right(pipeline: Pipeline) -> None:
    _with_default_branch(pipeline.site.remotes[DUMMY], "main")
    pipeline.tree.write("y.yaml", "default: 5\nnotifications: x\n")
    assert_found(pipeline.check(), ("y.yaml:1: error", "'default'"))


def test_a_detached_or_unborn_head_names_no_branch(pipeline: Pipeline) -> None:
    remote = pipeline.site.remotes[DUMMY]
    remote.branch("other")
    git("symbolic-ref", "HEAD", "refs/heads/unborn", directory=remote.path)
    assert_clean(pipeline.check())
    git("update-ref", "--no-deref", "HEAD", remote.commit("other"), directory=remote.path)
    assert_clean(pipeline.check())


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"code/manifests/init.pp": None}, "there is no 'code', which environments link to"),
        ({".gitmodules": '[submodule "x"]\n'}, "it has submodules, which are not laid out"),
        ({".gitattributes": "*.iso filter=lfs\n"}, "it has files in Git LFS, of which only the pointers are laid out"),
        ({"a/b/.gitattributes": "*.iso filter=lfs\n"}, "it has files in Git LFS, of which only the pointers are laid"),
    ],
)
@pytest.mark.parametrize("can_filter", ["true", "false"])
def test_a_branch_in_use_without_what_links_lead_to_is_an_error(
    pipeline: Pipeline, files: dict[str, str | None], text: str, can_filter: str
) -> None:
    remote = pipeline.site.remotes[DUMMY]
    git("config", "uploadpack.allowFilter", can_filter, directory=remote.path)
    remote.branch("aside")
    remote.push({"big": "x" * 100_000, **files}, "aside")
    assert_clean(pipeline.check())  # no environment uses that branch
    found = (f"repositories.yaml:{pipeline.line(DUMMY)}: error", f"modules/dummy branch 'aside': {text}")
    assert_found(pipeline.check({DUMMY: "aside"}), found)
    found = (f"repositories.yaml:{pipeline.line(DUMMY)}: error", f"modules/dummy branch 'aside': {text}")
    said = pipeline.tree.check("--remote", "--mandatory-branches", "aside", environments=False)
    assert [line for line in said.lines if text in line and "modules/dummy" in line]


def test_a_repository_in_a_repository_is_an_error(pipeline: Pipeline) -> None:
    push_tree(pipeline.site.remotes[DUMMY], {"code/lib": ("160000", pipeline.site.remotes[DUMMY].commit())})
    text = "modules/dummy branch 'master': it has submodules, which are not laid out"
    assert_found(pipeline.check(), (f"repositories.yaml:{pipeline.line(DUMMY)}: error", text))


def test_a_tree_that_unpacks_to_any_size_is_looked_through_once(pipeline: Pipeline) -> None:
    push_bomb(pipeline.site.remotes[DUMMY], beside="master")
    begin = time.monotonic()
    assert_clean(pipeline.check())
    assert time.monotonic() - begin < 60


def test_a_server_that_only_serves_files_gives_all_of_a_repository(pipeline: Pipeline) -> None:
    remote = pipeline.site.remotes[DUMMY]
    remote.push({"code/manifests/init.pp": None})
    git("update-server-info", directory=remote.path)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(remote.path.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pipeline.site.urls[DUMMY] = f"http://127.0.0.1:{server.server_port}/{remote.path.name}"
        said = pipeline.check()
        server.shutdown()
    text = "modules/dummy branch 'master': there is no 'code', which environments link to"
    assert_found(said, (f"repositories.yaml:{pipeline.line(DUMMY)}: error", text))


def test_the_common_hiera_data_need_no_code(pipeline: Pipeline) -> None:
    pipeline.site.remotes["common/hieradata"].push({"code/x": "x"})
    pipeline.site.remotes["common/hieradata"].push({"code/x": None})
    assert_clean(pipeline.check())


def test_a_remote_that_cannot_be_asked_is_an_error_and_nothing_is_said_of_its_refs(pipeline: Pipeline) -> None:
    pipeline.site.remotes[DUMMY].go_away()
    said = pipeline.check({DUMMY: "nope", "hostgroups/myapp": "nope"}, default="neither")
    assert_found(
        said,
        ("x.yaml:5: error", "hostgroups/myapp has no branch 'nope'"),
        (f"repositories.yaml:{pipeline.line(DUMMY)}: error", "modules/dummy cannot be asked"),
    )


def test_credentials_of_a_remote_that_cannot_be_asked_are_not_printed(pipeline: Pipeline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pipeline.site.urls[DUMMY] = f"http://ann:hunter2@127.0.0.1:{port}/x.git"
    said = pipeline.check()
    assert said.code == 1
    assert str(port) in said.lines[0]
    assert "hunter2" not in said.lines[0]
    assert "ann:" not in said.lines[0]


def test_bad_entries_are_not_asked(pipeline: Pipeline) -> None:
    made = pipeline.tree.library.with_name("made")
    pipeline.site.urls["modules/evil"] = f"ext::touch {made}"
    assert_found(pipeline.check({"modules/evil": "x"}), ("repositories.yaml:9: error", "helper"))
    assert not made.exists()


def other_objects(remote: Remote) -> dict[str, str]:
    """The full ids of a tree, a file and a tag."""
    git("tag", "-a", "-m", "a tag", "v1", "master", directory=remote.path)
    names = {"a tree": "master^{tree}", "a file": "master:code/manifests/init.pp", "a tag": "v1"}
    return {kind: git("rev-parse", name, directory=remote.path) for kind, name in names.items()}


def old_protocol() -> None:
    """Make remotes give only the tips of branches."""
    with open(Path(os.environ["HOME"], ".gitconfig"), "a") as file:
        file.write("[protocol]\n\tversion = 0\n")


@pytest.mark.parametrize("protocol", ["new", "old"])
def test_commits_that_exist_are_clean(pipeline: Pipeline, protocol: str) -> None:
    remote = pipeline.site.remotes[DUMMY]
    older = remote.commit()
    tip = remote.push({"code/new.pp": "# new\n"})
    if protocol == "old":
        old_protocol()
        git("config", "uploadpack.allowAnySHA1InWant", "false", directory=remote.path)
    for commit in (tip, older, older.upper(), older[:12], tip[:12]):
        assert_clean(pipeline.check({DUMMY: f"commit/{commit}"}))


def test_a_commit_that_no_branch_has_any_more_exists_when_it_is_spelled_out(pipeline: Pipeline) -> None:
    remote = pipeline.site.remotes[DUMMY]
    older = remote.commit()
    remote.push({"code/new.pp": "# new\n"}, rewrite=True)
    assert_clean(pipeline.check({DUMMY: f"commit/{older}"}))
    assert_found(pipeline.check({DUMMY: f"commit/{older[:12]}"}), (OVERRIDE, f"commit {older[:12]} is unknown"))


@pytest.mark.parametrize("digits", ["abcd", "f" * 40])
def test_a_commit_that_does_not_exist_is_an_error(pipeline: Pipeline, digits: str) -> None:
    pipeline.site.remotes[DUMMY].branch(digits)
    said = pipeline.check({DUMMY: f"commit/{digits}"})
    assert_found(said, (OVERRIDE, f"modules/dummy: commit {digits} is unknown"))


@pytest.mark.parametrize("kind", ["a tree", "a file", "a tag"])
def test_the_id_of_another_object_is_an_error(pipeline: Pipeline, kind: str) -> None:
    full = other_objects(pipeline.site.remotes[DUMMY])[kind]
    assert_found(pipeline.check({DUMMY: f"commit/{full}"}), (OVERRIDE, "is no commit, but another object"))
    assert_found(pipeline.check({DUMMY: f"commit/{full[:12]}"}), (OVERRIDE, "is unknown"))


def test_an_ambiguous_commit_is_an_error(pipeline: Pipeline) -> None:
    lines = []
    for number in range(1200):  # enough that two of them begin with the same four digits
        lines.append(f"commit refs/heads/many\nmark :{number + 1}\n")
        lines.append(f"committer Ann <ann@example.org> {1400000000 + number} +0000\ndata 4\npush\n")
    remote = pipeline.site.remotes[DUMMY]
    git("fast-import", "--quiet", directory=remote.path, stdin="".join(lines).encode())
    known: set[str] = set()
    for commit in git("rev-list", "refs/heads/many", directory=remote.path).split():
        if commit[:4] in known:
            break
        known.add(commit[:4])
    assert_found(pipeline.check({DUMMY: f"commit/{commit[:4]}"}), (OVERRIDE, f"commit {commit[:4]} is ambiguous"))
    assert_clean(pipeline.check({DUMMY: f"commit/{commit}"}))


def test_each_definition_with_a_bad_ref_is_named(pipeline: Pipeline) -> None:
    commit = pipeline.site.remotes[DUMMY].commit()
    text = f"x: &x {{dummy: commit/abcd, dummy2: a}}\n{N}overrides:\n  modules:\n    <<: *x\n"
    pipeline.site.add("modules/dummy2", branches=("a",))
    pipeline.tree.write("a.yaml", text)
    pipeline.tree.write("b.yaml", N + "overrides:\n  modules:\n    dummy:\n      commit/abce\n    dummy2: b\n")
    pipeline.tree.write("c.yaml", N + f"overrides:\n  modules:\n    dummy: commit/{commit}\n  common: [a]\n")
    said = pipeline.check({DUMMY: "commit/abcd"})
    assert_found(
        said,
        ("a.yaml:1: error", "commit abcd is unknown"),
        ("a.yaml:1: warning", "unknown key 'x'"),
        ("b.yaml:4: error", "commit abce is unknown"),
        ("b.yaml:6: error", "modules/dummy2 has no branch 'b'"),
        ("c.yaml:5: error", "mapping"),
        (OVERRIDE, "commit abcd is unknown"),
    )


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server that accepts connections and never replies."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


def test_a_silent_server_is_given_up_after_the_configured_time(pipeline: Pipeline, server: socket.socket) -> None:
    pipeline.site.urls["modules/hangs"] = f"git://127.0.0.1:{server.getsockname()[1]}/hangs.git"
    pipeline.write_library()
    config = pipeline.tree.library.with_name("main.conf")
    config.write_text("[main]\nmandatorybranches = master,\n[git]\ntimeout = 1\n")
    begin = time.perf_counter()
    said = pipeline.ask("-c", str(config), environments=False)
    assert time.perf_counter() - begin < 50
    assert_found(said, ("repositories.yaml:9: error", "no answer within 1 seconds"))


def test_exit_130_interrupted_ends_its_git_processes(pipeline: Pipeline, server: socket.socket) -> None:
    url = f"git://127.0.0.1:{server.getsockname()[1]}/hangs.git"
    pipeline.tree.library.write_text(f"repositories: {{common: {{}}, hostgroups: {{}}, modules: {{hangs: '{url}'}}}}\n")
    with tool("--repositories", pipeline.tree.library, "--remote") as process:
        try:
            connection = server.accept()[0]
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, stdout, stderr) == (130, b"", b"jens-check: Interrupted\n")
    with connection:
        connection.settimeout(5)
        while connection.recv(4096):
            pass  # ends when Git, at the other end, is gone
