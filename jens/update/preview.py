"""A dry run: the plan as text. It reads metadata, remotes and disk, and changes nothing that is published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from jens import deliveries, lastrun
from jens.config import Config
from jens.environments import dangling, tree, versions
from jens.environments.dangling import Dangling
from jens.environments.faults import plan_faults
from jens.environments.model import Applied, EnvironmentsPlan, RefusedLinks
from jens.environments.stage import refused_links
from jens.environments.wanted import Planner, keep_waiting, plan_changes
from jens.errors import EnvironmentsError, RepositoriesError
from jens.git.workers import result, workers
from jens.layout import Layout
from jens.messaging.queue import Queue
from jens.metadata import clones
from jens.model import HIERADATA, Definition, Expansion, Ref
from jens.repositories import foresee, mirror
from jens.repositories.model import Prepared
from jens.repositories.refs import describe, entries_to_remove
from jens.repositories.stage import complaints, kept_refs
from jens.text import one_line
from jens.update import patience
from jens.update.options import Context, Options, configuration_faults, failing_as, opened, versioning_of
from jens.update.plan import Plans, doubts, plan_everything, without_losses


class Preview(NamedTuple):
    """The lines that say what a run would do; ``is_well`` when nothing would fail, and no fault be open after it."""

    lines: tuple[str, ...]
    is_well: bool


def run(config: Config, options: Options) -> Preview:
    """Tell what a run would do. Raises MetadataError, QueueError, LibraryError, DirectoryError, StageError."""
    with opened(config, options) as context:
        return _preview(context)


def _preview(context: Context) -> Preview:
    config, layout, remotes, _, jobs, _ = context
    revisions = clones.refresh(config, remotes, reset=False)
    hints = Queue(config.messaging.queuedir).look() if context.is_on_demand else None
    with failing_as(RepositoriesError):
        plans = plan_everything(context, revisions, hints, patience.left(context))
    requests = plans.work.requests()
    for _ in remotes.replies_to(mirror.questions(requests)):
        pass
    with workers(jobs) as pool:
        futures = [pool.submit(foresee.foresee, layout, remotes, request) for request in requests]
        foreseen = [result(future) for future in futures]
    with failing_as(EnvironmentsError):
        expansion = _expansion(plans, foreseen)
        plans = without_losses(plans, expansion)
        definitions = plans.environments.definitions
        missing = {*dangling.find_missing(definitions, expansion), *_absent_items(definitions, expansion, foreseen)}
        applied = Applied(definitions)
        faults = plan_faults(plans.environments, plans.previous, applied, plans.work.library, missing)
        faults += [*configuration_faults(config), *(deliveries.faults(layout) if config.has_receivers else [])]
        events = [*(hints.events if hints else ()), *complaints(plans.work)]
        events += [event for work in foreseen for event in work.events if event.is_failure]
        lines = [event.text for event in (*events, *doubts(plans))]
        lines += [*_repositories(plans, foreseen), *_environments(plans.environments)]
        has_hiera = {ref: has for work in foreseen for ref, has in work.has_hiera.items()}
        links, refused = _links(context, plans, expansion, has_hiera)
        lines += [*links, *map(str, refused), *_dangling(missing - dangling.load(layout))]
        lines += _new_faults(layout, foreseen)
    events += [event for work in foreseen for event in work.events if event.kind]
    is_well = not (faults or refused or any(event.kind or event.is_failure for event in events))
    return Preview(tuple(lines) or ("Nothing would change.",), is_well)


def _expansion(plans: Plans, foreseen: Iterable[Prepared]) -> Expansion:
    """What environments could rely on."""
    works = [work for work in foreseen if work.is_known]
    return Expansion(
        {work.repo: work.plan.targets for work in works},
        frozenset((work.repo, ref) for work in works for ref in work.plan.missing),
        frozenset((work.repo, ref) for work in works for ref in work.plan.undetermined),
        frozenset(plans.work.plan.pinned),
        plans.work.common,
        plans.work.library.usages,
    )


def _absent_items(
    definitions: Iterable[Definition], expansion: Expansion, foreseen: Iterable[Prepared]
) -> Iterator[Dangling]:
    """The items of the common Hiera data that environments would lack."""
    absent = {ref: items for work in foreseen for ref, items in work.absent.items()}
    for definition in definitions:
        ref = expansion.ref_of(definition, HIERADATA)
        if ref is not None:
            yield from (dangling.absent_item(definition.name, ref, item) for item in absent.get(ref, ()))


def _repositories(plans: Plans, foreseen: Iterable[Prepared]) -> Iterator[str]:
    plan = plans.work.plan
    for work in foreseen:
        if work.repo in plan.new and work.is_known:
            yield f"Would take in repository {work.repo}"
        for entry, old, new in describe(work.disk, work.plan):
            yield (
                f"Would move {work.repo} {entry} from {old[:7]} to {new[:7]}"
                if old
                else f"Would expand {work.repo} {entry} at {new[:7]}"
            )
        if work.is_known:
            kept = kept_refs(work, plans.work.needs[work.repo])
            yield from (f"Would remove {work.repo} {entry}" for entry in entries_to_remove(work.disk, kept))
    yield from (f"Would remove repository {repo}" for repo in plan.deleted if repo not in plans.work.left)


def _environments(plan: EnvironmentsPlan) -> Iterator[str]:
    yield from (f"Would create environment '{definition.name}'" for definition in plan.new)
    yield from (f"Would recreate environment '{definition.name}'" for definition in plan.changed)
    yield from (f"Would delete environment '{name}'" for name in plan.deleted)
    yield from (f"Would refuse to delete environment '{name}', it is protected" for name in plan.protected)
    yield from (f"Would end the hold of environment '{name}', its time is over" for name in plan.ended)
    yield from (f"Environment '{name}' has a hold that cannot be read: {text}" for name, text in plan.damaged.items())
    yield from (*plan.refusals, *plan.refused_changes.values(), *filter(None, [plan.excess]))
    for bad in plan.ill_formed:
        yield f"Environment '{one_line(bad.name)}' is ill-formed: {one_line(bad.reason)}"


def _dangling(found: Iterable[Dangling]) -> Iterator[str]:
    for entry in sorted(found):
        link = f"links of environment '{entry.environment}' to {entry.repository}"
        yield f"Would leave {link} dangling: there is no {entry.lacks}"


def _new_faults(layout: Layout, foreseen: Iterable[Prepared]) -> Iterator[str]:
    """What would be wrong with repositories and is not known yet."""
    known = {opened.fault.identity for opened in lastrun.load_faults(layout)}
    for work in foreseen:
        for event in work.events:
            if event.kind and not event.is_failure and (event.kind, "", str(work.repo), event.ref) not in known:
                yield f"Would have a fault: {event.text}"


def _links(
    context: Context, plans: Plans, expansion: Expansion, has_hiera: Mapping[Ref, bool]
) -> tuple[list[str], list[RefusedLinks]]:
    layout = context.layout
    lines: list[str] = []
    refused: list[RefusedLinks] = []
    with_conf, versioning = context.config.main.directory_environments, versioning_of(context.config)
    lines_of_conf = context.config.main.environment_conf
    plain, versioned = (
        Planner(*(layout, expansion), with_conf=with_conf, versions=each, conf_lines=lines_of_conf, has_hiera=has_hiera)
        for each in (False, True)
    )
    for definition in plans.environments.definitions:
        place, version = layout.place(definition.name), versions.current(layout, definition.name)
        found = tree.inspect(layout.environmentsdir / place)
        if versioning.has(definition.name) != (version is not None) and definition not in plans.environments.new:
            how = "Would give versions to" if version is None else "Would take the versions from"
            lines.append(f"{how} environment '{definition.name}'")
            continue
        planner = plain if version is None else versioned
        if found.blocked:
            lines.append(f"Would make environment '{definition.name}' anew, in the place of what is there")
        if found.modes:
            names = [name or "." for name in found.modes]
            lines.append(f"Would put right the modes of {names} in environment '{definition.name}'")
        wanted = planner.tree(definition, versioning.told(version or ""))
        out = planner.refused(definition, found, place)
        refused += refused_links(definition.name, out)
        waiting = {link: repo for link, repo in planner.waiting(definition).items() if link not in out}
        wanted = keep_waiting(wanted, found, waiting)
        changes = plan_changes(wanted, found)
        if changes.put or changes.remove:
            counts = f"change {len(changes.put)} and remove {len(changes.remove)} links"
            lines.append(f"Would {counts} of environment '{definition.name}'")
        if changes.conf is not None and definition in plans.environments.unchanged:
            lines.append(f"Would write environment.conf of environment '{definition.name}'")
    return lines, refused
