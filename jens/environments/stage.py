"""The environments stage: carries out a plan, one environment after the other."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from jens import deferred
from jens.environments.model import NO_VERSIONS, Applied, EnvironmentsPlan, Previous, RefusedLinks, Versioning
from jens.events import Event
from jens.layout import Layout
from jens.links import HIERA_YAML
from jens.model import COMMON, HOSTGROUPS, MODULES, PARTITIONS, Commit, Definition, Expansion, IllFormed, Ref, RepoId
from jens.names import describe_ref
from jens.system import files
from jens.text import listed, name_in_line, one_line

if TYPE_CHECKING:
    from jens.environments.wanted import Planner
    from jens.links import Target

log = logging.getLogger(__name__)

#: So many repositories of an environment have a line each when they go to another default.
_MOST_MOVES = 100
#: So many ill-formed definitions have a line each.
_MOST_TOLD = 2000


class _Outcome(NamedTuple):
    """What came of an environment: errors, links that wait, and links that it must not have."""

    problems: Sequence[OSError] = ()
    waiting: Sequence[str] = ()
    refused: Mapping[str, Target] = MappingProxyType({})


class EnvironmentsStage:
    """Applies a plan. With ``with_conf`` each environment gets an environment.conf, and some have versions.

    Each environment.conf has the ``conf_lines``.
    """

    def __init__(
        self,
        layout: Layout,
        previous: Previous,
        expansion: Expansion,
        *,
        with_conf: bool,
        versioning: Versioning = NO_VERSIONS,
        conf_lines: tuple[str, ...] = (),
    ) -> None:
        self._layout = layout
        self._versioning = versioning
        self._previous = previous
        self._expansion = expansion
        self._with_conf = with_conf
        self._conf_lines = conf_lines
        self._standing: list[Definition] = []
        self._failures: list[str] = []
        self._unfinished: list[str] = []
        self._problems: dict[str, str] = {}
        self._refused: list[RefusedLinks] = []
        self._changed = 0
        self._is_blind = False
        self._done: dict[str, bytes] = {}
        self._postponed: list[Definition] = []
        self._replaced: dict[str, Mapping[RepoId, frozenset[str]]] = {}

    @cached_property
    def _planner(self) -> Planner:
        return self._new_planner(versions=False)

    @cached_property
    def _version_planner(self) -> Planner:
        return self._new_planner(versions=True)

    def _new_planner(self, *, versions: bool) -> Planner:
        return deferred.wanted.Planner(
            self._layout, self._expansion, with_conf=self._with_conf, versions=versions, conf_lines=self._conf_lines
        )

    def apply(self, plan: EnvironmentsPlan, known: Collection[str] = ()) -> Applied:
        """Make, remove and change environments. A failure of one leaves the others alone.

        ``known`` environments are protected, and runs have warned before that nothing declares them any more.
        """
        for refusal in (*plan.refusals, *plan.refused_changes.values()):
            log.error("%s", refusal)
        self._tell_ill_formed(plan.ill_formed)
        for name, problem in plan.damaged.items():
            self._fail(f"Environment '{name}' stays as it is, as its hold cannot be read: {problem}", name)
        if plan.excess:
            self._fail(plan.excess)
        log.info("New environments: %s", [definition.name for definition in plan.new])
        log.info("Existing and changed environments: %s", [definition.name for definition in plan.changed])
        log.info("Deleted environments: %s", sorted((*plan.deleted, *plan.protected)))
        log.info("Creating new environments...")
        for definition in plan.new:
            log.info("Creating new environment '%s'", definition.name)
            self._build(definition)
        log.info("Purging deleted environments...")
        for name in plan.deleted:
            self._delete(name)
        for name in plan.protected:
            level = logging.INFO if name in known else logging.WARNING
            log.log(level, "Refusing to delete '%s' as it's protected", name)
        log.info("Recreating changed environments...")
        for definition in plan.changed:
            log.info("Recreating environment '%s'", definition.name)
            self._build(definition)
        log.info("Refreshing not changed environments...")
        for definition in plan.unchanged:
            self._refresh(definition)
        self._retry()
        self._remember()
        for name in plan.ended:
            self._end_hold(name)
        return self._applied()

    def refresh(self, definition: Definition) -> Applied:
        """Make or change one environment, and nothing else."""
        self._refresh(definition)
        self._retry()
        return self._applied()

    def _retry(self) -> None:
        for definition in self._postponed:
            self._conclude(definition, self._attempt(definition))

    def _end_hold(self, name: str) -> None:
        """Remove a hold whose time is over, once its environment is as it should be."""
        if name in self._unfinished:
            return
        try:
            deferred.hold.remove(self._layout, name)
            log.info("Environment '%s' is no longer held, the time of its hold is over", name)
        except OSError as error:
            self._fail(f"Unable to remove the hold of environment '{name}', whose time is over: {error}", name)

    def _applied(self) -> Applied:
        return Applied(
            tuple(self._standing),
            tuple(self._failures),
            tuple(self._unfinished),
            self._problems,
            self._changed,
            tuple(self._refused),
            self._is_blind,
            self._replaced,
        )

    def _tell_ill_formed(self, ill_formed: Sequence[IllFormed]) -> None:
        for bad in ill_formed[:_MOST_TOLD]:
            self._fail(f"Environment '{name_in_line(bad.name)}' is ill-formed: {one_line(bad.reason)}")
        if more := ill_formed[_MOST_TOLD:]:
            self._fail(f"{len(more)} more environments are ill-formed: {listed([bad.name for bad in more])}")

    def _fail(self, text: str, name: str = "") -> None:
        if name:
            self._problems.setdefault(name, text)
        log.error("%s", text)
        self._failures.append(text)

    def _build(self, definition: Definition) -> None:
        _announce(definition)
        self._refresh(definition)

    def _refresh(self, definition: Definition) -> None:
        """Bring one environment up to date. What finds the disk full waits: the others may make room."""
        outcome = self._attempt(definition)
        if any(map(files.is_full, outcome.problems)):
            self._postponed.append(definition)
        else:
            self._conclude(definition, outcome)

    def _attempt(self, definition: Definition) -> _Outcome:
        try:
            return self._put(definition)
        except OSError as error:
            return _Outcome([error])

    def _conclude(self, definition: Definition, outcome: _Outcome) -> None:
        """Tell what came of an environment."""
        name = definition.name
        self._standing.append(definition)
        for refused in refused_links(name, outcome.refused):
            self._refused.append(refused)
            if refused.links == (HIERA_YAML,):  # the environment is complete without
                log.warning("%s", refused)
            else:
                self._fail(str(refused))
        for problem in _summary(outcome.problems):
            self._fail(f"Unable to refresh environment '{name}': {problem}", name)
        if outcome.waiting:
            text = f"Environment '{name}' has links that wait for what could not be fetched: {outcome.waiting}"
            self._problems.setdefault(name, text)
            log.warning("%s", text)
        if outcome.problems or outcome.waiting:
            self._leave_unfinished(name)
        else:
            self._done[name] = definition.source

    def _leave_unfinished(self, name: str) -> None:
        self._unfinished.append(name)
        try:
            self._standing += deferred.previous.in_use(self._layout, name, self._previous)
        except OSError:  # the failure was told
            self._is_blind = True

    def _put(self, definition: Definition) -> _Outcome:
        """Bring one environment up to date, as far as that is possible. Raises OSError."""
        if self._versioning.has(definition.name):
            return self._put_version(definition)
        tree, path = deferred.tree, self._layout.environment(definition.name)
        wanted = self._planner.tree(definition)
        found = tree.take(path)
        out = self._planner.refused(definition, found, definition.name)
        waiting = {link: repo for link, repo in self._planner.waiting(definition).items() if link not in out}
        held = deferred.wanted.keep_waiting(wanted, found, waiting)
        problems: list[OSError] = []
        if found.blocked or "" in found.missing:
            tree.create(path, held)
            self._changed += 1
        else:
            changes = deferred.wanted.plan_changes(held, found)
            self._tell_moves(definition, deferred.wanted.refs_moved(self._layout, definition.name, found, changes))
            problems = tree.change(path, changes)
            self._changed += bool(changes.count)
        return _Outcome(problems, deferred.wanted.differing(held, wanted), out)

    def _tell_moves(self, definition: Definition, moved: Mapping[RepoId, tuple[Ref, Ref]]) -> None:
        """Tell which repositories go from one default to another, because a branch has come or gone."""
        for repo, (before, after) in sorted(moved.items())[:_MOST_MOVES]:
            if {before, after} <= {*self._expansion.refs_of(definition, repo)}:
                text = f"{repo} goes from {describe_ref(before)} to {describe_ref(after)}"
                log.info("Environment '%s': %s", definition.name, text)

    def _put_version(self, definition: Definition) -> _Outcome:
        """Make a version of an environment, and flip its link, unless the current one is as it should be.

        Raises OSError.
        """
        versions, planner, layout, name = deferred.versions, self._version_planner, self._layout, definition.name
        place, before = layout.place(name), versions.current(layout, name)
        wanted = planner.tree(definition, self._versioning.told(before or ""))
        found = deferred.tree.take(layout.environmentsdir / place)
        out = planner.refused(definition, found, place)
        waiting = {link: repo for link, repo in planner.waiting(definition).items() if link not in out}
        if before is None and not found.links.keys().isdisjoint(waiting):
            return _Outcome([], sorted(waiting), out)  # its links would have to be others
        held = deferred.wanted.keep_waiting(wanted, found, waiting)
        if before is None or found.blocked or deferred.wanted.plan_changes(held, found).count:
            version = versions.next_version(layout, name)
            told = planner.tree(definition, self._versioning.told(version)).conf
            versions.put(layout, name, version, deferred.wanted.Tree(held.links, told), self._versioning.seen_at)
            log.info("Environment '%s' is version %s now", name, version)
            self._changed += 1
            if before is not None:
                used = versions.commits_among(layout, place, found.links)
                self._replaced[before] = versions.lost(used, versions.commits_among(layout, place, held.links))
        elif not versions.is_seen_at(layout, name, before, self._versioning.seen_at):
            versions.flip(layout, name, before, self._versioning.seen_at)
            self._changed += 1
        return _Outcome([], deferred.wanted.differing(held, wanted), out)

    def _delete(self, name: str) -> None:
        log.info("Deleting environment '%s'", name)
        path = self._layout.environment(name)
        try:
            files.discard(path)
            (self._layout.definitions / name).unlink(missing_ok=True)
        except OSError as error:
            self._fail(f"Unable to delete environment '{name}': {error}", name)
            self._leave_unfinished(name)
        else:
            log.info("Deleted '%s'", path)
            self._changed += 1

    def _remember(self) -> None:
        new = {}
        for name, source in self._done.items():
            before = self._previous.remembered.get(name)
            if source and (before is None or before.source != source):
                new[self._layout.definitions / name] = source
        try:
            if new:
                self._remember_in(self._layout.definitions, new)
        except OSError as error:
            self._fail(f"Unable to remember definitions in '{self._layout.definitions}': {error}")

    def _remember_in(self, directory: Path, new: Mapping[Path, bytes]) -> None:
        try:
            files.write_files(directory, new)
        except OSError as error:
            if not files.is_full(error):
                raise
            for path, content in new.items():  # as many as there is room for
                files.write_file(path, content)


def refused_links(environment: str, links: Mapping[str, Target]) -> Iterator[RefusedLinks]:
    """The links that an environment must not have, by repository."""
    for repo in sorted({target.repo for target in links.values()}):
        mine = {link: target.entry for link, target in links.items() if target.repo == repo}
        yield RefusedLinks(environment, repo, tuple(sorted({*mine.values()})), tuple(sorted(mine)))


def _summary(problems: Iterable[OSError]) -> list[str]:
    """One sentence for each kind of problem: on a full disk every link has the same one."""
    kinds: dict[int | None, list[OSError]] = {}
    for problem in problems:
        kinds.setdefault(problem.errno, []).append(problem)
    return [f"{same[0]}{f' (and {len(same) - 1} more like it)' if same[1:] else ''}" for same in kinds.values()]


def _announce(definition: Definition) -> None:
    lines = {MODULES: "Processing modules...", HOSTGROUPS: "Processing hostgroups...", COMMON: "Processing site..."}
    for partition in PARTITIONS:
        log.info("%s", lines[partition])
        for repo in sorted(repo for repo in definition.overrides if repo.partition == partition):
            ref = definition.overrides[repo]
            treeish = ref.digits if isinstance(ref, Commit) else ref.name
            log.info("%s '%s' overridden to use treeish '%s'", partition, one_line(repo.name), one_line(treeish))
    log.info("Processing common Hiera data...")


def bypass(layout: Layout, names: Iterable[str], entries: Mapping[tuple[RepoId, str], str]) -> list[Event]:
    """Make links that lead through these entries lead to the checkouts of their commits instead.

    A directory cannot be replaced by a link in one rename. In that moment environments use the checkout itself.
    """
    tree, failures = deferred.tree, []
    for name in names:
        place = layout.place(name)
        path = layout.environmentsdir / place
        try:
            for link, text in tree.links_through(layout, place, tree.read(path), entries).items():
                tree.put_link(path / link, text)
        except OSError as error:
            failures.append(Event(logging.ERROR, f"Unable to refresh environment '{name}': {error}"))
    return failures
