"""What an environment has, and why: each repository with its ref and commit, what dangles, and what is not fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jens import lastrun, preflight
from jens.config import Config
from jens.environments import dangling, tree, versions
from jens.environments import hold as holds
from jens.environments.hold import Hold
from jens.environments.previous import remembered_definition
from jens.errors import DirectoryError
from jens.events import CHECKOUT, COMMIT, CONTENT, DANGLING_LINK
from jens.git.authors import Described
from jens.history import queries
from jens.history.model import DELETED
from jens.history.queries import EnvironmentChange
from jens.layout import Layout, entry_ref, ref_entry
from jens.links import LinkReader, Target, all_links_of
from jens.model import (
    PLAIN,
    SNAPSHOT_COMMON,
    Commit,
    Definition,
    IllFormed,
    OpenFault,
    Ref,
    RepoId,
    Usage,
    declared,
)
from jens.names import describe_ref
from jens.statefile import StateError
from jens.system import files
from jens.text import one_line
from jens.tools import history
from jens.tools.show import VERSION, Contact, Instance, Past, Shown, heads_of, look_up, since_of, when

# Why an environment has a repository at a ref. More reasons may come.
OVERRIDE, DEFAULT, SNAPSHOT, WAITING, HOLD, LIBRARY = "override", "default", "snapshot", "waiting", "hold", "library"

#: How often to read an environment that changes meanwhile.
_ATTEMPTS = 5


class Gap(NamedTuple):
    """Links of an environment to a repository that lead nowhere: why, and since when (UTC, ISO 8601; None: unknown)."""

    links: tuple[str, ...]
    why: str
    since: str | None


class Part(NamedTuple):
    """A repository in an environment.

    ``why`` it has this ref is one of the reasons above, None when no definition tells. ``asked`` is the ref that the
    definition asks for, where it is another. ``since``: seconds since the epoch. ``problem`` says why nobody can look,
    '' when that is possible.
    """

    repository: RepoId
    ref: Ref
    why: str | None
    asked: Ref | None
    commit: str | None
    since: float | None
    said: Described | None
    gap: Gap | None
    trouble: Contact
    problem: str = ""


class Environment(NamedTuple):
    """An environment as it is on disk. ``definition`` is the one that it is to be built from, None when that is lost.

    While there is a ``hold``, it is built from that. ``version`` is the current one, None without versions.

    ``changed`` is what last became of it, as far as the history knows. ``strange`` links are none that Jens makes.
    ``problem`` says why the history cannot be read, '' when it can. ``last_run`` began then; None when nothing tells.
    """

    name: str
    definition: Definition | None
    changed: EnvironmentChange | None
    parts: tuple[Part, ...]
    strange: tuple[str, ...]
    faults: tuple[OpenFault, ...]
    problem: str
    last_run: float | None
    hold: Hold | None = None
    version: str | None = None

    def encode(self, config: Config) -> dict[str, Any]:
        """The same as JSON types. Times are UTC; what is not known is None."""
        definition, changed, prefixes = self.definition, self.changed, config.main.prefixes
        return {
            "version": VERSION,
            "environment": self.name,
            "version_of_environment": self.version,
            "default": definition and definition.default and declared(definition.default, prefixes),
            "defaults": None if definition is None else [declared(ref, prefixes) for ref in definition.defaults],
            "parser": definition and definition.parser,
            "notifications": None if definition is None else [*definition.notifications],
            "changed": changed
            and {
                "time": when(changed.time),
                "change": changed.change,
                "commit": changed.commit,
                "author": changed.author,
            },
            "hold": self.hold and self.hold.tell(),
            "repositories": [_encode(part, config) for part in self.parts],
            "strange_links": [*self.strange],
            "faults": [*map(lastrun.encode_fault, self.faults)],
            "history_problem": self.problem or None,
            "last_run": when(self.last_run),
        }


def _encode(part: Part, config: Config) -> dict[str, Any]:
    gap = part.gap
    return {
        "repository": str(part.repository),
        "ref": history.declared(part.ref, config),
        "why": part.why,
        "asked": part.asked and history.declared(part.asked, config),
        "commit": part.commit,
        "since": when(part.since),
        "author": part.said and part.said.author,
        "subject": part.said and part.said.subject,
        "date": part.said and when(part.said.date),
        "dangling": gap and {"links": [*gap.links], "why": gap.why, "since": gap.since},
        **part.trouble.encode_trouble(),
        "problem": part.problem or None,
    }


# Deciding


def plan_why(
    definition: Definition | None, repo: RepoId, ref: Ref, hold: Hold | None = None, usage: Usage = PLAIN
) -> tuple[str | None, Ref | None]:
    """Why an environment has a repository at a ref; and what its definition asks for, if that is another ref.

    A hold comes before the definition. ``usage`` is what the library says of the repository.
    """
    kept = hold.repositories.get(repo) if hold and repo not in hold.moving else None
    if kept is not None and kept.commit is not None:
        held = Commit(kept.commit)
        return (HOLD, None) if held == ref else (WAITING, held)
    if definition is None:
        return None, None
    asked = definition.refs_of(repo, usage, SNAPSHOT_COMMON)
    usual = SNAPSHOT if definition.default is None else DEFAULT
    why = OVERRIDE if repo in definition.overrides else usual
    if why != OVERRIDE and ref in (usage.ref, usage.fallback) and ref in asked and ref not in definition.defaults:
        why = LIBRARY
    if any(_is_same(each, ref) for each in asked) or (asked and why == SNAPSHOT):
        return why, None
    return WAITING, asked[0] if asked else None


def _is_same(asked: Ref, ref: Ref) -> bool:
    """Whether a definition asks for this ref; it may have abbreviated a commit."""
    if isinstance(asked, Commit) and isinstance(ref, Commit):
        return ref.digits.startswith(asked.digits)
    return asked == ref


def plan_gap(
    repo: RepoId,
    ref: Ref,
    lacks: Iterable[str],
    heads: Mapping[str, str],
    has_mirror: bool,
    trouble: Contact,
    faults: Iterable[OpenFault],
) -> str:
    """Why links to a ref of a repository lead nowhere. The ref has its files, but for what it ``lacks``, if anything.

    ``heads`` are the branches and tags of the mirror.
    """
    items = [*lacks]
    if items:
        return f"{describe_ref(ref)} of {repo} has no {', '.join(map(repr, items))}"
    told = [opened.fault for opened in faults if opened.fault.repository == str(repo) and not opened.fault.environment]
    refused = next((fault.text for fault in told if fault.kind in (CHECKOUT, CONTENT)), "the next run does it")
    if not has_mirror:
        return f"{repo} is not there{_not_fetched(trouble) or ', and nothing tells why'}"
    if not isinstance(ref, Commit):
        if ref.key in heads:
            return f"{describe_ref(ref)} is in the mirror, and is not laid out: {refused}"
        return f"there is no {describe_ref(ref)} in {repo}{_not_fetched(trouble)}"
    known = next((fault.text for fault in told if fault.kind == COMMIT and ref.digits.startswith(fault.ref)), "")
    return known or f"there are no files of {describe_ref(ref)} of {repo}{_not_fetched(trouble)}"


def _not_fetched(trouble: Contact) -> str:
    return f": {trouble.fault.fault.text}" if trouble.fault else ""


def plan_faults(faults: Iterable[OpenFault], name: str, repositories: Iterable[RepoId]) -> tuple[OpenFault, ...]:
    """The open faults that concern an environment: its own, those of its repositories, and those of everything."""
    held = {*map(str, repositories), ""}
    return tuple(
        opened
        for opened in faults
        if opened.fault.environment == name or (not opened.fault.environment and opened.fault.repository in held)
    )


# Reading


def look(instance: Instance, name: str) -> Environment:
    """Look at an environment. Raises DirectoryError when there is none, or it cannot be read."""
    config = instance.config
    preflight.check_readable(config, ("clonedir", "cachedir", "environmentsdir"))
    with Past(config) as past:
        if not is_environment(instance.layout, name):
            raise DirectoryError("environment", instance.layout.environment(name), _absence(instance, past, name))
        place, version = instance.layout.place(name), versions.current(instance.layout, name)
        links = _links(instance.layout, name, place)
        definition = _definition(instance, name)
        targets, strange = _by_repository(instance.layout, place, links)
        shown = {repo: _shown(instance, place, repo, found) for repo, found in sorted(targets.items())}
        if version is not None:
            shown = _followed(instance, definition, shown)
        said = instance.described([(repo, part.commit) for repo, part in shown.items() if part and part.commit])
        hold = _hold(instance.layout, name)
        parts = [
            _part(instance, past, name, definition, repo, part, said, hold)
            for repo, part in shown.items()
            if part is not None
        ]
        changed = past.ask(lambda reader: queries.last_change_of(reader, name))
        faults = plan_faults(instance.faults, name, targets)
        return Environment(
            *(name, definition, changed, tuple(parts), tuple(strange), faults, past.problem, instance.last_began, hold),
            version=version,
        )


def is_environment(layout: Layout, name: str) -> bool:
    """Whether there is such an environment on disk."""
    path = layout.environment(name)
    return (path.is_dir() and not path.is_symlink()) or layout.place(name) != name


def _absence(instance: Instance, past: Past, name: str) -> str:
    """Why there is no such environment."""
    told = [opened for opened in instance.faults if opened.fault.environment == name]
    declared = instance.declared(name)
    if told:
        return f"does not exist: {told[0].fault.text} (since {history.local_of(told[0].since)})"
    if isinstance(declared, IllFormed):
        return f"does not exist: its definition is ill-formed: {one_line(declared.reason)}"
    if declared is not None:
        return "does not exist: it is declared, and no run has made it yet"
    changed = past.ask(lambda reader: queries.last_change_of(reader, name))
    if changed is not None and changed.change == DELETED:
        return f"does not exist: it was deleted at {history.local(changed.time)}{_by(changed)}"
    return "does not exist, and is not declared"


def _by(changed: EnvironmentChange) -> str:
    behind = " ".join(filter(None, ((changed.commit or "")[:7], changed.author)))
    return f" ({behind})" if behind else ""


def _links(layout: Layout, name: str, place: str) -> Mapping[str, str]:
    path = layout.environment(name)
    problem = "it changes all the time"
    for _ in range(_ATTEMPTS):
        try:
            return tree.read(layout.environmentsdir / place).links
        except OSError as error:
            problem = error.strerror or str(error)
            if not files.is_gone(error):
                break
    raise DirectoryError("environment", path, f"cannot be read: {problem}")


def _definition(instance: Instance, name: str) -> Definition | None:
    """The definition that an environment is to be built from; None when it is lost.

    That is the declared one, or else the one that it was last built from.
    """
    declared = instance.declared(name)
    if isinstance(declared, Definition):
        return declared
    try:
        return remembered_definition(instance.layout, name, instance.prefixes)
    except OSError:
        return None


def _hold(layout: Layout, name: str) -> Hold | None:
    """The hold of an environment, also one that is over; None as well for a damaged one: the open faults tell that."""
    try:
        return holds.load(layout, name)
    except (OSError, StateError):
        return None


def _by_repository(
    layout: Layout, place: str, links: Mapping[str, str]
) -> tuple[dict[RepoId, dict[str, Target]], list[str]]:
    """The targets of an environment's links by repository, and the links that lead to none."""
    reader, targets, strange = LinkReader(layout), dict[RepoId, dict[str, Target]](), []
    for link, text in sorted(links.items()):
        target = reader.target(place, link, text)
        if target is None:
            strange.append(link)
        else:
            targets.setdefault(target.repo, {})[link] = target
    order = {repo: [*all_links_of(layout, repo)] for repo in targets}
    return {
        repo: {link: found[link] for link in (*filter(found.get, order[repo]), *(set(found) - set(order[repo])))}
        for repo, found in targets.items()
    }, strange


