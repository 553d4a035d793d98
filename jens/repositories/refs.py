"""Plans what becomes of the refs of one repository. It touches no disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from jens.events import MANDATORY_BRANCH, Event
from jens.layout import commit_entry, moving_entry
from jens.model import (
    Branch,
    Commit,
    Ref,
    RepoId,
    ref_order,
)
from jens.repositories.model import Needs, OnDisk, RefsPlan


def missing_mandatory(mandatory: Iterable[Branch], heads: Mapping[str, str]) -> list[str]:
    """The mandatory branches that a repository does not have."""
    return sorted(branch.name for branch in mandatory if branch.name not in heads)


def plan_refs(
    repo: RepoId,
    needs: Needs,
    heads: Mapping[str, str],
    commits: Mapping[Commit, str | None],
    disk: OnDisk,
    *,
    has_replied: bool,
    unasked: frozenset[Ref] = frozenset(),
) -> RefsPlan:
    """Compare the needed refs with what the mirror has (``heads``, resolved ``commits``) and what is on disk.

    ``heads`` has the commits of branches and tags by their keys.

    ``has_replied``: the mirror has what the remote said. Only then is a ref missing, unless it is ``unasked``.
    """
    targets: dict[Ref, str] = {}
    absent: list[Ref] = []
    events: list[Event] = []
    for ref in needs.refs:
        commit = commits.get(ref) if isinstance(ref, Commit) else heads.get(ref.key)
        if commit is None and ref in needs.mandatory and isinstance(ref, Branch):
            commit = disk.commit_of(ref)
            events += [_lost(repo, ref, commit)] if has_replied or heads else []
        if commit is not None:
            targets[ref] = commit
        else:
            absent.append(ref)
    targets.update(_expanded(needs.former, commits, disk))
    unknown = frozenset(absent) & unasked if has_replied else frozenset(absent)
    targets.update(_expanded(unknown, commits, disk))
    return RefsPlan(targets, frozenset(absent) - unknown, unknown - set(targets), tuple(events))


def _expanded(refs: Iterable[Ref], commits: Mapping[Commit, str | None], disk: OnDisk) -> dict[Ref, str]:
    """The refs that are expanded now, with their commits. ``commits`` has the full ids of abbreviated ones."""
    now = {ref: commits.get(ref) if isinstance(ref, Commit) else disk.commit_of(ref) for ref in refs}
    return {ref: commit for ref, commit in now.items() if commit is not None and commit in disk.checkouts}


def plan_without_changes(needs: Needs, recorded: Mapping[Ref, str], disk: OnDisk) -> RefsPlan:
    """A plan that changes nothing: expanded refs stay, all others are undetermined."""
    refs = [*needs.refs, *needs.former]
    commits = {ref: ref.digits if ref.is_full else recorded.get(ref) for ref in refs if isinstance(ref, Commit)}
    targets = _expanded(refs, commits, disk)
    return RefsPlan(targets, undetermined=frozenset(needs.refs) - set(targets))


def _lost(repo: RepoId, branch: Branch, commit: str | None) -> Event:
    consequence = f"the last checkout ({commit[:7]}) stays" if commit else "there is no checkout of it"
    return Event(
        logging.ERROR, f"{repo} has no mandatory branch '{branch}', {consequence}", MANDATORY_BRANCH, branch.name
    )


def settle(plan: RefsPlan, disk: OnDisk, failed: Iterable[str]) -> RefsPlan:
    """Adapt a plan when some checkouts could not be made: refs stay at their commits on disk, others have to wait."""
    lost = set(failed)
    targets: dict[Ref, str] = {}
    undetermined = set(plan.undetermined)
    for ref, commit in plan.targets.items():
        now = disk.commit_of(ref)
        if commit not in lost:
            targets[ref] = commit
        elif now is not None:
            targets[ref] = now
        else:
            undetermined.add(ref)
    return plan._replace(targets=targets, undetermined=frozenset(undetermined))


def commits_to_check_out(plan: RefsPlan, disk: OnDisk) -> list[str]:
    """The commits that have no checkout yet."""
    return sorted(set(plan.targets.values()) - disk.checkouts)


def checked_out_before(plan: RefsPlan, disk: OnDisk) -> list[str]:
    """The commits with a checkout to which branches move from another one.

    Their links must be checked: when they were laid out, environments may have had other links, or Jens 1.x did it.
    """
    return sorted({new for _, old, new in describe(disk, plan) if old is not None and new in disk.checkouts})


def predecessors(commit: str, plan: RefsPlan, disk: OnDisk) -> list[str]:
    """The commits on disk from which refs move to this one."""
    now = {disk.commit_of(ref) for ref, target in plan.targets.items() if target == commit}
    return sorted(other for other in now if other is not None and other in disk.checkouts)


def links_to_put(plan: RefsPlan, disk: OnDisk) -> dict[str, str]:
    """The links of branches and tags that must be made or moved: entry to commit."""
    wanted = {moving_entry(ref): commit for ref, commit in plan.targets.items() if not isinstance(ref, Commit)}
    return {entry: commit for entry, commit in sorted(wanted.items()) if disk.links.get(entry) != commit}


def entries_to_remove(disk: OnDisk, kept: Iterable[Ref]) -> list[str]:
    """The links, and clones of Jens 1.x in the place of links, that belong to no ref that is kept."""
    wanted = {moving_entry(ref) for ref in kept if not isinstance(ref, Commit)}
    return sorted((set(disk.links) | disk.clones) - wanted)


def resolve(commit: Commit, candidates: Sequence[str], checkouts: Iterable[str]) -> tuple[str | None, str]:
    """The full id of a commit, or None and the reason. A checkout outranks Git: an earlier run chose that commit."""
    on_disk = [found for found in checkouts if found.startswith(commit.digits)]
    for meant in (on_disk, candidates):
        if len(meant) == 1:
            return meant[0], ""
    return None, "is ambiguous" if candidates else "is unknown"


def describe(disk: OnDisk, plan: RefsPlan) -> Iterable[tuple[str, str | None, str]]:
    """The entries that change: name, the commit now (None: none), the commit to come."""
    for entry, commit in links_to_put(plan, disk).items():
        yield entry, disk.links.get(entry), commit
    for ref, commit in sorted(plan.targets.items(), key=lambda item: ref_order(item[0])):
        if isinstance(ref, Commit) and commit not in disk.checkouts:
            yield commit_entry(commit), None, commit
