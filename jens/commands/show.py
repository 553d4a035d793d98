"""jens-show: answers what people ask about an environment, a repository or a commit."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import DIFFERENT, DIRECTORY, OK
from jens.commands.runner import load, run_tool
from jens.config import Config
from jens.environments.hold import Hold
from jens.events import DANGLING_LINK
from jens.git.authors import Described
from jens.history import spans
from jens.history.model import ref_of_name
from jens.history.spans import Span
from jens.model import Commit, OpenFault, Ref, RepoId, declared
from jens.names import is_environment_name, parse_repository
from jens.text import one_line
from jens.tools import history, show_commit, show_environment, show_repository
from jens.tools.show import Contact, Instance
from jens.tools.show_commit import Answer, Found, Lacking, MetadataCommit
from jens.tools.show_environment import Environment, Part
from jens.tools.show_repository import Repository

_ENVIRONMENT, _REPOSITORY, _COMMIT = "environment", "repository", "commit"
_DIGITS = 7
_ID = re.compile(r"[0-9a-fA-F]{7,40}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-show``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    _check(parser, arguments)
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Show what is known of an environment (each repository with its ref, why that ref, the commit, since when, and "
        "what dangles), of a repository (its refs, and which environments use each), or of a commit (in which "
        "environments it is since when, or why not). Everything is read from the disk of this instance."
    )
    parser.add_argument("what", metavar="WHAT", choices=(_ENVIRONMENT, _REPOSITORY, _COMMIT), help=", ".join(_LOOKS))
    parser.add_argument("name", metavar="NAME", help="an environment, PARTITION/NAME, or 7 to 40 digits of a commit")
    parser.add_argument(
        "--in",
        dest="environment",
        metavar="ENVIRONMENT",
        help="with commit: whether this environment has it; the exit status is 1 if not",
    )
    parser.add_argument(
        "-r", dest="repository", metavar="PARTITION/NAME", help="with commit: look in this repository only"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, which tells more")
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Check what is asked for, and put it into its form. A mistake ends the program."""
    name = one_line(arguments.name)
    if arguments.what != _COMMIT and (arguments.environment or arguments.repository):
        parser.error("--in and -r are for commits")
    if arguments.what == _COMMIT:
        if not _ID.fullmatch(arguments.name):
            parser.error(f"expected 7 to 40 hexadecimal digits of a commit, not {name!r}")
        arguments.name = arguments.name.lower()
    elif arguments.what == _REPOSITORY:
        arguments.name = _repository(parser, arguments.name)
    for environment in [arguments.name] if arguments.what == _ENVIRONMENT else filter(None, [arguments.environment]):
        if not is_environment_name(environment):
            parser.error(f"{one_line(environment)!r} is no name of an environment")
    arguments.repository = arguments.repository and _repository(parser, arguments.repository)


def _repository(parser: argparse.ArgumentParser, text: str) -> RepoId:
    try:
        return parse_repository(text)
    except ValueError:
        parser.error(f"expected a repository such as modules/dummy, not {one_line(text)!r}")


