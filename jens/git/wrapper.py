"""Git's verbs on remotes and mirrors, one function each; the path of the repository comes first.

Every Git process runs in a process group of its own, without a terminal. It has a time limit when it speaks to a
remote. It holds a lock on the repository when it writes; the lock outlives this program if the process does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jens.errors import GitError, GitLimitError
from jens.git.process import GitOptions, run, server_of_path, stop_all, transfer
from jens.git.shells import LONGEST_REPLY, Command
from jens.model import TAG_MARK
from jens.names import is_commit_id
from jens.system.files import is_verdict, read_file, read_if_there
from jens.urls import public_url

__all__ = ["GitOptions", "stop_all"]

#: Where a repository has its branches, and its tags.
HEADS, TAGS = "refs/heads/", "refs/tags/"
#: What ends the name of a tag with the object that an annotated one leads to, in what remotes say.
_PEELED = "^{}"
#: The remote's name during a clone: a user's configuration of remotes named origin must not apply.
_NEW = "jens-clone"
_PACKED = re.compile(rf"^(?P<commit>[0-9a-f]{{40}}) (?P<ref>(?:{HEADS}|{TAGS})[^\n]+)$", re.MULTILINE)
#: Digits of a commit id in a repository made with ``--object-format=sha256``.
_SHA256 = 64
_SYMBOLIC = re.compile(rf"^ref: {HEADS}(?P<branch>[^\n]+)\tHEAD$", re.MULTILINE)
_MIRROR = f"+{HEADS}*:{HEADS}*"
#: Git's exit status when an object is missing. A killed Git or a time limit gives another status.
_FATAL = 128
#: How servers refuse to give a commit: Git, Git before protocol version 2, JGit.
_REFUSAL = re.compile(r"not our ref|unadvertised object|want [0-9a-f]{40} not valid")
_ID = re.compile(r"\b[0-9a-f]{40}\b")
#: Seconds since the epoch, and the last of them that are a date: the end of the year 9999.
_DATE, _LAST_DATE = re.compile(r"[0-9]{1,12}"), 253402300799
_CONFIGURED_URL = re.compile(r"^\turl = (?P<url>.*)$", re.MULTILINE)


# Remotes and mirrors


def question(url: str, tags: Iterable[str] = ()) -> Command:
    """The command that asks a remote for its branches, and for some tags by their names."""
    wanted = [f"{TAGS}{tag}{peeled}" for tag in sorted(tags) for peeled in ("", _PEELED)]
    return ("ls-remote", "--heads", *(("--tags", "--", url, f"{HEADS}*", *wanted) if wanted else ("--", url)))


def asked_url(command: Command) -> str:
    """The URL of the remote that a command asks."""
    return command[command.index("--") + 1]


def asked_tags(command: Command) -> tuple[str, ...] | None:
    """The tags that a question asks for; None when the command is no question."""
    tags = tuple(ref[len(TAGS) :] for ref in command if ref.startswith(TAGS) and not ref.endswith(_PEELED))
    return tags if "--" in command and command == question(asked_url(command), tags) else None


def _key(ref: str) -> str | None:
    """What a branch or a tag is called among both, by its full name; None for other refs."""
    if ref.startswith(HEADS):
        return ref[len(HEADS) :]
    return f"{TAG_MARK}{ref[len(TAGS) :]}" if ref.startswith(TAGS) else None


def _full_name(key: str) -> str:
    """Reverse ``_key``."""
    return f"{TAGS}{key[1:]}" if key.startswith(TAG_MARK) else f"{HEADS}{key}"


def default_branch(url: str, options: GitOptions) -> str:
    """The branch that HEAD of a remote names, '' when it names none or an unborn one. Raises GitError."""
    output = run(["ls-remote", "--symref", "--", url, "HEAD"], remote=options, limit=options.timeout)
    match = _SYMBOLIC.search(output.decode("utf-8", "surrogateescape"))
    return match["branch"] if match else ""


def remote_heads(output: bytes, tags: Collection[str] | None = None) -> dict[str, str]:
    """The branches and tags of a remote, key to commit, from its reply; only these ``tags``, if they are given.

    Git compares what is asked for with the ends of names, so there may be more. Raises GitError.
    """
    heads, peeled = {}, {}
    for line in output.decode("utf-8", "surrogateescape").split("\n"):  # names may contain other line ends
        commit, _, ref = line.partition("\t")
        key = _key(ref)
        if key is not None:
            if not is_commit_id(commit):
                problem = "expected SHA-1 commit ids from the remote"
                raise GitError("ls-remote", f"{problem}, it has SHA-256 ones" if len(commit) == _SHA256 else problem)
            if key.startswith(TAG_MARK) and key.endswith(_PEELED):
                peeled[key[: -len(_PEELED)]] = commit
            else:
                heads[key] = commit
    found = {**heads, **peeled}
    if tags is None:
        return found
    return {key: commit for key, commit in found.items() if not key.startswith(TAG_MARK) or key[1:] in tags}


def listing(heads: Mapping[str, str]) -> bytes:
    """The reply of a remote with these branches and tags (key to commit), if it sorts them, and no tag is annotated."""
    lines = [f"{commit}\t{ref}\n" for ref, commit in sorted((_full_name(key), heads[key]) for key in heads)]
    return "".join(lines).encode("utf-8", "surrogateescape")


def clone(bare: Path, url: str, options: GitOptions) -> None:
    """Mirror a remote's branches, and nothing else, into a new bare repository. Raises GitError, OSError."""
    # --no-local: a path is mirrored through Git's protocol like any other remote, without hard links.
    # --progress: as long as Git tells of any, the server is not silent.
    arguments = ["clone", "--progress", "--bare", "--no-local", "--no-tags", f"--origin={_NEW}", "--template="]
    command = [*arguments, *server_of_path(url), "--", url, str(bare)]
    run(command, remote=options, limit=options.clonetimeout, silence=options.timeout)
    if _size(bare / "packed-refs") > LONGEST_REPLY:
        raise GitLimitError("clone", f"the remote lists more than {LONGEST_REPLY >> 20} MiB of branches")
    config = bare / "config"
    config.write_bytes(config.read_bytes().replace(f'[remote "{_NEW}"]'.encode(), b'[remote "origin"]', 1))


