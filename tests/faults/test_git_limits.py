"""What is pushed may unpack to any size, and a local Git may end at any time: nobody else notices."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.errors import GitError
from jens.git import clones, contents, wrapper
from jens.git.process import GitOptions
from tests.conftest import MODULE, Remote, Site, definition, git
from tests.faults.decoy import push_bomb, push_tree
from tests.faults.samples import IS_SOAK
from tests.faults.servers import Servers, servers
from tests.faults.test_remotes import SOON, Run, processes_with, run

INIT = "code/manifests/init.pp"


@pytest.fixture
def evil(site: Site) -> Site:
    """A site after its first run, with the module evil."""
    site.add("modules/evil")
    site.publish()
    assert site.update("--strict").code == 0
    return site


def _run(site: Site, *errors: str) -> Run:
    """Run after a push to module dummy, which must be visible in time; there is an error with each of these texts."""
    commit = site.remotes["modules/dummy"].push({INIT: f"# at {time.monotonic()}\n"})
    ended = run(site)
    found = ended.outcome.lines("ERROR")
    assert (ended.outcome.code, ended.survivors, len(found)) == (0, [], len(errors)), found
    for text in errors:
        assert any(text in error for error in found), (text, found)
    assert ended.seconds < SOON
    assert site.expanded("modules/dummy") == {"master": commit}
    return ended


def _faults(site: Site) -> list[tuple[str, str]]:
    content = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    return sorted((fault["kind"], fault["repository"]) for fault in content["faults"])


# Commits that unpack to any size


def test_a_bomb_in_a_module_costs_that_module_and_nobody_else(evil: Site) -> None:
    before = evil.expanded("modules/evil")
    good = evil.remotes["modules/evil"].commit()
    push_bomb(evil.remotes["modules/evil"])
    new = Remote.create(evil.root / "remotes" / "new.git")
    push_bomb(new)
    evil.urls["modules/new"] = new.url
    evil.publish()
    refused = "it has more than 500000 files ([main] maxfiles)"
    for _ in range(2):
        ended = _run(
            evil, f"check out modules/evil at {evil.remotes['modules/evil'].commit()}: {refused}", "modules/new"
        )
        assert ended.megabytes < 100
        assert evil.expanded("modules/evil") == before
        assert _faults(evil) == [("checkout refused", "modules/evil"), ("checkout refused", "modules/new")]
    git("update-ref", "refs/heads/master", good, directory=evil.remotes["modules/evil"].path)
    evil.remotes["modules/new"] = new
    new.push(dict(MODULE), rewrite=True)
    _run(evil)
    assert evil.read("production/modules/new/manifests/init.pp") == MODULE[INIT]
    assert not list(evil.root.glob("clone/modules/*/.new-*")), "nothing is left of it"


def test_a_pinned_commit_and_a_branch_are_counted_like_any_other(evil: Site) -> None:
    evil.settings["main.maxfiles"] = "2"
    remote = evil.remotes["modules/evil"]
    commit = remote.push({"README": "a third file\n"}, "topic", onto="master")
    evil.define("pinned", definition(None, {"modules/evil": f"commit/{commit}"}))
    _run(evil, f"check out modules/evil at {commit}: it has more than 2 files")
    evil.settings["main.maxfiles"] = "10"
    evil.settings["main.maxbytes"] = str(sum(map(len, MODULE.values())) + 12)
    _run(evil, f"check out modules/evil at {commit}: its files have more than")
    evil.settings["main.maxbytes"] = "1000"
    _run(evil)
    assert evil.exists("pinned/modules/evil/manifests/init.pp")


@pytest.mark.parametrize("where", ["definitions", "library"])
def test_a_bomb_beside_metadata_is_never_laid_out(evil: Site, where: str) -> None:
    remote = evil.definitions if where == "definitions" else evil.library
    push_bomb(remote, beside="master")
    for number in range(2):
        evil.define(f"new{number}")
        assert _run(evil).megabytes < 100
        assert evil.exists(f"new{number}/modules/evil")


def test_a_tree_of_any_depth_is_refused_for_its_levels_with_few_open_files(evil: Site) -> None:
    before = evil.expanded("modules/evil")
    commit = push_tree(evil.remotes["modules/evil"], {"code/" + "d/" * 1900 + "file": ("100644", "x")})
    limited = [sys.executable, "-c", _FEW_FILES]
    for _ in range(2):
        ended = run(evil, before=limited)
        [error] = ended.outcome.lines("ERROR")
        assert f"check out modules/evil at {commit}: it has more than 500 levels of directories" in error
        assert (ended.outcome.code, ended.survivors) == (0, [])
        assert evil.expanded("modules/evil") == before


_FEW_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
os.execv(sys.argv[1], sys.argv[1:])
"""


