"""The ordinary clones of the metadata: make and refresh them, and move their branches."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from jens.errors import GitError
from jens.git.process import GitOptions, run, transfer
from jens.git.shells import Command
from jens.git.wrapper import HEADS, heads
from jens.names import is_commit_id
from jens.system.files import open_file, read_file
from jens.urls import public_url

_ID = re.compile(r"(?P<id>[0-9a-f]{40})\n")
#: A branch name with a dot in front means that Git keeps the refs elsewhere: gitrepository-layout(5).
_ON_BRANCH = re.compile(rf"ref: (?P<branch>{HEADS}[^.\s\ufffd]\S*)\n")
#: The configuration of a clone as Git writes it, with nothing else that could matter.
_USUAL = re.compile(
    r"\[core\]\n(\t\w+ = \w+\n)*"
    r'\[remote "origin"\]\n\turl = .+\n\tfetch = \+refs/heads/\*:refs/remotes/origin/\*\n'
    rf'\[branch "(?P<branch>[^"\\\n]+)"\]\n\tremote = origin\n\tmerge = (?P<ref>{HEADS}(?P<name>[^\s"\\;#]+))\n'
)
_USER = re.compile(rb"https?://[^/\s]*@", re.IGNORECASE)
#: A remote's part of the configuration.
_REMOTE = r'\[remote "{}"\]\n(?:\t.*\n)*?\turl = (?P<url>.+)\n'
_MISMATCH = "mismatched algorithms"
#: A key in the configuration of a clone that was made with ``--filter``: its remote has the rest.
_PARTIAL = re.compile(rb"^\s*promisor\b", re.MULTILINE | re.IGNORECASE)
_NOT_SHA1 = "expected SHA-1 commit ids, it is a repository with SHA-256 ones"


class Upstream(NamedTuple):
    """What a clone's branch tracks: a remote's name or URL, a ref there, and the commit that was there."""

    remote: str
    ref: str
    commit: str


def refresh_clone(directory: Path, options: GitOptions) -> Upstream:
    """Fetch what a clone's branch tracks. The branch and the work tree do not change. Raises GitError, OSError."""
    git_dir = directory / ".git"
    keep_from_others(git_dir / "config")
    remote, ref, fetched = _upstream(git_dir)
    arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap="]
    before = _loose(git_dir, fetched)
    try:
        is_partial = _PARTIAL.search(read_file(git_dir / "config")) is not None
        arguments += ["--no-filter"] if is_partial else []
        complaint = transfer([*arguments, "--", remote, f"+{ref}:{fetched}"], git_dir, options)
        if is_partial and not _is_whole(git_dir, fetched):  # once: from then on it gets everything
            transfer([*arguments, "--refetch", "--", remote, f"+{ref}:{fetched}"], git_dir, options)
    except GitError as error:
        if _MISMATCH in error.problem:
            raise GitError("fetch", f"expected SHA-1 commit ids from the remote ({error.problem})") from error
        raise
    upstream = Upstream(remote, ref, _loose(git_dir, fetched) or _resolve(git_dir, fetched))
    if complaint and before in (None, upstream.commit):  # packed, or where it was
        _expect_up_to_date(directory, upstream, complaint, options)
    return upstream


def _is_whole(git_dir: Path, ref: str) -> bool:
    """Whether a clone has all files of a commit. No local Git fetches what is missing. Raises GitError."""
    try:
        run(["rev-list", "--quiet", "--objects", f"{ref}^{{tree}}"], git_dir=git_dir, shared=True)
    except GitError as error:
        if error.is_cut_short:
            raise
        return False
    return True


