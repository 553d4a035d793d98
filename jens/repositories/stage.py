"""The repositories stage: everything prepared in parallel, switched in one burst, cleared away at the very end."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Callable, NamedTuple

from jens.events import Event
from jens.git.remotes import Remotes
from jens.git.workers import Progress, count, result, results, workers
from jens.layout import Layout
from jens.model import PARTITIONS, Expansion, Inventory, Library, Ref, RepoId
from jens.repositories import mirror, publish, retention
from jens.repositories import prepare as repositories_prepare
from jens.repositories.disk import scan
from jens.repositories.model import Needs, Prepared, RepositoriesPlan, Request
from jens.repositories.refs import entries_to_remove, links_to_put, settle
from jens.system import files
from jens.text import one_line

log = logging.getLogger(__name__)


def never(_repo: RepoId) -> bool:
    """No environment clings to anything."""
    return False


#: Given entries of repositories and the commits that their checkouts are at.
Detour = Callable[[Mapping[tuple[RepoId, str], str]], list[Event]]


class Demand(NamedTuple):
    """Which remotes to ask: those of ``hinted`` repositories, and where that is not enough (see ``Request``).

    ``lacking`` is what remotes did not have when they were last asked, ``fresh`` what new and changed definitions need.
    """

    hinted: frozenset[RepoId]
    lacking: Mapping[RepoId, frozenset[Ref]]
    fresh: Mapping[RepoId, Needs]


class Work(NamedTuple):
    """The stage's orders; without a ``demand`` every remote is asked."""

    library: Library
    plan: RepositoriesPlan
    inventory: Inventory
    needs: Mapping[RepoId, Needs]
    demand: Demand | None = None

    def requests(self) -> list[Request]:
        """One for each repository that is not removed."""
        return [self._request(repo) for repo in self.plan.remaining]

    def _request(self, repo: RepoId) -> Request:
        request = Request(
            repo,
            self.library.urls.get(repo),
            self.needs[repo],
            self.inventory.get(repo, {}),
            is_new=repo in self.plan.new,
            is_known=repo in self.inventory,
        )
        if self.demand is None:
            return request
        return request._replace(
            ask=repo in self.demand.hinted,
            lacking=self.demand.lacking.get(repo),
            fresh=frozenset(self.demand.fresh[repo].refs),
            on_demand=True,
        )