def _main(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    return _LOOKS[arguments.what](config, arguments)


def _show_environment(config: Config, arguments: argparse.Namespace) -> int:
    found = show_environment.look(Instance(config), arguments.name)
    _print(found.encode(config) if arguments.json else _environment(found, config))
    return OK


def _show_repository(config: Config, arguments: argparse.Namespace) -> int:
    found = show_repository.look(Instance(config), arguments.name)
    _print(found.encode(config) if arguments.json else _of_repository(found, config))
    return OK


def _show_commit(config: Config, arguments: argparse.Namespace) -> int:
    answer = show_commit.look(Instance(config), arguments.name, arguments.repository, arguments.environment)
    _print(answer.encode(config) if arguments.json else _answer(answer, config, arguments.environment))
    is_known = any(found.state != show_commit.NOT_IN_MIRROR for found in answer.commits)
    if not (is_known or answer.metadata):
        return DIRECTORY
    if arguments.environment and not any(found.places.visible for found in answer.commits):
        return DIFFERENT
    return OK


_LOOKS = {_ENVIRONMENT: _show_environment, _REPOSITORY: _show_repository, _COMMIT: _show_commit}


def _print(what: dict[str, Any] | Iterable[str]) -> None:
    if isinstance(what, dict):
        print(json.dumps(what, indent=1, sort_keys=True))
        return
    for line in what:
        print(line)


# For people; times are local


def _since(time: float | None) -> str:
    return f"since {history.local(time)}" if time is not None else "since nobody knows when"


def _short(commit: str | None) -> str:
    return commit[:_DIGITS] if commit else "-"


def _said(said: Described | None) -> str:
    return f"{said.author}: {said.subject}" if said else ""


def _ref(ref: Ref, config: Config) -> str:
    """A ref as definitions write it; the commit itself is shown beside it."""
    text = one_line(history.declared(ref, config))
    return f"{config.main.hashprefix}{ref.digits[:_DIGITS]}" if isinstance(ref, Commit) else text


def _faults(faults: Sequence[OpenFault]) -> Iterator[str]:
    if faults:
        yield f"There {'is 1 open fault' if len(faults) == 1 else f'are {len(faults)} open faults'}:"
    for fault, since in faults:
        where = " ".join(filter(None, (fault.environment, fault.repository)))
        yield f"\t{fault.kind}{f' {where}' if where else ''} since {history.local_of(since)}: {one_line(fault.text)}"


def _trouble(contact: Contact, *, with_fault: bool = True) -> Iterator[str]:
    """Why a repository may not be as new as its remote, a line each."""
    if contact.fault is not None and with_fault:
        yield f"not fetched since {history.local_of(contact.fault.since)}: {one_line(contact.fault.fault.text)}"
    if contact.under_way is not None:
        yield f"jens-transfer fetches it since {history.local(contact.under_way)}"
    elif contact.transfer is not None:
        yield f"left to jens-transfer since {history.local(contact.transfer)}"
    if contact.hint is not None:
        yield f"a hint waits since {history.local(contact.hint)}: the next run fetches it"


def _unknown(last_run: float | None, problem: str = "") -> Iterator[str]:
    """What cannot be told."""
    if last_run is None:
        yield "What is wrong now is not known, as nothing tells of the last run"
    if problem:
        yield f"What was before is not known, as the history cannot be read: {one_line(problem)}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with columns of equal width, but for the last one."""
    widths = [max(map(len, column)) for column in zip(*rows)][:-1]
    return ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]


# An environment


def _environment(found: Environment, config: Config) -> Iterator[str]:
    yield f"Environment {found.name}: {_definition(found, config)}"
    if found.version is not None:
        yield f"Version: {found.version}"
    if found.hold is not None:
        yield from hold_lines(found.hold)
    if found.definition is not None:
        yield f"Told when it breaks: {one_line(', '.join(found.definition.notifications)) or 'nobody'}"
    if found.changed is not None:
        behind = " ".join(filter(None, (_short(found.changed.commit).strip("-"), found.changed.author)))
        at = history.local(found.changed.time)
        yield f"{found.changed.change.capitalize()}: {at}{f' ({behind})' if behind else ''}"
    below = {(part.trouble.fault and part.trouble.fault.fault) for part in found.parts}
    gaps = {str(part.repository) for part in found.parts if part.gap is not None}
    others = [opened for opened in found.faults if opened.fault not in below]
    yield from _faults([opened for opened in others if not _is_of(opened, gaps)])
    count = len(found.parts)
    yield f"It has {count} repositor{'y' if count == 1 else 'ies'}:"
    rows = _table([_row(part, config) for part in found.parts]) if found.parts else []
    for part, row in zip(found.parts, rows):
        yield row
        yield from (f"\t{line}" for line in _remarks(part, config))
    yield from (f"{one_line(link)} leads to nothing that Jens has made" for link in found.strange)
    yield from _unknown(found.last_run, found.problem)


def hold_lines(hold: Hold) -> Iterator[str]:
    """Who holds an environment since when, why, as of when, until when, and what is not held."""
    until = f" until {history.local(hold.until)}" if hold.until else ""
    yield f"Held since {history.local(hold.since)}{until} {hold.why}"
    if hold.is_over:
        yield "The hold is over. A run of jens-update brings the environment up to date."
    if hold.then is not None:
        yield f"As it was at {history.local(hold.then.time)} (deployment {hold.then.deployment})"
    if hold.moving:
        yield f"Not held: {', '.join(map(str, hold.moving))}"