class Memory:
    """Adds up the memory of all processes of a run, again and again: VmHWM is of one, and RssAnon is what it has."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        os.environ["JENS_TEST_MEMORY"] = "1"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        del os.environ["JENS_TEST_MEMORY"]

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, sum(_kilobytes(pid) for pid, _ in processes_with("JENS_TEST_MEMORY=1")))


def _kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def test_pushes_that_unpack_to_gigabytes_take_little_memory(site: Site) -> None:
    """Six pushes of 60 MB (400 MB in ``make soak``) at once: five are refused, and one is laid out.

    Any of them in memory would be noticed.
    """
    repos = [f"modules/large{number}" for number in range(6)]
    for repo in repos:
        site.add(repo)
    site.publish()
    assert site.update("--strict").code == 0
    size = 400_000_000 if IS_SOAK else 60_000_000
    zeros = site.root / "zeros"
    with open(zeros, "wb") as file:
        file.truncate(size)
    large = git("hash-object", "-w", str(zeros), directory=site.remotes[repos[0]].path)
    loose = f"objects/{large[:2]}/{large[2:]}"
    for repo in repos:
        path = site.remotes[repo].path
        if repo != repos[0]:
            (path / loose).parent.mkdir(exist_ok=True)
            shutil.copy(site.remotes[repos[0]].path / loose, path / loose)
        names = ("zeros",) if repo == repos[0] else ("zeros", "more")
        tree = git("mktree", directory=path, stdin="".join(f"100644 blob {large}\t{name}\n" for name in names).encode())
        commit = git("commit-tree", "-m", "large", "-p", "master", tree, directory=path)
        git("update-ref", "refs/heads/master", commit, directory=path)
    site.settings |= {"main.maxbytes": str(size), "git.jobs": "8"}
    with Memory() as memory:
        ended = _run(site, *(f"check out {repo} " for repo in repos[1:]))
    assert memory.most < 250_000, f"{memory.most / 1024:.0f} MiB"
    assert ended.megabytes < 100
    assert site.path(repos[0], "master/zeros").stat().st_size == size


# Gits that end before they have done it


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git that does what a script says before it is Git, from now on."""
    path = tmp_path / "bin" / "git"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\n[ -e {path}.script ] && . {path}.script\nexec {shutil.which("git")} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path.with_name("git.script")


_COUNT = "cat-file --batch-command"


@pytest.mark.parametrize(
    ("verb", "script", "error"),
    [
        *(pytest.param(verb, "kill -KILL $$", "was ended by signal 9") for verb in (_COUNT, "read-tree", "fetch")),
        pytest.param(_COUNT, "exec sleep 100", "did not end within 3 seconds"),
        pytest.param("read-tree", "exec sleep 100", "no answer within 3 seconds"),
        *(
            pytest.param(verb, "echo fatal: Out of memory, malloc failed >&2; exit 128", "(the limit is 1024 MiB)")
            for verb in (_COUNT, "read-tree", "fetch")
        ),
    ],
)
def test_a_git_that_is_ended_is_an_error_of_its_repository(
    evil: Site, program: Path, verb: str, script: str, error: str
) -> None:
    """It says nothing about the mirror, which stays as it is. A Git counts commits of many files only."""
    before = evil.expanded("modules/evil")
    files = {f"code/{number}": ("100644", "") for number in range(5001 if verb == _COUNT else 1)}
    commit = push_tree(evil.remotes["modules/evil"], files)
    evil.settings |= {"git.clonetimeout": "3"}
    program.write_text(f'case "$*" in *modules/evil*"{verb}"*) {script} ;; *evil*fsck*) touch {program}.fsck ;; esac\n')
    _run(evil, error)
    assert evil.expanded("modules/evil") == before
    assert not os.path.exists(f"{program}.fsck"), "nobody suspects the mirror"
    program.unlink()
    _run(evil)
    assert evil.expanded("modules/evil") == {"master": commit}


def test_a_file_that_needs_more_memory_than_git_may_take_stops_nobody(evil: Site) -> None:
    """A file whose encoding changes goes through memory as a whole. Without that it goes through piece by piece."""
    before = evil.expanded("modules/evil")
    evil.settings["git.memory"] = "48"
    remote = evil.remotes["modules/evil"]
    git("config", "fastimport.unpackLimit", "1", directory=remote.path)
    plain = remote.push({"data/large": "0" * 60_000_000})
    _run(evil)
    assert evil.expanded("modules/evil") == {"master": plain}
    remote.push({".gitattributes": "data/* working-tree-encoding=UTF-16\n"})
    _run(evil, "(the limit is 48 MiB)")
    assert evil.expanded("modules/evil") == {"master": plain} != before


def test_damage_is_not_what_a_git_without_memory_finds(evil: Site, program: Path) -> None:
    bare = evil.root / "bare" / "modules" / "evil"
    program.write_text("echo fatal: Out of memory, realloc failed >&2; exit 128\n")
    for look in (wrapper.is_intact, lambda path: wrapper.lacks_parts(path, "1" * 40)):
        with pytest.raises(GitError, match="Out of memory"):
            look(bare)


# Remotes that list branches without end


@pytest.fixture
def lying(site: Site) -> Iterator[Servers]:
    with servers(site.root / "servers") as found:
        yield found


