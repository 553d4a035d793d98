"""A dry run: the plan as text. It reads metadata, remotes and disk, and changes nothing that is published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jens.config import Config
from jens.environments import tree
from jens.environments.model import EnvironmentsPlan
from jens.environments.tree import Planner
from jens.errors import EnvironmentsError, RepositoriesError
from jens.git.workers import result, workers
from jens.messaging.queue import Queue
from jens.metadata import clones
from jens.model import Expansion
from jens.repositories import mirror, prepare
from jens.repositories.model import Prepared, RepositoriesPlan
from jens.repositories.refs import describe
from jens.repositories.stage import complaints
from jens.text import one_line
from jens.update.options import Context, Options, failing_as, opened
from jens.update.plan import Plans, plan_everything


def run(config: Config, options: Options) -> list[str]:
    """The lines that say what a run would do. Raises MetadataError, QueueError, LibraryError, DirectoryError."""
    with opened(config, options) as context:
        return _lines(context)


def _lines(context: Context) -> list[str]:
    config, layout, remotes, _ = context
    revisions = clones.refresh(config, remotes.options, reset=False)
    hints = Queue(config.messaging.queuedir).look() if context.is_on_demand else None
    with failing_as(RepositoriesError):
        plans = plan_everything(context, revisions, hints)
    requests = plans.work.requests()
    for _ in remotes.replies_to(mirror.questions(requests)):
        pass
    with workers(config.git.jobs) as pool:
        futures = [pool.submit(prepare.foresee, layout, remotes, request) for request in requests]
        foreseen = [result(future) for future in futures]
    with failing_as(EnvironmentsError):
        lines = [event.text for event in (hints.events if hints else ())]
        lines += [event.text for event in complaints(plans.work)]
        lines += [*_repositories(plans.work.plan, foreseen), *_environments(plans.environments)]
        lines += _links(context, plans, foreseen)
    return lines or ["Nothing would change."]


def _repositories(plan: RepositoriesPlan, foreseen: Iterable[Prepared]) -> Iterator[str]:
    for work in foreseen:
        if work.repo in plan.new and work.is_known:
            yield f"Would take in repository {work.repo}"
        yield from (event.text for event in work.events if event.is_failure)
        for entry, old, new in describe(work.disk, work.plan):
            yield (
                f"Would move {work.repo} {entry} from {old[:7]} to {new[:7]}"
                if old
                else f"Would expand {work.repo} {entry} at {new[:7]}"
            )
    yield from (f"Would remove repository {repo}" for repo in plan.deleted)


def _environments(plan: EnvironmentsPlan) -> Iterator[str]:
    yield from (f"Would create environment '{definition.name}'" for definition in plan.new)
    yield from (f"Would recreate environment '{definition.name}'" for definition in plan.changed)
    yield from (f"Would delete environment '{name}'" for name in plan.deleted)
    yield from (f"Would refuse to delete environment '{name}', it is protected" for name in plan.protected)
    yield from plan.refusals
    for bad in plan.ill_formed:
        yield f"Environment '{one_line(bad.name)}' is ill-formed: {one_line(bad.reason)}"


def _links(context: Context, plans: Plans, foreseen: Iterable[Prepared]) -> Iterator[str]:
    works = [work for work in foreseen if work.is_known]
    expansion = Expansion(
        {work.repo: work.plan.targets for work in works},
        frozenset((work.repo, ref) for work in works for ref in work.plan.missing),
        frozenset((work.repo, ref) for work in works for ref in work.plan.undetermined),
    )
    layout = context.layout
    planner = Planner(layout, expansion, with_conf=context.config.main.directory_environments)
    for definition in plans.environments.definitions:
        found = tree.read(layout.environment(definition.name))
        wanted = tree.keep_waiting(planner.tree(definition), found, planner.waiting(definition))
        changes = tree.plan_changes(wanted, found)
        if changes.put or changes.remove:
            counts = f"change {len(changes.put)} and remove {len(changes.remove)} links"
            yield f"Would {counts} of environment '{definition.name}'"
