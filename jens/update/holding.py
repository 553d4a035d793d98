"""Holds an environment at once: lays out what is missing, and switches. Everything else stays as it is.

The next run looks at everything, and finds the hold like any other source of a definition.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from jens.config import Config
from jens.environments import hold as holds
from jens.environments.hold import Hold
from jens.environments.model import Previous
from jens.environments.stage import EnvironmentsStage
from jens.errors import HoldError
from jens.events import tell
from jens.git import worktrees, wrapper
from jens.git.workers import results, workers
from jens.layout import Layout
from jens.metadata import reader
from jens.model import Commit, Definition, Expansion, Inventory, RepoId, common_branch
from jens.repositories import inventory, publish, retention
from jens.repositories.model import Budget, Left, Needs, Prepared, Request
from jens.repositories.prepare import prepare
from jens.statefile import StateError
from jens.system import files
from jens.update import baseline, deployment, patience
from jens.update.options import Context, Options, opened, versioning_of

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of it: why commits cannot be had, by repository (nothing was changed then), or else what failed."""

    lost: Mapping[RepoId, str] = MappingProxyType({})
    failures: tuple[str, ...] = ()


def hold(config: Config, wanted: Hold, definition: Definition) -> Outcome:
    """Hold an environment, under the run lock. ``definition`` is what the hold makes of it.

    Raises HoldError when it is not held. Once it is, failures are left to the next run.
    """
    with opened(config, Options()) as context:
        commits = _pinned(definition)
        try:
            if lost := _lay_out(context, commits):
                return Outcome(lost)
            baseline.remove(context.layout)
            holds.save(context.layout, wanted)
        except (OSError, StateError) as error:
            raise HoldError(wanted.environment, str(error)) from error
        log.info("Holding environment '%s' %s", wanted.environment, wanted.why)
        try:
            failures = _switch(context, definition, commits)
        except (OSError, StateError) as error:
            failures = (str(error),)
        if config.history.days:
            deployment.record_visible(config, deployment.Run(context.began), None, None)
        return Outcome(failures=failures)


def _pinned(definition: Definition) -> dict[RepoId, str]:
    """The commits that a held environment shows, but for those of repositories that keep moving."""
    return {repo: ref.digits for repo, ref in definition.overrides.items() if isinstance(ref, Commit) and ref.is_full}


# Commits that have no checkout


def _lay_out(context: Context, commits: Mapping[RepoId, str]) -> Mapping[RepoId, str]:
    """See to it that there is a checkout of each commit. Returns why some cannot be had: nothing was changed then.

    Raises OSError.
    """
    prepared, lost = _lay_out_missing(context, commits)
    if lost:
        _discard(context.layout, prepared)
        return lost
    retention.reclaim(context.layout, {repo: {commit} for repo, commit in commits.items()})
    return _publish(context.layout, prepared)


def _lay_out_missing(context: Context, commits: Mapping[RepoId, str]) -> tuple[list[Prepared], dict[RepoId, str]]:
    """Lay out aside the commits without a checkout: from the mirrors, or else from the remotes.

    Returns the results, and why some commits cannot be had.
    """
    layout = context.layout
    missing = {repo: commit for repo, commit in commits.items() if not _is_laid_out(layout, repo, commit)}
    prepared = _prepare(context, missing)
    lacking = {work.repo: missing[work.repo] for work in prepared if not _has(work, missing[work.repo])}
    if not lacking:
        return prepared, {}
    done = [work for work in prepared if work.repo not in lacking]
    again = _prepare(context, lacking, reader.known_library(context.config).urls, patience.left(context))
    return [*done, *again], {
        work.repo: _reason(work, lacking[work.repo]) for work in again if not _has(work, lacking[work.repo])
    }


def _is_laid_out(layout: Layout, repo: RepoId, commit: str) -> bool:
    return os.path.lexists(f"{layout.checkout(repo, commit)}/.git")  # a checkout appears in one rename


def _prepare(
    context: Context,
    commits: Mapping[RepoId, str],
    urls: Mapping[RepoId, str] = MappingProxyType({}),
    left: Mapping[RepoId, Left] = MappingProxyType({}),
) -> list[Prepared]:
    """Lay out commits aside. Only remotes with URLs are asked, and only for what the mirrors lack."""
    main = context.config.main
    budget = Budget(main.maxfiles, main.maxbytes)
    requests = [
        Request(
            repo,
            urls.get(repo),
            Needs(overrides=frozenset({Commit(commit)})),
            {},
            ask=repo in urls,
            lacking=frozenset(),
            is_new=repo in urls and not wrapper.is_repository(context.layout.bare(repo)),
            budget=budget,
            left=left.get(repo),
        )
        for repo, commit in commits.items()
    ]
    with workers(context.jobs) as pool:
        futures = [pool.submit(prepare, context.layout, context.remotes, request) for request in requests]
        prepared = results(futures)
    for work in prepared:
        tell(log, [event for event in work.events if not event.is_failure])
    return prepared


def _has(work: Prepared, commit: str) -> bool:
    return commit in work.plan.targets.values()


def _reason(work: Prepared, commit: str) -> str:
    """Why a commit cannot be had."""
    told = "; ".join(event.text for event in work.events if event.is_failure)
    return f"{work.repo} at {commit}: {told or 'neither disk nor mirror has it, and the library has no URL to ask'}"


def _discard(layout: Layout, prepared: Iterable[Prepared]) -> None:
    """Remove what was laid out aside."""
    for work in prepared:
        for commit, staging in work.staged.items():
            files.remove_tree(staging)
            files.remove_tree(worktrees.record_path(layout.bare(work.repo), commit))


def _publish(layout: Layout, prepared: Sequence[Prepared]) -> dict[RepoId, str]:
    """Put the new checkouts in place. Returns why some could not be."""
    _, events = publish.put_in_place(layout, prepared)
    failures = tell(log, events)
    failed = [work.repo for work in prepared if not all(_is_laid_out(layout, work.repo, each) for each in work.staged)]
    return {repo: next((text for text in failures if str(repo) in text), f"{repo} is not laid out") for repo in failed}


# The switch


def _switch(context: Context, definition: Definition, commits: Mapping[RepoId, str]) -> tuple[str, ...]:
    """Make the links of the environment, and return what failed."""
    layout = context.layout
    main, versioning = context.config.main, versioning_of(context.config)
    with_conf, lines = main.directory_environments, main.environment_conf
    expanded: Inventory = {repo: {Commit(each): each} for repo, each in commits.items()}
    moving = [*definition.follow, *(repo for repo in definition.overrides if repo not in commits)]
    usages = reader.known_library(context.config).usages if moving else {}
    expansion = Expansion(
        {**expanded, **_recorded(layout, moving)}, common=common_branch(main.mandatorybranches), usages=usages
    ).with_missing([definition], moving)
    stage = EnvironmentsStage(
        layout, Previous(), expansion, with_conf=with_conf, versioning=versioning, conf_lines=lines
    )
    return stage.refresh(definition).failures


def _recorded(layout: Layout, repos: Sequence[RepoId]) -> Inventory:
    """What is expanded of repositories, as the last run left it; a repository that it did not know dangles."""
    return {**{repo: {} for repo in repos}, **inventory.load_some(layout, repos)} if repos else {}
