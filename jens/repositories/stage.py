"""The repositories stage: prepare everything in parallel, publish in one burst, and retire at the very end."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, NamedTuple

from jens import deferred
from jens.events import LIBRARY_ENTRY, NOT_FETCHED, PURGE_GUARD, Event
from jens.git.remotes import Remotes
from jens.git.workers import Progress, count, result, results, workers
from jens.layout import Layout
from jens.model import PARTITIONS, SNAPSHOT_COMMON, Branch, Expansion, Fault, Inventory, Library, Ref, RepoId
from jens.repositories.model import Budget, Left, Needs, Prepared, RepositoriesPlan, Request
from jens.text import one_line

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Takes entries of repositories with their commits. Makes environments use the checkouts of these commits instead.
Detour = Callable[[Mapping[tuple[RepoId, str], str]], list[Event]]


class OnDemand(NamedTuple):
    """Which remotes to ask: those of ``hinted`` repositories, and those that must be asked anyway (see ``Request``).

    ``lacking``: what remotes did not have when they last replied. ``fresh``: what new and changed definitions need.
    """

    hinted: frozenset[RepoId]
    lacking: Mapping[RepoId, frozenset[Ref]]
    fresh: Mapping[RepoId, Needs]


class Absent(NamedTuple):
    """Commits that a remote lacked when it was in this ``state``; no definition has changed since that names them."""

    commits: frozenset[Ref]
    state: str


class Work(NamedTuple):
    """What the stage is to do. Without ``on_demand`` every remote is asked, but not for ``absent`` commits.

    ``common``: see ``Expansion``. What was ``left`` to jens-transfer is asked by nobody else.
    ``may_leave``: what takes long may be left to it, too.
    """

    library: Library
    plan: RepositoriesPlan
    inventory: Inventory
    needs: Mapping[RepoId, Needs]
    on_demand: OnDemand | None = None
    common: Branch = SNAPSHOT_COMMON
    budget: Budget = Budget()
    absent: Mapping[RepoId, Absent] = MappingProxyType({})
    left: Mapping[RepoId, Left] = MappingProxyType({})
    may_leave: bool = False

    def requests(self) -> list[Request]:
        """A request for each repository that is not removed."""
        return [self._request(repo) for repo in self.plan.remaining]

    def _request(self, repo: RepoId) -> Request:
        request = Request(
            repo,
            self.library.urls.get(repo),
            self.needs[repo],
            self.inventory.get(repo, {}),
            is_new=repo in self.plan.new,
            is_known=repo in self.inventory,
            budget=self.budget,
            left=self.left.get(repo),
        )
        # Who hints at a repository may have pushed a commit that no branch has.
        if repo in self.absent and not (self.on_demand and repo in self.on_demand.hinted):
            request = request._replace(absent=self.absent[repo].commits, absent_at=self.absent[repo].state)
        if self.on_demand is None:
            return request
        return request._replace(
            ask=repo in self.on_demand.hinted,
            lacking=self.on_demand.lacking.get(repo),
            fresh=frozenset(self.on_demand.fresh[repo].refs),
            on_demand=True,
        )


class RepositoriesStage:
    """Keeps the results of workers from one part of the stage to the next. Each part returns events for the log."""

    def __init__(self, layout: Layout, remotes: Remotes, work: Work) -> None:
        self._layout = layout
        self._remotes = remotes
        self._work = work
        self._prepared: list[Prepared] = []
        self._removed: dict[RepoId, set[Ref]] = {}
        self._has_trash = False
        #: The repositories that Puppet sees differently.
        self.changed: set[RepoId] = set()

    # Prepare: everything is fetched and laid out, nothing is visible yet

    def prepare(self, jobs: int, progress: Progress) -> Iterator[Event]:
        """Fetch and lay out everything. Yields events while the work goes on, in the order of the log."""
        requests = self._work.requests()
        if not requests:
            yield from self._events({})
            return
        questions = deferred.mirror.questions(requests)
        for done, _ in enumerate(self._remotes.replies_to(questions), 1):
            progress("Asking", done, len(questions))
        with workers(jobs) as pool:
            # The largest first, or a run would wait for one of those at the end.
            futures = {
                request.repo: pool.submit(deferred.prepare.prepare, self._layout, self._remotes, request)
                for request in sorted(
                    requests, key=lambda request: deferred.prepare.size(self._layout, request), reverse=True
                )
            }
            count("Preparing", futures.values(), progress)
            yield from self._events(futures)
            self._prepared = results([futures[request.repo] for request in requests])
        yield from self._leave()

    def _leave(self) -> Iterator[Event]:
        """Leave to jens-transfer what takes longer than a run has patience."""
        for work in self._prepared:
            url = self._work.library.urls.get(work.repo)
            if url is None or not (self._work.may_leave and work.is_slow):
                continue
            try:
                deferred.transfers.ask_for(self._layout, work.repo, self._remotes.silent_server(url))
            except OSError as error:
                yield Event(logging.ERROR, f"Unable to leave {work.repo} to jens-transfer: {error}")
            else:
                yield _info(f"Leaving {work.repo} to jens-transfer, as it takes long")._replace(is_slow=True)

    def _events(self, futures: Mapping[RepoId, Future[Prepared]]) -> Iterator[Event]:
        """Yield the events of all repositories; those of each as soon as it is prepared."""
        yield from complaints(self._work)
        for partition in PARTITIONS:
            yield from self._events_in(partition, lambda repo: result(futures[repo]))

    def _events_in(self, partition: str, prepared: Callable[[RepoId], Prepared]) -> Iterator[Event]:
        plan = self._work.plan
        yield _info(f"Refreshing bare repositories ({partition})")
        yield _info(f"New repositories: {[repo.name for repo in _of(partition, plan.new)]}")
        yield _info(f"Deleted repositories: {[repo.name for repo in _of(partition, plan.deleted)]}")
        yield _info("Cloning and expanding NEW bare repositories...")
        for repo in _of(partition, plan.new):
            yield _info(f"Cloning and expanding {repo}...")
            yield from prepared(repo).events
        yield _info("Expanding EXISTING bare repositories...")
        for repo in _of(partition, (*plan.existing, *plan.kept, *plan.pinned)):
            work = prepared(repo)
            yield from work.events
            yield from self._removals(
                repo, deferred.refs.entries_to_remove(work.disk, kept_refs(work, self._work.needs[repo]))
            )
        yield _info("Purging REMOVED bare repositories...")
        for repo in _of(partition, plan.deleted):
            yield _info(f"Deleting {repo}...")
            entries, problems = self._entries_of(repo)
            yield from problems
            yield from self._removals(repo, entries)

    def _entries_of(self, repo: RepoId) -> tuple[list[str], list[Event]]:
        try:
            return deferred.refs.entries_to_remove(deferred.disk.scan(self._layout, repo), ()), []
        except OSError as error:
            return [], [Event(logging.ERROR, f"Unable to look at '{self._layout.clone(repo)}': {error}")]

    def _removals(self, repo: RepoId, entries: Iterable[str]) -> Iterator[Event]:
        return (_info(f"Removing {self._layout.clone(repo) / entry}") for entry in entries)

    def only_branches_moved(self) -> bool:
        """Whether workers found the same refs as the last run, perhaps at other commits, and nothing failed."""
        return all(
            work.is_known
            and not work.failed
            and not any(event.is_failure for event in work.events)
            and not work.plan.undetermined
            and work.plan.targets.keys() == self._work.inventory.get(work.repo, {}).keys()
            for work in self._prepared
        )

    # Publish: new checkouts, then branch links

    def publish(self, detour: Detour) -> list[Event]:
        """Put the new checkouts in place, then move all branch links. Raises OSError.

        ``detour`` makes environments use checkouts directly where a branch link is about to replace a directory.
        """
        if not self._prepared:
            return []
        deferred.retention.reclaim(self._layout, {work.repo: set(work.plan.targets.values()) for work in self._known()})
        self.changed |= {work.repo for work in self._prepared if any(deferred.refs.describe(work.disk, work.plan))}
        self._prepared, events = deferred.publish.put_in_place(self._layout, self._prepared)
        obstacles = deferred.publish.directories_to_replace(self._prepared)
        if obstacles:
            self._has_trash = True
            events += detour(obstacles)
        switched, problems = deferred.publish.move_links(self._layout, self._prepared)
        self._prepared = [self._as_it_is(work) if work.failed else work for work in switched]
        return [*events, *problems]

    def _as_it_is(self, work: Prepared) -> Prepared:
        """Correct the plan of a repository whose links did not all move, so that nothing relies on a missing link."""
        try:
            disk = deferred.disk.scan(self._layout, work.repo)
        except OSError:
            disk = work.disk
        plan = deferred.refs.settle(work.plan, disk, deferred.refs.links_to_put(work.plan, disk).values())
        is_known = work.is_known and (bool(plan.targets) or work.repo in self._work.inventory)
        return work._replace(plan=plan, is_known=is_known)

    # Results

    def _known(self) -> list[Prepared]:
        return [work for work in self._prepared if work.is_known]

    def inventory(self) -> Inventory:
        """Which refs are expanded now, and at which commit."""
        return {
            work.repo: {
                ref: commit for ref, commit in work.plan.targets.items() if ref not in self._removed.get(work.repo, ())
            }
            for work in self._known()
        }

    def are_as_left(self, repos: Collection[RepoId]) -> bool:
        """Whether these repositories are on disk as this run has left them. Raises OSError."""
        inventory = self.inventory() if repos else {}
        return all(deferred.disk.is_as_left(self._layout, repo, inventory.get(repo, {})) for repo in repos)

    def failed(self) -> set[RepoId]:
        """The repositories for which some of the work could not be done."""
        return {work.repo for work in self._prepared if work.failed}

    def lacking(self) -> dict[RepoId, frozenset[Ref]]:
        """The needed refs that each remote lacks, for all remotes that have replied."""
        asked = (work for work in self._known() if not work.failed and work.repo in self._work.library.urls)
        return {work.repo: work.lacking for work in asked}

    def states(self) -> dict[RepoId, str]:
        """What each remote was like that lacks commits (see ``absent_refs.state_of``)."""
        return {work.repo: work.lacking_at for work in self._known() if work.lacking_at}

    def expansion(self) -> Expansion:
        """The refs that environments can rely on, and those that are missing or undetermined."""
        return Expansion(
            self.inventory(),
            frozenset((work.repo, ref) for work in self._known() for ref in work.plan.missing),
            frozenset((work.repo, ref) for work in self._known() for ref in work.plan.undetermined),
            frozenset(self._work.plan.pinned),
            self._work.common,
            self._work.library.usages,
        )

    def faults(self) -> list[Fault]:
        """What is wrong with the library and with repositories, as the workers found it."""
        found = [
            Fault(LIBRARY_ENTRY, reason, repository=str(repo)) for repo, reason in self._work.library.unusable.items()
        ]
        found += (Fault(PURGE_GUARD, refusal, ref=refusal.split(" at once")[0]) for refusal in self._work.plan.refusals)
        for work in self._prepared:
            found += (
                Fault(event.kind or NOT_FETCHED, event.text, repository=str(work.repo), ref=event.ref)
                for event in work.events
                if event.kind or event.is_failure
            )
        return found

    @property
    def is_at_rest(self) -> bool:
        """Whether the next run has nothing to clear away."""
        has_removals_left = not self._work.left.keys().isdisjoint(self._work.plan.deleted)
        return not (self._has_trash or has_removals_left or any(work.disk.clones for work in self._prepared))

    # Retire: branch links, repositories and checkouts that no environment uses

    def retire(
        self,
        needs: Mapping[RepoId, Needs],
        retention_time: float,
        is_used: Callable[[RepoId], bool],
        only: Collection[RepoId] | None = None,
        in_use: Mapping[RepoId, frozenset[str]] = MappingProxyType({}),
    ) -> list[Event]:
        """Remove branch links, repositories and checkouts that no environment uses now. Raises OSError.

        ``is_used``: whether an environment that could not be changed still uses a repository. With ``only``,
        checkouts of other repositories are left alone. Checkouts of commits that are ``in_use`` otherwise stay.
        """
        if only is not None and not only:
            return []
        events: list[Event] = []
        for work in self._known():
            kept = kept_refs(work, needs[work.repo])
            self._removed[work.repo] = set(work.plan.targets) - kept
            if over := deferred.refs.entries_to_remove(work.disk, kept):
                self.changed.add(work.repo)
                events += deferred.publish.remove_entries(self._layout, work.repo, over)
        used = set(filter(is_used, self._work.plan.deleted))
        for repo in self._work.plan.deleted:
            if repo in self._work.left:
                used.add(repo)
                events.append(Event(logging.WARNING, f"{repo} stays for the next run: jens-transfer works on it"))
                continue
            if repo in used:
                text = f"{repo} stays for the next run: an environment that could not be changed uses it"
                events.append(Event(logging.WARNING, text))
                continue
            entries, problems = self._entries_of(repo)
            events += [*problems, *deferred.publish.remove_entries(self._layout, repo, entries)]
            events += deferred.publish.remove_mirror(self._layout, repo)
            self.changed.add(repo)
        needed = {repo: set(refs.values()) for repo, refs in self.inventory().items()}
        for repo, commits in in_use.items():
            needed[repo] = needed.get(repo, set()) | commits
        # A repository that only has no room for something new is not spared: its old checkouts may be what takes it.
        spared = used | {work.repo for work in self._prepared if not work.is_certain}
        return events + deferred.retention.retire_checkouts(self._layout, needed, spared, retention_time, only)


def kept_refs(work: Prepared, needs: Needs) -> set[Ref]:
    """The refs whose entries stay: the needed ones that the remote does not lack."""
    return set(needs.refs) - work.plan.missing


def complaints(work: Work) -> Iterator[Event]:
    """The errors of the library: entries that are unusable, and removals that are refused."""
    for repo, reason in sorted(work.library.unusable.items()):
        name = one_line(str(repo))
        yield Event(
            logging.ERROR, f"The library's entry {name} is unusable ({one_line(reason)}), what is on disk is kept"
        )
    for refusal in work.plan.refusals:
        yield Event(logging.ERROR, refusal)


def _info(text: str) -> Event:
    return Event(logging.INFO, text)


def _of(partition: str, repos: Iterable[RepoId]) -> list[RepoId]:
    return sorted(repo for repo in repos if repo.partition == partition)
