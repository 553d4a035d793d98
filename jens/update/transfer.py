"""Transfers what runs have left: asks, clones or fetches, lays out what is needed, and takes its time.

Nothing that Puppet sees changes here. The next run finds mirror and checkouts on disk, and takes them up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from enum import Enum

from jens import locking
from jens.config import Config
from jens.errors import GitError
from jens.events import tell
from jens.git.workers import Pool, workers
from jens.layout import Layout
from jens.messaging import wake
from jens.metadata import clones
from jens.model import Commit, RepoId
from jens.repositories import mirror, publish, transfers
from jens.repositories.disk import scan
from jens.repositories.model import Request
from jens.repositories.prepare import prepare
from jens.system import files
from jens.update.options import Options, opened
from jens.update.plan import plan_everything
from jens.urls import endpoint_of

log = logging.getLogger(__name__)

#: Repositories of a silent server that may hang before its others wait for the next time.
_MOST_SLOW = 3
#: Seconds between two looks at what runs have left meanwhile.
_LOOK = 1.0


def run(config: Config) -> bool:
    """Work off what runs have left, also what they leave meanwhile. False: another process does so already.

    Raises MetadataError, LibraryError, DirectoryError, OSError.
    """
    layout = Layout.of(config)
    files.make_directory(layout.transfers)
    with locking.holding(transfers.at_work(layout)) as is_alone:
        if not is_alone:
            return False
        transfers.end_orphans(layout)
        with workers(config.git.jobs) as pool:
            _work_off(config, layout, pool)
        return True


def _work_off(config: Config, layout: Layout, pool: Pool) -> None:
    """Try each repository once for each time that a run has left it."""
    tried: dict[RepoId, float] = {}
    under_way: dict[Future[None], Sequence[RepoId]] = {}
    while True:
        busy = {repo for repos in under_way.values() for repo in repos}
        asked = transfers.asked_for(layout)
        todo = [repo for repo, since in asked.items() if repo not in busy and since > tried.get(repo, float("-inf"))]
        for requests in _groups(config, todo, asked):
            future = pool.submit(_one_after_the_other, config, requests)
            under_way[future] = [request.repo for request in requests]
        tried.update(dict.fromkeys(todo, time.time()))  # those that need nothing have no future
        if not under_way:
            return
        for future in wait(under_way, timeout=_LOOK, return_when="FIRST_COMPLETED").done:
            tried.update(dict.fromkeys(under_way.pop(future), time.time()))
            future.result()


def _groups(config: Config, repos: Collection[RepoId], since: Mapping[RepoId, float]) -> list[list[Request]]:
    """What there is to do one after the other: a silent server is asked one question at a time, others not so.

    Those that were tried last come last. Repositories that are no longer in the library are nobody's any more.
    """
    if not repos:
        return []
    layout = Layout.of(config)
    silent, slow = transfers.silent(layout), transfers.slow(layout)
    groups: dict[str, list[Request]] = {}
    with opened(config, Options(poll=True), is_patient=True) as context:
        plans = plan_everything(context, clones.current(config), None)
    requests = {request.repo: request for request in plans.work.requests() if request.url is not None}
    for repo in sorted(repos, key=lambda repo: (since[repo], repo)):
        if repo in requests:
            group = str(repo) if repo in slow else silent.get(repo) or str(repo)
            groups.setdefault(group, []).append(requests[repo])
        else:
            transfers.withdraw(layout, repo)
    return [*groups.values()]


def _one_after_the_other(config: Config, requests: Sequence[Request]) -> None:
    """Transfer repositories until several have hung, or one shows that their server is well: then runs ask again."""
    layout = Layout.of(config)
    hung = 0
    for request in requests:
        try:
            with locking.holding(layout.transfer_lock(request.repo)) as is_alone:
                pace = _transfer(config, layout, request) if is_alone else None
            if pace is _Pace.QUICK:
                transfers.withdraw_silent(layout, endpoint_of(request.url or ""))
                return
            if pace is _Pace.SLOW:
                continue
            transfers.put_at_the_end(layout, request.repo)
        except (GitError, OSError) as error:
            log.error("Unable to transfer %s: %s", request.repo, error)
        hung += 1
        if hung >= _MOST_SLOW:
            return


class _Pace(Enum):
    """How soon a remote answers."""

    QUICK = "while a run has patience"
    SLOW = "later, but in time for jens-transfer"
    SILENT = "not in time"


def _transfer(config: Config, layout: Layout, request: Request) -> _Pace:
    """Bring one repository up to date, as far as Puppet does not see it. Raises GitError, OSError."""
    repo = request.repo
    log.info("Transferring %s...", repo)
    before, begin = _on_disk(layout, repo), time.monotonic()
    with opened(config, Options(poll=True), is_patient=True) as context:
        waited = _seconds(lambda: context.remotes.heads(request.question))
        work = prepare(layout, context.remotes, request)
    tell(log, (event for event in work.events if event.level >= logging.WARNING))  # no link has moved
    if work.is_slow:
        for staging in work.staged.values():
            files.remove_tree(staging)
        transfers.mark_silent(layout, repo)
        return _Pace.SILENT
    _, events = publish.put_in_place(layout, [work])
    tell(log, events)
    if any(isinstance(ref, Commit) for ref in work.lacking):  # the next run would ask for them again
        waited = time.monotonic() - begin
    if waited < (config.git.patience or float("inf")):
        transfers.withdraw(layout, repo)
        text = "Transferred %s, the next run takes it up" if not work.failed else "Runs take care of %s again"
        pace, has_news = _Pace.QUICK, not work.failed
    else:
        transfers.mark_slow(layout, repo)
        text = "Transferred %s, and runs go on not to ask for it, because its remote takes long to answer"
        pace, has_news = _Pace.SLOW, before != _on_disk(layout, repo)
    if has_news and config.messaging.queuedir.is_dir():
        wake.make(config.messaging.queuedir)
    log.info(text, repo)
    return pace


def _on_disk(layout: Layout, repo: RepoId) -> object:
    """The branches and checkouts of a repository; another value when a run has something to take up."""
    return mirror.read_heads(layout.bare(repo)), scan(layout, repo).checkouts


def _seconds(ask: Callable[[], object]) -> float:
    """How long a question takes, whatever comes of it: the reply is kept."""
    begin = time.monotonic()
    try:
        ask()
    except GitError as error:
        log.debug("%s", error)
    return time.monotonic() - begin
