"""The links of an environment: where they are, where they lead, and where they must not lead."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jens.errors import WayOutError
from jens.layout import Layout
from jens.model import COMMON, HIERADATA, HOSTGROUPS, MODULES, PLAIN, SITE, Directories, RepoId
from jens.system.files import is_verdict

#: Links of an environment for each repository of a partition: where the link to the code is, and those to paths below
#: the data.
_LINKS = {
    MODULES: ("modules/{}", (("hieradata/module_names/{}", "."),)),
    HOSTGROUPS: ("hostgroups/hg_{}", (("hieradata/hostgroups/{}", "hostgroup"), ("hieradata/fqdns/{}", "fqdns"))),
}

#: Directories of an environment, parents first; they exist even when empty. "" is the environment itself.
ENVIRONMENT_DIRECTORIES = (
    "",
    "modules",
    "hostgroups",
    "hieradata",
    "hieradata/module_names",
    "hieradata/hostgroups",
    "hieradata/fqdns",
)

ENVIRONMENT_CONF = "environment.conf"

#: The hierarchy of Hiera that comes with an environment, there and at the top of its repository.
HIERA_YAML = "hiera.yaml"

#: The directory of an environment in which ``puppet generate types`` writes; its files are no link's business.
RESOURCE_TYPES = ".resource_types"

#: The kernel follows at most this many links in one path: path_resolution(7).
_MOST_LINKS = 40
#: The kernel takes no longer path, in bytes: PATH_MAX.
_LONGEST_PATH = 4096


#: The parts of the path to an entry, below clonedir: partition, repository, and the entry.
_TO_ENTRY = 3


class Target(NamedTuple):
    """What a link of an environment leads to: an entry of a repository's checkouts, and a path below it, or ''."""

    repo: RepoId
    entry: str
    below: str


def links_of(layout: Layout, repo: RepoId, directories: Directories = PLAIN.directories) -> dict[str, str]:
    """The links of an environment that holds a repository: path in the environment, path below the checkout.

    The link to the code comes first.
    """
    code, data = directories
    if repo == HIERADATA:
        below = {f"hieradata/{item}": item for item in layout.common_hieradata_items}
        return {} if data is None else {link: _below(data, item) for link, item in below.items()}
    if repo == SITE:
        return {"site": _below(code, ".")}
    if repo.partition not in _LINKS:
        return {}
    link, links_to_data = _LINKS[repo.partition]
    found = {link.format(repo.name): _below(code, ".")}
    if data is not None:
        found.update({link.format(repo.name): _below(data, inside) for link, inside in links_to_data})
    return found


def optional_links_of(layout: Layout, repo: RepoId) -> dict[str, str]:
    """The links that an environment has only where the repository has what they lead to; as ``links_of``."""
    return {HIERA_YAML: HIERA_YAML} if repo == layout.environment_hiera else {}


def all_links_of(layout: Layout, repo: RepoId, directories: Directories = PLAIN.directories) -> dict[str, str]:
    """All links that an environment may have to a repository; as ``links_of``."""
    return {**links_of(layout, repo, directories), **optional_links_of(layout, repo)}


def _below(directory: str, inside: str) -> str:
    """The path below a checkout of what is inside one of its directories, '' for the checkout itself."""
    return "/".join(part for part in (directory, inside) if part != ".")


def has_code(repo: RepoId) -> bool:
    """Whether environments link to Puppet code of a repository."""
    return repo == SITE or repo.partition in _LINKS


def directories_shown(repo: RepoId, links: Mapping[str, str]) -> dict[str, str | None]:
    """What the links of an environment to a repository (link to path below the checkout) tell of its Directories.

    Fields that they do not tell are left out.
    """
    code, data = ("site", ()) if repo == SITE else _LINKS.get(repo.partition, ("", ()))
    places = [(link.format(repo.name), inside) for link, inside in data]
    if repo == HIERADATA:
        places = [(link, link.partition("/")[2]) for link in links if link != HIERA_YAML]
    found: dict[str, str | None] = {}
    if (below := links.get(code.format(repo.name))) is not None:
        found["code"] = below or "."
    for link, inside in places:
        below = links.get(link)
        top = (below or ".") if inside == "." else "." if below == inside else (below or "")[: -len(inside) - 1]
        if below is not None and top and _below(top, inside) == below:
            found["data"] = top
    return found


def link_prefix(layout: Layout, depth: int) -> str:
    """The relative path to clonedir from a link that is ``depth`` directories below one of environmentsdir.

    Computed from the real paths of the directories, because the kernel follows a link from there.
    """
    relative = os.path.relpath(os.path.realpath(layout.clonedir), os.path.realpath(layout.environmentsdir))
    return "../" * (depth + 1) + relative


