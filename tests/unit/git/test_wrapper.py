"""Reading a repository's files while Git is at work in it, and removing what a killed Git leaves there."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from jens.errors import GitError, GitLimitError, GitTimeoutError
from jens.git import lock as git_lock
from jens.git import process, wrapper
from jens.git.remotes import Remotes
from jens.system import processes
from tests.conftest import Site, git
from tests.faults.servers import servers


def clear_stale_locks(bare: Path) -> None:
    """Take the lock, which removes stale lock files."""
    with git_lock.repository_lock(bare):
        pass


@pytest.mark.parametrize("when", ["before the loose refs are read", "while they are read"])
def test_refs_that_are_packed_meanwhile_are_read_as_they_are_now(
    site: Site, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    remote = site.remotes["modules/dummy"]
    git("pack-refs", "--all", directory=remote.path)
    new = remote.push({"code/manifests/init.pp": "# new\n"})
    scandir = os.scandir

    def pack_meanwhile(top: str) -> list[os.DirEntry[str]]:
        found = list(scandir(top)) if when == "while they are read" else None
        git("pack-refs", "--all", directory=remote.path)
        return list(scandir(top)) if found is None else found

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", pack_meanwhile)
        heads = wrapper.heads(remote.path)
    assert heads == {"master": new}
    assert not (remote.path / "refs" / "heads" / "master").exists(), "packed meanwhile"


A, B, C = "a" * 40, "b" * 40, "c" * 40


@pytest.mark.parametrize(
    ("tags", "question"),
    [
        ((), ("ls-remote", "--heads", "--", "URL")),
        (
            ("v2", "v1"),
            (
                *("ls-remote", "--heads", "--tags", "--", "URL", "refs/heads/*"),
                *("refs/tags/v1", "refs/tags/v1^{}", "refs/tags/v2", "refs/tags/v2^{}"),
            ),
        ),
    ],
    ids=["branches", "and tags"],
)
def test_a_remote_is_asked_for_branches_and_needed_tags_in_one_question(
    tags: tuple[str, ...], question: tuple[str, ...]
) -> None:
    assert wrapper.question("URL", tags) == question
    assert wrapper.asked_url(question) == "URL"


def test_what_a_remote_says_is_read_and_written() -> None:
    said = (
        f"{A}\trefs/heads/refs/tags/v1\n{A}\trefs/heads/x\n{B}\trefs/tags/v1\n"
        f"{C}\trefs/tags/v1^{{}}\n{C}\trefs/tags/v2\n{B}\tHEAD\n"
    )
    heads = {"refs/tags/v1": A, "x": A, "~v1": C, "~v2": C}
    assert wrapper.remote_heads(said.encode()) == heads
    assert wrapper.remote_heads(wrapper.listing(heads)) == heads


def test_packed_and_loose_branches_and_tags_are_read(site: Site) -> None:
    remote = site.remotes["modules/dummy"]
    first = remote.tag("release/1")
    git("pack-refs", "--all", directory=remote.path)
    second = remote.push({"a": "b"})
    remote.tag("v1")
    assert wrapper.heads(remote.path) == {"master": second, "~release/1": first, "~v1": second}


LOCKS = (
    *("HEAD.lock", "config.lock", "index.lock", "packed-refs.lock", "packed-refs.new", "shallow.lock", "gc.pid"),
    *(
        "gc.pid.lock",
        "refs/heads/master.lock",
        "refs/heads/feature/x.lock",
        "refs/tags/v1.lock",
        "logs/refs/heads/master.lock",
    ),
    *("objects/maintenance.lock", "objects/info/alternates.lock", "objects/pack/multi-pack-index.lock"),
    *("objects/info/commit-graphs/commit-graph-chain.lock", "objects/info/commit-graph.lock"),
    *("worktrees/0123/index.lock", "worktrees/0123/HEAD.lock"),
)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_of_a_killed_git_goes_with_a_warning(
    lock: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bare = site.remotes["modules/dummy"].path
    before = git("for-each-ref", directory=bare)
    path = bare / lock
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0" * 40)
    clear_stale_locks(bare)
    assert not path.exists()
    assert caplog.messages == [f"Removed '{path}', which a Git that was killed had left"]
    assert caplog.records[0].levelname == "WARNING"
    assert git("for-each-ref", directory=bare) == before


def test_what_is_no_lock_of_git_stays_and_is_not_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bare = site.remotes["modules/dummy"].path
    clear_stale_locks(bare)
    (bare / "worktrees" / "0123").mkdir(parents=True)
    (bare / "worktrees" / "0123" / "locked").touch()
    (bare / "objects" / "pack" / "pack-1.keep").write_text("wanted\n")
    before = site.listing("remotes")
    clear_stale_locks(bare)
    assert site.listing("remotes") == before
    assert caplog.messages == []


def test_packs_received_in_part_do_not_pile_up(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    bare = site.remotes["modules/dummy"].path
    for name in ("tmp_pack_x", "tmp_idx_x", ".tmp-1-pack-x.pack", "pack-1.keep"):
        (bare / "objects" / "pack" / name).write_text("fetch-pack 1 on git.example.org\n")
    clear_stale_locks(bare)
    assert [name for name in os.listdir(bare / "objects" / "pack") if "tmp" in name or "keep" in name] == []
    assert len(caplog.messages) == 1, "the pack that a fetch had kept for itself"


def test_a_pack_received_in_part_goes_as_soon_as_its_fetch_has_failed(site: Site, tmp_path: Path) -> None:
    remote = site.remotes["modules/dummy"]
    bare = tmp_path / "bare"
    git("clone", "-q", "--bare", str(remote.path), str(bare), directory=tmp_path)
    remote.push({f"code/{number}": secrets.token_hex(500) for number in range(200)})
    before = sorted(os.listdir(bare / "objects" / "pack"))
    with servers(tmp_path / "servers") as lying:
        lying.lie()
        url = f"{lying.git('dummy', 'cut-pack')}{remote.path}"
        with pytest.raises(GitError):
            wrapper.fetch(bare, url, wrapper.GitOptions(timeout=20), {})
    assert lying.reached() == {"dummy"}
    assert sorted(os.listdir(bare / "objects" / "pack")) == before


def test_a_list_of_branches_without_end_does_not_take_all_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_limits", process.Limits(mebibytes=64))
    with servers(site.root / "servers") as lying:
        lying.lie()
        url = f"{lying.git('dummy', 'endless')}{site.remotes['modules/dummy'].path}"
        options = wrapper.GitOptions(timeout=60)
        with (
            Remotes(options, 1) as remotes,
            pytest.raises(GitLimitError, match=r"(?i)out of memory.*the limit is 64 MiB"),
        ):
            remotes.heads(wrapper.question(url))


def test_a_clone_brings_no_more_branches_than_a_remote_may_list(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = site.remotes["modules/dummy"]
    for number in range(20):
        remote.branch(f"branch{number}")
    monkeypatch.setattr(wrapper, "LONGEST_REPLY", 100)
    with pytest.raises(GitLimitError, match="more than 0 MiB of branches"):
        wrapper.clone(tmp_path / "bare", remote.url, wrapper.GitOptions())
    monkeypatch.undo()
    wrapper.clone(tmp_path / "other", remote.url, wrapper.GitOptions())


def test_every_process_of_a_git_has_the_limit_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "git-limited"
    wait = "while [ $(ulimit -Sd) = unlimited ] && [ $((tries += 1)) -lt $TRIES ]; do sleep 0.05; done"
    program.write_text(f"#!/bin/bash\n{wait}\nsh -c 'ulimit -Sd; sh -c \"ulimit -Sd\"'\nulimit -Sd\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for mebibytes, tries in ((100, 1000), (0, 10)):  # the limit is set a moment after the start
        monkeypatch.setenv("TRIES", str(tries))
        monkeypatch.setattr(process, "_limits", process.Limits(mebibytes=mebibytes))
        expected = str(mebibytes * 1024 or "unlimited")
        assert process.run(["limited"]).decode().split() == [expected] * 3


def test_a_git_that_prints_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "git-endless"
    program.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(process, "_LONGEST_OUTPUT", 1 << 20)
    with pytest.raises(GitLimitError, match="printed more than 1 MiB"):
        process.run(["endless"])


@pytest.mark.parametrize("kernel", ["tells of ends", "is older"])
def test_git_is_waited_for_as_long_as_it_takes_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """With and without pidfd_open: much output, a late end, an early limit, a pipe left open."""
    if kernel == "is older":
        monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))))
    for name, script in (
        ("much", "head -c 1000000 /dev/zero"),
        ("late", "exec >&- 2>&-; sleep 0.3; exit 3"),
        ("never", "trap '' TERM; sleep 60 & wait; sleep 60"),
        ("detached", "sleep 60 & echo $!"),
    ):
        program = tmp_path / f"git-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(processes, "_GRACE", 0.2)
    assert process.run(["much"]) == bytes(1000000)
    with pytest.raises(GitError, match="ended with status 3"):
        process.run(["late"])
    begin = time.monotonic()
    with pytest.raises(GitTimeoutError, match=r"within 0\.3 seconds"):
        process.run(["never"], limit=0.3)
    os.kill(int(process.run(["detached"])), signal.SIGKILL)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("is_partial", [False, True])
def test_what_is_new_is_packed_and_nothing_is_lost(site: Site, is_partial: bool, tmp_path: Path) -> None:
    remote, bare = site.remotes["modules/dummy"], tmp_path / "bare"
    git("config", "uploadpack.allowFilter", "true", directory=remote.path)
    filters = ["--filter=blob:none"] if is_partial else []
    git("clone", "-q", "--bare", *filters, remote.url, str(bare), directory=tmp_path)
    packs = bare / "objects" / "pack"
    promised = {path.name for path in packs.glob("*.promisor")}
    assert bool(promised) == is_partial
    for number in range(3):
        remote.push({"code/manifests/init.pp": f"# {number}\n"})
        git("fetch", "-q", remote.url, "+refs/heads/*:refs/heads/*", directory=bare)
    wrapper.pack_new(bare)
    assert promised <= {path.name for path in packs.glob("*.promisor")}
    assert [path for path in bare.glob("objects/??/*") if path.is_file()] == []
    assert is_partial or len(list(packs.glob("*.pack"))) < 3
    assert wrapper.is_intact(bare)
    assert git("rev-list", "--count", remote.commit(), directory=bare) == "4"
