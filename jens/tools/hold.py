"""Plans a hold: what an environment shows now, or showed then, with who holds it and why. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from jens import names, preflight
from jens.config import Config
from jens.environments import hold as holds
from jens.environments.hold import Hold, Kept, Moment
from jens.environments.previous import remembered_definition
from jens.errors import DirectoryError, MetadataError
from jens.layout import Layout
from jens.metadata import clones
from jens.metadata import reader as metadata_reader
from jens.model import Definition, Ref, RepoId
from jens.names import parse_repository
from jens.statefile import StateError
from jens.tools import as_it_is, snapshot
from jens.tools.history import At


class Wish(NamedTuple):
    """What the administrator asks for. ``at`` None: as it is now. ``moving`` repositories are not to be held.

    See ``Hold`` for the rest.
    """

    environment: str
    at: At | None
    by: str
    since: float
    reason: str = ""
    until: float | None = None
    moving: tuple[RepoId, ...] = ()


class Move(NamedTuple):
    """A repository that will show another commit; None: it has no links, before or then."""

    repository: RepoId
    ref: Ref
    before: str | None
    then: str | None


class Plan(NamedTuple):
    """A hold, the definition that it makes, what moves, and what an earlier hold said that it replaces.

    ``doubts`` say, a sentence each, where the environment will not be as it was. ``lost`` says what nobody can tell, so
    that there can be no hold.
    """

    hold: Hold
    definition: Definition
    moves: tuple[Move, ...]
    replaced: Hold | None
    doubts: tuple[str, ...]
    lost: tuple[str, ...] = ()


def plan(config: Config, wish: Wish) -> Plan:
    """Find out what is to be held. Raises DirectoryError, HistoryError."""
    preflight.check_readable(config, ("clonedir", "cachedir", "environmentsdir"))
    layout = Layout.of(config)
    doubts: list[str] = []
    repositories: Mapping[RepoId, Kept] = {}
    before = _earlier(layout, wish.environment, doubts)
    now = _now(config, wish)
    then: Moment | None = None
    lost: tuple[str, ...] = ()
    if wish.at is not None:
        repositories, then = _then(config, wish.environment, wish.at, doubts)
    elif now is not None:
        repositories, missing, lost = as_it_is.plan(
            now, as_it_is.look(config, wish.environment, now, before), wish.moving
        )
        doubts += (*now.doubts, *missing)
        then = plan_then(before, repositories, wish.moving)
    _check_moving(layout, wish, repositories)
    known = now.definition if now else snapshot.definition_of(config, layout, wish.environment)
    hold = Hold(
        *(wish.environment, repositories, wish.by, wish.since, wish.reason, wish.until, wish.moving, then),
        *(known.notifications if known else (), known.parser if known else None),
    )
    definition = hold.definition(_basis(config, layout, wish.environment) if wish.moving else known)
    return Plan(hold, definition, tuple(plan_moves(hold, now)), before, tuple(doubts), lost)


def _earlier(layout: Layout, name: str, doubts: list[str]) -> Hold | None:
    """The hold that there is. Adds a doubt when it is damaged. Raises DirectoryError when nobody can look."""
    try:
        return holds.load(layout, name)
    except StateError as error:
        doubts.append(f"the hold that there was is damaged, and replaced: {error}")
        return None
    except OSError as error:
        raise DirectoryError("cachedir", layout.cachedir, f"cannot be read: {error.strerror}") from error


def _now(config: Config, wish: Wish) -> snapshot.Seen | None:
    """What the environment shows now; None when it does not exist, and need not. Raises DirectoryError."""
    if wish.at is not None and not Layout.of(config).tree(wish.environment).is_dir():
        return None
    return snapshot.look(config, wish.environment, "the hold")


def _then(config: Config, name: str, at: At, doubts: list[str]) -> tuple[dict[RepoId, Kept], Moment]:
    """What an environment showed then, and which deployment had made it so. Adds a doubt for what dangled."""
    made, held = snapshot.look_at(config, name, at)
    known = snapshot.definition_of(config, Layout.of(config), name) or Definition(name, None, {})
    directories_of = snapshot.directories_by(metadata_reader.known_library(config).usages, known)
    repositories = {
        repo: Kept(each.ref, each.commit, directories_of(repo))
        for repo, each in ((parse_repository(each.repository), each) for each in held)
    }
    dangling = sorted(repo for repo, kept in repositories.items() if kept.commit is None)
    doubts += [f"{repo} is left out: its links led nowhere then" for repo in dangling]
    commits = {repo: kept.commit for repo, kept in repositories.items() if kept.commit is not None}
    doubts += snapshot.moved_code(Layout.of(config), commits, directories_of)
    return repositories, Moment(made.number, made.visible)


def plan_then(before: Hold | None, repositories: Mapping[RepoId, Kept], moving: Collection[RepoId]) -> Moment | None:
    """As of when the environment is held again as it is: as the earlier hold says, if it has all commits of that."""
    if before is None or not {*before.moving} <= {*moving}:
        return None
    commits, now = (
        {repo: kept.commit for repo, kept in found.items() if repo not in moving}
        for found in (before.repositories, repositories)
    )
    return before.then if commits == now else None


def _check_moving(layout: Layout, wish: Wish, repositories: Mapping[RepoId, Kept]) -> None:
    """Check that repositories exist that are not to be held. Raises DirectoryError."""
    if not wish.moving:
        return
    known = {*repositories, *layout.repositories_in(layout.clonedir)}
    for repo in wish.moving:
        if repo not in known:
            meant = names.resembled(str(repo), map(str, known))
            problem = f"neither it nor this instance has a repository {repo}{f', but {meant}' if meant else ''}"
            raise DirectoryError("environment", layout.environment(wish.environment), problem)


def _basis(config: Config, layout: Layout, name: str) -> Definition | None:
    """The definition that the environment has without a hold: the declared one, or else the one of the last build."""
    try:
        declared = metadata_reader.read_definitions(config, clones.environments_commit(config)).get(name)
    except MetadataError:
        declared = None
    if isinstance(declared, Definition):
        return declared
    return remembered_definition(layout, name, config.main.prefixes)


def plan_moves(hold: Hold, now: snapshot.Seen | None) -> list[Move]:
    """The repositories that will show another commit than now."""
    before = now.commits if now else {}
    refs = {**(now.refs if now else {}), **{repo: kept.ref for repo, kept in hold.repositories.items()}}
    then = {repo: kept.commit for repo, kept in hold.repositories.items()}
    moves = (Move(repo, ref, before.get(repo), then.get(repo)) for repo, ref in sorted(refs.items()))
    return [move for move in moves if move.before != move.then and move.repository not in hold.moving]


# For programs

#: The version of the JSON documents. It goes up when a field changes its meaning, or is removed.
VERSION = 1


def encode(hold: Hold) -> dict[str, Any]:
    """A hold as JSON types: as in its file, with the name of the environment, and whether it is over."""
    return {"environment": hold.environment, "ended": hold.is_over, **hold.encode()}


def load_all(config: Config) -> holds.Holds:
    """All holds of an instance. Raises DirectoryError."""
    preflight.check_readable(config, ("cachedir",))
    layout = Layout.of(config)
    try:
        return holds.load_all(layout)
    except OSError as error:
        raise DirectoryError("cachedir", layout.holds, f"cannot be read: {error.strerror}") from error