def _is_of(opened: OpenFault, gaps: Collection[str]) -> bool:
    """Whether a fault says that links to one of these repositories dangle."""
    return opened.fault.kind == DANGLING_LINK and opened.fault.repository in gaps


def _definition(found: Environment, config: Config) -> str:
    definition = found.definition
    if definition is None:
        return "its definition is lost"
    count = len(definition.overrides)
    if definition.default is None:
        return f"a snapshot of {count} repositor{'y' if count == 1 else 'ies'}"
    more = f", with {count} override{'' if count == 1 else 's'}" if count else ""
    defaults = " or else ".join(one_line(declared(ref, config.main.prefixes)) for ref in definition.defaults)
    return f"follows {defaults}{more}"


def _row(part: Part, config: Config) -> list[str]:
    since = "" if part.since is None else history.local(part.since)
    why = part.why or "unknown"
    return [str(part.repository), _ref(part.ref, config), why, _short(part.commit), since, _said(part.said)]


def _remarks(part: Part, config: Config) -> Iterator[str]:
    if part.why == show_environment.WAITING and part.asked is None:
        yield "the definition does not ask for it"
    if part.asked is not None:
        yield f"the definition asks for {_ref(part.asked, config)}, which could not be had yet"
    if part.problem:
        yield f"nobody can look at it: {one_line(part.problem)}"
    if part.gap is not None:
        since = f" since {history.local_of(part.gap.since)}" if part.gap.since else ""
        yield f"dangling{since}: {', '.join(map(one_line, part.gap.links))}: {one_line(part.gap.why)}"
    yield from _trouble(part.trouble)


# A repository


def _of_repository(found: Repository, config: Config) -> Iterator[str]:
    yield f"Repository {found.repository}, {one_line(found.url) if found.url else 'from an unknown URL'}"
    if found.is_declared is False:
        yield "The library does not have it."
    yield from _remote(found.contact)
    yield from _faults([opened for opened in found.faults if opened != found.contact.fault])
    if not found.refs:
        yield "Nothing of it is laid out."
    rows = [
        [_ref(each.ref, config), _short(each.commit), history.local(each.since) if each.since else "", _said(each.said)]
        for each in found.refs
    ]
    for each, row in zip(found.refs, _table(rows) if rows else []):
        yield row
        yield f"\tused by {', '.join(each.environments) or 'no environment'}"
    if found.unused:
        count = len(found.unused)
        yield f"In the mirror only, {count} branch{'' if count == 1 else 'es'}: {one_line(', '.join(found.unused))}"
    yield from (f"environment {name} cannot be read" for name in found.unread)
    yield from _unknown(found.last_run)


def _remote(contact: Contact) -> Iterator[str]:
    """What is known of the remote, a line each."""
    if contact.changed is None:
        yield "There is no mirror of it."
    else:
        if contact.answered is not None:
            yield f"The remote answered the run of {history.local(contact.answered)}."
        yield f"The mirror last changed at {history.local(contact.changed)}."
    yield from (f"{line[0].upper()}{line[1:]}" for line in _trouble(contact))


# A commit


def _answer(answer: Answer, config: Config, environment: str | None) -> Iterator[str]:
    for found in answer.commits:
        yield from _commit(found, config, environment)
    if answer.more:
        yield f"{answer.more} more match {answer.digits}: give more digits, or name the repository with -r"
    for each in answer.metadata:
        yield from _metadata(each)
    if not (answer.commits or answer.metadata):
        yield f"{answer.digits} is unknown: no mirror has it, and nothing tells that it was ever visible"
    for repo, contact in answer.suspects:
        yield f"it may be in {repo}:"
        yield from (f"\t{line}" for line in _trouble(contact))
    yield from (f"{name} cannot be read" for name in answer.unread)
    yield from _unknown(answer.last_run, answer.problem)


def _metadata(found: MetadataCommit) -> Iterator[str]:
    date = f" ({history.local(found.said.date)})" if found.said.date is not None else ""
    yield f"{found.id} metadata of {found.which} {_said(found.said)}{date}"
    contained = "it" if found.id == found.head else f"{_short(found.head)}, which contains it"
    yield f"\tthe last run worked from {contained if found.is_in_use else f'{_short(found.head)}, without it'}"


def _commit(found: Found, config: Config, environment: str | None) -> Iterator[str]:
    date = f" ({history.local(found.said.date)})" if found.said and found.said.date is not None else ""
    yield f"{found.id} {found.repository}{f' {_said(found.said)}' if found.said else ''}{date}"
    yield from (f"\t{line}" for line in _lines(found, config, environment))


