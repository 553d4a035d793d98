"""Fingerprints of the parts of an instance: numbers from what the kernel knows of files, without reading them.

Another number means that somebody has changed something. When an entry of a directory is made, removed or renamed, the
directory's ctime changes, which nobody can set.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from jens.config import Config
from jens.layout import Layout
from jens.links import ENVIRONMENT_CONF, ENVIRONMENT_DIRECTORIES
from jens.metadata.clones import directories
from jens.model import RepoId
from jens.statefile import STATE_FILES, state_path
from jens.system import clock
from jens.system.files import is_verdict

#: The part that both metadata clones are.
METADATA = "metadata"

#: Parts of a mirror: whatever Git does there changes one of them. In order of depth.
_OF_A_MIRROR = ("", "packed-refs", "refs/heads", "objects", "objects/pack", "worktrees")
_OF_A_CLONE = ("", "HEAD", "config", "packed-refs", "refs/heads")


def of_instance(config: Config, layout: Layout) -> dict[str, int]:
    """The fingerprints of the parts that do not grow with the site, by name. The configuration's name is ''.

    The id of this start of the system is in that one: a power failure may have lost anything.
    """
    context = f"{clock.boot_id()} {config!r}".encode("utf-8", "surrogateescape")
    return {
        "": zlib.crc32(context),
        **of_metadata(config),
        "tops": hash((_number(_tops(layout)), *_partitions(layout), *_environment_names(layout))),
        **of_state(layout),
    }


def of_metadata(config: Config) -> dict[str, int]:
    """The fingerprint of both metadata clones."""
    return {METADATA: _number(_metadata(config))}


def of_state(layout: Layout) -> dict[str, int]:
    """The fingerprint of the files of state that ``STATE_FILES`` says have one."""
    files = [str(state_path(layout, file)) for file in STATE_FILES if file.is_fingerprinted]
    return {"state": _number(files)}


def of_environments(layout: Layout, environments: Iterable[str]) -> dict[str, int]:
    """The fingerprint of all environments together, and of those among them that have versions."""
    names = [*environments]
    with_versions = versioned(layout, names)
    plain = [name for name in names if name not in with_versions] if with_versions else names
    return {"environments": _number(_environments(layout, plain)), **of_versions(layout, with_versions)}


def versioned(layout: Layout, environments: Iterable[str]) -> list[str]:
    """Those environments that have versions."""
    if not os.path.lexists(layout.versions):
        return []
    return sorted(name for name in environments if layout.place(name) != name)


def of_versions(layout: Layout, environments: Collection[str]) -> dict[str, int]:
    """The fingerprint of environments with versions: a run that looks at few repositories changes these, too."""
    return {"versions": _number(_environments(layout, environments))} if environments else {}


def of_environment(layout: Layout, name: str) -> int:
    """The fingerprint of one environment."""
    return _number(_environments(layout, [name]))


def of_repository(layout: Layout, repo: RepoId) -> int:
    """The fingerprint of a repository's checkouts and mirror. A few directories show whatever Git does there."""
    return _number([f"{layout.clonedir}/{repo}", *_under(f"{layout.baredir}/{repo}", _OF_A_MIRROR)])


def of_mirror(layout: Layout, repo: RepoId, names: Iterable[str]) -> int:
    """The fingerprint of some files and directories of a mirror."""
    return _number(_under(f"{layout.baredir}/{repo}", names))


def names_in_mirror(layout: Layout, repo: RepoId, heads: Mapping[str, str]) -> list[str]:
    """The names of files that change when somebody damages a mirror, and that ``of_repository`` does not look at.

    Raises OSError when nobody can look now. The files that have the commits of its branches are among them.
    """
    bare = f"{layout.baredir}/{repo}"
    loose = [f"objects/{commit[:2]}/{commit[2:]}" for commit in sorted({*heads.values()})]
    return [
        *("HEAD", "config", "objects/info", "refs"),
        *_under("objects/pack", _names(f"{bare}/objects/pack")),
        *_under("worktrees", _names(f"{bare}/worktrees")),
        *[path[len(bare) + 1 :] for kind in ("heads", "tags") for path in _all_below(f"{bare}/refs/{kind}")],
        *[name for name in loose if os.path.lexists(f"{bare}/{name}")],
    ]


def _number(paths: Iterable[str]) -> int:
    seen: list[int] = []
    for path in paths:
        try:
            status = os.lstat(path)
            seen += [status.st_ino, status.st_ctime_ns]
        except (OSError, ValueError):  # no such file, or no possible name of a file, or only in another locale
            seen.append(-1)
    return hash(tuple(seen))  # integers have the same hash in each process


# Strings and not paths: there are thousands of them.


def _metadata(config: Config) -> Iterator[str]:
    for directory in directories(config):
        yield from (os.path.join(directory, ".git", name) for name in _OF_A_CLONE)


def _tops(layout: Layout) -> Iterator[str]:
    if not os.path.lexists(layout.versions):  # otherwise its names count, see below
        yield str(layout.environmentsdir)
    yield from map(str, (layout.definitions, layout.holds, layout.baredir, layout.clonedir))
    try:
        yield from _under(str(layout.holds), sorted(os.listdir(layout.holds)))
    except OSError:
        return  # nobody was ever held; or another number, and the next run looks at everything


def _environment_names(layout: Layout) -> Iterator[int]:
    """A number that tells of the names in environmentsdir, if links of environments are flipped there."""
    if os.path.lexists(layout.versions):
        names = "/".join(name for name in _names(layout.environmentsdir) if not name.startswith("."))
        yield zlib.crc32(names.encode("utf-8", "surrogateescape"))


def _partitions(layout: Layout) -> Iterator[int]:
    """Numbers that tell of the names in each partition.

    Where jens-transfer may be at work, hidden names do not count: it makes some at any time.
    """
    partitions = [*layout.partitions(layout.baredir), *layout.partitions(layout.clonedir)]
    if not os.path.lexists(layout.transfers):
        yield _number(map(str, partitions))  # quicker than to list them
    else:
        for path in partitions:
            try:
                names = "/".join(sorted(name for name in os.listdir(path) if not name.startswith(".")))
            except OSError:
                yield -1
            else:
                yield zlib.crc32(names.encode("utf-8", "surrogateescape"))


def _environments(layout: Layout, environments: Iterable[str]) -> Iterator[str]:
    has_versions = os.path.lexists(layout.versions)
    for name in sorted(environments):
        place = layout.place(name) if has_versions else name
        if place != name:
            yield f"{layout.environmentsdir}/{name}"
        yield from _under(f"{layout.environmentsdir}/{place}", (*ENVIRONMENT_DIRECTORIES, ENVIRONMENT_CONF))


def _all_below(top: str) -> list[str]:
    """Every file and directory below, sorted. A branch that was pushed lately is a file."""
    found, waiting = [], [top]
    while waiting:  # no recursion: whoever pushes decides how deep names are
        try:
            with os.scandir(waiting.pop()) as found_here:
                entries = list(found_here)
        except OSError as error:
            if not is_verdict(error):
                raise
            continue
        found += [entry.path for entry in entries]
        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(found)


def _names(directory: Path | str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        if not is_verdict(error):
            raise
        return []


def _under(top: str, names: Iterable[str]) -> list[str]:
    return [f"{top}/{name}" if name else top for name in names]
