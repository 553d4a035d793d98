"""Values of the environments stage: what earlier runs left, what is to be done, what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jens.model import Definition, IllFormed


class Previous(NamedTuple):
    """What earlier runs left: remembered definitions (None: lost), and environments on disk.

    For those without a usable remembered definition, one is inferred from their links.
    """

    remembered: Mapping[str, Definition | None] = MappingProxyType({})
    existing: Collection[str] = ()
    inferred: Mapping[str, Definition] = MappingProxyType({})

    @property
    def names(self) -> set[str]:
        """All environments that Jens has made, as far as anything can tell."""
        return {*self.remembered, *self.inferred}

    def definition(self, name: str) -> Definition | None:
        """What an environment was last built from, as far as anything can tell."""
        return self.remembered.get(name) or self.inferred.get(name)


class EnvironmentsPlan(NamedTuple):
    """What to do with each environment. Those in ``protected`` are not removed after all, nor those refused."""

    new: tuple[Definition, ...] = ()
    changed: tuple[Definition, ...] = ()
    unchanged: tuple[Definition, ...] = ()
    deleted: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    ill_formed: tuple[IllFormed, ...] = ()

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """What every environment is to be built from."""
        return (*self.new, *self.changed, *self.unchanged)


class Applied(NamedTuple):
    """What environments are built from now (for one that had to wait, from both), and what failed.

    ``unfinished`` are those that could not be changed, or not be removed: their links may lead to what is to go.
    """

    standing: tuple[Definition, ...] = ()
    failures: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
