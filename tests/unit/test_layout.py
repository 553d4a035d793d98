"""Where everything is: the paths of an instance, and the entries of refs."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.config import load_config
from jens.layout import Layout, commit_entry, entry_ref, is_checkout_name, moving_entry, ref_entry
from jens.model import MODULES, SITE, Branch, Commit, Ref, RepoId, Tag
from jens.statefile import INVENTORY, LAST_RUN, state_path
from tests.values import DUMMY, MASTER, A, layout_in

_LAYOUT = Layout(
    Path("/j/bare"), Path("/j/clone"), Path("/j/cache"), Path("/j/environments"), ("common.yaml", "hardware")
)


def test_paths_are_those_of_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "main.conf"
    file.write_text(
        "[main]\nbaredir = /j/bare\nclonedir = /j/clone\ncachedir = /j/cache\nenvironmentsdir = /j/environments\n"
    )
    config = load_config(file)
    layout = Layout.of(config)
    with_hiera = config._replace(main=config.main._replace(environment_hiera="site"))
    assert Layout.of(with_hiera) == layout._replace(environment_hiera=SITE)
    assert layout == _LAYOUT._replace(common_hieradata_items=())
    assert {
        "bare": str(layout.bare(DUMMY)),
        "checkout": str(layout.checkout(DUMMY, A)),
        "branch": str(layout.ref(DUMMY, MASTER)),
        "commit": str(layout.ref(DUMMY, Commit("aaaa"), A)),
        "environment": str(layout.environment("production")),
        "inventory": str(state_path(layout, INVENTORY)),
        "definitions": str(layout.definitions),
        "last run": str(state_path(layout, LAST_RUN)),
    } == {
        "bare": "/j/bare/modules/dummy",
        "checkout": f"/j/clone/modules/dummy/.{A}",
        "branch": "/j/clone/modules/dummy/master",
        "commit": f"/j/clone/modules/dummy/.{A}",
        "environment": "/j/environments/production",
        "inventory": "/j/cache/inventory.json",
        "definitions": "/j/cache/environments",
        "last run": "/j/cache/last-run.json",
    }


@pytest.mark.parametrize(
    ("ref", "entry"),
    [
        (Branch("master"), "master"),
        (Branch("feature/x"), "feature~x"),
        (Branch("a/b/c"), "a~b~c"),
        (Branch("4f0c"), "4f0c"),
        (Branch("ä/@"), "ä~@"),
        (Tag("v1.2.0"), "~v1.2.0"),
        (Tag("release/1"), "~release~1"),
        (Tag("4f0c"), "~4f0c"),
        (Commit("4f0c"), ".4f0c"),
        (Commit(A), f".{A}"),
    ],
    ids=str,
)
def test_a_ref_is_one_entry_and_back(ref: Ref, entry: str) -> None:
    assert ref_entry(ref, None) == entry
    assert entry_ref(entry) == ref


def test_a_resolved_commit_is_full_on_disk() -> None:
    assert ref_entry(Commit("aaaa"), A) == f".{A}"
    assert commit_entry(A) == f".{A}"
    assert moving_entry(MASTER) == "master"


@pytest.mark.parametrize(
    "entry",
    ["", ".", "..", ".new-1", ".trash-1", ".git", ".4f0", ".4F0C", "a b", "~", "~~x", "~-x", "~.x", "-x", f".{A}a"],
)
def test_an_entry_that_is_none_of_ours_stands_for_no_ref(entry: str) -> None:
    assert entry_ref(entry) is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (f".{A}", True),
        (A, False),
        (f".{A}a", False),
        (f".{A[1:]}", False),
        (f".{A.upper()}", False),
        (f".{A}\n", False),
    ],
    ids=ascii,
)
def test_a_checkout_is_named_by_a_full_commit_behind_a_dot(entry: str, expected: bool) -> None:
    assert is_checkout_name(entry) == expected


def test_repositories_in_a_directory_are_real_directories_with_a_repositorys_name(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    for name in ("b", "a", ".trash-1", ".new-1", "x y"):
        (layout.baredir / "modules" / name).mkdir()
    (layout.baredir / "common" / "site").mkdir()
    (layout.baredir / "other").mkdir()
    (layout.baredir / "modules" / "file").write_text("x")
    (layout.baredir / "modules" / "link").symlink_to("a")
    assert sorted(layout.repositories_in(layout.baredir)) == [SITE, RepoId(MODULES, "a"), RepoId(MODULES, "b")]
