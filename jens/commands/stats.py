"""jens-stats: prints what an instance holds."""

from __future__ import annotations

import argparse
import json
import pprint
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jens import deferred, lastrun, preflight
from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import FAILED, OK
from jens.commands.runner import complain, load, run_tool
from jens.config import Config
from jens.environments.hold import Hold
from jens.lastrun import LastRun
from jens.layout import Layout
from jens.model import HOSTGROUPS, MODULES, PARTITIONS, Inventory, OpenFault, Prefixes, declared
from jens.text import one_line
from jens.tools import stats
from jens.tools.stats import DanglingLink, Environments, Known

#: The version of the JSON document. It goes up when a field changes its meaning, or is removed.
VERSION = 1

_REPOSITORIES, _ENVIRONMENTS, _INVENTORY, _QUEUES = "repositories", "environments", "inventory", "queues"
_DIRECTORIES = {
    _REPOSITORIES: ("baredir", "clonedir", "cachedir"),
    _ENVIRONMENTS: ("clonedir", "cachedir", "environmentsdir", "environmentsmetadatadir"),
    _INVENTORY: ("baredir", "clonedir", "cachedir"),
    _QUEUES: (),
}
_TIME = "%Y-%m-%d %H:%M:%S"
_UNITS = ("B", "KiB", "MiB", "GiB")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-stats``."""
    arguments = _arguments(argv)
    return run_tool(lambda: _main(arguments))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argument_parser(
        "Show what this instance of Jens holds: repositories with their expanded branches and commits, environments, "
        "the inventory, and how many hints wait. Without an option that picks something, all of it. Nothing is changed."
    )
    parser.add_argument("-a", "--all", action="store_true", help="everything (the default)")
    parser.add_argument(
        "-r",
        "--repositories",
        dest="parts",
        action="append_const",
        const=_REPOSITORIES,
        help="modules and hostgroups: what is expanded of them, and how large they are",
    )
    parser.add_argument(
        "-e",
        "--environment",
        "--environments",
        dest="parts",
        action="append_const",
        const=_ENVIRONMENTS,
        help="environments: remembered, declared and on disk, and their links that lead nowhere",
    )
    parser.add_argument(
        "-i",
        "--inventory",
        dest="parts",
        action="append_const",
        const=_INVENTORY,
        help="the inventory, as a Python literal",
    )
    parser.add_argument(
        "-q", "--queues", dest="parts", action="append_const", const=_QUEUES, help="how many hints wait in the queue"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print one JSON document, which tells more")
    forms.add_argument("--prometheus", action="store_true", help="print metrics for Prometheus, whatever is picked")
    return parse_arguments(parser, argv)


def _main(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    if arguments.prometheus:
        return _prometheus(config)
    parts = set(_DIRECTORIES) if arguments.all or not arguments.parts else set(arguments.parts)
    preflight.check_readable(config, (key for part in _DIRECTORIES if part in parts for key in _DIRECTORIES[part]))
    if arguments.json:
        print(_json(config, parts))
        return OK
    if parts == set(_DIRECTORIES):  # first, and whatever else cannot be read
        print("\n".join(_last_run_text(lastrun.load(Layout.of(config)))), flush=True)
    print("\n".join(_text(config, parts)))
    return OK


def _prometheus(config: Config) -> int:
    preflight.check_readable(config, ("baredir", "clonedir", "cachedir", "environmentsdir"))
    metrics = deferred.status_metrics  # with it comes Flask, which all other forms can spare
    try:
        text, _ = metrics.render(metrics.collect(deferred.status_sources.Sources(config)))
    except metrics.MetricsMissingError as error:
        return complain(str(error), FAILED)
    print(text.decode("utf-8"), end="")
    return OK


def _known(layout: Layout, parts: Collection[str]) -> Known:
    return stats.known(layout) if {_REPOSITORIES, _INVENTORY} & set(parts) else Known({})


# Text


def _text(config: Config, parts: Collection[str]) -> Iterator[str]:
    layout = Layout.of(config)
    known = _known(layout, parts)
    if _REPOSITORIES in parts:
        yield from _repositories_text(config, layout, known.inventory)
    if _ENVIRONMENTS in parts:
        yield from _environments_text(stats.environments(config, layout), config.main.prefixes)
    if _INVENTORY in parts:
        yield from _inventory_text(known, config.main.prefixes)
    if _QUEUES in parts:
        yield f"There are '{stats.messages(config)}' messages in the hints queue"


#: In the place of a time that is none.
_UNKNOWN = "nobody knows when"


def _last_run_text(last_run: LastRun | None) -> Iterator[str]:
    """How the last run went, what is wrong, and what failed; times are local."""
    if last_run is None:
        yield "Last run: never, or nothing tells of it"
        return
    yield f"Last run: {_local(last_run.begin)}, {last_run.seconds:.1f} s, exit status {last_run.status}"
    yield f"There are {len(last_run.faults)} open faults"
    for opened in last_run.faults:
        yield f"\t- {one_line(_fault_text(opened))}"
    if last_run.failures:
        yield f"There are {len(last_run.failures)} failures in the last run"
    for failure in last_run.failures:
        yield f"\t- {one_line(failure)}"


def _local(time: float) -> str:
    try:
        return f"{datetime.fromtimestamp(time):{_TIME}}"
    except (ValueError, OverflowError, OSError):
        return _UNKNOWN


def _fault_text(opened: OpenFault) -> str:
    fault, since = opened
    try:
        began = _local(datetime.fromisoformat(since).timestamp())
    except (ValueError, OverflowError):
        began = _UNKNOWN
    where = " ".join(filter(None, (fault.environment, fault.repository)))
    told = f" ({', '.join(fault.addresses)})" if fault.addresses else ""
    return f"{fault.kind}{f' {where}' if where else ''} since {began}: {fault.text}{told}"


def _repositories_text(config: Config, layout: Layout, found: Inventory) -> Iterator[str]:
    refs = stats.literal(found, config.main.prefixes)
    sizes = stats.sizes(layout, found, config.main.mandatorybranches)
    for partition in (MODULES, HOSTGROUPS):
        repos = sorted(repo for repo in found if repo.partition == partition)
        yield f"There are {len(repos)} {partition}:"
        for repo in repos:
            expanded = one_line(",".join(refs[partition][repo.name]))
            yield f"\t- {repo.name} ({expanded}) [{readable(sizes.get(repo))}]"


def readable(size: int | None) -> str:
    """Format a size in bytes with one decimal, in the largest unit of which there is at least one."""
    if size is None:
        return "unknown"
    amount = float(size)
    for unit in _UNITS[:-1]:
        if round(amount, 1) < 1024:
            return f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}{_UNITS[-1]}"


def _environments_text(found: Environments, prefixes: Prefixes) -> Iterator[str]:
    yield from _listed("cached environments", found.cached)
    yield from _listed("declared environments", [f"{name}.yaml" for name in found.declared])
    yield from _listed("synchronized environments", found.synchronized)
    if found.held or found.damaged:
        damaged = [f"{name}, whose hold cannot be read: {problem}" for name, problem in found.damaged.items()]
        yield from _listed("held environments", [*map(_held_text, found.held), *damaged])
    if found.dangling:
        yield from _listed("dangling links", [_dangling_text(entry, prefixes) for entry in found.dangling])


def _listed(what: str, names: Collection[str]) -> Iterator[str]:
    yield f"There are {len(names)} {what}"
    for name in names:
        yield f"\t - {one_line(name)}"


def _held_text(hold: Hold) -> str:
    until = f" until {_local(hold.until)}" if hold.until else ""
    over = "; it is over, but the environment waits for a run of jens-update" if hold.is_over else ""
    return f"{hold.environment} since {_local(hold.since)}{until} {hold.why}{over}"


def _dangling_text(entry: DanglingLink, prefixes: Prefixes) -> str:
    target = entry.link.text
    if entry.repository and entry.ref:
        target = f"{entry.repository} {declared(entry.ref, prefixes)}"
    return f"{entry.link.environment}/{entry.link.path} -> {target} ({entry.address or 'nobody to notify'})"


def _inventory_text(known: Known, prefixes: Prefixes) -> Iterator[str]:
    yield "Fetching repositories inventory..."
    if known.generated:
        yield "Inventory on disk not found or corrupt, generating..."
        yield "Generating inventory of bares and clones..."
    yield pprint.pformat(stats.literal(known.inventory, prefixes))


# JSON


def _json(config: Config, parts: Collection[str]) -> str:
    layout = Layout.of(config)
    known = _known(layout, parts)
    last_run = lastrun.load(layout)
    document: dict[str, Any] = {"version": VERSION, "last_run": last_run and last_run.encode()}
    if _REPOSITORIES in parts:
        document["repositories"] = _repositories_json(config, layout, known.inventory)
    if _ENVIRONMENTS in parts:
        document["environments"] = _environments_json(stats.environments(config, layout), config.main.prefixes)
    if _INVENTORY in parts:
        document["inventory"] = stats.literal(known.inventory, config.main.prefixes)
        document["inventory_generated"] = known.generated
    if _QUEUES in parts:
        document["queue"] = {"messages": stats.messages(config)}
    return json.dumps(document, indent=1, sort_keys=True)


def _repositories_json(config: Config, layout: Layout, found: Inventory) -> dict[str, dict[str, Any]]:
    sizes = stats.sizes(layout, found, config.main.mandatorybranches)
    times = stats.commit_times(layout, found, config.git.jobs)
    content: dict[str, dict[str, Any]] = {partition: {} for partition in PARTITIONS}
    for repo, refs in found.items():
        expanded = {
            declared(ref, config.main.prefixes): {"commit": commit, "age": _age(times[repo], commit)}
            for ref, commit in refs.items()
        }
        content[repo.partition][repo.name] = {"refs": expanded, "size": sizes.get(repo)}
    return content


def _age(times: Mapping[str, int], commit: str) -> int | None:
    return max(0, int(time.time()) - times[commit]) if commit in times else None


def _environments_json(found: Environments, prefixes: Prefixes) -> dict[str, Any]:
    return {
        "cached": found.cached,
        "declared": found.declared,
        "synchronized": found.synchronized,
        "ill_formed": {definition.name: definition.reason for definition in found.ill_formed},
        "dangling": [
            {
                "environment": entry.link.environment,
                "link": entry.link.path,
                "target": entry.link.text,
                "repository": entry.repository and str(entry.repository),
                "ref": entry.ref and declared(entry.ref, prefixes),
                "address": entry.address,
            }
            for entry in found.dangling
        ],
        "held": {
            hold.environment: {**hold.encode(), "ended": hold.is_over, "repositories": len(hold.repositories)}
            for hold in found.held
        },
        "damaged_holds": {**found.damaged},
    }
