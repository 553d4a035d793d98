"""What becomes of the refs of one repository: decided from values, touching nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from jens.events import Event
from jens.layout import branch_entry, commit_entry
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
    answered: bool,
    unasked: frozenset[Ref] = frozenset(),
) -> RefsPlan:
    """Compare what is needed with what the mirror has (``heads``, resolved ``commits``) and what is on disk.

    ``answered`` tells whether the mirror is what the remote said in this run: only then is anything gone, but for
    ``unasked`` refs.
    """
    targets: dict[Ref, str] = {}
    absent: list[Ref] = []
    events: list[Event] = []
    for ref in needs.refs:
        commit = heads.get(ref.name) if isinstance(ref, Branch) else commits.get(ref)
        if commit is None and ref in needs.mandatory and isinstance(ref, Branch):
            commit = disk.commit_of(ref)
            events += [_lost(repo, ref, commit)] if answered or heads else []
        if commit is not None:
            targets[ref] = commit
        else:
            absent.append(ref)
    targets.update(_expanded(needs.former, commits, disk))
    unknown = frozenset(absent) & unasked if answered else frozenset(absent)
    targets.update(_expanded(unknown, commits, disk))
    return RefsPlan(targets, frozenset(absent) - unknown, unknown - set(targets), tuple(events))


def _expanded(refs: Iterable[Ref], commits: Mapping[Commit, str | None], disk: OnDisk) -> dict[Ref, str]:
    """The refs that are expanded now, with their commits, which abbreviated ones are told by ``commits``."""
    now = {ref: commits.get(ref) if isinstance(ref, Commit) else disk.commit_of(ref) for ref in refs}
    return {ref: commit for ref, commit in now.items() if commit is not None and commit in disk.checkouts}


def stand_still(needs: Needs, recorded: Mapping[Ref, str], disk: OnDisk) -> RefsPlan:
    """A plan that changes nothing: what is expanded stays, of the rest nobody knows."""
    refs = [*needs.refs, *needs.former]
    commits = {ref: ref.digits if ref.is_full else recorded.get(ref) for ref in refs if isinstance(ref, Commit)}
    targets = _expanded(refs, commits, disk)
    return RefsPlan(targets, undetermined=frozenset(needs.refs) - set(targets))


def _lost(repo: RepoId, branch: Branch, commit: str | None) -> Event:
    consequence = f"the last checkout ({commit[:7]}) stays" if commit else "there is no checkout of it"
    return Event(logging.ERROR, f"{repo} has no mandatory branch '{branch}', {consequence}")


def settle(plan: RefsPlan, disk: OnDisk, failed: Iterable[str]) -> RefsPlan:
    """The plan once checkouts of some commits could not be made: branches stay where they are, commits wait."""
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
    """The commits whose checkouts are not there yet."""
    return sorted(set(plan.targets.values()) - disk.checkouts)


def predecessors(commit: str, plan: RefsPlan, disk: OnDisk) -> list[str]:
    """The commits with a checkout that refs are at now which will be at this one."""
    now = {disk.commit_of(ref) for ref, target in plan.targets.items() if target == commit}
    return sorted(other for other in now if other is not None and other in disk.checkouts)


def links_to_put(plan: RefsPlan, disk: OnDisk) -> dict[str, str]:
    """The branch links that are not what they should be: entry to commit."""
    wanted = {branch_entry(ref): commit for ref, commit in plan.targets.items() if isinstance(ref, Branch)}
    return {entry: commit for entry, commit in sorted(wanted.items()) if disk.links.get(entry) != commit}


def entries_to_remove(disk: OnDisk, kept: Iterable[Ref]) -> list[str]:
    """The links, and 1.x clones in the place of links, that stand for no ref that is kept."""
    wanted = {branch_entry(ref) for ref in kept if isinstance(ref, Branch)}
    return sorted((set(disk.links) | disk.clones) - wanted)


def resolve(commit: Commit, candidates: Sequence[str], checkouts: Iterable[str]) -> tuple[str | None, str]:
    """The full id of a commit, or None and why not. A checkout outranks Git: what is on disk was meant before."""
    on_disk = [found for found in checkouts if found.startswith(commit.digits)]
    for meant in (on_disk, candidates):
        if len(meant) == 1:
            return meant[0], ""
    return None, "is ambiguous" if candidates else "is unknown"


def describe(disk: OnDisk, plan: RefsPlan) -> Iterable[tuple[str, str | None, str]]:
    """What changes: entry, the commit it has now or None, the commit it will have."""
    for entry, commit in links_to_put(plan, disk).items():
        yield entry, disk.links.get(entry), commit
    for ref, commit in sorted(plan.targets.items(), key=lambda item: ref_order(item[0])):
        if isinstance(ref, Commit) and commit not in disk.checkouts:
            yield commit_entry(commit), None, commit
