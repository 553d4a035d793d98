"""Versions: their names, which of them may go, and what is remembered of replaced ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jens.environments import versions
from jens.environments.model import Versioning
from jens.environments.versions import Replaced
from jens.environments.wanted import Found, Planner, conf, parser_of, plan_changes, without_version
from jens.layout import VERSIONS, Layout, version_name, version_of
from jens.links import LinkReader, Target, link_text
from jens.model import Commit, Expansion
from tests.values import DUMMY, MASTER, MYAPP, QA, A, B, C, dynamic, layout_in


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("production_4711", ("production", 4711)),
        ("a_1_2", ("a_1", 2)),
        ("_1", None),
        ("production_", None),
        ("production", None),
        ("production_01", None),
        ("production_0", None),
        ("production_x", None),
        ("production_\u0663", None),
        ("pro.duction_1", None),
    ],
)
def test_a_version_has_a_name_of_its_own(name: str, expected: tuple[str, int] | None) -> None:
    assert version_of(name) == expected
    assert expected is None or version_name(*expected) == name


def _make(layout: Layout, version: str) -> None:
    (layout.versions / version).mkdir(parents=True)


def test_an_environment_is_where_its_link_leads(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    for version in ("production_1", "production_12", "production_1_3"):
        _make(layout, version)
    (layout.environmentsdir / "plain").mkdir()
    texts = {
        "production": "/seen/by/servers/production_12",
        "production_1": "/seen/by/servers/production_1_3",
        "foreign": "/seen/by/servers/production_12",
        "lost": "/seen/by/servers/lost_1",
        "link": "plain",
    }
    for name, text in texts.items():
        (layout.environmentsdir / name).symlink_to(text)
    assert {name: layout.place(name) for name in (*texts, "plain", "nothing")} == {
        "production": f"{VERSIONS}/production_12",
        "production_1": f"{VERSIONS}/production_1_3",
        **{name: name for name in ("foreign", "lost", "link", "plain", "nothing")},
    }
    assert sorted(layout.environments()) == ["plain", "production", "production_1"]
    assert versions.current(layout, "production") == "production_12"
    assert versions.next_version(layout, "production") == "production_13"
    assert versions.next_version(layout, "qa") == "qa_1"


def test_links_of_versions_lead_to_commits(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    expansion = Expansion({DUMMY: {MASTER: A, Commit(B[:8]): B}, MYAPP: {QA: C}})
    planner = Planner(layout, expansion, with_conf=True, versions=True)
    tree = planner.tree(dynamic("production"), "production_3")
    prefix = "../../../../clone"
    assert tree.links["modules/dummy"] == f"{prefix}/modules/dummy/.{A}/code"
    assert tree.links["hostgroups/hg_myapp"] == f"{prefix}/hostgroups/myapp/master/code"  # dangles
    place = f"{VERSIONS}/production_3"
    for link, text in tree.links.items():
        target = LinkReader(layout).target(place, link, text)
        assert target is not None
        assert link_text(layout, link, target, place) == text
    assert LinkReader(layout).target(place, "modules/dummy", tree.links["modules/dummy"]) == Target(
        DUMMY, f".{A}", "code"
    )
    assert versions.commits_among(layout, place, tree.links) == {DUMMY: frozenset({A})}
    # The next version is the same, but for its name.
    found = Found(tree.links, conf=tree.conf)
    assert plan_changes(planner.tree(dynamic("production"), "production_3"), found).count == 0
    assert plan_changes(planner.tree(dynamic("production")), found).count == 1
    pinned = planner.tree(dynamic("production", overrides={DUMMY: f":{B[:8]}"}))
    assert pinned.links["modules/dummy"] == f"{prefix}/modules/dummy/.{B}/code"


@pytest.mark.parametrize("parser", [None, "future"])
def test_environment_conf_tells_the_version(parser: str | None) -> None:
    told = conf(parser, "production_3")
    assert told == conf(parser) + b"config_version = /bin/echo production_3\n"
    assert without_version(told) == conf(parser)
    assert parser_of(told) == parser


def test_a_version_follows_what_its_definition_says(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    layout.clone(DUMMY).mkdir(parents=True)
    for branch in ("master", "qa"):
        (layout.clone(DUMMY) / branch).symlink_to(f".{A}")
    entries = {DUMMY: f".{A}"}
    assert versions.followed(layout, dynamic("x", "qa"), entries, {}) == {DUMMY: QA}
    assert versions.followed(layout, dynamic("x", "nowhere"), entries, {}) == {DUMMY: Commit(A)}
    assert versions.followed(layout, None, entries, {}) == {DUMMY: Commit(A)}
    assert versions.followed(layout, dynamic("x"), {DUMMY: f".{B}"}, {}) == {DUMMY: Commit(B)}


@pytest.mark.parametrize(
    ("since", "flushed", "expected"),
    [
        (100, None, True),
        (101, None, False),
        (500, None, False),  # the clock was set back
        (100, 99, False),
        (100, 100, False),
        (100, 101, True),
        (101, 150, False),
        (500, 201, False),
    ],
)
def test_a_replaced_version_may_go(since: float, flushed: float | None, *, expected: bool) -> None:
    assert versions.plan_over(since, 200, 100, flushed) is expected


def test_what_a_version_alone_uses_is_remembered(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    assert versions.lost({DUMMY: frozenset({A, B}), MYAPP: frozenset({C})}, {DUMMY: frozenset({B})}) == {
        DUMMY: frozenset({A}),
        MYAPP: frozenset({C}),
    }
    for version in ("production_1", "production_2", "production_3"):
        _make(layout, version)
    (layout.versions / "production_2" / "modules").mkdir()
    os.symlink(f"../../../../clone/modules/dummy/.{C}/code", layout.versions / "production_2" / "modules" / "dummy")
    (layout.environmentsdir / "production").symlink_to("/seen/production_3")
    replaced = {"production_1": {DUMMY: frozenset({A})}}
    kept = versions.keep(layout, replaced, ())
    assert kept == {DUMMY: frozenset({A, C})}
    assert versions.keep(layout, {}, (), only=[DUMMY]) == kept  # remembered
    assert versions.keep(layout, {}, (), only=[MYAPP]) == {}
    assert sorted(versions.load(layout)) == ["production_1", "production_2"]
    assert versions.clear(layout, 0)
    assert os.listdir(layout.versions) == ["production_3"]
    assert versions.keep(layout, {}, ()) == {}
    assert versions.load(layout) == {}


def test_a_full_disk_does_not_make_it_forget_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    layout = layout_in(tmp_path)
    _make(layout, "production_1")
    replaced = {"production_1": {DUMMY: frozenset({A})}}
    with monkeypatch.context() as patched:
        patched.setattr("jens.statefile.save", refuse)
        assert versions.keep(layout, replaced, ()) == {DUMMY: frozenset({A})}
    assert versions.keep(layout, replaced, ()) == {DUMMY: frozenset({A})}
    assert sorted(versions.load(layout)) == ["production_1"]


def test_an_unfinished_environment_keeps_what_it_uses(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    (layout.versions / "production_1" / "modules").mkdir(parents=True)
    os.symlink(f"../../../../clone/modules/dummy/.{A}/code", layout.versions / "production_1" / "modules" / "dummy")
    (layout.environmentsdir / "production").symlink_to("/seen/production_1")
    assert versions.keep(layout, {}, (), only=[DUMMY]) == {}
    assert versions.keep(layout, {}, ["production", "plain"], only=[DUMMY]) == {DUMMY: frozenset({A})}
    assert versions.keep(layout, {}, ()) == {DUMMY: frozenset({A})}  # who looks at everything looks at all of them


@pytest.mark.parametrize(
    "content", ['{"production_1": []}', '{"production_1": [1, {}], "noted": [1]}', "[]", '{"production_1": ["x", {}]}']
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    layout = layout_in(tmp_path)
    versions.save(layout, {"production_1": Replaced(1.0, {})})
    assert versions.load(layout)
    (layout.cachedir / "versions.json").write_text(f'{{"version": 1, "content": {content}}}')
    assert versions.load(layout) == {}


def test_which_environments_have_versions() -> None:
    assert [Versioning(names).has("qa") for names in ((), ("qa",), ("*",), ("production",))] == [
        *(False, True, True, False)
    ]