class RepositoriesStage:
    """Holds what workers brought back, from one step of the run to the next."""

    def __init__(self, layout: Layout, remotes: Remotes, work: Work) -> None:
        self._layout = layout
        self._remotes = remotes
        self._work = work
        self._prepared: list[Prepared] = []
        self._removed: dict[RepoId, set[Ref]] = {}
        self.failures: list[str] = []
        self._has_trash = False

    def prepare(self, jobs: int, progress: Progress, *, silent: bool = False) -> None:
        """Have everything fetched and laid out, nothing visible yet; logged in the order of the partitions.

        ``silent``: what there is to be logged waits for ``tell``.
        """
        requests = self._work.requests()
        questions = mirror.questions(requests)
        for done, _ in enumerate(self._remotes.heard(questions), 1):
            progress("Asking", done, len(questions))
        with workers(jobs) as pool:
            # The largest first, or all would wait at the end for one of those.
            futures = {
                request.repo: pool.submit(repositories_prepare.prepare, self._layout, self._remotes, request)
                for request in sorted(
                    requests, key=lambda request: repositories_prepare.size(self._layout, request), reverse=True
                )
            }
            count("Preparing", futures.values(), progress)
            if not silent:
                self._tell_all(lambda repo: result(futures[repo]))
            self._prepared = results([futures[request.repo] for request in requests])

    def tell(self) -> None:
        """Log what a silent preparation came to."""
        self._tell_all({work.repo: work for work in self._prepared}.__getitem__)

    def _tell_all(self, prepared: Callable[[RepoId], Prepared]) -> None:
        self._tell(complaints(self._work))
        for partition in PARTITIONS:
            self._tell_of(partition, prepared)

    def _tell_of(self, partition: str, prepared: Callable[[RepoId], Prepared]) -> None:
        plan = self._work.plan
        log.info("Refreshing bare repositories (%s)", partition)
        log.info("New repositories: %s", [repo.name for repo in _of(partition, plan.new)])
        log.info("Deleted repositories: %s", [repo.name for repo in _of(partition, plan.deleted)])
        log.info("Cloning and expanding NEW bare repositories...")
        for repo in _of(partition, plan.new):
            log.info("Cloning and expanding %s...", repo)
            self._tell(prepared(repo).events)
        log.info("Expanding EXISTING bare repositories...")
        for repo in _of(partition, (*plan.existing, *plan.kept)):
            work = prepared(repo)
            self._tell(work.events)
            self._announce(repo, entries_to_remove(work.disk, _kept(work, self._work.needs[repo])))
        log.info("Purging REMOVED bare repositories...")
        for repo in _of(partition, plan.deleted):
            log.info("Deleting %s...", repo)
            self._announce(repo, self._entries_of(repo))

    def _entries_of(self, repo: RepoId) -> list[str]:
        try:
            return entries_to_remove(scan(self._layout, repo), ())
        except OSError as error:
            self._tell([Event(logging.ERROR, f"Unable to look at '{self._layout.clone(repo)}': {error}")])
            return []

    def _announce(self, repo: RepoId, entries: Iterable[str]) -> None:
        for entry in entries:
            log.info("Removing %s", self._layout.clone(repo) / entry)

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            log.log(event.level, "%s", event.text)
            if event.is_failure:
                self.failures.append(event.text)

    def switch(self, detour: Detour) -> None:
        """Put the new checkouts in place, then move all branch links. Raises OSError.

        ``detour`` leads environments to checkouts themselves where a directory must give way to a branch link.
        """
        retention.reclaim(self._layout, self._commits())
        self._prepared, events = publish.publish(self._layout, self._prepared)
        self._tell(events)
        obstacles = publish.obstacles(self._prepared)
        if obstacles:
            self._has_trash = True
            self._tell(detour(obstacles))
        switched, events = publish.switch(self._layout, self._prepared)
        self._prepared = [self._as_it_is(work) if work.failed else work for work in switched]
        self._tell(events)

    def _as_it_is(self, work: Prepared) -> Prepared:
        """What there is of a repository whose links may not all have moved: nobody must be led to one that is not."""
        try:
            disk = scan(self._layout, work.repo)
        except OSError:
            disk = work.disk
        plan = settle(work.plan, disk, links_to_put(work.plan, disk).values())
        is_known = work.is_known and (bool(plan.targets) or work.repo in self._work.inventory)
        return work._replace(plan=plan, is_known=is_known)

    def _known(self) -> list[Prepared]:
        return [work for work in self._prepared if work.is_known]

    def _commits(self) -> dict[RepoId, set[str]]:
        return {work.repo: set(work.plan.targets.values()) for work in self._known()}

    def inventory(self) -> Inventory:
        """Which refs are expanded now, and at which commit."""
        return {
            work.repo: {
                ref: commit for ref, commit in work.plan.targets.items() if ref not in self._removed.get(work.repo, ())
            }
            for work in self._known()
        }

    def failed(self) -> set[RepoId]:
        """The repositories with which not all was done that should have been."""
        return {work.repo for work in self._prepared if work.failed}

    def lacking(self) -> dict[RepoId, frozenset[Ref]]:
        """The needed refs that remotes do not have, of all remotes that have been heard."""
        asked = (work for work in self._known() if not work.failed and work.repo in self._work.library.urls)
        return {work.repo: work.lacking for work in asked}

    def expansion(self) -> Expansion:
        """What environments can rely on."""
        return Expansion(
            self.inventory(),
            frozenset((work.repo, ref) for work in self._known() for ref in work.plan.missing),
            frozenset((work.repo, ref) for work in self._known() for ref in work.plan.undetermined),
        )

    @property
    def needs(self) -> Mapping[RepoId, Needs]:
        """Which refs are needed of each repository, as was said in the orders."""
        return self._work.needs

    def has_only_moved(self) -> bool:
        """Whether the workers found the same refs as the last run did, at other commits perhaps, and no fault."""
        return all(
            work.is_known
            and not work.failed
            and not any(event.is_failure for event in work.events)
            and not work.plan.undetermined
            and work.plan.targets.keys() == self._work.inventory[work.repo].keys()
            for work in self._prepared
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is left for the next run to clear away."""
        return not self._has_trash and not any(work.disk.clones for work in self._prepared)

    def give_up(self) -> None:
        """Forget what the workers have laid out aside."""
        for work in self._prepared:
            for staging in work.staged.values():
                files.remove_tree(staging)

    def clear_away(
        self,
        needs: Mapping[RepoId, Needs],
        retention_time: float,
        is_used: Callable[[RepoId], bool] = never,
        only: Collection[RepoId] | None = None,
    ) -> None:
        """Remove what nothing needs any more, now that no environment uses it. Raises OSError.

        ``is_used`` tells of repositories that an environment has not let go of, because it could not be changed. With
        ``only``, checkouts of other repositories are not looked at.
        """
        for work in self._known():
            kept = _kept(work, needs[work.repo])
            self._removed[work.repo] = set(work.plan.targets) - kept
            self._tell(publish.remove_entries(self._layout, work.repo, entries_to_remove(work.disk, kept)))
        used = set(filter(is_used, self._work.plan.deleted))
        for repo in self._work.plan.deleted:
            if repo in used:
                log.warning("%s stays for the next run: an environment that could not be changed uses it", repo)
                continue
            self._tell(publish.remove_entries(self._layout, repo, self._entries_of(repo)))
            self._tell(publish.remove_mirror(self._layout, repo))
        needed = {repo: set(refs.values()) for repo, refs in self.inventory().items()}
        spared = used | {work.repo for work in self._prepared if work.failed or work.plan.undetermined}
        self._tell(retention.retire_checkouts(self._layout, needed, spared, retention_time, only))


def _kept(work: Prepared, needs: Needs) -> set[Ref]:
    """The refs whose entries stay: those needed, unless the remote said that they are gone."""
    return set(needs.refs) - work.plan.missing


def complaints(work: Work) -> Iterable[Event]:
    """What is wrong with the library as a whole, or with entries of it."""
    for repo, reason in sorted(work.library.unusable.items()):
        name = one_line(str(repo))
        yield Event(
            logging.ERROR, f"The library's entry {name} is unusable ({one_line(reason)}), what is on disk is kept"
        )
    for refusal in work.plan.refusals:
        yield Event(logging.ERROR, refusal)


def _of(partition: str, repos: Iterable[RepoId]) -> list[RepoId]:
    return sorted(repo for repo in repos if repo.partition == partition)
