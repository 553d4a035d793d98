"""The library and the definitions as texts: which ones are well-formed, and what is reported for the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jens.git.contents import Entry
from jens.metadata import parsed, yamlnodes
from jens.metadata.definition import doubts, parse_definition, read_definition
from jens.metadata.library import parse_library
from jens.metadata.parsed import Parsed
from jens.metadata.reader import plan_refusals
from jens.metadata.yamlnodes import LARGEST, YamlError
from jens.model import (
    COMMON,
    HIERADATA,
    HOSTGROUPS,
    MODULES,
    PLAIN,
    SITE,
    Branch,
    Commit,
    Declared,
    Definition,
    Directories,
    IllFormed,
    Library,
    Prefixes,
    Ref,
    RepoId,
    Tag,
    Usage,
)
from jens.statefile import DEFINITIONS, state_path
from tests import TREE
from tests.values import DUMMY, LIBRARY, layout_in

# The library

#: What no directory of a repository may be.
_WAYS_OUT = (
    *("..", "../x", "a/../b", "/etc", "", "-x", "a/-x", "a\nb", "a" * 300, "./a", "a/", "a//b", ".git", "a b"),
    "\u0430",
)


@pytest.mark.parametrize(
    ("entry", "usage"),
    [
        ("{url: /srv/x}", Usage()),
        ("{url: /srv/x, code: code, data: data}", Usage()),
        ("{url: /srv/x, code: ., data: null}", Usage(Directories(".", None))),
        ("{url: /srv/x, code: puppet/src, data: ~}", Usage(Directories("puppet/src", None))),
        ("{url: /srv/x, data: .}", Usage(Directories("code", "."))),
        ("{url: /srv/x, ref: tag/v9.4.1}", Usage(ref=Tag("v9.4.1"))),
        ("{url: /srv/x, ref: commit/4F0C}", Usage(ref=Commit("4f0c"))),
        ("{url: /srv/x, fallback: main}", Usage(fallback=Branch("main"))),
        ("{<<: {code: .}, url: /srv/x}", Usage(Directories(".", "data"))),
    ],
)
def test_an_entry_may_be_a_mapping(entry: str, usage: Usage) -> None:
    repo = RepoId(MODULES, "x")
    library = parse_library(f"{LIBRARY}    x: {entry}\n".encode(), Prefixes())
    assert (library.urls[repo], library.usages.get(repo, PLAIN), library.unusable) == ("/srv/x", usage, {})
    assert usage == PLAIN or library.usages == {repo: usage}


def test_a_library_names_every_repository_with_its_url() -> None:
    assert parse_library(LIBRARY.encode(), Prefixes()) == Library(
        {
            RepoId(COMMON, "hieradata"): "https://git.example.org/hieradata.git",
            RepoId(COMMON, "site"): "git@git.example.org:site",
            RepoId(HOSTGROUPS, "aimon"): "/srv/git/aimon",
            RepoId(MODULES, "apache"): "https://git.example.org/apache.git",
        }
    )


@pytest.mark.parametrize("nothing", ["{}", "", "null", "~"])
def test_an_empty_partition_is_an_empty_mapping_or_null(nothing: str) -> None:
    library = parse_library(
        f"repositories:\n  common: {{}}\n  hostgroups: {nothing}\n  modules: {{a: /srv/a}}\n".encode(), Prefixes()
    )
    assert library == Library({RepoId(MODULES, "a"): "/srv/a"})


def _without(partition: str) -> str:
    kept = {"common", "hostgroups", "modules"} - {partition}
    return "repositories:\n" + "".join(f"  {name}: {{}}\n" for name in sorted(kept))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param("", "'repositories'", id="empty"),
        pytest.param("# nothing\n", "'repositories'", id="only a comment"),
        pytest.param("repositories: {a: b", "not YAML", id="not YAML"),
        pytest.param("a: b\n\tc: d\n", "not YAML", id="a tab"),
        pytest.param("- a\n- b\n", "mapping", id="a list"),
        pytest.param("text", "mapping", id="a text"),
        pytest.param("repository: {}\n", "'repositories'", id="no repositories"),
        pytest.param("repositories:\n", "mapping", id="repositories null"),
        pytest.param("repositories: [a]\n", "mapping", id="repositories a list"),
        pytest.param(_without("common"), "'common'", id="common missing"),
        pytest.param(_without("hostgroups"), "'hostgroups'", id="hostgroups missing"),
        pytest.param(_without("modules"), "'modules'", id="modules missing"),
        pytest.param(_without("modules") + "  modules: [a]\n", "'modules'", id="a partition a list"),
        pytest.param(_without("modules") + "  modules: text\n", "'modules'", id="a partition a text"),
        pytest.param(_without("modules") + "  modules: ''\n", "'modules'", id="a partition an empty text"),
        pytest.param(LIBRARY + "---\n" + LIBRARY, "not YAML", id="two documents"),
        pytest.param("repositories: *nowhere\n", "not YAML", id="an alias to nothing"),
    ],
)
def test_what_makes_a_whole_library_unusable(source: str, said: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_library(source.encode(), Prefixes())
    assert said in caught.value.text


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param(
            "# all of them\nrepository: {}\n",
            2,
            "the library has an unknown key 'repository', expected 'repositories'",
            id="the top",
        ),
        pytest.param(
            LIBRARY.replace("modules:", "module:"),
            7,
            "'repositories' has an unknown key 'module', expected 'modules'",
            id="modules",
        ),
        pytest.param(
            LIBRARY.replace("hostgroups:", "Hostgroups:"),
            5,
            "'repositories' has an unknown key 'Hostgroups', expected 'hostgroups'",
            id="hostgroups",
        ),
        pytest.param(
            LIBRARY.replace("common:", "comon:"),
            2,
            "'repositories' has an unknown key 'comon', expected 'common'",
            id="common",
        ),
    ],
)
def test_a_misspelt_key_of_a_library_is_named_with_what_was_meant(text: str, line: int, said: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_library(text.encode(), Prefixes())
    assert (caught.value.line, caught.value.text) == (line, said)


def test_a_library_that_is_not_utf_8_is_unusable() -> None:
    with pytest.raises(YamlError, match="UTF-8"):
        parse_library(LIBRARY.encode("utf-16"), Prefixes())


def test_the_line_of_what_makes_a_library_unusable_is_named() -> None:
    with pytest.raises(YamlError) as caught:
        parse_library(b"repositories:\n  common: {}\n  hostgroups: {}\n  modules:\n    - apache\n", Prefixes())
    assert caught.value.line == 5


@pytest.mark.parametrize(
    ("entry", "name", "reason"),
    [
        pytest.param("'../x': /srv/x", "../x", "bad name", id="a way out"),
        pytest.param(".x: /srv/x", ".x", "bad name", id="a hidden name"),
        pytest.param("-x: /srv/x", "-x", "bad name", id="an option"),
        pytest.param("a/b: /srv/x", "a/b", "bad name", id="a slash"),
        pytest.param("~: /srv/x", "~", "bad name", id="null as a name"),
        pytest.param("x: 'ext::sh -c id'", "x", "helper", id="a transport helper"),
        pytest.param("x: --upload-pack=id", "x", "dash", id="an option as a URL"),
        pytest.param("x: relative/path", "x", "neither", id="a relative path"),
        pytest.param("x:", "x", "null", id="no URL"),
        pytest.param("x: 5", "x", "int", id="a number"),
        pytest.param("x: [/srv/x]", "x", "seq", id="a list"),
        pytest.param("x: [/srv/x]", "x", "expected a clone URL, or a mapping with one, not seq", id="a list"),
        pytest.param("x: {code: .}", "x", "the mandatory key 'url' is missing", id="a mapping without a URL"),
        pytest.param("x: {url: [a]}", "x", "expected a clone URL, not seq", id="a URL that is a list"),
        pytest.param("x: {url: 'ext::x'}", "x", "URL", id="a mapping with a bad URL"),
        pytest.param("x: {url: /srv/x, cod: .}", "x", "unknown key 'cod', expected 'code'", id="a misspelt key"),
        pytest.param(
            "x: {url: /srv/x, branch: a}", "x", "expected url, code, data, ref, fallback", id="an unknown key"
        ),
        pytest.param("x: {url: /srv/x, ref: a..b}", "x", "'ref': 'a..b' is no branch name", id="a bad ref"),
        pytest.param("x: {url: /srv/x, ref: null}", "x", "'ref' is expected to be a string", id="no ref"),
        pytest.param(
            "x: {url: /srv/x, fallback: commit/x}", "x", "'fallback': 'commit/x' is no commit", id="no commit"
        ),
        pytest.param("x: {url: /srv/x, code: null}", "x", "'code': expected '.'", id="no code"),
        *(
            pytest.param(f"x: {{url: /srv/x, {key}: {json.dumps(path)}}}", "x", f"'{key}': expected '.' or a", id=key)
            for key in ("code", "data")
            for path in _WAYS_OUT
        ),
        pytest.param("x: !!str [/srv/x]", "x", "expected a clone URL", id="a list said to be a string"),
        pytest.param("x: !!python/object/apply:os.system [id]", "x", "expected a clone URL", id="a tag"),
    ],
)
def test_a_bad_entry_spoils_only_itself(entry: str, name: str, reason: str) -> None:
    library = parse_library((LIBRARY + f"    {entry}\n").encode(), Prefixes())
    assert library.urls == parse_library(LIBRARY.encode(), Prefixes()).urls
    assert list(library.unusable) == [RepoId(MODULES, name)]
    assert reason in library.unusable[RepoId(MODULES, name)]
    assert library.unusable[RepoId(MODULES, name)].startswith("line 9: ")


def test_an_entry_whose_name_is_no_text_spoils_only_itself() -> None:
    library = parse_library((LIBRARY + "    ? [a, b]\n    : /srv/x\n").encode(), Prefixes())
    assert library.urls == parse_library(LIBRARY.encode(), Prefixes()).urls
    assert len(library.unusable) == 1


@pytest.mark.parametrize("name", ["on", "yes", "123", "1.0", "null", "2015-01-01"])
def test_a_name_that_yaml_takes_for_something_else_is_the_text_that_was_written(name: str) -> None:
    library = parse_library((LIBRARY + f"    {name}: /srv/x\n").encode(), Prefixes())
    assert library.urls[RepoId(MODULES, name)] == "/srv/x"


def test_the_reason_never_repeats_a_url() -> None:
    library = parse_library((LIBRARY + "    x: ftp://ann:hunter2@example.org/x\n").encode(), Prefixes())
    assert "hunter2" not in library.unusable[RepoId(MODULES, "x")]


# Definitions


@pytest.mark.parametrize(
    ("text", "defaults"),
    [
        ("qa", (Branch("qa"),)),
        ("[qa]", (Branch("qa"),)),
        ("[ticket42, qa]", (Branch("ticket42"), Branch("qa"))),
        ("[qa, tag/v1, qa]", (Branch("qa"), Tag("v1"))),
        ("tag/v1", (Tag("v1"),)),
    ],
)
def test_a_default_may_be_a_list(text: str, defaults: tuple[Ref, ...]) -> None:
    source = f"default: {text}\nnotifications: x\n".encode()
    parsed = Parsed(Prefixes())
    for found in (parse_definition("x", source, Prefixes()), *(parsed.read("x.yaml", source) for _ in range(2))):
        assert isinstance(found, Definition)
        assert (found.defaults, found.default) == (defaults, defaults[0])


@pytest.mark.parametrize(
    ("override", "ref", "said"),
    [
        ("{ref: qa}", Branch("qa"), None),
        ("{ref: tag/v1, code: .}", Tag("v1"), {"code": "."}),
        ("{ref: commit/4f0c, code: src, data: null}", Commit("4f0c"), {"code": "src", "data": None}),
    ],
)
def test_an_override_may_be_a_mapping(override: str, ref: Ref, said: object) -> None:
    source = f"notifications: x\noverrides: {{modules: {{dummy: {override}}}}}\n".encode()
    parsed = Parsed(Prefixes())
    for found in (parse_definition("x", source, Prefixes()), *(parsed.read("x.yaml", source) for _ in range(2))):
        assert isinstance(found, Definition)
        assert (found.overrides, found.directories.get(DUMMY)) == ({DUMMY: ref}, said)


def _read(text: str | bytes, file: str = "production.yaml") -> Declared:
    return read_definition(file, text.encode() if isinstance(text, str) else text, Prefixes())


def _well_formed(text: str | bytes) -> Definition:
    declared = _read(text)
    assert isinstance(declared, Definition), declared
    return declared


def _reason(text: str | bytes) -> str:
    declared = _read(text)
    assert isinstance(declared, IllFormed), declared
    assert declared.name == "production"
    return declared.reason


_FULL = """\
default: qa
notifications: team@example.org
parser: future
overrides:
  modules: {sssd: ai456}
  hostgroups: {aimon: COMMIT/8BF3CA9F}
  common: {site: commit/fb96070c, hieradata: feature/x}