def depth_of(place: str, link: str) -> int:
    """How many directories a link is below a directory of environmentsdir."""
    return place.count("/") + link.count("/")


def link_text(layout: Layout, link: str, target: Target, place: str = "") -> str:
    """The text of a link of an environment; ``place`` is where that is below environmentsdir, if it has versions."""
    return f"{link_prefix(layout, depth_of(place, link))}/{path_of(target)}"


def path_of(target: Target) -> str:
    """The path of a target, below clonedir."""
    return f"{target.repo}/{target.entry}" + (f"/{target.below}" if target.below else "")


# Targets, read back


def parse_target(layout: Layout, place: str, link: str, text: str) -> Target | None:
    """The target of a link with any relative or absolute text; None when it is not in a repository below clonedir.

    ``place`` is where its environment is, below environmentsdir (see ``Layout.place``).
    """
    here = os.path.join(os.path.realpath(layout.environmentsdir), place, os.path.dirname(link))
    path = os.path.normpath(os.path.join(here, text))
    for top in (os.path.realpath(layout.clonedir), str(layout.clonedir)):
        if path.startswith(top + os.sep):
            return _target(path[len(top) + 1 :])
    return None


def _target(below: str) -> Target | None:
    """The target of a normalised path, relative to clonedir; None when it is not below an entry of a repository."""
    parts = below.split(os.sep, 3)
    if len(parts) >= _TO_ENTRY and parts[0] in (MODULES, HOSTGROUPS, COMMON):
        return Target(RepoId(parts[0], parts[1]), parts[2], "".join(parts[_TO_ENTRY:]))
    return None


class LinkReader:
    """``parse_target`` for very many links: it only splits texts that Jens itself wrote, and each text once."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._prefixes: dict[int, str] = {}
        self._targets: dict[str, Target | None] = {}

    def target(self, place: str, link: str, text: str) -> Target | None:
        """The target of a link; None when it is not in a repository below clonedir."""
        depth = depth_of(place, link)
        prefix = self._prefixes.get(depth)
        if prefix is None:
            prefix = self._prefixes[depth] = link_prefix(self._layout, depth) + "/"
        below = text[len(prefix) :] if text.startswith(prefix) else ""
        if below in self._targets:
            return self._targets[below]
        if below[:1] in "./" or os.path.normpath(below) != below:
            return parse_target(self._layout, place, link, text)
        target = self._targets[below] = _target(below)
        return target


# Links that lead out of a checkout


def refuse_ways_out(layout: Layout, repo: RepoId, checkout: Path, directories: Directories) -> None:
    """Check that no symbolic link in a checkout leads what environments link to out of the checkout.

    ``directories`` are those that the library names. What a definition names besides is refused to its environment
    alone. Raises WayOutError: Puppet would read files there that do not belong to the repository. Raises OSError when
    nobody can look now.
    """
    linked = links_of(layout, repo, directories).values()
    outside = [below for below in sorted({*linked}) if leads_out(checkout, below)]
    if outside:
        raise WayOutError(outside)


class WaysOut:
    """Tells which targets of links lead out of their checkout. It looks at each target once, as many links share it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._found: dict[Target, bool] = {}

    def has(self, target: Target) -> bool:
        """Whether a target leads out, as its checkout is now."""
        if target not in self._found:
            self._found[target] = leads_out(f"{self._layout.clonedir}/{target.repo}/{target.entry}", target.below)
        return self._found[target]


def leads_out(top: Path | str, path: str) -> bool:
    """Whether a path below a directory leaves it. Links are read, but never followed out of the directory."""
    here: list[str] = []
    ahead = path.split("/")[::-1]  # a stack: who pushes decides how long the texts of links are
    links = 0
    while ahead:
        name = ahead.pop()
        if name == ".." and not here:
            return True
        if name == "..":
            here.pop()
        elif name not in ("", "."):
            try:
                text = _link_text("/".join([str(top), *here, name]))
            except OSError:  # too long a path for us, but the kernel comes there by way of links
                return True
            if text is None:
                here.append(name)
            else:
                links += 1
                if text.startswith("/"):
                    return True
                ahead = ahead + text.split("/")[::-1] if links <= _MOST_LINKS else []
    return False


def _link_text(path: str) -> str | None:
    """The text of a link; None for what is no link, or not there. Raises OSError when the path is too long."""
    try:
        return os.readlink(path)
    except OSError as error:
        if not is_verdict(error) or (error.errno == errno.ENAMETOOLONG and len(os.fsencode(path)) >= _LONGEST_PATH):
            raise
        return None  # not a link, or not there
