"""Values of the environments stage: what earlier runs left, what is to be done, and the result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from jens.model import ALL, Definition, IllFormed, RepoId

if TYPE_CHECKING:
    from jens.environments.hold import Holds


class Previous(NamedTuple):
    """What earlier runs left: remembered definitions (None: lost), and environments on disk.

    ``inferred``: a definition from the links of each environment that has no usable remembered one. ``held``: what the
    environments with a hold are built from, whatever else there is. ``holds`` is None where nobody ever held one.
    """

    remembered: Mapping[str, Definition | None] = MappingProxyType({})
    existing: Collection[str] = ()
    inferred: Mapping[str, Definition] = MappingProxyType({})
    held: Mapping[str, Definition] = MappingProxyType({})
    holds: Holds | None = None

    @property
    def names(self) -> set[str]:
        """All environments that Jens made, as far as that is known."""
        return {*self.remembered, *self.inferred}

    def definition(self, name: str) -> Definition | None:
        """The definition that an environment was last built from, None if it is unknown."""
        return self.remembered.get(name) or self.inferred.get(name)


class EnvironmentsPlan(NamedTuple):
    """What to do with each environment. ``protected`` ones, and those that ``refusals`` name, are not removed.

    ``refused_changes`` has environments that stay as they were, since their new definitions would take too much away.
    ``excess`` says which environments are not made since there would be too many, '' when there are none. ``not_done``
    has the definitions of both kinds. ``ended`` has the environments whose holds are over, ``damaged`` what is wrong
    with holds that nobody can read: their environments stay as they are.
    """

    new: tuple[Definition, ...] = ()
    changed: tuple[Definition, ...] = ()
    unchanged: tuple[Definition, ...] = ()
    deleted: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    ill_formed: tuple[IllFormed, ...] = ()
    refused_changes: Mapping[str, str] = MappingProxyType({})
    excess: str = ""
    not_done: tuple[Definition, ...] = ()
    ended: tuple[str, ...] = ()
    damaged: Mapping[str, str] = MappingProxyType({})

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """The definitions that environments are to be built from."""
        return (*self.new, *self.changed, *self.unchanged)

    @property
    def has_news(self) -> bool:
        """Whether a definition is new, changed or gone."""
        return bool(self.new or self.changed or self.deleted or self.ended)


class RefusedLinks(NamedTuple):
    """Links that an environment must not have: they would lead out of a repository's checkout."""

    environment: str
    repo: RepoId
    entries: tuple[str, ...]
    links: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"Environment '{self.environment}' does not get the links {[*self.links]}: "
            f"symbolic links in {self.repo} ({', '.join(self.entries)}) make them lead out of it"
        )


class Versioning(NamedTuple):
    """Which environments have versions (``*``: all), and below which directory Puppet servers see these versions.

    ``tells_puppet``: the environment.conf of a version has its name.
    """

    names: tuple[str, ...] = ()
    seen_at: str = ""
    tells_puppet: bool = False

    def has(self, name: str) -> bool:
        """Whether an environment has versions."""
        return name in self.names or ALL in self.names

    def told(self, version: str) -> str:
        """What the environment.conf of a version is to tell, '' for nothing."""
        return version if self.tells_puppet else ""


NO_VERSIONS = Versioning()


class Applied(NamedTuple):
    """The definitions that environments are built from now, and what failed.

    ``standing`` has both the old and the new definition of an environment that has to wait. ``unfinished`` environments
    could not be changed or removed. Their links may lead to what is about to be removed. ``problems`` has a sentence
    for each environment that is not as it should be; ``changed`` counts those that were made, changed or removed.
    ``refused`` links are missing in environments that are otherwise as they should be.
    ``is_blind``: one of the ``unfinished`` cannot be read now, so nobody knows what it uses. ``replaced`` versions of
    environments used these commits, and their successors do not.
    """

    standing: tuple[Definition, ...] = ()
    failures: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    problems: Mapping[str, str] = MappingProxyType({})
    changed: int = 0
    refused: tuple[RefusedLinks, ...] = ()
    is_blind: bool = False
    replaced: Mapping[str, Mapping[RepoId, frozenset[str]]] = MappingProxyType({})
