"""Files that checkouts share by hard links: which are linked, and that the result is as Git alone would make it."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from jens.git import index as git_index
from jens.git import worktrees
from tests.conftest import Site, definition, faults_of, git

DUMMY = "modules/dummy"
INIT, OTHER = "code/manifests/init.pp", "code/manifests/other.pp"


def pushed(site: Site, files: Mapping[str, str | None]) -> tuple[Path, Path]:
    """What branch master of the module shows before and after a push."""
    assert site.update("--strict").code == 0
    before = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    site.remotes[DUMMY].push(files)
    assert site.update().code == 0
    assert faults_of(site.root) <= {"repository content", "dangling link"}
    after = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    assert after != before
    return before, after


def assert_is_as_laid_out_by_git(site: Site, checkout: Path, scratch: Path) -> None:
    """Every file, mode and link is as in a checkout that Git alone has made, and Git finds no change."""
    commit = checkout.name[1:]
    scratch.mkdir()
    bare = str(site.root / "bare" / DUMMY)
    index = {**os.environ, "GIT_INDEX_FILE": f"{scratch}.index", "GIT_CONFIG_GLOBAL": os.devnull}
    arguments = ("git", f"--git-dir={bare}", f"--work-tree={scratch}", "read-tree", "-u", "--reset", commit)
    subprocess.run(arguments, env=index, check=True)
    assert listing(checkout) == listing(scratch)
    assert git("status", "--porcelain", "--ignored", directory=checkout) == ""
    assert git("rev-parse", "HEAD", directory=checkout) == commit


def listing(top: Path) -> dict[str, tuple[str, bytes]]:
    found = {}
    for path in sorted(top.rglob("*")):
        if path != top / ".git":
            content = os.fsencode(os.readlink(path)) if path.is_symlink() else b""
            content = path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else content
            found[str(path.relative_to(top))] = (stat.filemode(path.lstat().st_mode), content)
    return found


def shared(before: Path, after: Path) -> set[str]:
    """The files that both checkouts share: one inode, not only the same content."""
    paths = [path.relative_to(after) for path in after.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path) for path in paths if (before / path).exists() and os.path.samefile(before / path, after / path)}


def test_files_that_a_push_does_not_change_are_shared(site: Site, tmp_path: Path) -> None:
    site.remotes[DUMMY].push({OTHER: "# other\n", "data/a/b/c.yaml": "--- {}\n", "README": ""})
    before, after = pushed(site, {INIT: "# new\n", "code/new.pp": "# new\n", "data/dummy.yaml": None})
    assert shared(before, after) == {OTHER, "data/a/b/c.yaml", "README"}
    assert not (after / "data/dummy.yaml").exists()
    assert (before / INIT).read_text() == "class dummy {}\n"
    assert (before / "data/dummy.yaml").exists()
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")
    assert_is_as_laid_out_by_git(site, before, tmp_path / "before")


def test_the_first_run_shares_between_branches(site: Site) -> None:
    remote = site.remotes[DUMMY]
    remote.push({OTHER: "# other\n"})
    remote.branch("qa")
    remote.push({INIT: "# qa\n"}, "qa")
    site.define("qa", "default: qa\nnotifications: ann@example.org\n")
    assert site.update().code == 0
    assert faults_of(site.root) == {"dangling link"}
    assert shared(site.path(DUMMY, "master"), site.path(DUMMY, "qa")) == {OTHER, "data/dummy.yaml"}


def test_memory_does_not_grow_with_the_size_of_a_file(site: Site) -> None:
    remote, large = site.remotes[DUMMY], 24 << 20
    remote.push({"large": "x" * large})
    for branch in ("one", "two", "three"):
        remote.push({OTHER: f"# {branch}\n"}, branch, onto="master")
        site.define(branch, definition(branch))
    tracemalloc.start()
    try:
        assert site.update().code == 0
        for branch in ("master", "one", "two", "three"):  # links have changed the ctime, so contents are compared
            remote.push({OTHER: f"# {branch} again\n"}, branch)
        assert site.update().code == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < large // 2
    shown = [site.path(DUMMY, branch) / "large" for branch in ("master", "one", "two", "three")]
    assert {path.stat().st_ino for path in shown} == {shown[0].stat().st_ino}, "and it is still shared"


def test_what_somebody_has_changed_in_a_checkout_does_not_spread(site: Site, tmp_path: Path) -> None:
    site.remotes[DUMMY].push({OTHER: "# other\n", "script": "#!/bin/sh\n", "gone": "", "linked": "", "dir/file": "1\n"})
    assert site.update("--strict").code == 0
    old = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    (old / OTHER).write_text("# OTHER\n")  # as long as before
    (old / "script").chmod(0o666)
    (old / "gone").unlink()
    (old / "linked").unlink()
    (old / "linked").symlink_to("/etc/passwd")
    (old / "dir/file").unlink()
    (old / "dir").rmdir()
    (old / "dir").symlink_to(tmp_path)
    (tmp_path / "file").write_text("1\n")
    (old / "untracked").write_text("mine\n")
    _, after = pushed(site, {INIT: "# new\n"})
    assert shared(old, after) == {"data/dummy.yaml"}
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")


def test_odd_things_are_as_git_lays_them_out(site: Site, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git("clone", "-q", site.remotes[DUMMY].url, str(work), directory=tmp_path)
    names = ["a b", "ä", "new\nline", "-dash", "x" * 255, "d/" * 40 + "deep"]
    for name in names:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    (work / "latin-\udce4").write_text("")
    (work / "script").write_text("#!/bin/sh\n")
    (work / "script").chmod(0o755)
    (work / "turns").write_text("")
    (work / "becomes").mkdir()
    (work / "becomes" / "file").write_text("")
    (work / "link").symlink_to("code/manifests/init.pp")
    (work / "out").symlink_to("/etc")
    git("add", "-A", directory=work)
    git("commit", "-q", "-m", "odd", directory=work)
    git("push", "-q", "origin", "HEAD:master", directory=work)
    assert site.update("--strict").code == 0
    before = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    (work / "turns").chmod(0o755)
    (work / "becomes" / "file").unlink()
    (work / "becomes").rmdir()
    (work / "becomes").write_text("a file\n")
    (work / "a b").unlink()
    (work / "a b").mkdir()
    (work / "a b" / "c").write_text("")
    (work / "link").unlink()
    (work / "link").write_text("no link any more\n")
    git("add", "-A", directory=work)
    git("commit", "-q", "-m", "odder", directory=work)
    git("push", "-q", "origin", "HEAD:master", directory=work)
    assert site.update("--strict").code == 0
    after = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    assert {"ä", "new\nline", "-dash", "x" * 255, "script", "d/" * 40 + "deep"} <= shared(before, after)
    assert_is_as_laid_out_by_git(site, after, tmp_path / "after")
    assert_is_as_laid_out_by_git(site, before, tmp_path / "before")


@pytest.mark.parametrize("path", [".gitattributes", "code/.gitattributes"])
@pytest.mark.parametrize(("first", "then"), [(None, "*.pp text eol=crlf\n"), ("*.pp text eol=crlf\n", None)])
def test_new_attributes_hold_for_files_that_have_not_changed(
    site: Site, tmp_path: Path, path: str, first: str | None, then: str | None
) -> None:
    if first:
        site.remotes[DUMMY].push({path: first})
    before, after = pushed(site, {path: then})
    assert shared(before, after) == set()
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")
    assert ((after / INIT).read_bytes().endswith(b"\r\n")) == bool(then)


def test_attributes_that_stay_prevent_nothing(site: Site, tmp_path: Path) -> None:
    site.remotes[DUMMY].push({".gitattributes": "*.pp text eol=crlf\n"})
    before, after = pushed(site, {OTHER: "# new\n"})
    assert shared(before, after) == {INIT, ".gitattributes", "data/dummy.yaml"}
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV])
def test_where_nothing_can_be_linked_all_is_laid_out(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    before, after = pushed(site, {OTHER: "# new\n"})
    assert shared(before, after) == set()
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")


@pytest.mark.parametrize("damage", ["cut off", "flipped", "empty", "no index", "another version", "gone"])
def test_an_index_that_is_damaged_is_of_no_use_but_does_no_harm(site: Site, tmp_path: Path, damage: str) -> None:
    site.remotes[DUMMY].push({OTHER: "# other\n"})
    assert site.update("--strict").code == 0
    commit = site.expanded(DUMMY)["master"]
    index = worktrees.record_path(site.root / "bare" / DUMMY, commit) / "index"
    content = index.read_bytes()
    damages = {
        "cut off": content[: len(content) // 2],
        "flipped": content[:70] + bytes([content[70] ^ 1]) + content[71:],
        "empty": b"",
        "no index": b"x" * 500,
        "another version": content[:7] + b"\4" + content[8:],
    }
    if damage == "gone":
        index.unlink()
    else:
        index.write_bytes(damages[damage])
    site.remotes[DUMMY].push({INIT: "# new\n"})
    assert site.update().code == 0
    after = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    assert after.name != f".{commit}"
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")


def test_when_a_shared_checkout_goes_the_other_stays_whole(site: Site, tmp_path: Path) -> None:
    site.settings["main.retention"] = "0"
    before, after = pushed(site, {OTHER: "# new\n"})
    assert site.update("--strict").code == 0
    assert not before.exists()
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")


def test_a_checkout_of_nothing_is_laid_out_after_another(site: Site) -> None:
    remote = site.remotes[DUMMY]
    before, after = pushed(site, {INIT: None, "data/dummy.yaml": None})
    assert before.is_dir()
    assert [path.name for path in after.iterdir()] == [".git"]
    assert remote.commit() == after.name[1:]


def test_whatever_is_pushed_a_checkout_is_as_git_lays_it_out(site: Site, tmp_path: Path) -> None:
    chance = random.Random(1)
    names = ["a", "a/b", "b", "c/d/e", "c/d", "f.pp", ".gitattributes", "c/.gitattributes", "g g"]
    contents = [None, "", "1\n", "2\n", "*.pp text eol=crlf\n", "* -text\n"]
    for number in range(25):
        files = {name: chance.choice(contents) for name in chance.sample(names, 3)}
        files = {name: content for name, content in files.items() if not any(f"{name}/" in other for other in files)}
        site.remotes[DUMMY].push({**files, "always": f"{number}\n"})
        assert site.update("--strict").code == 0
        checkout = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
        assert_is_as_laid_out_by_git(site, checkout, tmp_path / f"scratch-{number}")


def test_an_index_is_read_as_git_wrote_it(tmp_path: Path) -> None:
    git("init", "-q", ".", directory=tmp_path)
    names = [f"{'n' * length}" for length in (*range(1, 20), 200, 255)]
    for name in names:
        (tmp_path / name).write_text(name)
    (tmp_path / ("d" * 200)).mkdir()
    for number in range(30):
        deep = tmp_path / ("d" * 200) / (f"{number}" * 100)
        deep.mkdir(parents=True, exist_ok=True)
        (deep / ("f" * 250)).write_text("")
    git("add", "-A", directory=tmp_path)
    entries = list(git_index.Index((tmp_path / ".git" / "index").read_bytes()).entries())
    listed = git("ls-files", "-z", "-s", directory=tmp_path).split("\0")[:-1]
    told = [f"{entry.mode:o} {entry.name.hex()} 0\t{os.fsdecode(entry.path)}" for entry in entries]
    assert told == listed
    assert all(entry.describes(os.path.join(os.fsencode(tmp_path), entry.path)) for entry in entries)


def test_a_file_that_was_changed_without_a_trace_in_its_times_does_not_spread(site: Site, tmp_path: Path) -> None:
    site.remotes[DUMMY].push({OTHER: "one\n", "code/third.pp": "one\n"})
    _, first = pushed(site, {INIT: "# 1\n"})  # since then both are linked
    for path in (first / OTHER, first / "code/third.pp"):
        status = path.stat()
        if path.name == "third.pp":
            path.unlink()  # another file in its place
        path.write_text("bad\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, second = pushed(site, {INIT: "# 2\n"})
    assert_is_as_laid_out_by_git(site, second, tmp_path / "second")
    _, third = pushed(site, {INIT: "# 3\n"})
    assert shared(second, third) >= {OTHER, "code/third.pp"}
    assert_is_as_laid_out_by_git(site, third, tmp_path / "third")


def test_a_directory_that_somebody_has_replaced_by_a_link_is_not_followed(site: Site, tmp_path: Path) -> None:
    site.remotes[DUMMY].push({"code/deep/er/file": "one\n"})
    assert site.update("--strict").code == 0
    old = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    (old / "code/deep").rename(tmp_path / "elsewhere")
    (old / "code/deep").symlink_to(tmp_path / "elsewhere")
    _, after = pushed(site, {OTHER: "# new\n"})
    assert not os.path.samefile(after / "code/deep/er/file", tmp_path / "elsewhere/er/file")
    assert_is_as_laid_out_by_git(site, after, tmp_path / "scratch")
