"""Makes a definition that pins each repository of an environment to its current commit. Changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, NamedTuple

from jens import preflight
from jens.config import Config
from jens.environments import tree, versions
from jens.environments.previous import remembered_definition
from jens.environments.wanted import Found, parser_of
from jens.errors import DirectoryError, GitError, MetadataError
from jens.git import peek, wrapper
from jens.history import queries
from jens.layout import Layout, entry_ref, ref_entry
from jens.links import LinkReader, Target, directories_shown, links_of, optional_links_of
from jens.metadata import clones, yamlnodes
from jens.metadata import reader as metadata_reader
from jens.model import (
    HIERADATA,
    HOSTGROUPS,
    MODULES,
    PLAIN,
    SITE,
    SNAPSHOT_COMMON,
    Commit,
    Definition,
    Directories,
    Prefixes,
    Ref,
    RepoId,
    Usages,
    common_branch,
)
from jens.names import describe_ref, parse_repository
from jens.repositories import disk
from jens.repositories.disk import Expanded
from jens.system import files
from jens.tools import history
from jens.tools.history import At

#: What Puppet reads of a module, besides its data.
_READ_BY_PUPPET = ("manifests", "lib", "functions", "types", "facts.d", "files", "templates", "tasks", "plans")
#: How often to read an environment at most, until two readings in a row are the same.
_MOST_READINGS = 10

_TIME = "%Y-%m-%d %H:%M:%S"

#: A function that gives the links of a repository: path in the environment, path below the checkout; code comes first.
LinksOf = Callable[[RepoId], Mapping[str, str]]


class Shown(NamedTuple):
    """The target of a link, and the commit whose files it shows; None when it shows none, or when it is unknown."""

    target: Target
    commit: str | None


@dataclass(frozen=True)
class Pins:
    """The commit of each repository, and how these pins differ from the environment, a sentence each.

    ``left_out`` says why repositories have none.
    """

    commits: Mapping[RepoId, str]
    left_out: Mapping[RepoId, str]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class EnvironmentSnapshot:
    """A definition without a default, which has what the environment ``based_on`` had at ``created`` (local time).

    ``doubts`` say, a sentence each, where it does not show the same as the environment. With a ``deployment`` it has
    what the environment had after that one, and ``then`` is the (local) time since when it was so.
    """

    based_on: str
    created: datetime
    definition: Definition
    doubts: tuple[str, ...]
    deployment: int | None = None
    then: datetime | None = None

    def render(self, prefixes: Prefixes) -> str:
        """The definition as YAML. A comment ``# Save as`` names its file when its name differs from ``based_on``."""
        head = f"# Snapshot created on {self.created.strftime(_TIME)} based on {self.based_on}\n"
        if self.then is not None:
            head += (
                f"# As it was after deployment {self.deployment}, which was visible at {self.then.strftime(_TIME)}\n"
            )
        if self.definition.name != self.based_on:
            head += f"# Save as {self.definition.name}.yaml\n"
        addresses = self.definition.notifications
        notifications = list(addresses) if len(addresses) > 1 else addresses[0] if addresses else None
        document: dict[str, Any] = {"notifications": notifications}
        if self.definition.parser:
            document["parser"] = self.definition.parser
        if self.definition.overrides:
            document["overrides"] = self._overrides(prefixes.commit)
        return head + yamlnodes.dump(document)

    def encode(self) -> dict[str, Any]:
        """The same facts as JSON types; commits are full ids without the hash prefix."""
        return {
            "based_on": self.based_on,
            "created": self.created.isoformat(timespec="seconds"),
            **({} if self.deployment is None else {"deployment": self.deployment}),
            "doubts": list(self.doubts),
            "name": self.definition.name,
            "notifications": list(self.definition.notifications),
            "overrides": self._overrides(""),
            "parser": self.definition.parser,
        }

    def _overrides(self, prefix: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for repo, ref in sorted(self.definition.overrides.items()):
            if isinstance(ref, Commit):
                text, said = f"{prefix}{ref.digits}", self.definition.directories.get(repo)
                found.setdefault(repo.partition, {})[repo.name] = {"ref": text, **said} if said else text
        return found


def take(config: Config, environment: str, name: str, now: datetime) -> EnvironmentSnapshot:
    """Pin what an environment holds. Raises DirectoryError when the environment does not exist or cannot be read."""
    seen = look(config, environment, "the snapshot")
    doubts = [f"{repo} is left out: {_loss(repo, reason)}" for repo, reason in seen.left_out.items()]
    doubts += seen.doubts
    if not seen.is_defined:
        doubts.append(f"no definition of '{environment}' is remembered or declared: nobody is named to be notified")
    if not seen.commits:
        doubts.append("there is no commit to pin, and jens-update refuses a definition without default and overrides")
    overrides = {repo: Commit(commit) for repo, commit in seen.commits.items()}
    pinned = Definition(name, None, overrides, seen.definition.notifications, seen.definition.parser)
    pinned = pinned._replace(directories=_said(overrides, seen.directories_of))
    return EnvironmentSnapshot(environment, now, pinned, tuple(doubts))


def _said(
    repos: Iterable[RepoId], directories_of: Callable[[RepoId], Directories]
) -> dict[RepoId, dict[str, str | None]]:
    """Where repositories have code and data that do not have them where most have them.

    A snapshot says so, because the library may say something else later.
    """
    found = {repo: directories_of(repo) for repo in repos}
    return {repo: each._asdict() for repo, each in found.items() if each != PLAIN.directories}


def directories_by(usages: Usages, definition: Definition) -> Callable[[RepoId], Directories]:
    """Tells where an environment of a definition has code and data, as far as the library can be read."""
    return lambda repo: definition.directories_of(repo, usages.get(repo, PLAIN))


@dataclass(frozen=True)
class Seen:
    """What an environment shows: the commit of each repository, and the refs that its links name.

    ``left_out`` and ``doubts`` say, a sentence each, where this is not all that it shows. ``definition`` is the one
    that it was built from, as far as that is known (``is_defined``). ``directories_of`` tells where a repository has
    code and data, as the environment uses it.
    """

    commits: Mapping[RepoId, str]
    refs: Mapping[RepoId, Ref]
    definition: Definition
    is_defined: bool
    left_out: Mapping[RepoId, str]
    doubts: tuple[str, ...]
    directories_of: Callable[[RepoId], Directories] = lambda _repo: PLAIN.directories


def look(config: Config, environment: str, purpose: str) -> Seen:
    """Look at what an environment shows, for a purpose such as "the snapshot", which sentences name.

    Raises DirectoryError when it does not exist or cannot be read.
    """
    preflight.check_readable(config, ("clonedir", "environmentsdir"))
    layout = Layout.of(config)
    found, shown, is_settled = _look(layout, environment)
    known = definition_of(config, layout, environment)
    definition = known or Definition(environment, None, {}, parser=parser_of(found.conf))
    usages = metadata_reader.known_library(config).usages
    expected = directories_by(usages, definition)
    targets: dict[RepoId, dict[str, str]] = {}
    for link, here in shown.items():
        if here is not None:
            targets.setdefault(here.target.repo, {})[link] = here.target.below

    def directories_of(repo: RepoId) -> Directories:
        return expected(repo).changed(directories_shown(repo, targets.get(repo, {})))

    def links_to(repo: RepoId) -> Mapping[str, str]:
        optional = {link: to for link, to in optional_links_of(layout, repo).items() if link in targets.get(repo, {})}
        return {**links_of(layout, repo, directories_of(repo)), **optional}

    pins = plan_pins(shown, links_to, purpose)
    commits = dict(pins.commits)
    doubts = [*pins.doubts, *(f"'{name}' is nothing that Jens makes, left out" for name in found.strange)]
    if not is_settled:
        doubts.append("it changes all the time: what is pinned may never have been seen together")
    if not links_to(HIERADATA):  # without links, nothing shows its commit
        asked = definition.refs_of(
            HIERADATA, usages.get(HIERADATA, PLAIN), common_branch(config.main.mandatorybranches)
        )
        commits.update(_hieradata(layout, asked))
    entries = {here.target.repo: here.target.entry for here in shown.values() if here is not None}
    refs = versions.followed(layout, definition, entries, usages)
    return Seen(commits, refs, definition, known is not None, pins.left_out, tuple(doubts), directories_of)


def take_at(config: Config, environment: str, name: str, at: At, now: datetime) -> EnvironmentSnapshot:
    """Pin what an environment held at a time, or after a deployment.

    Raises HistoryError when the history does not know, DirectoryError when the environment held nothing then.
    """
    layout = Layout.of(config)
    made, held = look_at(config, environment, at)
    commits = {parse_repository(each.repository): each.commit for each in held}
    doubts = [f"{repo} is left out: its links led nowhere then" for repo in sorted(commits) if commits[repo] is None]
    overrides = {repo: Commit(commit) for repo, commit in sorted(commits.items()) if commit is not None}
    doubts += [
        f"neither disk nor mirror has {commit} of {repo}, a run will ask the remote for it"
        for repo, commit in overrides.items()
        if not is_known(layout, repo, commit.digits)
    ]
    definition = definition_of(config, layout, environment)
    if definition is None:
        doubts.append(f"no definition of '{environment}' is remembered or declared: nobody is named to be notified")
        definition = Definition(environment, None, {})
    pinned = Definition(name, None, overrides, definition.notifications, definition.parser)
    directories_of = directories_by(metadata_reader.known_library(config).usages, definition)
    pinned = pinned._replace(directories=_said(overrides, directories_of))
    doubts += moved_code(layout, {repo: commit.digits for repo, commit in overrides.items()}, directories_of)
    then = datetime.fromtimestamp(made.visible)
    return EnvironmentSnapshot(environment, now, pinned, tuple(doubts), made.number, then)


def moved_code(
    layout: Layout, commits: Mapping[RepoId, str], directories_of: Callable[[RepoId], Directories]
) -> list[str]:
    """Doubts about commits of the past that have no code where the library says that it is now, a sentence each.

    The history does not know where it was.
    """
    return [
        f"{repo} at {commit} has no Puppet code in '{directories_of(repo).code}', where it is now; "
        "the history does not know where it was"
        for repo, commit in sorted(commits.items())
        if repo.partition in (MODULES, HOSTGROUPS) and not _has_code(layout, repo, commit, directories_of(repo))
    ]


def _has_code(layout: Layout, repo: RepoId, commit: str, directories: Directories) -> bool:
    """Whether a commit has something that Puppet reads in its directory of code; True when nobody can tell."""
    checkout = layout.checkout(repo, commit)
    paths = [name if directories.code == "." else f"{directories.code}/{name}" for name in _READ_BY_PUPPET]
    try:
        if files.is_there(checkout):
            return any(files.is_there(checkout / path) for path in paths)
        return directories == PLAIN.directories or bool(peek.read(layout.bare(repo), commit, paths))
    except (GitError, OSError):
        return True


def look_at(config: Config, environment: str, at: At) -> tuple[queries.Deployment, list[queries.Held]]:
    """The deployment that ``at`` means (see ``take_at``), and what an environment held after it.

    Raises HistoryError when the history does not know, DirectoryError when the environment held nothing then.
    """
    preflight.check_readable(config, ("cachedir",))
    with history.opened(config) as reader:
        made = history.deployment_of(reader, config, at)
        held = queries.held_by(reader, environment, made.number)
    if not held:
        problem = f"held nothing after deployment {made.number}, as far as the history knows"
        raise DirectoryError("environment", Layout.of(config).environment(environment), problem)
    return made, held


def is_known(layout: Layout, repo: RepoId, commit: str) -> bool:
    """Whether a commit is on disk or in the mirror, as far as anybody can look."""
    try:
        return files.is_there(layout.checkout(repo, commit)) or bool(wrapper.commits_like(layout.bare(repo), commit))
    except (GitError, OSError):
        return False


def plan_pins(shown: Mapping[str, Shown | None], links_of: LinksOf, purpose: str) -> Pins:
    """Decide on a commit for each repository. ``shown`` has None for a link that does not lead to a checkout."""
    repos = sorted({here.target.repo for here in shown.values() if here is not None})
    candidates = {repo: _pin(repo, shown, links_of(repo)) for repo in repos}
    commits = {repo: commit for repo, commit in candidates.items() if commit is not None}
    promised = {
        link: Shown(Target(repo, "", below), commit)
        for repo, commit in commits.items()
        for link, below in links_of(repo).items()
    }
    lost = [repo for repo in (*repos, SITE, HIERADATA) if repo not in commits and links_of(repo)]
    doubts: list[str] = []
    for link in sorted({*shown, *promised}):
        here = shown.get(link)
        if here is None or here.target.repo not in lost:
            doubts += _doubts(link, link in shown, here, promised.get(link), purpose)
    return Pins(commits, {repo: _reason(repo, shown) for repo in sorted(set(lost))}, tuple(doubts))


def _pin(repo: RepoId, shown: Mapping[str, Shown | None], links: Mapping[str, str]) -> str | None:
    """The commit that a repository's links show. If they differ, the commit of the code, which comes first."""
    for link, below in links.items():
        here = shown.get(link)
        if here is not None and (here.target.repo, here.target.below) == (repo, below) and here.commit is not None:
            return here.commit
    return None


def _reason(repo: RepoId, shown: Mapping[str, Shown | None]) -> str:
    """Why a repository has no commit."""
    entries = sorted({here.target.entry for here in shown.values() if here is not None and here.target.repo == repo})
    refs = [describe_ref(ref) for ref in map(entry_ref, entries) if ref is not None]
    return f"there is no checkout of {' and '.join(refs)}" if refs else "no link leads to it"


def _loss(repo: RepoId, reason: str) -> str:
    """Why a snapshot does not have a repository, and what it has instead."""
    if repo not in (SITE, HIERADATA):
        return reason
    return f"{reason} (a snapshot then has it from {SNAPSHOT_COMMON}, or else from the first mandatory branch)"


def _doubts(link: str, exists: bool, here: Shown | None, promised: Shown | None, purpose: str) -> list[str]:
    """The difference between a link of the environment and what is pinned, as no sentence or one."""
    will = f"{purpose} has {promised.commit} of {promised.target.repo}" if promised else "left out"
    if not exists:
        return [f"link {link} is missing in the environment, {will}"]
    if here is None:
        return [f"link {link} leads to no checkout of Jens, {will}"]
    if promised is None:
        return [f"link {link} is none that a definition can ask for, left out"]
    if here.commit is None:
        return [f"link {link} dangles, {will}"]
    if (here.target.repo, here.target.below, here.commit) != (
        promised.target.repo,
        promised.target.below,
        promised.commit,
    ):
        return [f"link {link} shows '{here.target.below}' in {here.commit} of {here.target.repo}, {will}"]
    return []


def _look(layout: Layout, environment: str) -> tuple[Found, dict[str, Shown | None], bool]:
    """Read an environment until two readings in a row are the same. The last value says whether they were."""
    path = layout.environment(environment)
    before = None
    for _ in range(_MOST_READINGS):
        try:
            place = layout.place(environment)
            found = tree.read(layout.environmentsdir / place)
            now = found, _shown(layout, place, found)
        except OSError as error:
            if not files.is_gone(error):
                raise DirectoryError("environment", path, f"cannot be read: {error.strerror}") from error
            continue
        if "" in (*found.missing, *found.blocked):
            problem = "does not exist" if "" in found.missing else "is not a directory"
            raise DirectoryError("environment", path, problem)
        if now == before:
            return *now, True
        before = now
    if before is None:
        raise DirectoryError("environment", path, "cannot be read: it changes all the time")
    return *before, False


def _shown(layout: Layout, place: str, found: Found) -> dict[str, Shown | None]:
    """What each link shows. Reads each branch link once, so that code and data have the same commit."""
    reader = LinkReader(layout)
    expanded: dict[tuple[RepoId, str], Expanded] = {}
    shown: dict[str, Shown | None] = {}
    for link, text in found.links.items():
        target = reader.target(place, link, text)
        if target is None:
            shown[link] = None
            continue
        key = target.repo, target.entry
        if key not in expanded:
            expanded[key] = disk.look_up(layout, *key)
        shown[link] = Shown(target, expanded[key].commit if expanded[key].place else None)
    return shown


def definition_of(config: Config, layout: Layout, environment: str) -> Definition | None:
    """The definition that an environment was last built from, else the declared one, else None."""
    remembered = remembered_definition(layout, environment, config.main.prefixes)
    if remembered is not None:
        return remembered
    try:
        declared = metadata_reader.read_definitions(config, clones.environments_commit(config)).get(environment)
    except MetadataError:
        return None
    return declared if isinstance(declared, Definition) else None


def _hieradata(layout: Layout, asked: Iterable[Ref]) -> dict[RepoId, str]:
    """The commit of the common Hiera data when no item of it is linked: the first that the definition asks for."""
    for ref in asked:
        with contextlib.suppress(OSError):
            found = disk.look_up(layout, HIERADATA, ref_entry(ref, None))
            if found.commit and found.place:
                return {HIERADATA: found.commit}
    return {}
