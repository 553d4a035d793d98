"""Random definitions and libraries: the readers give a result for any text, and never raise."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from jens.layout import Layout, moving_entry, ref_entry
from jens.links import links_of
from jens.metadata.definition import doubts, read_definition
from jens.metadata.library import parse_library
from jens.metadata.yamlnodes import YamlError
from jens.model import PARTITIONS, Branch, Commit, Definition, IllFormed, Prefixes, RepoId
from jens.names import is_environment_name, is_repository_name
from tests.conftest import Site
from tests.faults.decoy import Decoy, push_tree
from tests.faults.samples import IS_SOAK

# Otherwise hypothesis would write its tables of characters into the work tree.
_HOME = tempfile.mkdtemp(prefix="hypothesis-")
set_hypothesis_home_dir(_HOME)
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# Derandomized: the examples are the same each time, so that everybody sees the same failures.
_PURE = settings(max_examples=1000 if IS_SOAK else 150, deadline=None, database=None, derandomize=True)
_RUNS = settings(
    max_examples=100 if IS_SOAK else 12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

_LAYOUT = Layout(Path("/j/bare"), Path("/j/clone"), Path("/j/cache"), Path("/j/environments"), ("common.yaml",))

_EVIL = st.sampled_from(
    (
        *(
            "..",
            "../..",
            "/etc",
            "-x",
            "--upload-pack=touch x",
            "ext::sh -c x",
            "file:///etc",
            "a\nb",
            "\0",
            "HEAD",
            "@{-1}",
        ),
        *(
            "a" * 300,
            "master/code",
            ".git",
            "a~b",
            "on",
            "1.10",
            "null",
            "\u0434ummy",
            "commit/",
            "tag/",
            "tag/v1",
            "tag/~",
            "commit/4f0",
            "a.lock",
        ),
        *("!!python/object/apply:os.system [x]", "*a", "&a", "<<", "{", "- ", "%TAG", "---", "\x1b[2J", "\ud7ff", ""),
    )
)
_CHARACTERS = st.characters(blacklist_categories=("Cs",))
# Without an alphabet, hypothesis would first find out which characters UTF-8 can encode.
_NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True, alphabet=_CHARACTERS)
_BRANCH = st.from_regex(r"[a-z0-9]{1,6}(/[a-z0-9]{1,4}){0,2}", fullmatch=True, alphabet=_CHARACTERS)
_COMMIT = st.from_regex(r"[0-9a-f]{4,40}", fullmatch=True, alphabet=_CHARACTERS).map("commit/{}".format)
_REF = st.one_of(_BRANCH, _COMMIT)
_URL = st.one_of(
    _NAME.map("https://git.example.org/{}.git".format), _NAME.map("git@alias:{}".format), _NAME.map("/srv/{}".format)
)
_TEXT = st.one_of(_EVIL, st.text(_CHARACTERS, max_size=12))
_VALUE = st.recursive(
    st.one_of(
        _TEXT, st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.binary(max_size=4), _REF, _URL
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)


def _mapping(keys: st.SearchStrategy[str], values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(keys, values, max_size=4)


def _sometimes(good: st.SearchStrategy[object], bad: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(good, good, good, bad)


_GOOD_DEFINITION = st.fixed_dictionaries(
    {"notifications": st.one_of(_NAME, st.lists(_NAME, max_size=2)), "default": _BRANCH},
    optional={
        "parser": st.sampled_from(("current", "future")),
        "overrides": st.dictionaries(st.sampled_from(PARTITIONS), _mapping(_NAME, _REF), max_size=3),
    },
)
_DEFINITION = st.fixed_dictionaries(
    {},
    optional={
        "notifications": _sometimes(_NAME, _VALUE),
        "default": _sometimes(_BRANCH, _VALUE),
        "parser": _sometimes(st.just("future"), _VALUE),
        "overrides": _sometimes(
            _mapping(
                st.one_of(st.sampled_from(PARTITIONS), _EVIL),
                _sometimes(_mapping(st.one_of(_NAME, _TEXT), _sometimes(_REF, _VALUE)), _VALUE),
            ),
            _VALUE,
        ),
        "<<": _VALUE,
        "x": _VALUE,
    },
)
_GOOD_LIBRARY = st.fixed_dictionaries({partition: _mapping(_NAME, _URL) for partition in PARTITIONS})
_ENTRIES = _sometimes(_mapping(st.one_of(_NAME, _TEXT), _sometimes(_URL, _VALUE)), _VALUE)
_LIBRARY = st.fixed_dictionaries(dict.fromkeys(PARTITIONS, _ENTRIES))


def _dumped(document: object) -> bytes:
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode("utf-8", "replace")


@st.composite
def _mutated(draw: st.DrawFn, documents: st.SearchStrategy[bytes]) -> bytes:
    """A text in which a piece is replaced with something else."""
    text = draw(documents)
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, min(len(text), begin + 20)))
    return text[:begin] + draw(st.one_of(_TEXT.map(os.fsencode), st.binary(max_size=5))) + text[end:]


_DEFINITIONS = st.one_of(
    _DEFINITION.map(_dumped), _mutated(_DEFINITION.map(_dumped)), _VALUE.map(_dumped), st.binary(max_size=40)
)
_LIBRARIES = _LIBRARY.map(lambda entries: _dumped({"repositories": entries}))


def _assert_inside(path: Path, top: Path) -> None:
    assert os.path.normpath(path).startswith(f"{top}/"), path


@_PURE
@given(_DEFINITIONS, st.sampled_from((Prefixes(), Prefixes(""))))
@example(b"notifications: &a [*a]\ndefault: master\noverrides: &o {modules: {<<: *o}}\n", Prefixes())
def test_whatever_a_definition_says_is_told_and_leads_nowhere(source: bytes, prefixes: Prefixes) -> None:
    found = read_definition("evil.yaml", source, prefixes)
    if isinstance(found, IllFormed):
        assert found.name == "evil"
        assert found.reason.startswith("evil.yaml: ")
        return
    _assert_inside(_LAYOUT.environment(found.name), _LAYOUT.environmentsdir)
    assert found.default is None or isinstance(found.default, Branch)
    assert found.parser in (None, "current", "future")
    repo = RepoId("modules", "dummy")
    for overridden, ref in found.overrides.items():
        assert overridden.partition in PARTITIONS
        path = _LAYOUT.ref(repo, ref)
        assert path.parent == _LAYOUT.clone(repo)
        assert path.name not in ("", ".", "..", ".git")
        assert not path.name.startswith("-")
        assert re.fullmatch(r"[0-9a-f]{4,40}", ref.digits) if isinstance(ref, Commit) else "\0" not in ref.name
    assert all(
        "\n" not in doubt
        for doubt in doubts(found, parse_library(b"repositories: {common: , hostgroups: , modules: }", Prefixes()))
    )


@_PURE
@given(st.one_of(_LIBRARIES, _mutated(_LIBRARIES), _VALUE.map(_dumped), st.binary(max_size=40)))
def test_whatever_a_library_says_is_told_and_leads_nowhere(source: bytes) -> None:
    try:
        library = parse_library(source, Prefixes())
    except YamlError:
        return
    assert not set(library.urls) & set(library.unusable)
    for repo, url in library.urls.items():
        assert repo.partition in PARTITIONS
        assert is_repository_name(repo.name)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", repo.name)
        assert re.match(r"(https?|ssh|git|file)://[^-]|/|[^-:/][^:/]*:[^-:]", url)
        assert url.isprintable()
        for top, path in ((_LAYOUT.baredir, _LAYOUT.bare(repo)), (_LAYOUT.clonedir, _LAYOUT.clone(repo))):
            _assert_inside(path, top / repo.partition)
        for link in links_of(_LAYOUT, repo):
            _assert_inside(_LAYOUT.environment("x") / link, _LAYOUT.environment("x"))


@_PURE
@given(st.text(_CHARACTERS, max_size=12))
def test_whatever_a_file_is_called_its_environment_is_one_entry(name: str) -> None:
    found = read_definition(f"{name}.yaml", b"default: qa\nnotifications: x\n", Prefixes())
    assert isinstance(found, Definition) == is_environment_name(name) == bool(re.fullmatch("[A-Za-z0-9_]+", name))


@_PURE
@given(st.lists(st.one_of(_REF, _TEXT, st.text("ab/~.", max_size=5)), max_size=8))
def test_two_refs_are_never_one_entry(refs: list[str]) -> None:
    texts = {f"m{number}": ref for number, ref in enumerate(refs)}
    entries: dict[str, object] = {}
    for text in texts.values():
        found = read_definition(
            "x.yaml", _dumped({"notifications": "x", "overrides": {"modules": {"m": text}}}), Prefixes()
        )
        for ref in found.overrides.values() if isinstance(found, Definition) else ():
            entry = ref_entry(ref, None)
            assert entries.setdefault(entry, ref) == ref
            assert isinstance(ref, Commit) == entry.startswith(".")
            assert not isinstance(ref, Branch) or moving_entry(ref).replace("~", "/") == ref.name


@_PURE
@given(_GOOD_DEFINITION)
def test_a_well_formed_definition_is_read_as_it_was_written(document: Mapping[str, object]) -> None:
    found = read_definition("good.yaml", _dumped(document), Prefixes())
    # PyYAML quotes a text that would otherwise have another type in YAML.
    assert isinstance(found, Definition), found
    assert (found.default.name if found.default else None) == document.get("default")
    assert found.parser == document.get("parser")
    written = {
        RepoId(partition, name): str(ref)
        for partition, refs in dict(document.get("overrides", {})).items()  # type: ignore[call-overload]
        for name, ref in refs.items()
    }
    read = {
        repo: f"commit/{ref.digits}" if isinstance(ref, Commit) else ref.name for repo, ref in found.overrides.items()
    }
    assert read == written


@_PURE
@given(_GOOD_LIBRARY)
def test_a_well_formed_library_is_read_as_it_was_written(document: Mapping[str, Mapping[str, object]]) -> None:
    library = parse_library(_dumped({"repositories": document}), Prefixes())
    assert library.unusable == {}
    assert library.urls == {RepoId(part, name): url for part, urls in document.items() for name, url in urls.items()}


@pytest.fixture
def decoy(site: Site) -> Decoy:
    assert site.update("--strict").code == 0
    return Decoy(site)


@_RUNS
@given(st.lists(_DEFINITIONS, min_size=5, max_size=10), st.dictionaries(_TEXT, _EVIL, max_size=8))
def test_a_run_lives_through_whatever_is_pushed(decoy: Decoy, texts: list[bytes], entries: Mapping[str, str]) -> None:
    site = decoy.site
    files = {f"evil{number}.yaml": ("100644", os.fsdecode(text)) for number, text in enumerate(texts)}
    push_tree(site.definitions, files)
    urls = {partition: {} for partition in PARTITIONS}  # type: dict[str, dict[str, str]]
    for repo, url in site.urls.items():
        partition, _, name = repo.partition("/")
        urls[partition][name] = url
    urls["modules"].update({name: url for name, url in entries.items() if name not in urls["modules"]})
    site.library.push({"repositories.yaml": _dumped({"repositories": urls}).decode()})
    commit = site.remotes["modules/dummy"].push({"code/manifests/init.pp": f"# {len(texts)}\n"})
    outcome = decoy.update()
    assert outcome.code == 0
    assert site.expanded("modules/dummy") == {**site.expanded("modules/dummy"), "master": commit}
    assert site.dangling("production") == []
    for number, text in enumerate(texts):
        name = f"evil{number}"
        found = read_definition(f"{name}.yaml", text, Prefixes())
        said = [line for line in outcome.lines("ERROR") if f"'{name}'" in line]
        assert len(said) == isinstance(found, IllFormed)
        assert isinstance(found, IllFormed) or name in site.environments()
