"""Reads, makes and changes one environment on disk: directories and relative links.

``jens.environments.wanted`` decides what it should be.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jens.environments.wanted import Changes, Found, Tree
from jens.layout import Layout, commit_entry
from jens.links import (
    ENVIRONMENT_CONF,
    ENVIRONMENT_DIRECTORIES,
    RESOURCE_TYPES,
    link_text,
    parse_target,
)
from jens.model import RepoId
from jens.system import files
from jens.system.users import name_of

log = logging.getLogger(__name__)


#: The modes of what Jens makes in an environment, whose links have none.
_MODES = {**dict.fromkeys(ENVIRONMENT_DIRECTORIES, 0o755), ENVIRONMENT_CONF: 0o644}


def read(path: Path) -> Found:
    """Read what is on disk of an environment. Raises OSError."""
    links: dict[str, str] = {}
    missing: list[str] = []
    blocked: list[str] = []
    litter: list[str] = []
    strange: list[str] = []
    for directory in ENVIRONMENT_DIRECTORIES:
        where = os.path.join(path, directory) if directory else str(path)
        status = files.status_of(where)
        if status is None or not stat.S_ISDIR(status.st_mode):
            (missing if status is None else blocked).append(directory)
            continue
        with os.scandir(where) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                if entry.name.startswith((files.STAGING, files.TRASH)):
                    litter.append(name)
                elif entry.is_symlink():
                    links[name] = os.readlink(entry.path)
                elif name not in (*ENVIRONMENT_DIRECTORIES, ENVIRONMENT_CONF, RESOURCE_TYPES):
                    strange.append(name)
    for not_a_link in (*ENVIRONMENT_DIRECTORIES, ENVIRONMENT_CONF):
        links.pop(not_a_link, None)
    content = files.read_if_there(path / ENVIRONMENT_CONF)
    return Found(links, tuple(missing), tuple(blocked), tuple(litter), tuple(strange), content)


def take(path: Path) -> Found:
    """Read an environment that is to be changed now, and put right the modes of what is in it. Raises OSError."""
    found = inspect(path)
    mended = [name or "." for name in found.modes if _put_mode(_in(path, name), _MODES[name])]
    if not mended:
        return found
    log.warning("Environment '%s': somebody changed the modes of %s, they are put right", path.name, mended)
    return inspect(path)


def inspect(path: Path) -> Found:
    """Read an environment that a run would change. Raises OSError, but not for modes that can be put right."""
    modes, useless = [], []
    for name, mode in _MODES.items():
        where = _in(path, name)
        status = files.status_of(where)
        if status is None or not (stat.S_ISREG if name == ENVIRONMENT_CONF else stat.S_ISDIR)(status.st_mode):
            continue
        if _is_ours(status) and status.st_mode & 0o777 != mode:
            modes.append(name)
        elif not _is_ours(status) and name != ENVIRONMENT_CONF and not os.access(where, os.R_OK | os.W_OK | os.X_OK):
            useless.append(name)
    try:
        found = read(path)
    except PermissionError:
        if not (modes or useless):
            raise
        found = Found()
    if not useless and not found.links and "" not in (*found.missing, *found.blocked) and not _is_open(path):
        useless.append("")
    blocked = (*found.blocked, *useless)
    return replace(found, blocked=blocked, modes=tuple(modes)) if modes or blocked else found


def _in(path: Path, name: str) -> str:
    return os.path.join(path, name) if name else str(path)


def _is_ours(status: os.stat_result) -> bool:
    """Whether we may change modes: the owner may, and root."""
    return os.geteuid() in (0, status.st_uid)


def _is_open(path: Path) -> bool:
    """Whether a directory is ours, or everybody may read it: then Puppet servers can."""
    status = os.lstat(path)
    return _is_ours(status) or status.st_mode & 0o055 == 0o055


def _put_mode(path: str, mode: int) -> bool:
    """Give a file or directory its mode. False where the file system has no such modes."""
    with contextlib.suppress(OSError):
        before = os.lstat(path).st_mode
        os.chmod(path, stat.S_IMODE(before) & 0o7000 | mode)
        return os.lstat(path).st_mode & 0o777 == mode
    return False


def create(path: Path, tree: Tree) -> None:
    """Make an environment aside, so that it appears complete in one rename. Raises OSError.

    What is in its place goes. A directory that somebody else made is kept under another name, unless it is empty.
    """
    staging = files.staging_name(path.parent)
    there = files.status_of(path)
    try:
        with files.naming(path):
            make(staging, tree)
            before = put(staging, path)
    except BaseException as error:
        files.remove_tree(staging)
        reason = _obstacle(path, there, error) if isinstance(error, OSError) else ""
        if not reason:
            raise
        raise OSError(reason) from error
    if before is not None:
        with contextlib.suppress(OSError):  # there are none, or jens-deliver makes them again
            os.rename(before / RESOURCE_TYPES, path / RESOURCE_TYPES)
        let_go(path, before, os.lstat(before))


def make(path: Path, tree: Tree) -> None:
    """Make the directories, links and environment.conf of an environment. Raises OSError."""
    for directory in ENVIRONMENT_DIRECTORIES:
        os.mkdir(path / directory, 0o755)
    for link, text in tree.links.items():
        os.symlink(text, f"{path}/{link}")
    if tree.conf is not None:
        (path / ENVIRONMENT_CONF).write_bytes(tree.conf)


def put(staging: Path, path: Path) -> Path | None:
    """Rename what is finished to ``path``. Returns where that is which was there. Raises OSError.

    A directory and a link in the place of each other change places in one step, where the file system can do that.
    """
    there = files.status_of(path)
    if there is not None and not stat.S_ISDIR(there.st_mode) and os.path.islink(staging):
        os.rename(staging, path)
        return None
    before = files.put_tree(staging, path)
    if there is not None and before != staging and stat.S_ISLNK(there.st_mode) != stat.S_ISLNK(os.lstat(path).st_mode):
        log.warning(
            "Environment '%s' was missing for a moment: the file system of '%s' cannot exchange a directory and a link",
            path.name,
            path.parent,
        )
    return before


def let_go(path: Path, before: Path, status: os.stat_result) -> None:
    """Delete what was in an environment's place; keep aside what is somebody else's and not empty. Raises OSError."""
    if _is_ours(status) or not stat.S_ISDIR(status.st_mode):
        files.remove_tree(before)
        return
    kept = ""
    try:
        os.rmdir(before)
    except OSError:
        kept = f".{path.name}.kept-{os.urandom(6).hex()}"
        os.rename(before, path.parent / kept)
    log.warning(
        "Environment '%s' has taken the place of a directory '%s' that belonged to '%s' and had the mode %04o%s",
        path.name,
        path,
        name_of(status.st_uid),
        stat.S_IMODE(status.st_mode),
        f"; that is '{path.parent / kept}' now" if kept else "",
    )


def _obstacle(path: Path, status: os.stat_result | None, error: OSError) -> str:
    """What to do when a directory of somebody else is in the way; '' when there is none."""
    if status is None or _is_ours(status) or not stat.S_ISDIR(status.st_mode):
        return ""
    user = name_of(os.geteuid())
    return (
        f"'{path}' belongs to '{name_of(status.st_uid)}' and has the mode {stat.S_IMODE(status.st_mode):04o}, expected "
        f"a directory of '{user}' with the mode 0755, and it cannot be replaced ({error.strerror}): remove it"
    )


def change(path: Path, changes: Changes) -> list[OSError]:
    """Change an environment, each link in one rename. Nothing is missing in between.

    Returns the errors. A change that fails does not stop the others. On a full disk, removals come last but make room,
    so what failed is tried once more after them.
    """
    failed = _carry_out(_operations(path, changes))
    if changes.remove and any(files.is_full(error) for _, error in failed):
        failed = _carry_out(operation for operation, _ in failed)
    return [error for _, error in failed]


def _carry_out(operations: Iterable[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], OSError]]:
    failed = []
    for operation, *arguments in operations:
        try:
            operation(*arguments)
        except OSError as error:
            failed.append(((operation, *arguments), error))
    return failed


def _operations(path: Path, changes: Changes) -> Iterator[tuple[Any, ...]]:
    yield from ((files.make_directory, path / directory) for directory in changes.make)
    yield from ((put_link, path / link, text) for link, text in changes.put.items())
    if changes.conf is not None:
        yield (_put_conf, path / ENVIRONMENT_CONF, changes.conf)
    yield from ((_remove, path / name) for name in changes.remove)


def _put_conf(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        files.discard(path)
    files.write_file(path, content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        files.remove_tree(path)
    else:
        os.unlink(path)


def put_link(path: Path, text: str) -> None:
    """Put a link of an environment in place. It replaces a directory, which need not be kept. Raises OSError."""
    trash = files.put_link(path, text)
    if trash is not None:
        files.remove_tree(trash)


def links_through(
    layout: Layout, place: str, found: Found, entries: Mapping[tuple[RepoId, str], str]
) -> dict[str, str]:
    """The links that lead through one of these entries, with texts that lead to its commit's checkout instead."""
    detour = {}
    for link, text in found.links.items():
        target = parse_target(layout, place, link, text)
        if target is not None and (target.repo, target.entry) in entries:
            commit = entries[target.repo, target.entry]
            detour[link] = link_text(layout, link, target._replace(entry=commit_entry(commit)), place)
    return detour