def _size(path: Path) -> int:
    """The size of a file in bytes, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def fetch(bare: Path, url: str, options: GitOptions, tags: Mapping[str, str]) -> str:
    """Make the branches of a mirror equal to those of the remote, also moved, rewritten and deleted ones.

    The mirror gets these ``tags`` (key to commit) of the remote, and no others. Returns what Git complained of, for it
    may reject branches and nevertheless end with success. Raises GitError.
    """
    # --progress: as long as Git tells of any, the server is not silent.
    arguments = ["fetch", "--progress" if options.is_patient else "--quiet", "--prune", "--no-tags"]
    arguments += ["--no-write-fetch-head", "--update-head-ok", *server_of_path(url)]
    said = transfer([*arguments, "--", url, _MIRROR, *map(_full_name, tags)], bare, options)
    _keep_tags(bare, tags)
    return said


def _keep_tags(bare: Path, tags: Mapping[str, str]) -> None:
    """Give a mirror these tags (key to commit), and no others. An annotated one leads to the commit at once."""
    before = {key: commit for key, commit in heads(bare).items() if key.startswith(TAG_MARK)}
    gone = [f"delete {_full_name(key)}\0\0" for key in before.keys() - tags.keys()]
    put = [f"update {_full_name(key)}\0{commit}\0\0" for key, commit in tags.items() if before.get(key) != commit]
    for lines in filter(None, (gone, put)):  # one after the other: a tag may get the name of a directory of tags
        run(["update-ref", "-z", "--stdin"], git_dir=bare, stdin="".join(lines).encode("utf-8", "surrogateescape"))


def fetch_commits(bare: Path, url: str, commits: Iterable[str], options: GitOptions, *arguments: str) -> None:
    """Fetch commits by their full ids, reachable from a branch or not: all of them, or none. Raises GitError."""
    usual = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", *server_of_path(url)]
    stdin = "".join(f"{commit}\n" for commit in commits).encode("ascii")
    run([*usual, *arguments, "--stdin", "--", url], git_dir=bare, remote=options, limit=options.timeout, stdin=stdin)


def fetch_commits_alone(bare: Path, url: str, commits: Iterable[str], options: GitOptions) -> None:
    """Fetch commits without their history: all of them, or none. Raises GitError."""
    fetch_commits(bare, url, commits, options, "--depth=1")


def make_bare(bare: Path) -> None:
    """Make an empty bare repository, unless it is there. Raises GitError."""
    run(["init", "--quiet", "--bare", "--template=", str(bare)])


def refused(error: GitError, commits: Collection[str]) -> frozenset[str] | None:
    """Which of these commits a remote has refused to give, as far as it names them; None when that is not the error.

    Most servers name the first one that they do not have.
    """
    if not _REFUSAL.search(error.problem):
        return None
    return frozenset(_ID.findall(error.problem)).intersection(commits)


def borrow(bare: Path, objects: Path) -> None:
    """Make a bare that only borrows the objects of another, perhaps damaged one. Raises GitError, OSError."""
    make_bare(bare)
    (bare / "objects" / "info").mkdir(exist_ok=True)
    (bare / "objects" / "info" / "alternates").write_bytes(os.fsencode(objects) + b"\n")


def heads(bare: Path) -> dict[str, str]:
    """The branches and tags of a mirror, key to commit, read from its files: gitrepository-layout(5).

    A key is the name of a branch, or ``~`` and the name of a tag (see ``model.Tag``).
    Damaged loose refs are left out. Raises OSError when the mirror cannot be read.
    """
    top = str(bare)  # strings and not paths, for speed: each run looks at each mirror
    loose = {**dict(_loose(f"{top}/refs/heads")), **dict(_loose(f"{top}/refs/tags", TAG_MARK))}
    # Read after the loose ones: ``git pack-refs`` writes this file before it removes them.
    heads = {**_packed(top), **loose}
    return {key: commit for key, commit in heads.items() if commit}


def _loose(top: str, mark: str = "") -> Iterator[tuple[str, str]]:
    """Refs in files of their own, by name behind the mark, with the commit, or '' when the file is damaged."""
    waiting = [""]
    while waiting:  # no recursion: a name may have any depth
        prefix = waiting.pop()
        try:
            entries = list(os.scandir(f"{top}/{prefix}"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            branch = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{branch}/")
            elif not branch.endswith(".lock"):
                try:
                    commit = read_file(entry.path).decode("ascii", "replace").strip()
                except FileNotFoundError:
                    continue  # packed or deleted a moment ago
                yield f"{mark}{branch}", commit if is_commit_id(commit) else ""


def _packed(top: str) -> dict[str, str]:
    try:
        text = read_file(f"{top}/packed-refs").decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return {}
    return {key: match["commit"] for match in _PACKED.finditer(text) if (key := _key(match["ref"]))}


def is_repository(path: Path) -> bool:
    """Whether a directory looks like a bare repository that can be read. Raises OSError when nobody can look now."""
    top = str(path)
    return _may_use(f"{top}/HEAD", os.R_OK) and _may_use(f"{top}/objects", os.R_OK | os.X_OK)


def _may_use(path: str, mode: int) -> bool:
    if os.access(path, mode):
        return True
    try:
        os.stat(path)  # access(2) says no for any reason
    except OSError as error:
        if not is_verdict(error):
            raise
    return False


def mirrored_url(bare: Path) -> str | None:
    """The URL that a mirror was last fetched from, read from its ``config`` as ``git config`` writes it.

    Raises OSError when nobody can look now.
    """
    content = read_if_there(f"{bare}/config") or b""
    match = _CONFIGURED_URL.search(content.decode("utf-8", "surrogateescape"))
    if match is None:
        return None
    url = match.group("url")
    if url.startswith('"') and url.endswith('"'):
        url = url[1:-1]
    return re.sub(r"\\(.)", r"\1", url)


def is_mirror_of(bare: Path, url: str) -> bool:
    """Whether a mirror was last fetched from this URL. Its user and password do not count, and are not recorded."""
    return mirrored_url(bare) == public_url(url)


def record_url(bare: Path, url: str) -> None:
    """Remember the URL that a mirror was fetched from, without user and password, where ``git remote -v`` shows it."""
    run(["config", "--replace-all", "remote.origin.url", public_url(url)], git_dir=bare)


def commits_like(bare: Path, digits: str) -> list[str]:
    """The ids of all commits in a repository that begin with these digits; other objects do not count."""
    if len(digits) == 40:
        return commits_among(bare, [digits])
    output = run(["rev-parse", f"--disambiguate={digits}"], git_dir=bare, shared=True)
    return commits_among(bare, output.decode("ascii").split())


def commits_among(bare: Path, ids: Sequence[str]) -> list[str]:
    """Those of some full ids that are of commits in a repository. Raises GitError."""
    if not ids:
        return []
    output = run(["cat-file", "--batch-check"], git_dir=bare, shared=True, stdin="\n".join(ids).encode("ascii"))
    return [line.split()[0] for line in output.decode("ascii").splitlines() if line.split()[1] == "commit"]


def lacks_parts(bare: Path, commit: str) -> bool:
    """Whether a commit exists without all its objects: files or history that no branch has are missing.

    A Git that was killed while it fetched the commit leaves this behind. Raises GitError.
    """
    arguments = ["rev-list", "--quiet", "--objects", "--ignore-missing", commit, "--not", "--branches"]
    try:
        run(arguments, git_dir=bare, shared=True)
    except GitError as error:
        if error.status == _FATAL and not error.is_cut_short:
            return True
        raise
    return False


def commit_times(bare: Path, commits: Iterable[str]) -> dict[str, int]:
    """When these commits (40 digits) were made: the committer's date, in seconds since the epoch.

    Commits that the repository does not have are left out, and those whose date is none: a commit may say anything.
    """
    ids = "\n".join(commits)
    if not ids:
        return {}
    arguments = ["rev-list", "--no-walk=unsorted", "--ignore-missing", "--no-commit-header", "--format=%H %ct"]
    output = run([*arguments, "--stdin"], git_dir=bare, shared=True, stdin=ids.encode("ascii"))
    dates = (line.partition(" ") for line in output.decode("ascii", "replace").splitlines())
    return {commit: int(date) for commit, _, date in dates if _DATE.fullmatch(date) and int(date) <= _LAST_DATE}


def is_intact(bare: Path, *, held: int | None = None, limit: float | None = None) -> bool:
    """Whether a repository has all its objects, undamaged; takes as long as Git needs to read them all.

    Raises GitError when nobody can tell now: GitBusyError when another process holds the repository or the system
    lacks resources, GitTimeoutError after ``limit`` seconds (0: none), GitLimitError without memory, and with a
    negative status when somebody has ended Git.
    """
    try:
        run(["fsck", "--no-dangling", "--no-progress"], git_dir=bare, held=held, limit=limit)
    except GitError as error:
        if error.status is None or error.is_cut_short:
            raise
        return error.status == 1  # only bit 0: old objects are in an odd format, but all are there
    return True


def gc(bare: Path, *, aggressive: bool, held: int | None = None, limit: float = 0) -> None:
    """Pack a repository, and drop objects that were unreachable for two weeks. Worktree records stay.

    It gets no commit-graph: see ``write_commit_graph``. Raises GitError, and GitTimeoutError after ``limit`` seconds
    (0: none). Source: git-gc(1).
    """
    arguments = ["gc", "--quiet", *(["--aggressive"] if aggressive else [])]
    settings = ("-c", "gc.worktreePruneExpire=never", "-c", "gc.writeCommitGraph=false")
    run(arguments, git_dir=bare, held=held, limit=limit, settings=settings)


def write_commit_graph(bare: Path, *, held: int | None = None, limit: float = 0) -> None:
    """Write the commit-graph of a repository, which makes Git faster. Raises GitError, GitTimeoutError.

    For some dates of commits that never ends. Source: git-commit-graph(1).
    """
    run(["commit-graph", "write", "--reachable", "--no-progress"], git_dir=bare, held=held, limit=limit)


def pack_new(bare: Path, *, held: int | None = None, limit: float = 0) -> None:
    """Pack what is new in a repository, and leave its large packs as they are: much sooner done than ``gc``.

    Raises GitError, GitTimeoutError. Source: git-repack(1).
    """
    # Git would put what a partial clone has of its remote into a pack of which it no longer knows that.
    is_partial = any((bare / "objects" / "pack").glob("*.promisor"))
    run(["repack", "-d", "-q", *([] if is_partial else ["--geometric=2"])], git_dir=bare, held=held, limit=limit)


def has_heads(bare: Path) -> bool:
    """Whether the commits of all branches are there: a cheap check for great damage."""
    commits = "\n".join({*heads(bare).values()})
    output = run(["cat-file", "--batch-check"], git_dir=bare, shared=True, stdin=commits.encode("ascii"))
    return not any(line.endswith(b" missing") for line in output.splitlines())
