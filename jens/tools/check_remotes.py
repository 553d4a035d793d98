"""Asks the remotes of a library whether the branches and commits are there that definitions need."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path

from jens.errors import GitError, GitTimeoutError, GitUnreachedError
from jens.git import peek, wrapper
from jens.git.remotes import Remotes
from jens.git.wanted import fetch_wanted
from jens.git.workers import workers
from jens.model import HIERADATA, SITE, SNAPSHOT_COMMON, Branch, Commit, RepoId
from jens.repositories import content
from jens.repositories.refs import missing_mandatory, resolve
from jens.tools.check import ERROR, WARNING, CheckedDefinition, CheckedLibrary, Finding, Site, finding


@dataclass(frozen=True)
class Reply:
    """What a remote replied: its branches, and why it cannot give commits; ``problem`` says why it did not reply.

    ``unused`` is its default branch, if no environment can use it. ``content`` tells what is wrong with the files of
    branches that environments can use.
    """

    heads: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[Commit, str] = field(default_factory=dict)
    content: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unused: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Wanted:
    """What definitions say of a repository: commits to look for, and the branches of it that environments can use.

    ``branches`` is None when that is unknown. Then the files of the ``mandatory`` ones are looked at.
    """

    repo: RepoId
    mandatory: Sequence[Branch] = ()
    commits: Collection[Commit] = ()
    branches: Set[str] | None = None


def check_remotes(
    library: CheckedLibrary, definitions: Sequence[CheckedDefinition], site: Site, remotes: Remotes, jobs: int
) -> list[Finding]:
    """Ask all remotes of the library, many at once, and find the branches and commits that do not exist."""
    commits = _commits(definitions)
    wanted = {
        repo: Wanted(repo, site.mandatory, commits.get(repo, ()), _branches(repo, definitions, site))
        for repo in library.urls
    }
    replies = _ask_all(library.urls, wanted, remotes, jobs)
    found = [
        finding(library.file, library.entries[repo].line, level, text)
        for repo, reply in replies.items()
        for level, text in _of_repository(repo, reply, site)
    ]
    for checked in definitions:
        found += (finding(checked.file, line, ERROR, text) for line, text in _of_definition(checked, replies, site))
    return found


def _commits(definitions: Sequence[CheckedDefinition]) -> dict[RepoId, set[Commit]]:
    commits: dict[RepoId, set[Commit]] = {}
    for checked in definitions:
        for repo, ref in checked.definition.overrides.items():
            if isinstance(ref, Commit):
                commits.setdefault(repo, set()).add(ref)
    return commits


def _branches(repo: RepoId, definitions: Sequence[CheckedDefinition], site: Site) -> Set[str] | None:
    """The branches of a repository that environments can use; None when not all definitions are known and right."""
    if not definitions or any(found.level == ERROR for checked in definitions for found in checked.findings):
        return None
    refs = {ref for checked in definitions for ref in (checked.definition.default, checked.definition.ref_of(repo))}
    return {ref.name for ref in (*refs, *site.mandatory) if isinstance(ref, Branch)}


def _of_repository(repo: RepoId, reply: Reply, site: Site) -> Iterator[tuple[str, str]]:
    """The problems of a repository: level and text."""
    if reply.problem:
        yield ERROR, f"the remote of {repo} cannot be asked: {reply.problem}"
        return
    for branch in missing_mandatory(site.mandatory, reply.heads):
        yield ERROR, f"{repo} has no branch {branch!r}, which every repository must have"
    for branch, problems in reply.content.items():
        yield ERROR, f"{repo} branch {branch!r}: {'; '.join(problems)}"
    if reply.unused:
        uses = "it is no mandatory branch, no default and no override"
        yield WARNING, f"{repo} has the default branch {reply.unused!r}, which no environment can use: {uses}"


def _of_definition(
    checked: CheckedDefinition, replies: Mapping[RepoId, Reply], site: Site
) -> Iterator[tuple[int, str]]:
    definition = checked.definition
    for repo, ref in definition.overrides.items():
        reply = replies.get(repo)
        if reply is None or reply.problem:
            continue  # check_definitions or _of_repository reports it
        if isinstance(ref, Commit) and ref in reply.problems:
            yield checked.lines[repo], f"{repo}: {ref} {reply.problems[ref]}"
        if isinstance(ref, Branch) and ref.name not in reply.heads:
            yield checked.lines[repo], f"{repo} has no branch {ref.name!r}"
    # Where there is no such branch, a snapshot has the first mandatory one.
    for repo in (SITE, HIERADATA) if definition.default is None and not site.mandatory else ():
        reply = replies.get(repo, Reply(problem="unknown"))
        if repo not in definition.overrides and not reply.problem and SNAPSHOT_COMMON.name not in reply.heads:
            yield 1, f"{repo} has no branch {SNAPSHOT_COMMON.name!r}, which is used without default and override"
    default = definition.default
    all_replied = replies and not any(reply.problem for reply in replies.values())
    if default and all_replied and not any(default.name in reply.heads for reply in replies.values()):
        yield checked.lines["default",], f"'default': no repository of the library has a branch {default.name!r}"


def _ask_all(
    urls: Mapping[RepoId, str], wanted: Mapping[RepoId, Wanted], remotes: Remotes, jobs: int
) -> dict[RepoId, Reply]:
    for _ in remotes.replies_to(map(wrapper.question, urls.values())):
        pass
    with workers(jobs) as pool:
        futures = {repo: pool.submit(_ask, url, wanted[repo], remotes) for repo, url in urls.items()}
        while wait(futures.values(), timeout=0.2).not_done:
            pass  # wake up now and then: another thread may have received a signal
        return {repo: future.result() for repo, future in futures.items()}


def _ask(url: str, wanted: Wanted, remotes: Remotes) -> Reply:
    try:
        heads = remotes.heads(wrapper.question(url))
        unsure = [commit for commit in wanted.commits if commit.digits not in heads.values()]
        unused = _unused_default(url, heads.keys() - wanted.branches, remotes) if wanted.branches is not None else ""
        problems = _look_for(url, unsure, remotes) if unsure else {}
        return Reply(heads, problems, _content(url, wanted, heads, remotes), unused)
    except (GitError, OSError) as error:
        return Reply(problem=error.problem if isinstance(error, GitError) else str(error))


def _content(url: str, wanted: Wanted, heads: Mapping[str, str], remotes: Remotes) -> dict[str, list[str]]:
    """What is wrong with the files of branches. Those that are known to be used are looked at, or mandatory ones."""
    names = wanted.branches if wanted.branches is not None else {branch.name for branch in wanted.mandatory}
    tips = {name: heads[name] for name in sorted(names) if name in heads}
    if not tips:
        return {}
    with tempfile.TemporaryDirectory(prefix="jens-check-") as directory:
        bare = Path(directory, "tips")
        remotes.converse(url, lambda options: peek.fetch_tips(bare, url, sorted({*tips.values()}), options))
        found = {name: content.problems(wanted.repo, content.in_commit(bare, tips[name])) for name in tips}
    return {name: problems for name, problems in found.items() if problems}


def _unused_default(url: str, unused: Set[str], remotes: Remotes) -> str:
    """The default branch of a remote if it is one of these, else ''. Asks only if there are some."""
    if not unused:
        return ""
    branch = remotes.converse(url, lambda options: wrapper.default_branch(url, options))
    return branch if branch in unused else ""


def _look_for(url: str, commits: Collection[Commit], remotes: Remotes) -> dict[Commit, str]:
    """Why a remote cannot give commits. Ask for all full ids at once; clone the whole history only for the rest."""
    problems = {}
    with tempfile.TemporaryDirectory(prefix="jens-check-") as directory:
        alone, mirror = Path(directory, "alone"), Path(directory, "mirror")
        given = _given(alone, url, sorted(commit.digits for commit in commits if commit.is_full), remotes)
        are_commits = wrapper.commits_among(alone, sorted(given))
        for commit in sorted(commits, key=lambda commit: commit.digits):
            if commit.digits in given:
                if commit.digits not in are_commits:
                    problems[commit] = "is no commit, but another object"
                continue
            if not mirror.exists():
                remotes.converse(url, lambda options: wrapper.clone(mirror, url, options), is_long=True)
            _, problem = resolve(commit, wrapper.commits_like(mirror, commit.digits), ())
            if problem:
                problems[commit] = problem
    return problems


def _given(bare: Path, url: str, ids: Collection[str], remotes: Remotes) -> frozenset[str]:
    """Those of some commits that a remote gives by their ids. Raises GitTimeoutError, GitUnreachedError."""

    def fetch(some: Sequence[str]) -> None:
        remotes.converse(url, lambda options: wrapper.fetch_commits_alone(bare, url, some, options))

    wrapper.make_bare(bare)
    asked = fetch_wanted(ids, fetch, lambda seconds: remotes.has_time_for_more(url, seconds))
    if isinstance(asked.error, (GitTimeoutError, GitUnreachedError)):
        raise asked.error
    return frozenset(ids) - asked.lacking - asked.left
