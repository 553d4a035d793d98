"""The only module that speaks Git: flat verbs, the repository's path first.

Every Git process runs in a process group of its own, without a terminal, with a time limit where a remote is
involved, and, where it writes, holding a lock on the repository that outlives this program if it does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from jens.errors import GitError, GitTimeoutError
from jens.gitprocess import GitOptions, run, stop_all

__all__ = ["GitOptions", "stop_all"]

_HEADS = "refs/heads/"
_ID = re.compile(r"[0-9a-f]{40}")
_MIRROR = f"+{_HEADS}*:{_HEADS}*"
_REFUSALS = ("not our ref", "unadvertised object")
_CONFIGURED_URL = re.compile(r"^\turl = (?P<url>.*)$", re.MULTILINE)


# Remotes and mirrors


def remote_heads(url: str, options: GitOptions) -> dict[str, str]:
    """The branches of a remote, name to commit. Raises GitError, GitTimeoutError."""
    output = run(["ls-remote", "--heads", "--", url], remote=options, limit=options.timeout)
    heads = {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        commit, _, ref = line.partition("\t")
        if ref.startswith(_HEADS):
            if not _ID.fullmatch(commit):
                raise GitError("ls-remote", "expected SHA-1 commit ids from the remote")
            heads[ref[len(_HEADS) :]] = commit
    return heads


def clone(bare: Path, url: str, options: GitOptions) -> None:
    """Mirror a remote's branches, and nothing else, into a new bare repository."""
    # --no-local: a path is mirrored through Git's protocol like any other remote, sharing no files with it.
    arguments = ["clone", "--quiet", "--bare", "--no-local", "--no-tags", "--origin=origin", "--template="]
    run([*arguments, "--", url, str(bare)], remote=options, limit=options.clonetimeout)


def fetch(bare: Path, url: str, options: GitOptions) -> None:
    """Make the branches of a mirror those of the remote: moved, rewritten and deleted ones too."""
    arguments = ["fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--update-head-ok"]
    run([*arguments, "--", url, _MIRROR], git_dir=bare, remote=options, limit=options.timeout)


def fetch_commit(bare: Path, url: str, commit: str, options: GitOptions) -> bool:
    """Fetch one commit by its full id, reachable from a branch or not; False when the remote will not give it."""
    arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
    try:
        run([*arguments, "--", url, commit], git_dir=bare, remote=options, limit=options.timeout)
    except GitError as error:
        if any(refusal in error.problem for refusal in _REFUSALS):
            return False
        raise
    return True


def fetch_commit_alone(bare: Path, url: str, commit: str, options: GitOptions) -> bool:
    """Fetch one object, without history, into a bare made for it; False when the remote will not give it so."""
    run(["init", "--quiet", "--bare", "--template=", str(bare)])
    arguments = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", url, commit]
    try:
        run(arguments, git_dir=bare, remote=options, limit=options.timeout)
    except GitError as error:
        if isinstance(error, GitTimeoutError):
            raise
        return False
    return True


def heads(bare: Path) -> dict[str, str]:
    """The branches of a mirror, name to commit, read from its files: gitrepository-layout(5).

    Damaged loose refs are left out. Raises OSError when the mirror cannot be read.
    """
    found: dict[str, str] = {}
    damaged = set()
    top = bare / "refs" / "heads"
    for directory, _, files in os.walk(top):
        for name in files:
            if name.endswith(".lock"):
                continue
            path = os.path.join(directory, name)
            try:
                commit = Path(path).read_text("ascii", "replace").strip()
            except FileNotFoundError:
                continue  # packed or deleted a moment ago
            branch = os.path.relpath(path, top)
            if _ID.fullmatch(commit):
                found[branch] = commit
            else:
                damaged.add(branch)
    # After the loose ones: ``git pack-refs`` writes this file before it removes them.
    packed = {branch: commit for branch, commit in _packed_heads(bare) if branch not in damaged}
    return {**packed, **found}