@pytest.mark.parametrize("verb", ["clone", "fetch"])
def test_a_remote_that_lists_branches_without_end_once_it_is_fetched_from(
    evil: Site, lying: Servers, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was honest when it was asked."""
    evil.settings |= {"git.memory": "64", "git.timeout": "60", "git.clonetimeout": "60"}
    url = f"{lying.git('evil', 'endless')}"
    repo = "modules/new" if verb == "clone" else "modules/evil"
    if verb == "clone":
        evil.add(repo)
    evil.urls[repo] = f"{url}{evil.remotes[repo].path}"
    evil.publish()
    honest = getattr(wrapper, verb)

    def lie(*arguments: object) -> object:
        if url not in str(arguments) or lying.reached():
            return honest(*arguments)
        lying.lie()
        try:
            return honest(*arguments)
        finally:
            lying.lie(lying=False)

    monkeypatch.setattr(wrapper, verb, lie)
    before = evil.expanded("modules/evil")
    new = {name: evil.remotes[name].push({INIT: "# new\n"}) for name in ("modules/dummy", "modules/evil")}
    begin = time.monotonic()
    outcome = evil.update()
    assert time.monotonic() - begin < SOON
    assert lying.reached() == {"evil"}
    [error] = outcome.lines("ERROR")
    assert f"({repo}: " in error
    assert "the limit is 64 MiB" in error
    assert evil.expanded("modules/dummy") == {"master": new["modules/dummy"]}
    assert verb == "clone" or evil.expanded("modules/evil") == before
    assert evil.update("--strict").code == 0
    assert evil.expanded("modules/evil") == {"master": new["modules/evil"]}


# What a Git would do besides what it is asked for


def test_replaced_objects_in_a_mirror_have_no_effect(evil: Site) -> None:
    remote = evil.remotes["modules/evil"]
    true = remote.push({INIT: "# true\n"}, "topic", onto="master")
    false = remote.push({INIT: "# false\n"}, "other", onto="master")
    assert evil.update("--strict").code == 0
    mirror = evil.root / "bare" / "modules" / "evil"
    git("replace", true, false, directory=mirror)
    blobs = [git("rev-parse", f"{branch}:{INIT}", directory=mirror) for branch in ("other", "master")]
    git("replace", *blobs, directory=mirror)
    evil.define("team", definition("master", {"modules/evil": "topic"}))
    evil.define("odd", definition("master", {"modules/evil": "other"}))
    assert evil.update("--strict").code == 0
    assert evil.read("team/modules/evil/manifests/init.pp") == "# true\n"
    assert evil.read("odd/modules/evil/manifests/init.pp") == "# false\n"


def _partial_clone(site: Site, url: str) -> Path:
    """Make the clone of the definitions anew, without files."""
    clone = site.root / "metadata" / "environments"
    shutil.rmtree(clone)
    git("config", "uploadpack.allowFilter", "true", directory=site.definitions.path)
    arguments = ("clone", "-q", "--template=", "--filter=blob:none", "--no-checkout", f"{url}{site.definitions.path}")
    git(*arguments, str(clone), directory=site.root)
    return clone


def test_a_partial_clone_of_metadata_becomes_whole(evil: Site, lying: Servers) -> None:
    clone = _partial_clone(evil, lying.git("definitions", "silent"))
    assert evil.update("--strict").code == 0
    evil.define("team")
    assert evil.update("--strict").code == 0
    assert evil.environments() == ["production", "team"]
    files = contents.read_files(clone, evil.definitions.commit(), suffix=".yaml", largest=1000)
    assert sorted(files) == ["production.yaml", "team.yaml"]
    lying.lie()
    assert contents.read_files(clone, evil.definitions.commit(), suffix=".yaml", largest=1000) == files


def test_no_local_git_fetches_what_a_partial_clone_lacks(evil: Site, lying: Servers) -> None:
    """Otherwise a server that falls silent would hold it up."""
    evil.settings["git.timeout"] = "2"
    clone = _partial_clone(evil, lying.git("definitions", "silent"))
    before = evil.listing("environments", "clone")
    lying.lie()
    begin = time.monotonic()
    with pytest.raises(GitError):
        contents.read_files(clone, evil.definitions.commit(), suffix=".yaml", largest=1000)
    assert time.monotonic() - begin < 20
    assert lying.reached() == set(), "nobody was asked"
    ended = run(evil)
    assert (ended.outcome.code, ended.survivors) == (20, [])
    assert evil.listing("environments", "clone") == before


def test_a_clone_of_metadata_that_has_everything_is_not_fetched_twice(evil: Site, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("config", "uploadpack.allowFilter", "true", directory=evil.definitions.path)
    git("clone", "-q", "--template=", "--filter=blob:none", evil.definitions.url, str(clone), directory=tmp_path)
    packs = sorted(os.listdir(clone / ".git" / "objects" / "pack"))
    for _ in range(2):
        assert clones.refresh_clone(clone, GitOptions()).commit == evil.definitions.commit()
    assert sorted(os.listdir(clone / ".git" / "objects" / "pack")) == packs
