"""The inventory: loaded as it was saved, and generated from the disk when the file cannot be trusted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from jens.layout import Layout
from jens.model import COMMON, HOSTGROUPS, MODULES, SITE, Branch, Commit, Inventory, RepoId
from jens.repositories import inventory
from jens.statefile import INVENTORY, state_path
from tests.values import DUMMY, MASTER, MYAPP, A, B, C, layout_in

_INVENTORY: Inventory = {
    DUMMY: {MASTER: A, Branch("feature/x"): B, Branch("4f0c"): A, Commit(C): C, Commit("cccc"): C},
    MYAPP: {},
    SITE: {MASTER: A},
}
_ON_DISK: Inventory = {DUMMY: {MASTER: A, Commit(B): B}}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An instance with one repository: a branch, and a commit that no branch has."""
    layout = layout_in(tmp_path / "instance")
    layout.bare(DUMMY).mkdir()
    for commit in (A, B):
        layout.checkout(DUMMY, commit).mkdir(parents=True)
    (layout.clone(DUMMY) / "master").symlink_to(f".{A}")
    return layout


def test_an_inventory_comes_back_as_it_was(layout: Layout) -> None:
    inventory.save(layout, _INVENTORY)
    assert inventory.load_or_generate(layout) == _INVENTORY


def test_the_file_carries_a_format_version(layout: Layout) -> None:
    inventory.save(layout, _INVENTORY)
    document = json.loads((layout.cachedir / "inventory.json").read_text())
    assert document["version"] == 1
    assert set(document["content"]) == {MODULES, HOSTGROUPS, COMMON}


def test_an_inventory_that_can_be_used_is_not_made_anew(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    inventory.save(layout, {})
    caplog.set_level("INFO")
    assert inventory.load_or_generate(layout) == {}
    assert caplog.messages == ["Fetching repositories inventory..."]


_GOOD = json.loads(json.dumps({"version": 1, "content": inventory.encode({DUMMY: {MASTER: A, Commit(C): C}})}))


def _changed(*path: str, to: Any) -> bytes:
    """The good file with one thing replaced or removed."""
    document = copy.deepcopy(_GOOD)
    place = document
    for key in path[:-1]:
        place = place[key]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(document).encode()


_REFS = ("content", MODULES, "dummy")
_BRANCHES = (*_REFS, "branches")
_COMMITS = (*_REFS, "commits")


def test_the_good_file_is_good(layout: Layout) -> None:
    state_path(layout, INVENTORY).write_text(json.dumps(_GOOD))
    assert inventory.load_or_generate(layout) == {DUMMY: {MASTER: A, Commit(C): C}}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="no file"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 100, id="zeros, as after a power cut"),
        pytest.param(json.dumps(_GOOD).encode()[:-20], id="cut off"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b"cposix\nsystem\n(S'id'\ntR.", id="a pickle"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(_changed("version", to=2), id="a newer version"),
        pytest.param(_changed("version", to="1"), id="a version that is a text"),
        pytest.param(_changed("version", to=...), id="no version"),
        pytest.param(_changed("content", to=...), id="no content"),
        pytest.param(_changed("content", to=None), id="content null"),
        pytest.param(_changed("content", to=[]), id="content a list"),
        pytest.param(_changed("content", MODULES, to=...), id="a partition missing"),
        pytest.param(_changed("content", MODULES, to=[]), id="a partition a list"),
        pytest.param(_changed(*_REFS, to=None), id="refs null"),
        pytest.param(_changed(*_BRANCHES, to=...), id="no branches"),
        pytest.param(_changed(*_BRANCHES, to=["master"]), id="branches a list"),
        pytest.param(_changed(*_COMMITS, to=...), id="no commits"),
        pytest.param(
            _changed("content", MODULES, "../x", to={"branches": {}, "commits": {}}), id="a name that leads out"
        ),
        pytest.param(_changed("content", MODULES, ".x", to={"branches": {}, "commits": {}}), id="a hidden name"),
        pytest.param(_changed("content", MODULES, "", to={"branches": {}, "commits": {}}), id="no name"),
        pytest.param(_changed(*_BRANCHES, "../x", to=A), id="a branch that leads out"),
        pytest.param(_changed(*_BRANCHES, "a~b", to=A), id="a branch with a tilde"),
        pytest.param(_changed(*_BRANCHES, "-x", to=A), id="a branch that is an option"),
        pytest.param(_changed(*_BRANCHES, "master", to="../../../etc"), id="a commit that leads out"),
        pytest.param(_changed(*_BRANCHES, "master", to=A[:39]), id="a commit that is too short"),
        pytest.param(_changed(*_BRANCHES, "master", to=A.upper()), id="a commit in upper case"),
        pytest.param(_changed(*_BRANCHES, "master", to=None), id="a commit null"),
        pytest.param(_changed(*_BRANCHES, "master", to=5), id="a commit a number"),
        pytest.param(_changed(*_COMMITS, "--all", to=A), id="digits that are an option"),
        pytest.param(_changed(*_COMMITS, "4f0", to=A), id="too few digits"),
        pytest.param(_changed(*_COMMITS, "cccc", to="cccc"), id="an abbreviation that was never resolved"),
    ],
)
def test_an_inventory_that_cannot_be_trusted_is_made_anew_from_the_disk(
    layout: Layout, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        state_path(layout, INVENTORY).write_bytes(content)
    caplog.set_level("INFO")
    assert inventory.load_or_generate(layout) == _ON_DISK
    assert caplog.messages == [
        "Fetching repositories inventory...",
        "Inventory on disk not found or corrupt, generating...",
        "Generating inventory of bares and clones...",
    ]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]


def test_a_pickle_of_jens_1_is_not_loaded(layout: Layout) -> None:
    (layout.cachedir / "repositories").write_bytes(b"cos\nmkdir\n(S'made'\ntR.")
    assert inventory.load_or_generate(layout) == _ON_DISK
    assert not Path("made").exists()


def _link(layout: Layout, name: str, target: str) -> None:
    (layout.clone(DUMMY) / name).symlink_to(target)


def test_an_inventory_is_generated_from_the_disk(layout: Layout) -> None:
    _link(layout, "feature~x", f".{B}")
    _link(layout, "lost", f".{C}")
    _link(layout, "bent", "../../../../etc")
    _link(layout, ".hidden", f".{A}")
    (layout.clone(DUMMY) / "notes").mkdir()
    (layout.clone(DUMMY) / ".new-1").mkdir()
    (layout.clone(DUMMY) / "file").write_text("x")
    layout.bare(MYAPP).mkdir()
    (layout.clonedir / COMMON / "empty").mkdir()
    (layout.clonedir / MODULES / ".trash-1").mkdir()
    assert inventory.generate(layout) == {DUMMY: {MASTER: A, Branch("feature/x"): B}, MYAPP: {}}


def test_a_repository_whose_mirror_is_gone_is_known_by_its_checkouts(layout: Layout) -> None:
    layout.bare(DUMMY).rmdir()
    assert inventory.generate(layout) == _ON_DISK


def test_a_link_in_the_place_of_a_repository_is_no_repository(layout: Layout) -> None:
    (layout.clonedir / MODULES / "elsewhere").symlink_to(layout.clone(DUMMY))
    (layout.baredir / MODULES / "elsewhere").symlink_to(layout.bare(DUMMY))
    assert RepoId(MODULES, "elsewhere") not in inventory.generate(layout)
