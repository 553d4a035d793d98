"""The documents agree with each other, with the commands and with the configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jens.config import KEYS
from jens.statefile import STATE_FILES
from tests import TREE

DOCUMENTS = [TREE / "README.md", TREE / "CHANGELOG.md", *sorted((TREE / "docs").glob("*.md"))]
MAN_PAGES = sorted((TREE / "man").glob("*.1"))
COMMANDS = sorted((TREE / "bin").glob("jens-*"))

_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def anchors(document: Path) -> set[str]:
    """The anchors that GitLab and GitHub make from the headings."""
    titles = _HEADING.findall(_FENCE.sub("", document.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for link in _LINK.finditer(_FENCE.sub("", document.read_text("utf-8"))):
        target, _, anchor = link["target"].partition("#")
        if "://" in target:
            continue
        file = document.parent / target if target else document
        assert file.is_file(), link[0]
        assert not anchor or anchor in anchors(file), link[0]


def test_every_document_can_be_reached_from_the_readme() -> None:
    readme = (TREE / "README.md").read_text("utf-8")
    assert [path.name for path in DOCUMENTS[1:] if f"({path.relative_to(TREE)})" not in readme] == []


def options_in_help(command: Path) -> set[str]:
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    done = subprocess.run(
        [sys.executable, str(command), "--help"], env=environment, capture_output=True, text=True, check=True
    )
    return set(_OPTION.findall(done.stdout))


def options_in_man_page(page: Path, section: str) -> set[str]:
    """The options in a section, marked with mdoc's ``Fl``; each letter of a cluster (``Fl npv``) is one option."""
    text = page.read_text("utf-8").split(f"\n.Sh {section}\n")[1].split("\n.Sh ")[0]
    found = set()
    for line in text.splitlines():
        words = line.split()
        flags = [word for before, word in zip(words, words[1:]) if before.lstrip(".") in ("Fl", "|")]
        for flag in flags:
            found |= {f"-{flag}"} if flag.startswith("-") else {f"-{letter}" for letter in flag}
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.name)
def test_man_page_and_help_have_the_same_options(command: Path) -> None:
    page = TREE / "man" / f"{command.name}.1"
    known = options_in_help(command)
    assert options_in_man_page(page, "DESCRIPTION") == known
    synopsis = options_in_man_page(page, "SYNOPSIS")
    assert synopsis <= known
    assert {option for option in known if option.startswith("--")} - synopsis <= {
        "--config",
        "--dry-run",
        "--help",
        "--poll",
        "--verbose",
    }  # the synopsis has these as letters


def test_there_is_a_man_page_for_each_command_and_no_other() -> None:
    assert [page.stem for page in MAN_PAGES] == [command.name for command in COMMANDS]


def test_man_page_and_operation_have_the_same_exit_statuses() -> None:
    page = (TREE / "man" / "jens-update.1").read_text("utf-8").split(".Sh EXIT STATUS")[1]
    table = (TREE / "docs" / "operation.md").read_text("utf-8").split("\n## Exit status\n")[1].split("\n## ")[0]
    assert re.findall(r"^\.It (\d+)$", page, re.MULTILINE) == re.findall(r"^\| (\d+) \|", table, re.MULTILINE)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda path: path.name)
def test_man_pages_are_well_formed(page: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_every_folder_is_described() -> None:
    developing = (TREE / "docs" / "developing.md").read_text("utf-8")
    folders = {path.parent.name for path in (TREE / "jens").glob("*/__init__.py")}
    assert {folder for folder in folders if f"`{folder}/`" not in developing} == set()


def test_every_key_of_the_configuration_is_documented_and_shipped() -> None:
    shipped = (TREE / "conf" / "main.conf").read_text("utf-8")
    assert re.findall(r"^#?(\w+) = ", shipped, re.MULTILINE) == [name for _section, name in KEYS]
    table = (TREE / "docs" / "installation.md").read_text("utf-8").split("\n## Configuration\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [^|]*\| `(\w+)` \| [^|]+ \| (.+) \|$", table, re.MULTILINE)
    assert [(name, plain(meaning)) for name, meaning in rows] == [
        (name, key.meaning) for (_, name), key in KEYS.items()
    ]


def plain(markdown: str) -> str:
    """A text without the markup of links and code."""
    return _LINK.sub(lambda link: link["text"], markdown).replace("`", "")


def test_every_file_of_state_is_documented() -> None:
    operation = (TREE / "docs" / "operation.md").read_text("utf-8")
    assert [file.name for file in STATE_FILES if f"cache/{file.name} " not in operation] == []


def test_the_example_of_what_a_hook_gets_is_as_the_schema_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((TREE / "examples" / "hooks" / "hook.schema.json").read_text("utf-8"))
    [example] = re.findall(r"```json\n(.*?)```", (TREE / "docs" / "after-a-run.md").read_text("utf-8"), re.DOTALL)
    jsonschema.validate(json.loads(example), schema)
    assert set(json.loads(example)) == set(schema["properties"])