def keep_from_others(path: Path) -> None:
    """See to it that not every user of the host can read a file that has an HTTP URL with a user in it."""
    with contextlib.suppress(OSError):  # there is none, or it belongs to somebody else
        descriptor = open_file(path, os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & stat.S_IRWXO and _USER.search(file.read()):
                os.fchmod(descriptor, mode & ~stat.S_IRWXO)


def _expect_up_to_date(directory: Path, upstream: Upstream, complaint: str, options: GitOptions) -> None:
    """Raise GitError when the remote has another commit: Git may reject it, and nevertheless end with success."""
    git_dir = directory / ".git"
    arguments = ["ls-remote", "--", upstream.remote, upstream.ref]
    if has_moved(upstream, run(arguments, git_dir=git_dir, shared=True, remote=options, limit=options.timeout)):
        problem = f"Git ended with success, but did not bring what the remote has in {upstream.ref!r}"
        raise GitError("fetch", f"{problem}: {complaint}", 0)


def _loose(git_dir: Path, ref: str) -> str | None:
    """The commit of a ref, read from its own file: gitrepository-layout(5). None when it has no such file."""
    try:
        match = _ID.fullmatch(read_file(git_dir / ref).decode("ascii", "replace"))
    except OSError:
        return None
    return match["id"] if match else None


def _resolve(git_dir: Path, ref: str) -> str:
    output = run(["rev-parse", "--verify", f"{ref}^{{commit}}"], git_dir=git_dir, shared=True)
    commit = output.decode("ascii").strip()
    if not is_commit_id(commit):
        raise GitError("rev-parse", _NOT_SHA1)
    return commit


def question(directory: Path, upstream: Upstream) -> Command:
    """The command that asks the remote of a clone for the commit that it has now. It fetches nothing."""
    return (f"--git-dir={directory / '.git'}", "ls-remote", "--", upstream.remote, upstream.ref)


def remote_url(directory: Path, remote: str = "origin") -> str:
    """The URL of a clone's remote as it is configured; '' when that is not written as usual."""
    try:
        text = read_file(directory / ".git" / "config").decode("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(_REMOTE.format(re.escape(remote)), text)
    return found["url"] if found else ""


def has_moved(upstream: Upstream, output: bytes) -> bool:
    """Whether the remote has another commit now, according to ``output``, its reply."""
    return f"{upstream.commit}\t{upstream.ref}" not in output.decode("utf-8", "surrogateescape").split("\n")


def head(directory: Path) -> str:
    """The commit that a clone has checked out, read from its files if they are as usual, or from Git."""
    git_dir = directory / ".git"
    return _branch_commit(git_dir) or _resolve(git_dir, "HEAD")


def _branch_commit(git_dir: Path) -> str | None:
    """The commit of the branch that a clone has checked out, read from its files; None when they do not tell."""
    try:
        branch = (git_dir / "HEAD").read_text("utf-8").strip().removeprefix(f"ref: {HEADS}")
        return heads(git_dir).get(branch)
    except (OSError, UnicodeDecodeError):
        return None


def move_branch(directory: Path, commit: str) -> None:
    """Move the branch of a clone to a commit. The work tree, if there is one, stays as it is. Raises GitError."""
    git_dir = directory / ".git"
    if _branch_commit(git_dir) != commit:
        run(["update-ref", "HEAD", commit], git_dir=git_dir)


def _upstream(git_dir: Path) -> tuple[str, str, str]:
    """The remote, the branch there and the remote-tracking branch that belong to a clone's checked-out branch."""
    branch = _branch(git_dir)
    usual = _USUAL.fullmatch(read_file(git_dir / "config").decode("utf-8", "replace"))
    if usual and not os.path.lexists(git_dir / "commondir") and branch == f"{HEADS}{usual['branch']}":
        return "origin", usual["ref"], f"refs/remotes/origin/{usual['name']}"
    fields = "%(upstream:remotename)%00%(upstream:remoteref)%00%(upstream)"
    line = run(["for-each-ref", f"--format={fields}", branch], git_dir=git_dir, shared=True)
    output = line.decode("utf-8").strip("\n")
    remote, ref, fetched = output.split("\0") if output else ("", "", "")
    if fetched.startswith("refs/remotes/"):
        return remote, ref, fetched
    # The clone was made of an empty repository, or somebody set up its branch by hand.
    short = branch[len(HEADS) :]
    return "origin", branch, f"refs/remotes/origin/{short}"


def _branch(git_dir: Path) -> str:
    """The branch that a clone has checked out, read from HEAD if that is as usual, or from Git."""
    match = _ON_BRANCH.fullmatch(read_file(git_dir / "HEAD").decode("utf-8", "replace"))
    if match:
        return match["branch"]
    try:
        return run(["symbolic-ref", "--quiet", "HEAD"], git_dir=git_dir, shared=True).decode("utf-8").strip()
    except GitError as error:
        raise GitError("symbolic-ref", "no branch is checked out, expected one that tracks a remote branch") from error


def clone_metadata(url: str, directory: Path, options: GitOptions) -> None:
    """Make an ordinary clone, whose work tree is not checked out. Raises GitError."""
    arguments = ["clone", "--quiet", "--no-checkout", "--origin=origin", "--template="]
    run([*arguments, "--", url, str(directory)], remote=options, limit=options.clonetimeout)
    bare_url = public_url(url)
    if bare_url != url:  # Git has got the URL without its user
        config = directory / ".git" / "config"
        config.chmod(0o640)
        config.write_text(config.read_text("utf-8").replace(f"url = {bare_url}\n", f"url = {url}\n", 1), "utf-8")
    if run(["rev-parse", "--show-object-format"], git_dir=directory / ".git", shared=True) != b"sha1\n":
        raise GitError("clone", _NOT_SHA1)