class _Linked(NamedTuple):
    """What the links of an environment to a repository show; ``since`` when, and the links that lead nowhere."""

    ref: Ref
    commit: str | None
    since: float | None
    dangling: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    problem: str = ""


class _Led(NamedTuple):
    """What targets in a repository show: the first one, and which lead nowhere; ``lacks`` is what is not there."""

    first: Shown
    nowhere: tuple[Target, ...] = ()
    lacks: tuple[str, ...] = ()
    problem: str = ""


def _shown(instance: Instance, place: str, repo: RepoId, links: Mapping[str, Target]) -> _Linked | None:
    """What links to a repository show. The first one counts, which leads to the code; None for none that Jens makes."""
    led = instance.led(_led, repo, tuple(links.values()))
    if led is None:
        return None
    first = led.first
    if led.problem:
        return _Linked(first.ref, None, None, problem=led.problem)
    try:
        linked = os.lstat(f"{instance.layout.environmentsdir}/{place}/{next(iter(links))}").st_mtime
    except FileNotFoundError:
        return None  # the environment has just lost it
    gone = tuple(link for link, target in links.items() if target in led.nowhere) if led.nowhere else ()
    return _Linked(first.ref, first.commit, since_of(first, linked), gone, led.lacks)


def _led(instance: Instance, repo: RepoId, targets: tuple[Target, ...]) -> _Led | None:
    """Where targets in a repository lead now; None when Jens makes no link to the first one."""
    layout, known = instance.layout, dict[str, "Shown | None"]()
    directories = instance.usages.get(repo, PLAIN).directories
    nowhere, lacks = [], []
    for target in targets:
        if target.entry not in known:
            try:
                known[target.entry] = look_up(layout, repo, target.entry)
            except DirectoryError as error:
                ref = entry_ref(targets[0].entry)
                return None if ref is None else _Led(Shown(ref, None, None), problem=error.problem)
        shown = known[target.entry]
        checkout = layout.checkout(repo, shown.commit) if shown and shown.commit else None
        if checkout is not None and not os.path.isdir(checkout):  # a directory of Jens 1.x
            checkout = layout.clone(repo) / target.entry
        if dangling.leads_nowhere(layout, target, checkout, directories):
            nowhere.append(target)
            lacks += [target.below] if checkout is not None else []
    first = known[targets[0].entry]
    return None if first is None else _Led(first, tuple(nowhere), tuple(lacks))