def _lines(found: Found, config: Config, environment: str | None) -> Iterator[str]:
    places = found.places
    yield from _visible(found, config)
    yield from _past(found, config)
    if not places.visible:
        yield _where(found)
    yield from _lacking(places.lacking, config)
    yield from (f"environment {name} cannot be read" for name in found.unread)
    if environment and not (places.visible or places.lacking or found.unread):
        yield f"{environment} does not have {found.repository}"
    if places.lacking or not places.visible:
        yield from _trouble(found.contact)
        if found.contact.answered and not found.is_in_mirror:
            yield f"the remote answered the run of {history.local(found.contact.answered)}, no branch had it then"
    yield from (
        f"{fault.kind} since {history.local_of(since)}: {one_line(fault.text)}" for fault, since in found.faults
    )


def _visible(found: Found, config: Config) -> Iterator[str]:
    """Where the commit is, a line for all environments that show it in the same way."""
    groups: dict[tuple[Ref, str, str], list[str]] = {}
    for each in found.places.visible:
        groups.setdefault((each.ref, each.shown, _since(each.since)), []).append(each.environment)
    for (ref, shown, since), names in groups.items():
        contained = "" if shown == found.id else f", contained in {_short(shown)}"
        yield f"visible {since} through {_ref(ref, config)}{contained}: {', '.join(names)}"


def _past(found: Found, config: Config) -> Iterator[str]:
    """Where the commit was, a line for all environments in which it was and went in the same way."""
    groups: dict[str, list[str]] = {}
    for span in found.places.past:
        until = "until a moment ago" if span.until is None else f"until {history.local(span.until)}"
        contained = "" if span.shown == found.id else f", contained in {_short(span.shown)}"
        text = f"was visible {_since(span.since)} {until} through {_ref(ref_of_name(span.ref), config)}{contained}"
        groups.setdefault(f"{text}, {_end(span, config)}", []).append(span.environment)
    yield from (f"{text}: {', '.join(names)}" for text, names in groups.items())


def _end(span: Span, config: Config) -> str:
    """Why a commit is no longer visible."""
    if span.end == spans.MOVED_ON and span.by is not None:
        return f"then the environment moved to {_ref(ref_of_name(span.by), config)}"
    return {
        spans.REWRITTEN: f"then the branch was force-pushed to {_short(span.by)}",
        spans.ROLLED_BACK: f"then the branch was set back to {_short(span.by)}",
        spans.REPLACED: f"then the branch moved to {_short(span.by)}",
        spans.BRANCH_GONE: "then the branch was deleted",
        spans.LEFT: "then the environment lost the repository",
        show_commit.ENVIRONMENT_GONE: "then the environment was deleted",
    }.get(span.end or "", "the history does not know why yet")


def _where(found: Found) -> str:
    """Where a commit is that no environment shows."""
    if found.announced is not None and not found.is_in_mirror:
        branch, added = one_line(found.announced.move.branch), history.local(found.announced.added)
        return f"not in the mirror: a hint of {added} told that it was pushed to {branch}"
    if not found.is_in_mirror:
        return "not in the mirror"
    if not found.branches:
        return "in the mirror, on no branch"
    unused = "" if found.in_use else ", which no environment uses"
    return f"in the mirror, on {_branches(found.branches)}{unused}"


def _branches(names: Sequence[str]) -> str:
    text = one_line(", ".join(names))
    return f"branch {text}" if len(names) == 1 else f"branches {text}"


def _lacking(lacking: Iterable[Lacking], config: Config) -> Iterator[str]:
    """Which environments do not have the commit, a line for all that show the same."""
    groups: dict[tuple[Ref, str | None, str], list[str]] = {}
    for each in lacking:
        groups.setdefault((each.ref, each.shown, each.reason), []).append(each.environment)
    for (ref, shown, reason), names in groups.items():
        name = _ref(ref, config)
        why = {
            show_commit.DANGLES: f"these, as {name} is not there",
            show_commit.NOT_LAID_OUT: f"these yet, as {name} shows {_short(shown)} until a run can lay it out",
        }.get(reason, f"these, as {name} shows {_short(shown)}")
        yield f"not in {why}: {', '.join(names)}"
