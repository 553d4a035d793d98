"""An inventory, and the links that environments have of it."""

from __future__ import annotations

from jens.environments.wanted import Planner
from jens.layout import Layout
from jens.model import HIERADATA, SITE, Branch, Commit, Expansion, Inventory, RepoId
from tests.values import DUMMY, MASTER, MYAPP, QA, A, B, C

INVENTORY: Inventory = {
    DUMMY: {MASTER: A, QA: B, Branch("feature/x"): B, Commit("cccc"): C},
    MYAPP: {MASTER: A, Commit(A): A},
    SITE: {MASTER: A},
    HIERADATA: {MASTER: A},
}


def planner_of(
    layout: Layout, *, with_conf: bool = False, undetermined: tuple[tuple[RepoId, Branch], ...] = ()
) -> Planner:
    return Planner(layout, expansion(*undetermined), with_conf=with_conf)


def expansion(*undetermined: tuple[RepoId, Branch]) -> Expansion:
    return Expansion(INVENTORY, undetermined=frozenset(undetermined))


def of_dummy(entry: str) -> dict[str, str]:
    return {
        "modules/dummy": f"../../../clone/modules/dummy/{entry}/code",
        "hieradata/module_names/dummy": f"../../../../clone/modules/dummy/{entry}/data",
    }


def of_myapp(entry: str) -> dict[str, str]:
    return {
        "hostgroups/hg_myapp": f"../../../clone/hostgroups/myapp/{entry}/code",
        "hieradata/hostgroups/myapp": f"../../../../clone/hostgroups/myapp/{entry}/data/hostgroup",
        "hieradata/fqdns/myapp": f"../../../../clone/hostgroups/myapp/{entry}/data/fqdns",
    }