def _followed(
    instance: Instance, definition: Definition | None, shown: Mapping[RepoId, _Linked | None]
) -> dict[RepoId, _Linked | None]:
    """What a version shows, with the branches that it follows in the place of their commits."""
    entries = {repo: ref_entry(part.ref, part.commit) for repo, part in shown.items() if part is not None}
    refs = versions.followed(instance.layout, definition, entries, instance.usages)
    followed = {repo: ref for repo, ref in refs.items() if not isinstance(ref, Commit)}
    branches = {repo: look_up(instance.layout, repo, ref_entry(ref, None)) for repo, ref in followed.items()}
    since = {repo: branch.since for repo, branch in branches.items() if branch is not None}
    return {
        repo: part._replace(ref=followed[repo], since=since[repo]) if part and repo in since else part
        for repo, part in shown.items()
    }


def _part(
    instance: Instance,
    past: Past,
    name: str,
    definition: Definition | None,
    repo: RepoId,
    shown: _Linked,
    said: Mapping[tuple[RepoId, str], Described],
    hold: Hold | None,
) -> Part:
    trouble = instance.trouble(repo)
    why, asked = plan_why(definition, repo, shown.ref, hold, instance.usages.get(repo, PLAIN))
    gap = None
    if shown.dangling:
        bare = instance.layout.bare(repo)
        text = "the mirror cannot be looked at"
        if shown.lacks or os.access(bare.parent, os.R_OK | os.X_OK):
            text = plan_gap(repo, shown.ref, shown.lacks, heads_of(bare), bare.is_dir(), trouble, instance.faults)
        gap = Gap(shown.dangling, text, _dangling_since(instance, past, name, repo))
    about = said.get((repo, shown.commit)) if shown.commit else None
    return Part(repo, shown.ref, why, asked, shown.commit, shown.since, about, gap, trouble, shown.problem)


def _dangling_since(instance: Instance, past: Past, name: str, repo: RepoId) -> str | None:
    """Since when links dangle: the fault tells, or else the history."""
    for opened in instance.faults:
        if (opened.fault.kind, opened.fault.environment, opened.fault.repository) == (DANGLING_LINK, name, str(repo)):
            return opened.since
    for held in past.ask(lambda reader: queries.held_by(reader, name)) or ():
        if held.repository == str(repo) and held.commit is None:
            return when(held.since)
    return None
