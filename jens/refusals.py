"""Refusals of the purge guard stand until somebody allows the removal, or declares again what would be removed.

Without this memory a refusal would end by itself: a library in which everything has another name doubles what is
known, and the next run would find only half of it gone.
"""

from __future__ import annotations

from collections.abc import Collection

from jens.layout import Layout
from jens.model import HOSTGROUPS, MODULES, RepoId
from jens.statefile import StateError, read_state, write_state
from jens.system import files

VERSION = 1

_ENVIRONMENTS = "environments"


def recall(layout: Layout) -> frozenset[object]:
    """The repositories and environments (by name) that were known when standing refusals began."""
    try:
        content = read_state(layout.refusals, VERSION)
        repos = {RepoId(kind, str(name)) for kind in (MODULES, HOSTGROUPS) for name in content[kind]}
        return frozenset({*repos, *map(str, content[_ENVIRONMENTS])})
    except (StateError, KeyError, TypeError):
        return frozenset()


def remember(
    layout: Layout, before: frozenset[object], repos: Collection[RepoId], environments: Collection[str]
) -> None:
    """Replace what was remembered: given is what is known of each kind of which a run refuses removals.

    Before anything new becomes known. Raises OSError.
    """
    found = {_ENVIRONMENTS: sorted([name for name in environments if name in before] or environments)}
    for kind in (MODULES, HOSTGROUPS):
        known = {repo for repo in repos if repo.partition == kind}
        found[kind] = sorted(repo.name for repo in known & before or known)
    if any(found.values()):
        write_state(layout.refusals, VERSION, found)
    else:
        files.remove_tree(layout.refusals)
