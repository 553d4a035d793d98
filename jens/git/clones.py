"""Clones with a work tree, as the metadata are: made, refreshed, reset, and read from their commits."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jens.errors import GitError
from jens.git import process
from jens.git.process import GitOptions, run
from jens.git.shells import Command
from jens.git.wrapper import HEADS, heads
from jens.system.files import read_file
from jens.text import one_line

#: A name that begins with a dot stands for refs that are kept in other files: gitrepository-layout(5).
_ID = re.compile(r"(?P<id>[0-9a-f]{40})\n")
_ON_BRANCH = re.compile(rf"ref: (?P<branch>{HEADS}[^.\s\ufffd]\S*)\n")
#: The configuration of a clone as Git writes it, with nothing else that could matter.
_USUAL = re.compile(
    r"\[core\]\n(\t\w+ = \w+\n)*"
    r'\[remote "origin"\]\n\turl = .+\n\tfetch = \+refs/heads/\*:refs/remotes/origin/\*\n'
    rf'\[branch "(?P<branch>[^"\\\n]+)"\]\n\tremote = origin\n\tmerge = (?P<ref>{HEADS}(?P<name>[^\s"\\;#]+))\n'
)
#: Who makes the commits of repositories that are made here.
_MAKER = {"NAME": "Jens", "EMAIL": "jens@example.org"}


class Upstream(NamedTuple):
    """What a clone's branch tracks: a remote's name or URL, a ref there, and the commit that was there."""

    remote: str
    ref: str
    commit: str


def refresh_clone(directory: Path, options: GitOptions) -> Upstream:
    """Fetch what a clone's branch tracks; branch and work tree stay."""
    git_dir = directory / ".git"
    remote, ref, tracking = _upstream(git_dir)
    arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap="]
    run([*arguments, "--", remote, f"+{ref}:{tracking}"], git_dir=git_dir, remote=options, limit=options.timeout)
    return Upstream(remote, ref, _loose(git_dir, tracking) or _resolve(git_dir, tracking))


def _loose(git_dir: Path, ref: str) -> str | None:
    """What a ref is at, read from its file if it has one of its own: gitrepository-layout(5)."""
    try:
        match = _ID.fullmatch(read_file(git_dir / ref).decode("ascii", "replace"))
    except OSError:
        return None
    return match["id"] if match else None


def _resolve(git_dir: Path, ref: str) -> str:
    output = run(["rev-parse", "--verify", f"{ref}^{{commit}}"], git_dir=git_dir, shared=True)
    return output.decode("ascii").strip()


def question(directory: Path, upstream: Upstream) -> Command:
    """How the remote of a clone is asked for the commit that it has now; nothing is fetched."""
    return (f"--git-dir={directory / '.git'}", "ls-remote", "--", upstream.remote, upstream.ref)


def has_moved(upstream: Upstream, output: bytes) -> bool:
    """Whether the remote has another commit now, told from its answer."""
    return f"{upstream.commit}\t{upstream.ref}" not in output.decode("utf-8", "surrogateescape").split("\n")


def head(directory: Path) -> str:
    """The commit that a clone has checked out, read from its files as long as they are what they usually are."""
    git_dir = directory / ".git"
    try:
        branch = (git_dir / "HEAD").read_text("utf-8").strip().removeprefix(f"ref: {HEADS}")
        commit = heads(git_dir).get(branch)
    except (OSError, UnicodeDecodeError):
        commit = None
    return commit or _resolve(git_dir, "HEAD")


def reset_clone(directory: Path, commit: str) -> None:
    """Reset a clone's branch and work tree to a commit.

    Raises GitError when not every file could be laid out; the branch has moved all the same, if that was possible.
    """
    git_dir = directory / ".git"
    arguments = ["reset", "--quiet", "--hard", commit]
    try:
        run(arguments, git_dir=git_dir, work_tree=directory)
    except GitError:
        (git_dir / "index").unlink(missing_ok=True)  # a power failure may have emptied it; it can be made anew
        try:
            run(arguments, git_dir=git_dir, work_tree=directory)
        except GitError:
            run(["reset", "--quiet", "--soft", commit], git_dir=git_dir, work_tree=directory)
            raise


def _upstream(git_dir: Path) -> tuple[str, str, str]:
    """Remote, branch there and remote-tracking branch of the branch that a clone has checked out."""
    branch = _branch(git_dir)
    usual = _USUAL.fullmatch(read_file(git_dir / "config").decode("utf-8", "replace"))
    if usual and not os.path.lexists(git_dir / "commondir") and branch == f"{HEADS}{usual['branch']}":
        return "origin", usual["ref"], f"refs/remotes/origin/{usual['name']}"
    fields = "%(upstream:remotename)%00%(upstream:remoteref)%00%(upstream)"
    line = run(["for-each-ref", f"--format={fields}", branch], git_dir=git_dir, shared=True)
    output = line.decode("utf-8").strip("\n")
    remote, ref, tracking = output.split("\0") if output else ("", "", "")
    if tracking.startswith("refs/remotes/"):
        return remote, ref, tracking
    # A clone of a repository that was still empty, or one whose branch was set up by hand.
    short = branch[len(HEADS) :]
    return "origin", branch, f"refs/remotes/origin/{short}"


