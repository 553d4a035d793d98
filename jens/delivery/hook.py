"""The hook: a program of the site that gets what changed as JSON on its standard input."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from jens.config import Config
from jens.deliveries import Told
from jens.delivery import marks
from jens.delivery.news import News
from jens.delivery.telling import Delivery, DeliveryError, Telling
from jens.history.model import CHANGED, CREATED, DELETED
from jens.history.queries import Deployment, FaultLife
from jens.history.since import Difference
from jens.layout import Layout
from jens.model import Prefixes, declared
from jens.system import programs

#: The version of the document. A new key does not change it.
VERSION = 1


def receivers(config: Config) -> Iterator[str]:
    """The name of the hook, if there is one."""
    if config.hook.command:
        yield f"hook {config.hook.command}"


def tellings(delivery: Delivery) -> Iterator[Telling]:
    """The hook, if there is one and it has not been told of everything. Raises HistoryError."""
    yield from (each for name in receivers(delivery.config) for each in _tellings(delivery, name))


def _tellings(delivery: Delivery, name: str) -> Iterator[Telling]:
    config = delivery.config
    told = delivery.told(name)
    news = delivery.news_for(told)
    if not news:
        return

    def tell() -> Told:
        content = json.dumps(document(news, config.main.prefixes), indent=1).encode("ascii")
        _run(Layout.of(config), config.hook.command, content, config.hook.timeout)
        return Told(news.position)

    yield Telling(name, tell, 0)


def _run(layout: Layout, command: str, content: bytes, seconds: float) -> None:
    """Run the hook; what it leaves at work goes with it when it takes too long. Raises DeliveryError."""
    mark = marks.new(layout)
    try:
        ended = programs.run([command], content, seconds, {marks.NAME: mark})
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError) and os.path.exists(command):
            why = "the program that its first line names is not there"
        raise DeliveryError(f"it cannot be started: {why}") from error
    if ended.status is None:
        marks.end(mark)
    if ended.problem:
        raise DeliveryError(ended.problem)


def document(news: News, prefixes: Prefixes) -> dict[str, Any]:
    """What the hook gets. jens-deliver(1) and docs/hook.schema.json describe it."""
    environments = news.since.environments
    return {
        "version": VERSION,
        "host": news.host,
        "all": news.is_all,
        "deployments": [*map(_deployment, news.since.deployments)],
        "created": [name for name, each in environments.items() if each.change == CREATED],
        "changed": [name for name, each in environments.items() if each.change == CHANGED],
        "deleted": [name for name, each in environments.items() if each.change == DELETED],
        "environments": {
            name: {
                "change": each.change,
                "repositories": [_repository(difference, prefixes) for difference in each.differences],
            }
            for name, each in environments.items()
        },
        "faults": {"opened": [*map(_fault, news.opened)], "closed": [*map(_fault, news.closed)]},
    }


def _deployment(made: Deployment) -> dict[str, Any]:
    return {"number": made.number, "host": made.host, "time": _time(made.visible), "status": made.status}


def _repository(difference: Difference, prefixes: Prefixes) -> dict[str, Any]:
    return {
        "repository": difference.repository,
        "ref": declared(difference.ref, prefixes),
        "before": difference.before,
        "now": difference.now,
        "author": difference.author,
        "subject": difference.subject,
    }


def _fault(fault: FaultLife) -> dict[str, Any]:
    return {**fault._asdict(), "addresses": list(fault.addresses)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
