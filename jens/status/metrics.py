"""What Prometheus is told. prometheus_client, an optional package, writes it down."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jens import __version__, deliveries
from jens.environments import dangling
from jens.environments import hold as holds
from jens.errors import DirectoryError
from jens.events import KINDS
from jens.history import queries, summaries
from jens.model import PARTITIONS
from jens.status.overview import hints_waiting
from jens.status.sources import Sources
from jens.tools.show import Past

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"

#: Upper ends of the buckets of times from push to visible, in seconds.
_BUCKETS = (0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_DAY = 86_400


class MetricsMissingError(Exception):
    """prometheus_client is not installed."""

    def __str__(self) -> str:
        return "prometheus-client is not installed, expected it for metrics: pip install 'jens[metrics]'"


class Metric(NamedTuple):
    """A metric: its samples by the values of its labels. A histogram has one sample: the sorted observations."""

    name: str
    meaning: str
    kind: str
    samples: Mapping[Any, Any]
    labels: tuple[str, ...] = ()


def _one(name: str, meaning: str, value: float | None) -> Iterator[Metric]:
    """A gauge with one value; none when that is not known."""
    if value is not None:
        yield Metric(name, meaning, GAUGE, {(): value})


def collect(sources: Sources) -> list[Metric]:
    """All metrics, as far as what they tell is known."""
    with sources.past() as past:
        return [
            *_info(),
            *_last_run(sources),
            *_contents(sources),
            *_faults(sources),
            *_waiting(sources),
            *_receivers(sources),
            *_recorded(past, time.time()),
            # A metric of another part of Jens is a function here, and a row in docs/status.md.
        ]


def _info() -> Iterator[Metric]:
    yield Metric("jens_info", "The version of Jens.", GAUGE, {(__version__,): 1}, ("version",))


def _last_run(sources: Sources) -> Iterator[Metric]:
    last = sources.instance().last_run
    if last is None:
        return
    yield from _one("jens_last_run_timestamp_seconds", "When the last run began.", last.begin)
    yield from _one("jens_last_run_duration_seconds", "How long the last run took.", last.seconds)
    yield from _one("jens_last_run_status", "The exit status of the last run.", last.status)
    yield from _one("jens_last_run_failures", "How much of its work the last run could not do.", len(last.failures))


def _contents(sources: Sources) -> Iterator[Metric]:
    try:
        repositories = [repo.partition for repo in sources.known().inventory]
        environments: int | None = len(sources.instance().environments())
    except DirectoryError:
        return
    counts = {(partition,): repositories.count(partition) for partition in PARTITIONS}
    yield Metric("jens_repositories", "Repositories that are laid out.", GAUGE, counts, ("partition",))
    yield from _one("jens_environments", "Environments that Puppet can read.", environments)
    yield from _one(
        "jens_dangling_links",
        "Repositories of environments that environments link to in vain.",
        len(dangling.load(sources.layout)),
    )


def _faults(sources: Sources) -> Iterator[Metric]:
    kinds = [opened.fault.kind for opened in sources.instance().faults]
    counts = {(kind,): kinds.count(kind) for kind in sorted({*KINDS, *kinds})}
    yield Metric("jens_faults", "Faults that are open, by kind.", GAUGE, counts, ("kind",))


def _waiting(sources: Sources) -> Iterator[Metric]:
    yield from _one("jens_hints_waiting", "Messages in the queue of hints.", hints_waiting(sources))
    left = len(sources.instance().left_to_transfer)
    yield from _one("jens_transfers_waiting", "Repositories that runs have left to jens-transfer.", left)


def _receivers(sources: Sources) -> Iterator[Metric]:
    held = len(holds.load_all(sources.layout).there)
    yield from _one("jens_held_environments", "Environments that stay as they are, whatever is pushed.", held)
    if sources.config.has_receivers:
        failing = [
            name.split(" ")[0] for name, told in deliveries.load(sources.layout).receivers.items() if told.failing
        ]
        counts = {(kind,): failing.count(kind) for kind in sorted({"hook", "puppetserver", "owner", "admin", *failing})}
        meaning = "Receivers that could not be told what has changed, by kind."
        yield Metric("jens_deliveries_failing", meaning, GAUGE, counts, ("kind",))


def _recorded(past: Past, now: float) -> Iterator[Metric]:
    """What the history tells. Counters begin anew each day, at midnight UTC: all who tell them tell the same."""
    midnight = now - now % _DAY
    endings = past.ask(lambda reader: summaries.endings(reader, midnight))
    seconds = past.ask(lambda reader: queries.seconds_to_visible(reader, midnight))
    yield from _one("jens_history_readable", "Whether the history can be read.", int(not past.problem))
    if endings is not None:
        counts = {
            (mode or "unknown", "unknown" if status is None else str(status)): count
            for (mode, status), count in endings.items()
        }
        meaning = "Runs that changed what Puppet sees, since midnight UTC."
        yield Metric("jens_deployments", meaning, COUNTER, counts, ("mode", "status"))
    if seconds is not None:
        meaning = "Time from a push until Puppet could see it, since midnight UTC."
        yield Metric("jens_push_to_visible_seconds", meaning, HISTOGRAM, {(): seconds})


def plan_buckets(seconds: Sequence[float]) -> list[tuple[str, float]]:
    """How many of the times are at most so long, for each bucket."""
    ends = [*_BUCKETS, float("inf")]
    return [("+Inf" if end == float("inf") else str(end), sum(each <= end for each in seconds)) for end in ends]


def render(metrics: Sequence[Metric]) -> tuple[bytes, str]:
    """The metrics as Prometheus reads them, and the content type of that. Raises MetricsMissingError."""
    try:
        client = importlib.import_module("prometheus_client")
        core = importlib.import_module("prometheus_client.core")
    except ImportError as error:
        raise MetricsMissingError from error
    registry = client.CollectorRegistry()
    registry.register(_Collector(metrics, core))
    return client.generate_latest(registry), client.CONTENT_TYPE_LATEST


class _Collector:
    """Gives prometheus_client what it writes down."""

    def __init__(self, metrics: Sequence[Metric], core: Any) -> None:
        self._metrics = metrics
        self._core = core

    def collect(self) -> Iterator[Any]:
        """The metrics, each as a family of prometheus_client."""
        for metric in self._metrics:
            yield self._family(metric)

    def _family(self, metric: Metric) -> Any:
        if metric.kind == HISTOGRAM:
            family = self._core.HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            for labels, seconds in metric.samples.items():
                family.add_metric(labels, plan_buckets(seconds), sum(seconds))
            return family
        kinds = {GAUGE: self._core.GaugeMetricFamily, COUNTER: self._core.CounterMetricFamily}
        family = kinds[metric.kind](metric.name, metric.meaning, labels=metric.labels)
        for labels, value in metric.samples.items():
            family.add_metric(labels, value)
        return family