def _packed_heads(bare: Path) -> Iterable[tuple[str, str]]:
    try:
        lines = (bare / "packed-refs").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        return
    for line in lines:
        commit, _, ref = line.partition(" ")
        if ref.startswith(_HEADS) and _ID.fullmatch(commit):
            yield ref[len(_HEADS) :], commit


def is_repository(path: Path) -> bool:
    """Whether a directory looks like a bare repository that can be read."""
    return os.access(path / "HEAD", os.R_OK) and os.access(path / "objects", os.R_OK | os.X_OK)


def mirrored_url(bare: Path) -> str | None:
    """The URL that a mirror was last fetched from, read from its ``config`` as ``git config`` writes it."""
    try:
        match = _CONFIGURED_URL.search((bare / "config").read_text("utf-8", "surrogateescape"))
    except OSError:
        return None
    if match is None:
        return None
    url = match.group("url")
    if url.startswith('"') and url.endswith('"'):
        url = url[1:-1]
    return re.sub(r"\\(.)", r"\1", url)


def record_url(bare: Path, url: str) -> None:
    """Remember the URL that a mirror was fetched from, where ``git remote -v`` shows it."""
    run(["config", "--replace-all", "remote.origin.url", url], git_dir=bare)


def commits_like(bare: Path, digits: str) -> list[str]:
    """The ids of all commits in a repository that begin with these digits; other objects do not count."""
    ids = [digits]
    if len(digits) < 40:
        ids = run(["rev-parse", f"--disambiguate={digits}"], git_dir=bare, shared=True).decode("ascii").split()
    if not ids:
        return []
    output = run(["cat-file", "--batch-check"], git_dir=bare, shared=True, stdin="\n".join(ids).encode("ascii"))
    return [line.split()[0] for line in output.decode("ascii").splitlines() if line.split()[1] == "commit"]


def commit_times(bare: Path, commits: Iterable[str]) -> dict[str, int]:
    """When these commits (40 digits) were made: the committer's date, in seconds since the epoch.

    Commits that the repository does not have are left out.
    """
    ids = "\n".join(commits)
    if not ids:
        return {}
    arguments = ["rev-list", "--no-walk=unsorted", "--ignore-missing", "--no-commit-header", "--format=%H %ct"]
    output = run([*arguments, "--stdin"], git_dir=bare, shared=True, stdin=ids.encode("ascii"))
    return {commit: int(time) for commit, _, time in (line.partition(" ") for line in output.decode().splitlines())}


def is_sound(bare: Path) -> bool:
    """Whether a repository has all its objects, undamaged; takes as long as Git needs to read them all."""
    try:
        run(["fsck", "--no-dangling", "--no-progress"], git_dir=bare)
    except GitError as error:
        return error.status == 1  # only bit 0: an object is oddly written, as old ones may be, but all there
    return True


def gc(bare: Path, *, aggressive: bool) -> None:
    """Pack a repository, and drop what nothing has reached for two weeks; worktree records are left alone.

    Source: git-gc(1).
    """
    arguments = ["gc", "--quiet", *(["--aggressive"] if aggressive else [])]
    run(arguments, git_dir=bare, settings=("-c", "gc.worktreePruneExpire=never"))


def has_heads(bare: Path) -> bool:
    """Whether the commits of all branches are there: a cheap look for great damage."""
    commits = "\n".join({*heads(bare).values()})
    output = run(["cat-file", "--batch-check"], git_dir=bare, shared=True, stdin=commits.encode("ascii"))
    return not any(line.endswith(b" missing") for line in output.splitlines())


# The metadata clones


def refresh_clone(directory: Path, options: GitOptions, *, reset: bool) -> str:
    """Fetch what a clone's branch tracks, reset the work tree to it, and return its commit."""
    git_dir = directory / ".git"
    remote, ref, tracking = _upstream(git_dir)
    arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", remote, f"+{ref}:{tracking}"]
    run(arguments, git_dir=git_dir, remote=options, limit=options.timeout)
    commit = (
        run(["rev-parse", "--verify", f"{tracking}^{{commit}}"], git_dir=git_dir, shared=True).decode("ascii").strip()
    )
    if reset:
        _reset(git_dir, directory, commit)
    return commit