def _branch(git_dir: Path) -> str:
    """The branch that a clone has checked out, read from its file as long as that is what it usually is."""
    match = _ON_BRANCH.fullmatch(read_file(git_dir / "HEAD").decode("utf-8", "replace"))
    if match:
        return match["branch"]
    try:
        return run(["symbolic-ref", "--quiet", "HEAD"], git_dir=git_dir, shared=True).decode("utf-8").strip()
    except GitError as error:
        raise GitError("symbolic-ref", "no branch is checked out, expected one that tracks a remote branch") from error


def clone_work_tree(url: str, directory: Path, options: GitOptions) -> None:
    """Make an ordinary clone."""
    arguments = ["clone", "--quiet", "--origin=origin", "--template="]
    run([*arguments, "--", url, str(directory)], remote=options, limit=options.clonetimeout)


def make_repository(directory: Path, message: str) -> None:
    """Make a directory a repository: one commit of all its files on branch master. Raises GitError."""
    with _without_dropped_variables():
        _make_repository(directory, message)


@contextlib.contextmanager
def _without_dropped_variables() -> Iterator[None]:
    """GitPython reads the environment when it is imported, and hands all of it on to Git."""
    dropped = {name: os.environ.pop(name) for name in process.dropped_variables()}
    try:
        yield
    finally:
        os.environ.update(dropped)


def _make_repository(directory: Path, message: str) -> None:
    try:
        import git  # noqa: PLC0415 - a run must not wait for it
    except ImportError as error:  # so says GitPython when there is no Git
        import shutil  # noqa: PLC0415

        problem = "could not be started: there is no git on PATH" if shutil.which("git") is None else str(error)
        raise GitError("init", problem) from error
    identity = {f"GIT_{who}_{what}": _MAKER[what] for who in ("AUTHOR", "COMMITTER") for what in _MAKER}
    place = {"GIT_DIR": str(directory / ".git"), "GIT_WORK_TREE": str(directory)}  # whomever it belongs to
    for arguments in (
        ("init", "--quiet", "--template=", "--initial-branch=master"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", message),
    ):
        try:
            status, _, complaints = git.Git(directory).execute(
                ["git", *arguments],
                env={**process.LOCAL, **identity, **place},
                with_extended_output=True,
                with_exceptions=False,
            )
        except (git.GitError, OSError) as error:
            raise GitError(arguments[0], one_line(str(error))) from error
        if status:
            problem = process.summary(complaints.encode("utf-8", "surrogateescape"), status, arguments)
            raise GitError(arguments[0], problem, status)


def read_files(directory: Path, commit: str, path: str = "", *, suffix: str, largest: int) -> dict[str, bytes | None]:
    """The files at the top of a commit (or just the one at ``path``) whose names end so, name to content.

    What is neither file nor directory (a symbolic link, a submodule) has None for a content. One of more than
    ``largest`` bytes is not read: so many NULs stand for it, and one more.
    """
    git_dir = directory / ".git"
    arguments = ["ls-tree", "-z", "--long", commit, *(["--", path] if path else [])]
    found: dict[str, str | None] = {}
    for line in run(arguments, git_dir=git_dir, shared=True).decode("utf-8", "surrogateescape").split("\0")[:-1]:
        attributes, _, name = line.partition("\t")
        mode, _, blob, size = attributes.split()
        if name.endswith(suffix) and mode != "040000":
            is_too_large = size.isdigit() and int(size) > largest
            found[name] = None if not mode.startswith("100") else "" if is_too_large else blob
    contents = {"": bytes(largest + 1), **_read_blobs(git_dir, sorted(set(filter(None, found.values()))))}
    return {name: None if blob is None else contents[blob] for name, blob in found.items()}


def _read_blobs(git_dir: Path, blobs: list[str]) -> dict[str, bytes]:
    if not blobs:
        return {}
    output = run(["cat-file", "--batch"], git_dir=git_dir, shared=True, stdin="\n".join(blobs).encode("ascii"))
    contents, position = {}, 0
    for _ in blobs:
        end = output.index(b"\n", position)
        header = output[position:end].decode("ascii").split()
        if len(header) != 3:
            raise GitError("cat-file", f"object {header[0]} is missing")
        start, size = end + 1, int(header[2])
        contents[header[0]] = output[start : start + size]
        position = start + size + 1
    return contents
