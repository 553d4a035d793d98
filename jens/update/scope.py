"""Which repositories a run looks at: all, or only a few when nothing else was touched since the last run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from jens import deferred, lastrun
from jens.config import Config
from jens.errors import GitError
from jens.git.shells import Command
from jens.layout import Layout, commit_entry
from jens.metadata import clones
from jens.model import COMMON, RepoId
from jens.system import clock
from jens.update import baseline as baselines
from jens.update.baseline import Baseline
from jens.update.options import Context

if TYPE_CHECKING:
    from jens.messaging.queue import Hints
    from jens.repositories.model import Left

log = logging.getLogger(__name__)


class Scope(NamedTuple):
    """Some repositories, and the baseline that proves all else untouched. Without a baseline: every repository."""

    repos: tuple[RepoId, ...] = ()
    baseline: Baseline | None = None


#: The scope of a run that cannot rely on anything.
EVERYTHING = Scope()


def look(context: Context) -> Baseline | None:
    """Load the baseline, if nothing was touched since the last run. None: the run has to look at everything.

    Remotes are asked meanwhile. Checkouts whose retention is over are removed.
    """
    if context.options.allow_purge:
        return None
    baseline = baselines.load(context.config, context.layout)
    if baseline is None or not lastrun.is_usable(context.layout):  # faults are told by runs that look at everything
        return None
    try:
        left = _left(context)
    except OSError:
        return None
    if not baseline.left.keys() <= left.keys():  # their faults are over
        return None
    baseline = baseline._replace(left=left)
    _begin_to_ask(context, baseline)
    if baseline.is_untouched(context.config, context.layout, context.remotes.go_on):
        baseline = without_expired(context.config, context.layout, baseline)
    else:
        baseline = None
    if baseline is None:
        context.remotes.forget()
    return baseline


def _left(context: Context) -> Mapping[RepoId, Left]:
    """What is left to jens-transfer; on most hosts nothing ever was. Raises OSError."""
    return deferred.patience.left(context) if os.path.lexists(context.layout.transfers) else {}


def _begin_to_ask(context: Context, baseline: Baseline) -> None:
    clones.ask(context.config, baseline.revisions, context.remotes)
    if not context.is_on_demand:
        context.remotes.ask(baseline.question(repo) for repo in baseline.urls if repo not in baseline.left)
    elif deferred.hints.has_messages(context.config.messaging.queuedir):
        _import_ahead()


def _import_ahead() -> None:
    """Import what work on a repository needs, while remotes are asked."""
    Thread(target=lambda: deferred.prepare, daemon=True).start()


def without_expired(config: Config, layout: Layout, baseline: Baseline) -> Baseline | None:
    """Remove the checkouts whose retention is over, and renew the baseline. None: the run looks at everything."""
    if clock.now().up < baseline.expires:
        return baseline
    seconds = config.main.retention
    over = {
        repo: some for repo, some in deferred.retention.expired(layout, seconds).items() if repo not in baseline.left
    }
    if not over:
        return baseline
    try:
        before = {repo: _names(layout, repo) - {commit_entry(commit) for commit in over[repo]} for repo in over}
        # The new baseline must not hide what somebody changed: each repository is compared before, and its links after.
        if not all(repo in baseline.urls and baseline.has_repository(layout, repo) for repo in over):
            return None
        if not deferred.retention.clear_expired(layout, over):
            return None
        expiry = deferred.retention.next_expiry(layout, seconds)
        return baselines.renew(
            *(layout, baseline, over, expiry), lambda _, __: {repo: _names(layout, repo) for repo in over} == before
        )
    except OSError:
        return None


def _names(layout: Layout, repo: RepoId) -> set[str]:
    """The names of the entries of a repository's directory, links with their targets. Raises OSError."""
    with os.scandir(layout.clone(repo)) as entries:
        return {f"{each.name} -> {os.readlink(each.path)}" if each.is_symlink() else each.name for each in entries}


def find(context: Context, baseline: Baseline | None, hints: Hints | None) -> Scope:
    """The repositories that hints name, or whose remotes differ from their mirrors; otherwise everything."""
    if baseline is None:
        return EVERYTHING
    repos = _behind(context, baseline) if hints is None else sorted(hints.repos - baseline.left.keys())
    # The items of the common repositories decide which links environments have.
    if not all(baseline.knows(repo) and repo.partition != COMMON for repo in repos):
        return EVERYTHING
    now = clock.now()
    until = time.strftime("%H:%M:%S", time.localtime(now.wall + baseline.due - now.up))
    log.info("Only repositories that were pushed to are looked at until %s", until)
    return Scope(tuple(repos), baseline)


def _behind(context: Context, baseline: Baseline) -> list[RepoId]:
    """The repositories whose mirrors differ from their remotes, or from what the last run left."""
    found: list[RepoId] = []
    is_imported = False
    asked: dict[Command, list[RepoId]] = {}
    for repo in baseline.urls:
        if repo not in baseline.left:
            asked.setdefault(baseline.question(repo), []).append(repo)
    for done, question in enumerate(context.remotes.replies_to(asked), 1):
        context.options.progress("Asking", done, len(asked))
        if found and not is_imported:
            is_imported = True
            _import_ahead()
        found += [repo for repo in asked[question] if not _is_up_to_date(context, baseline, repo)]
    return sorted(found)


def _is_up_to_date(context: Context, baseline: Baseline, repo: RepoId) -> bool:
    """Whether a mirror is as the last run left it, and its remote has the same branches."""
    try:
        return baseline.has_mirror(context.layout, repo, context.remotes.reply(baseline.question(repo)))
    except GitError:
        return False
