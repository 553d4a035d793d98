"""Asks the remotes of a library whether the branches and commits are there that definitions need."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path

from jens.errors import GitError, GitTimeoutError, GitUnreachedError
from jens.git import peek, wrapper
from jens.git.remotes import Remotes
from jens.git.shells import Command
from jens.git.wanted import fetch_wanted
from jens.git.workers import workers
from jens.metadata.library import library_of
from jens.model import HIERADATA, PLAIN, SITE, SNAPSHOT_COMMON, Commit, Moving, Ref, RepoId, Usage, Usages
from jens.names import describe_ref
from jens.repositories import content
from jens.repositories.model import Needs
from jens.repositories.plan import plan_needs
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
    """What environments need of a repository.

    ``usable`` are the branches and tags that they can use, None when that is unknown. Then the files of those that the
    library and the configuration name are looked at.
    """

    repo: RepoId
    needs: Needs
    usable: Set[Moving] | None = None

    @property
    def commits(self) -> set[Commit]:
        """The commits to look for."""
        return {ref for ref in self.needs.refs if isinstance(ref, Commit)}


def check_remotes(
    library: CheckedLibrary, definitions: Sequence[CheckedDefinition], site: Site, remotes: Remotes, jobs: int
) -> list[Finding]:
    """Ask all remotes of the library, many at once, and find the branches, tags and commits that do not exist."""
    usages = library_of(library.entries).usages
    wanted = _wanted(library.urls, definitions, site, usages)
    replies = _ask_all(library.urls, wanted, remotes, jobs)
    found = [
        finding(library.file, library.entries[repo].line, level, text)
        for repo, reply in replies.items()
        for level, text in _of_repository(wanted[repo], reply, usages.get(repo, PLAIN))
    ]
    for checked in definitions:
        found += (finding(checked.file, line, ERROR, text) for line, text in _of_definition(checked, replies, site))
    return found


def _wanted(
    repos: Iterable[RepoId], definitions: Sequence[CheckedDefinition], site: Site, usages: Usages
) -> dict[RepoId, Wanted]:
    mandatory = [branch.name for branch in site.mandatory]
    needs = plan_needs(repos, mandatory, [checked.definition for checked in definitions], usages=usages)
    is_known = definitions and not any(found.level == ERROR for checked in definitions for found in checked.findings)
    wanted = {}
    for repo, each in needs.items():
        usage = usages.get(repo, PLAIN)
        named = frozenset(ref for ref in (usage.ref, usage.fallback) if ref is not None)
        usable = {ref for ref in each.refs if not isinstance(ref, Commit)} if is_known else None
        wanted[repo] = Wanted(repo, each._replace(implied=each.implied | named), usable)
    return wanted


def _of_repository(wanted: Wanted, reply: Reply, usage: Usage) -> Iterator[tuple[str, str]]:
    """The problems of a repository: level and text."""
    repo = wanted.repo
    if reply.problem:
        yield ERROR, f"the remote of {repo} cannot be asked: {reply.problem}"
        return
    for branch in missing_mandatory(wanted.needs.mandatory, reply.heads):
        yield ERROR, f"{repo} has no branch {branch!r}, which every repository must have"
    for key, ref in (("ref", usage.ref), ("fallback", usage.fallback)):
        if ref is not None and (problem := _problem(repo, ref, reply)):
            yield ERROR, f"{key!r}: {problem}"
    for what, problems in reply.content.items():
        yield ERROR, f"{repo} {what}: {'; '.join(problems)}"
    if reply.unused:
        uses = "it is no mandatory branch, no default and no override"
        yield WARNING, f"{repo} has the default branch {reply.unused!r}, which no environment can use: {uses}"


def _problem(repo: RepoId, ref: Ref, reply: Reply) -> str:
    """Why a remote cannot give a ref, '' when it can."""
    if isinstance(ref, Commit):
        return f"{repo}: {ref} {reply.problems[ref]}" if ref in reply.problems else ""
    return "" if ref.key in reply.heads else f"{repo} has no {describe_ref(ref)}"


def _of_definition(
    checked: CheckedDefinition, replies: Mapping[RepoId, Reply], site: Site
) -> Iterator[tuple[int, str]]:
    definition = checked.definition
    for repo, ref in definition.overrides.items():
        reply = replies.get(repo)
        if reply is None or reply.problem:
            continue  # check_definitions or _of_repository reports it
        if problem := _problem(repo, ref, reply):
            yield checked.lines[repo], problem
    # Where there is no such branch, a snapshot has the first mandatory one.
    for repo in (SITE, HIERADATA) if definition.default is None and not site.mandatory else ():
        reply = replies.get(repo, Reply(problem="unknown"))
        if repo not in definition.overrides and not reply.problem and SNAPSHOT_COMMON.name not in reply.heads:
            yield 1, f"{repo} has no branch {SNAPSHOT_COMMON.name!r}, which is used without default and override"
    defaults, all_replied = definition.defaults, replies and not any(reply.problem for reply in replies.values())
    if defaults and all_replied and not any(ref.key in reply.heads for reply in replies.values() for ref in defaults):
        names = " or ".join(map(describe_ref, defaults))
        yield checked.lines["default",], f"'default': no repository of the library has a {names}"


def _ask_all(
    urls: Mapping[RepoId, str], wanted: Mapping[RepoId, Wanted], remotes: Remotes, jobs: int
) -> dict[RepoId, Reply]:
    questions = {repo: wrapper.question(url, wanted[repo].needs.tags) for repo, url in urls.items()}
    for _ in remotes.replies_to(questions.values()):
        pass
    with workers(jobs) as pool:
        futures = {repo: pool.submit(_ask, url, questions[repo], wanted[repo], remotes) for repo, url in urls.items()}
        while wait(futures.values(), timeout=0.2).not_done:
            pass  # wake up now and then: another thread may have received a signal
        return {repo: future.result() for repo, future in futures.items()}


def _ask(url: str, question: Command, wanted: Wanted, remotes: Remotes) -> Reply:
    try:
        heads = remotes.heads(question)
        unsure = [commit for commit in wanted.commits if commit.digits not in heads.values()]
        unused = "" if wanted.usable is None else _unused_default(url, heads.keys() - _keys(wanted.usable), remotes)
        problems = _look_for(url, unsure, remotes) if unsure else {}
        return Reply(heads, problems, _content(url, wanted, heads, remotes), unused)
    except (GitError, OSError) as error:
        return Reply(problem=error.problem if isinstance(error, GitError) else str(error))


def _keys(refs: Iterable[Moving]) -> set[str]:
    return {ref.key for ref in refs}


def _content(url: str, wanted: Wanted, heads: Mapping[str, str], remotes: Remotes) -> dict[str, list[str]]:
    """What is wrong with the files of branches and tags. Those that are used are looked at, as far as that is known."""
    needs = wanted.needs
    refs = [ref for ref in needs.refs if not isinstance(ref, Commit) and ref.key in heads]
    tips = {ref: heads[ref.key] for ref in refs}
    if not tips:
        return {}
    repo, found = wanted.repo, {}
    with tempfile.TemporaryDirectory(prefix="jens-check-") as directory:
        bare = Path(directory, "tips")
        remotes.converse(url, lambda options: peek.fetch_tips(bare, url, sorted({*tips.values()}), options))
        for ref, tip in tips.items():
            used = needs.directories_of(ref)
            codes = {directories.code for directories in used} - {"."}
            found[describe_ref(ref)] = content.problems(repo, content.in_commit(bare, tip, codes), used)
    return {what: problems for what, problems in found.items() if problems}


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
