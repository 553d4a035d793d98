"""Transfers what runs have left: asks, clones or fetches, lays out what is needed, and takes its time.

Nothing that Puppet sees changes here. The next run finds mirror and checkouts on disk, and takes them up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait

from jens import locking
from jens.config import Config
from jens.errors import GitError
from jens.events import tell
from jens.git.workers import Pool, workers
from jens.layout import Layout
from jens.messaging import wake
from jens.metadata import clones
from jens.model import RepoId
from jens.repositories import publish, transfers
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
    silent = transfers.silent(layout)
    groups: dict[str, list[Request]] = {}
    with opened(config, Options(poll=True), is_patient=True) as context:
        plans = plan_everything(context, clones.current(config), None)
    requests = {request.repo: request for request in plans.work.requests() if request.url is not None}
    for repo in sorted(repos, key=lambda repo: (since[repo], repo)):
        if repo in requests:
            groups.setdefault(silent.get(repo) or str(repo), []).append(requests[repo])
        else:
            transfers.withdraw(layout, repo)
    return [*groups.values()]


def _one_after_the_other(config: Config, requests: Sequence[Request]) -> None:
    """Transfer repositories until several have hung, or one shows that their server is there: then runs ask again."""
    layout = Layout.of(config)
    for slow, request in enumerate(requests, 1):
        try:
            with locking.holding(layout.transfer_lock(request.repo)) as is_alone:
                has_answered = is_alone and _transfer(config, layout, request)
            if is_alone and has_answered:
                transfers.withdraw_silent(layout, endpoint_of(request.url or ""))
                return
            transfers.put_at_the_end(layout, request.repo)
        except (GitError, OSError) as error:
            log.error("Unable to transfer %s: %s", request.repo, error)
        if slow >= _MOST_SLOW:
            return


def _transfer(config: Config, layout: Layout, request: Request) -> bool:
    """Bring one repository up to date, as far as Puppet does not see it. False when its remote said nothing in time.

    Raises GitError, OSError.
    """
    repo = request.repo
    log.info("Transferring %s...", repo)
    with opened(config, Options(poll=True), is_patient=True) as context:
        waited = _seconds(lambda: context.remotes.heads(request.url or ""))
        work = prepare(layout, context.remotes, request)
    tell(log, (event for event in work.events if event.level >= logging.WARNING))  # no link has moved
    if work.is_slow:
        for staging in work.staged.values():
            files.remove_tree(staging)
        return False
    _, events = publish.put_in_place(layout, [work])
    tell(log, events)
    transfers.withdraw(layout, repo)
    # A run right now would only wait for the same remote again, if that takes so long to say which branches it has.
    if not work.failed and config.main.mode == "ONDEMAND" and waited < (config.git.patience or float("inf")):
        wake.make(config.messaging.queuedir)
    log.info("Transferred %s, the next run takes it up" if not work.failed else "Runs take care of %s again", repo)
    return True


def _seconds(ask: Callable[[], object]) -> float:
    """How long a question takes, whatever comes of it: the reply is kept."""
    begin = time.monotonic()
    try:
        ask()
    except GitError as error:
        log.debug("%s", error)
    return time.monotonic() - begin