"""


def test_a_definition_is_what_it_says() -> None:
    assert _read(_FULL) == Definition(
        "production",
        Branch("qa"),
        {
            RepoId(MODULES, "sssd"): Branch("ai456"),
            RepoId(HOSTGROUPS, "aimon"): Commit("8bf3ca9f"),
            SITE: Commit("fb96070c"),
            HIERADATA: Branch("feature/x"),
        },
        ("team@example.org",),
        "future",
        _FULL.encode(),
    )


def _qa(*addresses: str) -> Definition:
    return Definition("production", Branch("qa"), {}, addresses)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("default: qa\nnotifications:\n", _qa(), id="nobody to notify"),
        pytest.param("default: qa\nnotifications: [x, y]\n", _qa("x", "y"), id="a list of addresses"),
        pytest.param("default: qa\nnotifications: [x, null, 5]\n", _qa("x"), id="an odd list"),
        pytest.param("default: qa\nnotifications: x\noverrides: {}\n", _qa("x"), id="no overrides"),
        pytest.param("default: qa\nnotifications: x\noverrides: {modules: {}}\n", _qa("x"), id="an empty partition"),
        pytest.param(
            "notifications: x\noverrides: {common: {site: qa}}\n",
            Definition("production", None, {SITE: Branch("qa")}, ("x",)),
            id="a snapshot of common repositories alone",
        ),
        pytest.param(
            "notifications: x\ndefault: '123'\n", Definition("production", Branch("123"), {}, ("x",)), id="quoted"
        ),
        pytest.param(
            "default: qa\nnotifications: x\nparser: current\n",
            _qa("x")._replace(parser="current"),
            id="the current parser",
        ),
        pytest.param(
            "default: qa\nnotifications: x\nfuture: {a: 1}\n",
            _qa("x")._replace(unknown_keys=("future",)),
            id="an unknown key",
        ),
        pytest.param(
            "default: qa\nnotifications: x\n[a]: b\n",
            _qa("x")._replace(unknown_keys=("<seq>",)),
            id="a key that is a list",
        ),
        pytest.param(
            "notifications: x\noverrides: {modules: {'../x': a}}\n",
            Definition("production", None, {RepoId(MODULES, "../x"): Branch("a")}, ("x",)),
            id="an override of what cannot be in a library",
        ),
        pytest.param(
            "default: qa\nnotifications: x\nparser: current\nparser: future\n",
            _qa("x")._replace(parser="future"),
            id="of a key given twice the last counts",
        ),
        pytest.param("\ufeffdefault: qa\nnotifications: x\n", _qa("x"), id="a byte order mark in front"),
        pytest.param(
            "default: qa\r\nnotifications: x\r\noverrides:\r\n  modules:\r\n    dummy: test\r\n",
            Definition("production", Branch("qa"), {DUMMY: Branch("test")}, ("x",)),
            id="CRLF",
        ),
        pytest.param("---\ndefault: qa\nnotifications: x\n...\n", _qa("x"), id="with markers"),
    ],
)
def test_a_definition_is_well_formed(text: str, expected: Definition) -> None:
    found = _well_formed(text)
    assert found == expected._replace(source=text.encode())


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("a: [b\n", 2, "not YAML", id="not YAML"),
        pytest.param("notifications: x\n\tdefault: a\n", 2, "not YAML", id="a tab"),
        pytest.param("notifications: x\n---\nnotifications: y\n", 2, "not YAML", id="two documents"),
        pytest.param("notifications: x\ndefault: *a\n", 2, "not YAML", id="an alias to nothing"),
        pytest.param("", None, "empty", id="empty"),
        pytest.param("# nothing\n", None, "empty", id="only a comment"),
        pytest.param("null\n", 1, "mapping", id="null"),
        pytest.param("\n- a\n", 2, "mapping", id="a list"),
        pytest.param("text\n", 1, "mapping", id="a text"),
        pytest.param("default: qa\n", None, "notifications", id="notifications missing"),
        pytest.param("notifications: x\ndefault:\n", 2, "'default'", id="default null"),
        pytest.param("notifications: x\ndefault: 5\n", 2, "'default'", id="default a number"),
        pytest.param("notifications: x\ndefault: yes\n", 2, "'default'", id="default a boolean"),
        pytest.param("notifications: x\ndefault: []\n", 2, "'default'", id="default an empty list"),
        pytest.param("notifications: x\ndefault: [qa, 1.0]\n", 2, "'default'", id="default a list with a number"),
        pytest.param("notifications: x\ndefault: ''\n", 2, "'default'", id="default empty"),
        pytest.param("notifications: x\ndefault: a..b\n", 2, "'default'", id="default no branch name"),
        pytest.param(
            "notifications: x\ndefault: commit/4f0c\n", 2, "branch or a tag, not a commit", id="default a commit"
        ),
        pytest.param("notifications: x\noverrides:\n", 2, "'overrides'", id="overrides null"),
        pytest.param("notifications: x\noverrides: [a]\n", 2, "'overrides'", id="overrides a list"),
        pytest.param("notifications: x\noverrides: text\n", 2, "'overrides'", id="overrides a text"),
        pytest.param(
            "notifications: x\noverrides:\n  common: {}\n  module: {a: b}\n", 4, "'module'", id="an unknown partition"
        ),
        pytest.param("notifications: x\noverrides:\n  modules:\n", 3, "modules", id="a partition null"),
        pytest.param("notifications: x\noverrides:\n  modules: [a]\n", 3, "modules", id="a partition a list"),
        pytest.param("notifications: x\noverrides:\n  modules: text\n", 3, "modules", id="a partition a text"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a:\n", 4, "'a'", id="a ref null"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: 123\n", 4, "'a'", id="a ref a number"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: 1.0\n", 4, "'a'", id="a ref a fraction"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: 2015-01-01\n", 4, "'a'", id="a ref a date"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: off\n", 4, "'a'", id="a ref a boolean"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: {b: c}\n", 4, "'a'", id="an override a mapping"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: HEAD\n", 4, "Git", id="a ref HEAD"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: '@{-1}'\n", 4, "Git", id="a ref a shorthand"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: -x\n", 4, "Git", id="a ref an option"),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: ../b\n", 4, "Git", id="a ref a way out"),
        pytest.param(
            "notifications: x\noverrides:\n  modules:\n    a: commit/4f0\n", 4, "4 to 40", id="a short commit"
        ),
        pytest.param("notifications: x\noverrides:\n  modules:\n    a: commit/main\n", 4, "4 to 40", id="no commit"),
        pytest.param("notifications: x\nparser: past\ndefault: qa\n", 2, "'parser'", id="another parser"),
        pytest.param("notifications: x\nparser:\ndefault: qa\n", 2, "'parser'", id="parser null"),
        pytest.param("notifications: x\nparser: [future]\ndefault: qa\n", 2, "'parser'", id="parser a list"),
        pytest.param("notifications: x\n<<: text\ndefault: qa\n", 2, "mapping", id="a text merged"),
        pytest.param("notifications: x\ndefault: !!str [a]\n", 2, "be a string", id="a list said to be a string"),
    ],
)
def test_a_definition_is_ill_formed_and_the_file_and_line_are_named(text: str, line: int | None, said: str) -> None:
    reason = _reason(text)
    where = "production.yaml: " if line is None else f"production.yaml: line {line}: "
    assert reason.startswith(where)
    assert said in reason
    assert line is not None or "line" not in reason


# Definitions that have lost their meaning: each was well-formed once, and took all modules away


@pytest.mark.parametrize(
    ("text", "line", "key", "meant"),
    [
        pytest.param("defualt: master\nnotifications: x\n", 1, "defualt", "default", id="letters exchanged"),
        pytest.param("notifications: x\nDefault: master\n", 2, "Default", "default", id="upper case"),
        pytest.param("notifications: x\ndefault: qa\noverride: {}\n", 3, "override", "overrides", id="the singular"),
        pytest.param("notifications: x\ndefault: qa\noverides: {}\n", 3, "overides", "overrides", id="a letter lost"),
        pytest.param("default: qa\nnotification: x\n", 2, "notification", "notifications", id="a mandatory key"),
        pytest.param("notifications: x\ndefault: qa\nparsers: future\n", 3, "parsers", "parser", id="the plural"),
        pytest.param("default: qa\nnotifications: x\ndefaults: {}\n", 3, "defaults", "default", id="beside the key"),
        pytest.param("notifications: x\n<<: {defualt: qa}\n", 2, "defualt", "default", id="merged"),
    ],
)
def test_a_misspelt_key_is_ill_formed_and_what_was_meant_is_named(text: str, line: int, key: str, meant: str) -> None:
    assert _reason(text) == f"production.yaml: line {line}: unknown key '{key}', expected '{meant}'"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("notifications: x\n", id="only an address"),
        pytest.param("notifications: x\noverrides: {}\n", id="overrides {}"),
        pytest.param("notifications: x\noverrides: {modules: {}, common: {}}\n", id="empty partitions"),
        pytest.param("notifications: x\noverrides: {<<: {modules: {<<: {}}}}\n", id="nothing merged"),
        pytest.param("notifications: x\nmodules: {dummy: qa}\n", id="overrides in a wrong place"),
        pytest.param("notifications: x\nx-default: qa\n", id="a private key"),
    ],
)
def test_a_definition_with_neither_default_nor_overrides_is_ill_formed(text: str) -> None:
    assert _reason(text) == "production.yaml: neither 'default' nor an override, expected one at least"


def test_a_misspelt_partition_is_ill_formed_and_what_was_meant_is_named() -> None:
    said = "line 2: 'overrides' has an unknown partition"
    reason = _reason("notifications: x\noverrides: {module: {dummy: qa}}\n")
    assert reason == f"production.yaml: {said} 'module', expected 'modules'"
    reason = _reason("notifications: x\noverrides: {classes: {dummy: qa}}\n")
    assert reason == f"production.yaml: {said} 'classes', expected modules, hostgroups, common"


@pytest.mark.parametrize("key", [b"defualt", b"override"])
def test_what_an_older_jens_has_built_from_can_still_be_read(key: bytes) -> None:
    source = b"notifications: x\n" + key + b": qa\n"
    assert parse_definition("x", source, Prefixes()) == Definition(
        "x", None, {}, ("x",), source=source, unknown_keys=(key.decode(),)
    )


def test_a_hundred_thousand_unknown_keys_hold_nobody_up() -> None:
    begin = time.process_time()
    keys = "".join(f"k{number:06}:\n" for number in range(100_000))
    assert len(_well_formed(f"default: qa\nnotifications: x\n{keys}").unknown_keys) == 100_000
    assert time.process_time() - begin < 30


@pytest.mark.parametrize("content", [b"\xff\xfe", "notifications: ä\n".encode("latin-1"), "a: b".encode("utf-16")])
def test_a_definition_that_is_not_utf_8_is_ill_formed(content: bytes) -> None:
    assert "UTF-8" in _reason(content)


def test_a_definition_with_a_nul_is_ill_formed() -> None:
    assert "not YAML" in _reason(b"default: qa\nnotifications: a\0b\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("default: 5\nnotifications: ann@example.org\n", ("ann@example.org",)),
        ("defualt: qa\nnotifications: [ann@example.org, bob@example.org]\n", ("ann@example.org", "bob@example.org")),
        ("notifications: ann@example.org\noverrides: ~\n", ("ann@example.org",)),
        ("default: 5\nnotifications: {}\n", ()),
        ("default: 5\nnotifications:\n", ()),
        ("default: qa\n", ()),
        ("default: [\nnotifications: ann@example.org\n", ()),
        ("", ()),
    ],
)
def test_an_ill_formed_definition_says_whom_to_tell_as_far_as_it_can_be_read(
    text: str, told: tuple[str, ...], tmp_path: Path
) -> None:
    layout = layout_in(tmp_path)
    parsed = Parsed(Prefixes())
    for declared in (read_definition("x.yaml", text.encode(), Prefixes()), parsed.read("x.yaml", text.encode())):
        assert isinstance(declared, IllFormed)
        assert declared.notifications == told
    parsed.save(layout)
    again = Parsed.load(layout, Prefixes()).read("x.yaml", text.encode())
    assert isinstance(again, IllFormed)
    assert again.notifications == told


@pytest.mark.parametrize(
    "file", ["a-b.yaml", "a.b.yaml", ".yaml", ".x.yaml", "a b.yaml", "ä.yaml", "\udcff.yaml"], ids=ascii
)
def test_an_environment_with_a_bad_name_is_ill_formed(file: str) -> None:
    declared = _read("default: qa\nnotifications: x\n", file)
    assert isinstance(declared, IllFormed)
    assert declared.name == file[: -len(".yaml")]
    assert "bad name" in declared.reason


def test_a_definition_that_is_no_file_is_ill_formed() -> None:
    declared = read_definition("production.yaml", None, Prefixes())
    assert isinstance(declared, IllFormed)
    assert "symbolic link" in declared.reason


def test_the_prefix_of_commits_is_the_configured_one() -> None:
    definition = parse_definition(
        "x", b"notifications: x\noverrides: {modules: {dummy: 'SHA:4F0C'}}\n", Prefixes("sha:")
    )
    assert definition.overrides == {DUMMY: Commit("4f0c")}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x: &all {dummy: test}\noverrides: {modules: *all}\n", id="an alias"),
        pytest.param("x: &all {dummy: test}\noverrides: {modules: {<<: *all}}\n", id="a merge"),
        pytest.param("x: &all {dummy: a}\noverrides: {modules: {<<: *all, dummy: test}}\n", id="own keys win"),
        pytest.param("x: &all {dummy: a}\noverrides: {modules: {dummy: test, <<: *all}}\n", id="wherever they stand"),
        pytest.param(
            "x: [&a {dummy: test}, &b {dummy: b}]\noverrides: {modules: {<<: [*a, *b]}}\n", id="the earlier of two wins"
        ),
        pytest.param("x: &a {modules: {dummy: test}}\noverrides: {<<: *a}\n", id="a merge of partitions"),
        pytest.param(
            "x: [&a {dummy: test}, &b {<<: *a, dummy: b}]\noverrides: {modules: {<<: [*a, *b]}}\n",
            id="the first counts",
        ),
        pytest.param(
            "x: [&a {dummy: a}, &b {<<: *a, dummy: test}]\noverrides: {modules: {<<: *b}}\n", id="a merge in a merge"
        ),
    ],
)
def test_anchors_aliases_and_merge_keys_are_followed(text: str) -> None:
    assert _well_formed(f"notifications: x\n{text}").overrides == {DUMMY: Branch("test")}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("notifications: &a [*a]\noverrides: {modules: {dummy: test}}\n", id="a list in itself"),
        pytest.param("notifications: x\noverrides: &a {<<: *a, modules: {dummy: test}}\n", id="a merge of itself"),
        pytest.param(
            "notifications: x\nx: &a {y: *a}\noverrides: {modules: {dummy: test}}\n", id="a mapping in itself"
        ),
    ],
)
def test_what_contains_itself_does_no_harm(text: str) -> None:
    assert _well_formed(text).overrides == {DUMMY: Branch("test")}


def test_a_ref_that_contains_itself_is_ill_formed() -> None:
    assert "line 2" in _reason("notifications: x\noverrides: &a {modules: *a}\n")


# Hostile definitions: everybody at the site can push one


def _laugh(levels: int, last: str) -> str:
    lines = ["notifications: x", "x:", "- &l0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"- &l{level} [{','.join([f'*l{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join([*lines, last.format(f"*l{levels - 1}"), ""])


def test_a_billion_laughs_cost_nothing() -> None:
    begin = time.process_time()
    assert _well_formed(_laugh(30, "overrides: {{modules: {{dummy: test}}}}")).overrides == {DUMMY: Branch("test")}
    for key in ("default", "overrides", "parser"):
        assert len(_reason(_laugh(30, key + ": {}"))) < 200
    assert time.process_time() - begin < 5


def test_a_billion_laughs_said_to_be_a_string_cost_nothing() -> None:
    assert len(_reason(_laugh(4, "default: !!str [{}]"))) < 200


def test_many_merges_of_merges_cost_nothing() -> None:
    lines = ["notifications: x", "x:", "- &m0 {dummy: test}"]
    lines += [f"- &m{level} {{<<: [{','.join([f'*m{level - 1}'] * 10)}]}}" for level in range(1, 30)]
    begin = time.process_time()
    definition = _well_formed("\n".join([*lines, "overrides: {modules: {<<: *m29}}", ""]))
    assert definition.overrides == {DUMMY: Branch("test")}
    assert time.process_time() - begin < 5


def test_a_long_chain_of_merges_stops_nothing() -> None:
    lines = ["notifications: x", "x:", "- &m0 {dummy: test}"]
    lines += [f"- &m{level} {{<<: *m{level - 1}}}" for level in range(1, 5000)]
    assert isinstance(_read("\n".join([*lines, "overrides: {modules: {<<: *m4999}}", ""])), (Definition, IllFormed))


@pytest.mark.parametrize(
    ("begin", "end"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("[{a: ", "}]")], ids=ascii
)
def test_deep_nesting_is_ill_formed_and_does_not_crash(begin: str, end: str) -> None:
    # In a process of its own, because libyaml may overflow its C stack.
    program = (
        "import sys; from jens.metadata.definition import read_definition; from jens.model import IllFormed; "
        "found = read_definition('x.yaml', sys.stdin.buffer.read(), 'commit/'); "
        "sys.exit(not isinstance(found, IllFormed))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=(begin * 200_000 + end * 200_000).encode(),
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_nesting_as_people_write_it_is_well_formed() -> None:
    nested = "[" * 50 + "]" * 50
    assert _well_formed(f"default: qa\nnotifications: x\nx: {nested}\n").notifications == ("x",)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [made]",
        "!!python/name:os.system ''",
        "!!python/object/new:os.mkdir [made]",
        "!!python/module:antigravity ''",
        "!unknown x",
        "!!binary aGVsbG8=",
    ],
)
def test_a_tag_constructs_nothing(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _well_formed(f"default: qa\nnotifications: x\nx: {value}\n").notifications == ("x",)
    assert "be a string" in _reason(f"notifications: x\ndefault: {value}\n")
    assert "antigravity" not in sys.modules
    assert not (tmp_path / "made").exists()


def test_a_tag_may_say_that_a_scalar_is_a_string() -> None:
    assert _well_formed("notifications: x\ndefault: !!str 123\n").default == Branch("123")


def test_a_huge_file_is_ill_formed_at_once() -> None:
    begin = time.process_time()
    assert "larger than" in _reason(b"default: qa\nnotifications: x\n" + b"#" * yamlnodes.LARGEST)
    assert time.process_time() - begin < 0.5


def test_a_file_of_the_largest_size_is_read() -> None:
    text = b"default: qa\nnotifications: x\n#"
    assert _well_formed(text.ljust(yamlnodes.LARGEST, b"#")).notifications == ("x",)


# Doubts: what is allowed, but hardly meant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("default: qa\nnotifications: x\noverrides: {modules: {apache: a}}\n", [], id="nothing"),
        pytest.param(
            "notifications: x\noverrides: {modules: {apache2: a}}\n",
            ["overrides modules 'apache2', which the library does not have"],
            id="an override of an unknown repository",
        ),
        pytest.param(
            "notifications: x\noverrides: {hostgroups: {apache: a}}\n",
            ["overrides hostgroups 'apache', which the library does not have"],
            id="an override in the wrong partition",
        ),
        pytest.param("notifications: x\noverrides: {modules: {broken: a}}\n", [], id="an unusable entry is known"),
        pytest.param(
            'notifications: x\noverrides: {modules: {"a\\nb": a}}\n',
            ["overrides modules 'a\\nb', which the library does not have"],
            id="a name with a newline stays one line",
        ),
        pytest.param(
            "default: qa\nnotifications: x\noverrides: {}\n",
            ["has 'overrides' without any override"],
            id="overrides {}",
        ),
        pytest.param(
            "default: qa\nnotifications: x\noverrides: {modules: {}}\n",
            ["has 'overrides' without any override"],
            id="an empty partition",
        ),
        pytest.param(
            "default: qa\nnotifications:\n", ["has 'notifications' without an address"], id="null notifications"
        ),
        pytest.param(
            "default: qa\nnotifications: []\n", ["has 'notifications' without an address"], id="no notifications"
        ),
        pytest.param(
            "default: qa\nnotifications: x\ncolour: red\n", ["has an unknown key 'colour'"], id="an unknown key"
        ),
        pytest.param(
            "default: qa\nnotifications: x\n_overrides: {}\n",
            ["has an unknown key '_overrides'"],
            id="a key that was put aside",
        ),
    ],
)
def test_doubts(text: str, expected: list[str]) -> None:
    library = Library({RepoId(MODULES, "apache"): "/srv/apache"}, {RepoId(MODULES, "broken"): "bad URL"})
    assert doubts(_well_formed(text), library) == expected


def test_what_was_inferred_from_links_raises_no_doubts_about_its_text() -> None:
    assert doubts(Definition("x", None, {}), Library({})) == []


# Budgets


@pytest.mark.parametrize(
    ("sizes", "refused"),
    [
        ({}, []),
        ({"a.yaml": LARGEST}, []),
        ({"a.yaml": LARGEST + 1}, ["a.yaml"]),
        ({f"{number:02}.yaml": LARGEST for number in range(64)}, []),
        ({f"{number:02}.yaml": LARGEST for number in range(66)}, ["64.yaml", "65.yaml"]),
        ({f"{number:05}.yaml": 1 for number in range(20_002)}, ["20000.yaml", "20001.yaml"]),
        ({"z.yaml": 9, **{f"{number:02}.yaml": LARGEST for number in range(64)}}, ["z.yaml"]),
        ({"a.yaml": LARGEST * 99, **{f"{number:02}.yaml": LARGEST for number in range(64)}}, ["a.yaml"]),
    ],
    ids=lambda value: str(len(value)),
)
def test_definitions_that_are_too_large_alone_or_in_all_are_not_read(sizes: dict[str, int], refused: list[str]) -> None:
    found = plan_refusals({name: Entry("blob", size) for name, size in sizes.items()})
    assert sorted(found) == refused
    assert all("larger than" in reason or "more than 20000" in reason for reason in found.values())


_TEXTS = (
    "default: qa\nnotifications: x\nparser: future\nother: 1\noverrides:\n  modules: {a: feature/x, b: commit/ABCD}\n",
    "notifications: [a, b]\noverrides: {common: {site: master}}\n",
    "default: 5\nnotifications: x\n",
    "{",
    "",
)


@pytest.mark.parametrize("text", _TEXTS)
def test_what_was_parsed_once_comes_back_without_being_parsed(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, source = layout_in(tmp_path), text.encode()
    expected = read_definition("x.yaml", source, Prefixes())
    first = Parsed(Prefixes())
    assert first.read("x.yaml", source) == expected
    first.save(layout)
    with monkeypatch.context() as patch:
        patch.setattr(yamlnodes, "parse", lambda _source: pytest.fail("it is parsed again"))
        found = Parsed.load(layout, Prefixes()).read("x.yaml", source)
    assert found == expected
    if isinstance(found, Definition):
        again = Parsed.load(layout, Prefixes()).read("y.yaml", source)
        assert again == found._replace(name="y")
    assert Parsed.load(layout, Prefixes("sha/")).read("x.yaml", source) == read_definition(
        "x.yaml", source, Prefixes("sha/")
    )
    assert isinstance(Parsed.load(layout, Prefixes()).read("a-b.yaml", source), IllFormed)
    assert isinstance(Parsed.load(layout, Prefixes()).read("x.yaml", None), IllFormed)


def test_a_saved_text_of_another_shape_is_parsed_again(tmp_path: Path) -> None:
    layout, source = layout_in(tmp_path), _TEXTS[0].encode()
    first = Parsed(Prefixes())
    expected = first.read("x.yaml", source)
    first.save(layout)
    path = state_path(layout, DEFINITIONS)
    path.write_text(path.read_text().replace("feature~x", "..").replace('"notifications"', '"others"'))
    found = Parsed.load(layout, Prefixes())
    assert found.read("x.yaml", source) == expected
    found.save(layout)
    assert "feature~x" in path.read_text()


def test_more_overrides_in_all_than_a_site_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsed, "MOST_OVERRIDES_IN_ALL", 3)
    found = Parsed(Prefixes())
    assert isinstance(found.read("a.yaml", _TEXTS[0].encode()), Definition)
    assert isinstance(found.read("b.yaml", _TEXTS[1].encode()), Definition)
    refused = found.read("c.yaml", _TEXTS[1].encode())
    assert isinstance(refused, IllFormed)
    assert "more than 3 overrides" in refused.reason
