"""Transfers what runs have left: asks, fetches or clones one repository a server at a time, and takes its time.

Nothing that Puppet sees changes here. The next run finds mirror and checkouts on disk, and takes them up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from jens import locking
from jens.config import Config
from jens.events import tell
from jens.git.workers import result, workers
from jens.layout import Layout
from jens.messaging import wake
from jens.metadata import clones
from jens.model import RepoId
from jens.repositories import publish, transfers
from jens.repositories.model import Request
from jens.repositories.prepare import prepare
from jens.update.options import Context, Options, opened
from jens.update.plan import plan_everything
from jens.urls import server_of

log = logging.getLogger(__name__)

#: Repositories of a server that may hang before the others wait for the next time.
_MOST_SLOW = 3


def run(config: Config) -> bool:
    """Work off what runs have left, also what they leave meanwhile. False: another process does so already.

    Raises MetadataError, LibraryError, DirectoryError, OSError.
    """
    layout = Layout.of(config)
    with locking.holding(transfers.at_work(layout)) as is_alone:
        if not is_alone:
            return False
        transfers.end_orphans(layout)
        tried: set[RepoId] = set()
        while todo := transfers.asked_for(layout).keys() - tried:
            tried |= todo
            _transfer(config, todo)
        return True


def _transfer(config: Config, repos: Iterable[RepoId]) -> None:
    """Transfer some repositories: those of one server one after the other, servers side by side."""
    with opened(config, Options(poll=True), is_patient=True) as context:
        requests = _requests(context, repos)
        servers: dict[str, list[Request]] = {}
        for request in requests:
            servers.setdefault(server_of(request.url or "") or str(request.repo), []).append(request)
        with workers(config.git.jobs) as pool:
            futures = [pool.submit(_one_after_the_other, context, some) for some in servers.values()]
            for future in futures:
                result(future)


def _requests(context: Context, repos: Iterable[RepoId]) -> list[Request]:
    """What there is to do. Repositories that are no longer in the library are nobody's any more."""
    layout = context.layout
    revisions = clones.current(context.config)
    plans = plan_everything(context, revisions, None)
    requests = {request.repo: request for request in plans.work.requests() if request.url is not None}
    for repo in repos:
        if repo not in requests:
            transfers.withdraw(layout, repo)
    since = transfers.asked_for(layout)
    return [requests[repo] for repo in sorted(repos, key=lambda repo: (since.get(repo, 0.0), repo)) if repo in requests]


def _one_after_the_other(context: Context, requests: Iterable[Request]) -> None:
    """Transfer repositories of one server, those that failed last at the end, until it seems to say nothing."""
    slow = 0
    for request in requests:
        with locking.holding(context.layout.transfer_lock(request.repo)) as is_alone:
            if is_alone and not _transfer_one(context, request):
                transfers.put_at_the_end(context.layout, request.repo)
                slow += 1
        if slow >= _MOST_SLOW or context.remotes.silent_server(request.url or ""):
            return


def _transfer_one(context: Context, request: Request) -> bool:
    """Bring one repository up to date, as far as Puppet does not see it. False when its server said nothing."""
    layout, repo = context.layout, request.repo
    log.info("Transferring %s...", repo)
    work = prepare(layout, context.remotes, request)
    tell(log, work.events)
    if work.is_slow:
        return False
    _, events = publish.put_in_place(layout, [work])
    tell(log, events)
    transfers.withdraw(layout, repo)
    wake.make(context.config.messaging.queuedir)
    log.info("Transferred %s, the next run takes it up", repo)
    return True