def head(directory: Path) -> str:
    """The commit that a clone has checked out, read from its files as long as they are what they usually are."""
    git_dir = directory / ".git"
    try:
        branch = (git_dir / "HEAD").read_text("utf-8").strip().removeprefix(f"ref: {_HEADS}")
        commit = heads(git_dir).get(branch)
    except (OSError, UnicodeDecodeError):
        commit = None
    if commit is None:
        output = run(["rev-parse", "--verify", "HEAD^{commit}"], git_dir=git_dir, shared=True)
        commit = output.decode("ascii").strip()
    return commit


def _reset(git_dir: Path, directory: Path, commit: str) -> None:
    arguments = ["reset", "--quiet", "--hard", commit]
    try:
        run(arguments, git_dir=git_dir, work_tree=directory)
    except GitError:
        (git_dir / "index").unlink(missing_ok=True)  # a power failure may have emptied it; it can be made anew
        run(arguments, git_dir=git_dir, work_tree=directory)


def _upstream(git_dir: Path) -> tuple[str, str, str]:
    """Remote, branch there and remote-tracking branch of the branch that a clone has checked out."""
    try:
        branch = run(["symbolic-ref", "--quiet", "HEAD"], git_dir=git_dir, shared=True).decode("utf-8").strip()
    except GitError as error:
        raise GitError("symbolic-ref", "no branch is checked out, expected one that tracks a remote branch") from error
    fields = "%(upstream:remotename)%00%(upstream:remoteref)%00%(upstream)"
    output = (
        run(["for-each-ref", f"--format={fields}", branch], git_dir=git_dir, shared=True).decode("utf-8").strip("\n")
    )
    remote, ref, tracking = output.split("\0") if output else ("", "", "")
    if tracking.startswith("refs/remotes/"):
        return remote, ref, tracking
    # A clone of a repository that was still empty, or one whose branch was set up by hand.
    short = branch[len(_HEADS) :]
    return "origin", branch, f"refs/remotes/origin/{short}"


def clone_work_tree(url: str, directory: Path, options: GitOptions) -> None:
    """Make an ordinary clone."""
    arguments = ["clone", "--quiet", "--origin=origin", "--template="]
    run([*arguments, "--", url, str(directory)], remote=options, limit=options.clonetimeout)


def make_repository(directory: Path, message: str) -> None:
    """Make a directory a repository with one commit of all its files on branch master."""
    git_dir = directory / ".git"
    run(["init", "--quiet", "--template=", "--initial-branch=master", str(directory)])
    run(["add", "--all"], git_dir=git_dir, work_tree=directory)
    author = ("-c", "user.name=Jens", "-c", "user.email=jens@example.org")
    run(["commit", "--quiet", "--message", message], git_dir=git_dir, work_tree=directory, settings=author)


def read_files(directory: Path, commit: str, path: str = "") -> dict[str, bytes | None]:
    """The files at the top of a commit (or just the one at ``path``), name to content.

    What is neither file nor directory (a symbolic link, a submodule) has None for a content.
    """
    git_dir = directory / ".git"
    arguments = ["ls-tree", "-z", commit, *(["--", path] if path else [])]
    found: dict[str, str | None] = {}
    for line in run(arguments, git_dir=git_dir, shared=True).decode("utf-8", "surrogateescape").split("\0")[:-1]:
        attributes, _, name = line.partition("\t")
        mode, _, blob = attributes.split(" ")
        if mode.startswith("100"):
            found[name] = blob
        elif mode != "040000":
            found[name] = None
    contents = _read_blobs(git_dir, [blob for blob in found.values() if blob])
    return {name: contents[blob] if blob else None for name, blob in found.items()}


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
