"""What there is of a repository: its refs with the environments that use them, and what is known of its remote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jens import lastrun, preflight, urls
from jens.config import Config
from jens.errors import DirectoryError
from jens.git import wrapper
from jens.git.authors import Described
from jens.layout import is_checkout_name
from jens.model import Commit, OpenFault, Ref, RepoId, ref_order
from jens.tools import history
from jens.tools.show import VERSION, Contact, Instance, Use, heads_of, is_directory, look_up, uses_of, when


class RefShown(NamedTuple):
    """A ref of a repository: the commit that it shows since some time, and the environments that use it.

    Without a commit it is not there, and links to it dangle.
    """

    ref: Ref
    commit: str | None
    since: float | None
    said: Described | None
    environments: tuple[str, ...]


class Repository(NamedTuple):
    """A repository. ``is_declared``: the library has it, None when nobody can tell.

    ``unused`` are branches of the mirror that are not laid out, as no environment needs them. ``unread``
    environments cannot be read. ``last_run`` began then;
    None when nothing tells.
    """

    repository: RepoId
    url: str | None
    is_declared: bool | None
    contact: Contact
    refs: tuple[RefShown, ...]
    unused: tuple[str, ...]
    unread: tuple[str, ...]
    faults: tuple[OpenFault, ...]
    last_run: float | None

    def encode(self, config: Config) -> dict[str, Any]:
        """The same as JSON types. Times are UTC; what is not known is None."""
        return {
            "version": VERSION,
            "repository": str(self.repository),
            "url": self.url,
            "declared": self.is_declared,
            **self.contact.encode(),
            "refs": [
                {
                    "ref": history.declared(each.ref, config),
                    "commit": each.commit,
                    "since": when(each.since),
                    "author": each.said and each.said.author,
                    "subject": each.said and each.said.subject,
                    "date": each.said and when(each.said.date),
                    "environments": [*each.environments],
                }
                for each in self.refs
            ],
            "unused_branches": [*self.unused],
            "unread_environments": [*self.unread],
            "faults": [*map(lastrun.encode_fault, self.faults)],
            "last_run": when(self.last_run),
        }


class Expanded(NamedTuple):
    """A branch that is laid out: the commit that it shows (None: its link leads nowhere), and since when."""

    commit: str | None
    since: float | None


def plan_refs(
    branches: Mapping[Ref, Expanded], uses: Iterable[Use], said: Mapping[str, Described]
) -> tuple[RefShown, ...]:
    """All refs that are laid out, or that environments use: branches by name, then commits."""
    by_ref: dict[Ref, list[Use]] = {ref: [] for ref in branches}
    for use in uses:
        by_ref.setdefault(use.ref, []).append(use)
    return tuple(_ref(ref, branches.get(ref), by_ref[ref], said) for ref in sorted(by_ref, key=ref_order))


def _ref(ref: Ref, branch: Expanded | None, uses: list[Use], said: Mapping[str, Described]) -> RefShown:
    """A ref; a commit, which has no link of its own, is there since it was first used."""
    commit = branch.commit if branch else next((use.commit for use in uses if use.commit), None)
    times = [use.since for use in uses if use.since is not None]
    since = branch.since if branch else min(times, default=None)
    about = said.get(commit) if commit else None
    return RefShown(ref, commit, since if commit else None, about, tuple(sorted(use.environment for use in uses)))


def look(instance: Instance, repo: RepoId) -> Repository:
    """Look at a repository. Raises DirectoryError when neither the library nor the disk has it."""
    preflight.check_readable(instance.config, ("baredir", "clonedir", "environmentsdir"))
    layout = instance.layout
    bare, is_declared = layout.bare(repo), None if instance.urls is None else repo in instance.urls
    faults = tuple(opened for opened in instance.faults if opened.fault.repository == str(repo))
    is_there = [is_directory("baredir", bare), is_directory("clonedir", layout.clone(repo))]
    if not (is_declared or faults or any(is_there)):
        raise DirectoryError("repository", Path(str(repo)), "neither the library nor the disk has it")
    branches, (uses, unread) = _branches(instance, repo), uses_of(instance, repo)
    commits = {each.commit for each in branches.values()} | {each.commit for each in uses}
    found = instance.described([(repo, each) for each in commits if each])
    said = {commit: about for (_, commit), about in found.items()}
    refs = plan_refs(branches, uses, said)
    unused = sorted({*heads_of(bare)} - {each.ref.key for each in refs if not isinstance(each.ref, Commit)})
    return Repository(
        repo,
        _url(instance, repo),
        is_declared,
        instance.contact(repo),
        refs,
        tuple(unused),
        unread,
        faults,
        instance.last_began,
    )


def _branches(instance: Instance, repo: RepoId) -> dict[Ref, Expanded]:
    """The branches that are laid out. Raises DirectoryError."""
    layout, found = instance.layout, dict[Ref, Expanded]()
    try:
        for entry in os.listdir(layout.clone(repo)):
            shown = None if is_checkout_name(entry) or entry.startswith(".") else look_up(layout, repo, entry)
            if shown is not None and not isinstance(shown.ref, Commit):
                found[shown.ref] = Expanded(shown.commit, shown.since)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DirectoryError("clonedir", layout.clone(repo), f"cannot be read: {error.strerror}") from error
    return found


def _url(instance: Instance, repo: RepoId) -> str | None:
    """Where a repository is cloned from, without user and password; None when nothing tells."""
    found = (instance.urls or {}).get(repo)
    if found is None:
        try:
            found = wrapper.mirrored_url(instance.layout.bare(repo))
        except OSError:
            found = None
    return found and urls.redact(found)
