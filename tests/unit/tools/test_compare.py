"""jens-compare tells whether two instances show the same, on any host that mounts them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest

from jens.commands import compare as command
from jens.tools.compare import Difference, compare
from tests import TREE
from tests.conftest import Site, definition, git, interrupt

TOOL = TREE / "bin" / "jens-compare"
MODULES = ("apache", "sssd")
ENVIRONMENTS = ("production", "qa", "test", "test2")
INIT = "code/manifests/init.pp"


def commit(name: str, branch: str) -> str:
    """A made-up id of a commit."""
    return f"{name}{branch}".encode().hex()[:40].ljust(40, "0")


@dataclass
class Tree:
    """The root of an instance, as Jens leaves it on a share."""

    root: Path

    def put(self, link: str, text: str) -> None:
        path = self.root / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(text)

    def check_out(self, repo: str, digits: str) -> None:
        for below in ("code/manifests", "data/hostgroup", "data/fqdns"):
            (self.root / "clone" / repo / f".{digits}" / below).mkdir(parents=True)

    def move(self, repo: str, branch: str, digits: str) -> None:
        """Move a branch to another commit."""
        if not (self.root / "clone" / repo / f".{digits}").exists():
            self.check_out(repo, digits)
        self.put(f"clone/{repo}/{branch}", f".{digits}")

    def use(self, environment: str, module: str, entry: str) -> None:
        """Make an environment use another ref of a module."""
        top = f"environments/{environment}"
        self.put(f"{top}/modules/{module}", f"../../../clone/modules/{module}/{entry}/code")
        self.put(f"{top}/hieradata/module_names/{module}", f"../../../../clone/modules/{module}/{entry}/data")

    def environment(self, name: str) -> None:
        for directory in ("modules", "hostgroups", "hieradata/fqdns", "hieradata/hostgroups"):
            (self.root / "environments" / name / directory).mkdir(parents=True)
        for module in MODULES:
            self.use(name, module, "master")
        top, cloud = f"environments/{name}", "clone/hostgroups/cloud/master"
        self.put(f"{top}/hostgroups/hg_cloud", f"../../../{cloud}/code")
        self.put(f"{top}/hieradata/hostgroups/cloud", f"../../../../{cloud}/data/hostgroup")
        self.put(f"{top}/hieradata/fqdns/cloud", f"../../../../{cloud}/data/fqdns")
        self.put(f"{top}/site", "../../clone/common/site/master/code")
        (self.root / top / "environment.conf").write_text("modulepath = modules:hostgroups\n")


def grow(root: Path) -> Tree:
    tree = Tree(root)
    for repo in ("common/site", "hostgroups/cloud", *(f"modules/{module}" for module in MODULES)):
        tree.move(repo, "master", commit(repo, "master"))
        tree.move(repo, "feature~x", commit(repo, "feature"))
    for name in ENVIRONMENTS:
        tree.environment(name)
    return tree


@pytest.fixture
def a(tmp_path: Path) -> Tree:
    return grow(tmp_path / "node1.example.org")


@pytest.fixture
def b(tmp_path: Path) -> Tree:
    return grow(tmp_path / "node2.example.org")


def differences(a: Tree, b: Tree, *names: str) -> list[tuple[str, str, str, str]]:
    return [(one.kind, one.subject, one.a, one.b) for one in compare(a.root, b.root, names)]


def run(*arguments: object) -> tuple[int, str, str]:
    """Run the command in a process that has neither Git nor a configuration. Returns exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        env={"PYTHONPATH": str(TREE), "PATH": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


APACHE, SITE_COMMIT = commit("modules/apache", "master"), commit("common/site", "master")
FEATURE = commit("modules/apache", "feature")
OTHER = "f" * 40
LINK = f"modules/apache/master/code ({APACHE})"
CONF = f"file with SHA-256 {hashlib.sha256(b'modulepath = modules:hostgroups' + bytes([10])).hexdigest()}"
DATA = f"modules/apache/master/data ({APACHE})"


# Equal


def test_equal_instances_are_0_and_nothing_is_printed(a: Tree, b: Tree) -> None:
    assert run(a.root, b.root) == (0, "", "")
    assert run(a.root, a.root, "production", "test") == (0, "", "")


def test_what_one_jens_has_made_equals_what_another_has(site: Site, tmp_path: Path) -> None:
    site.add("modules/slashed", branches=("feature/x",))
    site.publish()
    old = site.remotes["modules/dummy"].commit()
    site.remotes["modules/dummy"].push({INIT: "# new\n"})
    site.define("test", definition(overrides={"modules/slashed": "feature/x", "modules/dummy": f"commit/{old}"}))
    site.settings["main.directory_environments"] = "True"
    assert site.update().code == 0
    other = Site(tmp_path / "other", site.capture, dict(site.settings))
    for metadata, remote in (("environments", site.definitions), ("repository", site.library)):
        git("remote", "set-url", "origin", remote.url, directory=other.root / "metadata" / metadata)
    assert other.update().code == 0
    roots = site.root, other.root
    assert run(*roots) == (0, "", "")
    new = site.remotes["modules/dummy"].push({INIT: "# newer\n"})
    before = other.expanded("modules/dummy")["master"]
    assert site.update().code == 0
    assert run(*roots) == (1, f"modules/dummy master: {new} in A, {before} in B (production)\n", "")
    assert run(*roots, "test") == (0, "", "")
    assert other.update().code == 0
    assert run(*roots) == (0, "", "")


def test_a_branch_and_its_commit_are_the_same_to_puppet(a: Tree, b: Tree) -> None:
    a.use("test", "apache", f".{APACHE}")
    assert differences(a, b) == []


def test_left_overs_and_what_puppet_takes_for_no_environment_do_not_count(a: Tree, b: Tree) -> None:
    for name in (".new-0123", ".trash-0123", ".snapshot", "lost+found", "a-b"):
        (a.root / "environments" / name).mkdir()
    (a.root / "environments" / "README").write_text("no environment\n")
    a.put("environments/production/modules/.new-0123", "nowhere")
    (a.root / "environments/production/.trash-0123").mkdir()
    a.move("modules/unused", "master", OTHER)
    assert differences(a, b) == []


def test_the_same_dangling_links_are_equal(a: Tree, b: Tree) -> None:
    for tree in (a, b):
        tree.use("test", "apache", "gone")
        tree.put("environments/test/hieradata/common.yaml", "../../../clone/common/hieradata/master/data/common.yaml")
        shutil.rmtree(tree.root / "clone/modules/sssd" / f".{commit('modules/sssd', 'master')}" / "data")
    assert differences(a, b) == []


def test_roots_may_be_reached_through_links_and_be_mounted_anywhere(a: Tree, b: Tree, tmp_path: Path) -> None:
    (tmp_path / "aijens").symlink_to("node1.example.org/")
    assert run(tmp_path / "aijens", b.root) == (0, "", "")
    assert run(f"{tmp_path}/aijens/", f"{tmp_path}/aijens/../node2.example.org/") == (0, "", "")
    b.root.rename(tmp_path / "elsewhere")
    (b.root / "environments").mkdir(parents=True)
    assert differences(a, Tree(tmp_path / "elsewhere")) == []


def test_a_link_is_followed_from_where_environments_really_is(a: Tree, b: Tree, tmp_path: Path) -> None:
    """With environments on a volume of their own, ``../../..`` in a link does not lead to the named root."""
    volume = tmp_path / "volume" / "deep" / "environments"
    shutil.move(a.root / "environments", volume)
    a.put("environments", str(volume))
    for link in volume.rglob("*"):
        if link.is_symlink():
            text = os.readlink(link).replace("../clone", "../../../node1.example.org/clone")
            link.unlink()
            link.symlink_to(text)
    assert differences(a, b) == []


def test_a_link_that_is_written_in_another_way_leads_to_the_same(a: Tree, b: Tree) -> None:
    a.put("environments/test/modules/apache", "../../../environments/.././clone/modules//apache/master/code")
    a.put("environments/test/modules/sssd", f"{a.root}/clone/modules/sssd/master/code")
    assert differences(a, b) == []


# Different in one thing


@pytest.mark.parametrize("swapped", [False, True], ids=["A, B", "B, A"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda b: b.move("modules/apache", "master", OTHER),
            [("ref", "modules/apache master", APACHE, OTHER)],
            id="a commit",
        ),
        pytest.param(
            lambda b: (b.root / "clone/modules/apache/master").unlink(),
            [("ref", "modules/apache master", APACHE, "missing")],
            id="a branch",
        ),
        pytest.param(
            lambda b: shutil.rmtree(b.root / f"clone/modules/apache/.{APACHE}"),
            [("ref", "modules/apache master", APACHE, f"{APACHE} (no checkout)")],
            id="a checkout",
        ),
        pytest.param(
            lambda b: b.put("clone/modules/apache/master", "feature~x"),
            [("ref", "modules/apache master", APACHE, "unknown")],
            id="a branch that leads to no checkout",
        ),
        pytest.param(
            lambda b: (b.root / f"clone/modules/apache/.{APACHE}/data/hostgroup").rename(b.root / "x"),
            [],
            id="what no link leads to",
        ),
        pytest.param(
            lambda b: shutil.rmtree(b.root / f"clone/modules/apache/.{APACHE}/data"),
            [("link", "hieradata/module_names/apache", DATA, f"modules/apache/master/data ({APACHE}, dangling)")],
            id="a part of a checkout",
        ),
        pytest.param(
            lambda b: (b.root / "environments/test/modules/apache").unlink(),
            [("link", "modules/apache", LINK, "missing")],
            id="a link",
        ),
        pytest.param(
            lambda b: b.put("environments/test/modules/apache", "../../../clone/modules/apache/feature~x/code"),
            [("link", "modules/apache", LINK, f"modules/apache/feature~x/code ({FEATURE})")],
            id="a ref",
        ),
        pytest.param(
            lambda b: b.put("environments/test/modules/apache", "../../../clone/modules/apache/gone/code"),
            [("link", "modules/apache", LINK, "modules/apache/gone/code (missing)")],
            id="a dangling link",
        ),
        pytest.param(
            lambda b: b.put("environments/test/modules/apache", "../../../clone/modules/apache/master/data"),
            [("link", "modules/apache", LINK, DATA)],
            id="the path below the checkout",
        ),
        pytest.param(
            lambda b: (
                b.check_out("modules/sssd", APACHE),
                b.put("environments/test/modules/apache", f"../../../clone/modules/sssd/.{APACHE}/code"),
            ),
            [("link", "modules/apache", LINK, f"modules/sssd/.{APACHE}/code ({APACHE})")],
            id="the repository, at a commit of the same id",
        ),
        pytest.param(
            lambda b: b.put("environments/test/modules/apache", "/mnt/puppet/node1/clone/modules/apache/master/code"),
            [("link", "modules/apache", LINK, "link to '/mnt/puppet/node1/clone/modules/apache/master/code'")],
            id="a link out of the instance",
        ),
        pytest.param(
            lambda b: (
                (b.root / "environments/test/modules/apache").unlink(),
                (b.root / "environments/test/modules/apache").mkdir(),
            ),
            [("link", "modules/apache", LINK, "directory")],
            id="a directory in place of a link",
        ),
        pytest.param(
            lambda b: (b.root / "environments/test/hostgroups/empty").mkdir(),
            [("directory", "hostgroups/empty", "missing", "directory")],
            id="a directory",
        ),
        pytest.param(
            lambda b: shutil.rmtree(b.root / "environments/test/modules"),
            [("directory", "modules", "directory", "missing")],
            id="a directory and all in it: told once",
        ),
        pytest.param(
            lambda b: (b.root / "environments/test/environment.conf").unlink(),
            [("file", "environment.conf", CONF, "missing")],
            id="the environment.conf",
        ),
        pytest.param(
            lambda b: os.mkfifo(b.root / "environments/test/pipe"),
            [("other", "pipe", "missing", "other")],
            id="a pipe, which nobody reads",
        ),
        pytest.param(
            lambda b: shutil.rmtree(b.root / "environments/test"),
            [("environment", "test", "directory", "missing")],
            id="an environment",
        ),
        pytest.param(
            lambda b: (b.root / "environments/test").rename(b.root / "x") and b.put("environments/test", "production"),
            [("environment", "test", "directory", "link to 'production'")],
            id="an environment that is a link",
        ),
    ],
)
def test_two_instances_that_differ_in_one(
    a: Tree, b: Tree, change: object, expected: list[tuple[str, str, str, str]], swapped: bool
) -> None:
    assert callable(change)
    change(b)
    if swapped:
        expected = [(kind, subject, in_b, in_a) for kind, subject, in_a, in_b in expected]
    found = differences(b, a) if swapped else differences(a, b)
    assert found == expected


def test_the_content_of_environment_conf_counts(a: Tree, b: Tree) -> None:
    (b.root / "environments/test/environment.conf").write_text("modulepath = modules\n")
    [(kind, subject, here, there)] = differences(a, b)
    assert (kind, subject) == ("file", "environment.conf")
    assert here != there


def test_a_large_file_is_never_in_memory_as_a_whole(a: Tree, b: Tree) -> None:
    large = 16 << 20
    for tree in (a, b):
        (tree.root / "environments" / "production" / "large").write_bytes(bytes(large))
    tracemalloc.start()
    try:
        assert differences(a, b) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < large // 2


def test_a_branch_too_long_for_a_disk_disables_nothing(site: Site) -> None:
    site.define("long", definition(overrides={"modules/dummy": "b" * 255}))
    site.define("longer", definition(overrides={"modules/dummy": "b" * 256}))
    outcome = site.update()
    assert any("'longer' is ill-formed" in line and "255" in line for line in outcome.lines("ERROR"))
    link = site.root / "environments" / "long" / "modules" / "dummy"
    link.unlink()
    link.symlink_to(f"../../../clone/modules/dummy/{'b' * 300}/code")
    assert command.main([str(site.root), str(site.root)]) == 0


def test_two_refs_that_both_dangle_are_not_the_same(a: Tree, b: Tree) -> None:
    a.use("test", "apache", "gone")
    b.use("test", "apache", "lost")
    assert [subject for _, subject, _, _ in differences(a, b)] == ["hieradata/module_names/apache", "modules/apache"]


def test_a_commit_is_compared_where_the_refs_differ(a: Tree, b: Tree) -> None:
    b.use("test", "apache", f".{OTHER}")
    assert differences(a, b)[1] == ("link", "modules/apache", LINK, f"modules/apache/.{OTHER}/code ({OTHER}, dangling)")


def test_what_nobody_can_tell_is_not_equal(a: Tree, b: Tree) -> None:
    for tree in (a, b):
        (tree.root / "clone/modules/apache/master").unlink()
        (tree.root / "clone/modules/apache/master/code").mkdir(parents=True)
    assert differences(a, b) == [("ref", "modules/apache master", "unknown", "unknown")]


def test_a_branch_bent_to_another_host_is_not_followed(a: Tree, b: Tree) -> None:
    b.put("clone/modules/apache/master", str(a.root / "clone/modules/apache/master"))
    assert differences(a, b) == [("ref", "modules/apache master", APACHE, "unknown")]


# What is printed


def test_what_many_environments_share_is_one_line(a: Tree, b: Tree) -> None:
    b.move("modules/apache", "master", OTHER)
    a.use("qa", "apache", "feature~x")
    b.use("qa", "apache", "feature~x")
    b.move("modules/apache", "feature~x", "e" * 40)
    for environment in ("production", "qa", "test2"):
        (b.root / "environments" / environment / "modules" / "sssd").unlink()
    shutil.rmtree(a.root / "environments" / "test2" / "hostgroups")
    for name in ("x1", "x2"):
        a.environment(name)
        b.environment(name)
    b.environment("zzz")
    sssd = f"modules/sssd/master/code ({commit('modules/sssd', 'master')})"
    text = (
        f"modules/apache feature/x: {FEATURE} in A, {'e' * 40} in B (qa)\n"
        f"modules/apache master: {APACHE} in A, {OTHER} in B (5 environments)\n"
        "environment zzz: missing in A, directory in B\n"
        f"link modules/sssd: {sssd} in A, missing in B (production, qa, test2)\n"
        "directory hostgroups: missing in A, directory in B (test2)\n"
    )
    assert run(a.root, b.root) == (1, text, "")
    assert run(a.root, b.root, "qa")[1].splitlines() == [
        f"modules/apache feature/x: {FEATURE} in A, {'e' * 40} in B (qa)",
        f"link modules/sssd: {sssd} in A, missing in B (qa)",
    ]


def test_a_line_is_one_line_whatever_a_name_has_in_it(a: Tree, b: Tree) -> None:
    b.put("environments/test/modules/evil\n\x1b[2J", "no\nwhere\udcff")
    code, stdout, stderr = run(a.root, b.root)
    assert (code, len(stdout.splitlines()), stderr) == (1, 1, "")
    assert "\x1b" not in stdout


def test_json_has_the_same_facts(a: Tree, b: Tree) -> None:
    b.move("modules/apache", "master", OTHER)
    code, stdout, stderr = run(a.root, b.root, "--json")
    document = json.loads(stdout)
    assert (code, stderr) == (1, "")
    assert stdout == json.dumps(document, sort_keys=True, indent=1) + "\n"
    assert document == {
        "a": str(a.root),
        "b": str(b.root),
        "differences": [
            {
                "a": APACHE,
                "b": OTHER,
                "environments": list(ENVIRONMENTS),
                "kind": "ref",
                "subject": "modules/apache master",
            }
        ],
        "equal": False,
    }
    code, stdout, _ = run(a.root, a.root, "--json")
    assert (code, json.loads(stdout)["equal"], json.loads(stdout)["differences"]) == (0, True, [])


# Trees of Jens 1.x


@pytest.fixture
def old(a: Tree, b: Tree, tmp_path: Path) -> Path:
    """In A, a clone in the place of a branch link of modules/apache; in B, a checkout of its commit."""
    clone = a.root / "clone/modules/apache/master"
    clone.unlink()
    git("init", "-q", "-b", "master", str(clone), directory=tmp_path)
    for below in ("code/manifests/init.pp", "data/apache.yaml"):
        (clone / below).parent.mkdir(parents=True, exist_ok=True)
        (clone / below).write_text("# 1.x\n")
    git("add", "--all", directory=clone)
    git("commit", "-qm", "1.x", directory=clone)
    b.move("modules/apache", "master", git("rev-parse", "HEAD", directory=clone))
    return clone


def loose(_clone: Path) -> None:
    """Leave a clone as ``git clone`` makes it."""


def pack(clone: Path) -> None:
    git("pack-refs", "--all", directory=clone)
    assert not (clone / ".git/refs/heads/master").exists()


def detach(clone: Path) -> None:
    git("checkout", "-q", "--detach", directory=clone)
    git("branch", "-D", "master", directory=clone)


def worktree(clone: Path) -> None:
    """Turn a clone into a worktree of another repository, which records its absolute path."""
    main = clone.parent.parent / "main"
    clone.rename(main)
    git("checkout", "-q", "--detach", directory=main)
    git("worktree", "add", "-q", str(clone), "master", directory=main)


def relative_worktree(clone: Path) -> None:
    worktree(clone)
    pointer = (clone / ".git").read_text().split()[1]
    (clone / ".git").write_text(f"gitdir: {os.path.relpath(pointer, clone)}\n")


@pytest.mark.parametrize(
    "make", [loose, pack, detach, worktree, relative_worktree], ids=["loose", "packed", "detached", "w", "rw"]
)
def test_a_clone_of_1x_is_at_its_head(a: Tree, b: Tree, old: Path, make: object) -> None:
    assert callable(make)
    make(old)
    assert run(a.root, b.root) == (0, "", "")
    head = git("rev-parse", "HEAD", directory=old)
    b.move("modules/apache", "master", OTHER)
    assert differences(a, b) == [("ref", "modules/apache master", head, OTHER)]


def test_a_commit_of_1x_is_what_its_name_says_an_abbreviated_one_its_head(a: Tree, b: Tree, old: Path) -> None:
    head = git("rev-parse", "HEAD", directory=old)
    old.rename(old.parent / f".{head[:8]}")
    a.use("test", "apache", f".{head[:8]}")
    a.move("modules/apache", "master", head)
    assert differences(a, b) == []


def test_the_record_of_a_worktree_on_another_host_is_not_taken_for_one_of_this(a: Tree, b: Tree, old: Path) -> None:
    """``.git`` has a path of the host that wrote it. On this host, another instance may be at that path."""
    worktree(old)
    copied = a.root.parent / "mounted"
    shutil.copytree(a.root, copied, symlinks=True)
    assert differences(Tree(copied), b)[0][:3] == ("ref", "modules/apache master", "unknown")


@pytest.mark.parametrize(
    "head", ["", "ref: refs/heads/none", "ref: refs/heads/../../../x", "ref: HEAD", "\udcff", "ref: refs/heads/a b"]
)
def test_a_head_that_makes_no_sense_is_unknown(a: Tree, b: Tree, old: Path, head: str) -> None:
    (old / ".git/HEAD").write_bytes(head.encode("utf-8", "surrogateescape"))
    assert [there for _, _, there, _ in differences(a, b)] == ["unknown"]


# Concurrent changes and failures


def test_an_instance_at_work_does_not_disturb_it(a: Tree, b: Tree) -> None:
    """Links and environments come and go, branches move, and checkouts are removed meanwhile."""
    work = (
        "import os, shutil, sys\n"
        "root = sys.argv[1]\n"
        "top, clone = root + '/environments', root + '/clone/modules/apache'\n"
        "shutil.copytree(top + '/qa', root + '/qa', symlinks=True)\n"
        "first = os.readlink(clone + '/master')\n"
        "while True:\n"
        "    os.rename(top + '/qa', top + '/.trash-1')\n"
        "    shutil.copytree(root + '/qa', top + '/.new-1', symlinks=True)\n"
        "    os.rename(top + '/.new-1', top + '/qa')\n"
        "    shutil.rmtree(top + '/.trash-1')\n"
        "    os.unlink(top + '/test/site')\n"
        "    os.unlink(top + '/test/environment.conf')\n"
        "    os.unlink(clone + '/master')\n"
        "    os.rename(clone + '/' + first, clone + '/.trash-2')\n"
        "    os.rename(clone + '/.trash-2', clone + '/' + first)\n"
        "    os.symlink(first, clone + '/master')\n"
        "    os.symlink('../../clone/common/site/master/code', top + '/test/site')\n"
        "    open(top + '/test/environment.conf', 'w').close()\n"
    )
    working = subprocess.Popen([sys.executable, "-c", work, str(b.root)])
    try:
        for _ in range(200):
            assert {one.kind for one in compare(a.root, b.root)} <= {"ref", "environment", "link", "file", "directory"}
        assert working.poll() is None
    finally:
        working.kill()
        working.wait()


@pytest.mark.parametrize("lacking", ["clone", "environments", ""])
@pytest.mark.parametrize("side", ["a", "b"])
def test_exit_3_a_root_lacks_something(a: Tree, b: Tree, lacking: str, side: str) -> None:
    missing = {"a": a, "b": b}[side].root / lacking
    missing.rename(f"{missing}.away")
    code, stdout, stderr = run(a.root, b.root)
    assert (code, stdout) == (3, "")
    [line] = stderr.splitlines()
    assert str(missing) in line
    assert line.endswith("does not exist")


def test_exit_3_an_environment_that_neither_has(a: Tree, b: Tree) -> None:
    shutil.rmtree(b.root / "environments" / "test")
    assert run(a.root, b.root, "test")[0] == 1
    code, stdout, stderr = run(a.root, b.root, "production", "prodution")
    assert (code, stdout) == (3, "")
    assert stderr == "jens-compare: environment 'prodution': is in neither instance\n"


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "../x"], ["a", "b", "--config", "x"], ["a", "b", ""]])
def test_exit_2_the_arguments_are_wrong(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(("arguments", "lacking"), [([], "A, B"), (["a"], "B")])
def test_only_what_is_lacking_is_said_to_be_required(
    arguments: list[str], lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert capsys.readouterr().err.endswith(f"error: the following arguments are required: {lacking}\n")


def test_it_knows_its_version_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            command.main([option])
        assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "--json" in printed
    assert "--config" not in printed


def test_it_works_where_git_cannot_even_be_imported(a: Tree, b: Tree) -> None:
    program = (
        "import sys\n"
        "sys.modules['git'] = sys.modules['yaml'] = sys.modules['dirq'] = None\n"
        "from jens.commands.compare import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(a.root), str(b.root)],
        env={"PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def without_privileges() -> list[str]:
    """The beginning of a command that takes from root the capability to read and write everywhere."""
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []


def test_it_needs_only_read_access_and_says_what_it_cannot_read(a: Tree, b: Tree) -> None:
    before = {path: path.lstat() for path in (a.root, *a.root.rglob("*"))}
    directories = [path for path in before if path.is_dir() and not path.is_symlink()]
    line = [*without_privileges(), sys.executable, str(TOOL), str(a.root), str(b.root)]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    for path in directories:
        path.chmod(0o555)
    try:
        if (
            subprocess.run(
                [*without_privileges(), "touch", str(a.root / "x")], capture_output=True, check=False
            ).returncode
            == 0
        ):
            pytest.skip("nothing keeps root from writing here")
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        (a.root / "environments/test/modules").chmod(0)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    finally:
        for path in directories:
            path.chmod(0o755)
    assert (done.returncode, done.stdout) == (3, "")
    [complaint] = done.stderr.splitlines()
    assert "environments/test/modules': cannot be read" in complaint
    assert [path for path in (a.root, *a.root.rglob("*")) if path not in before] == []
    assert all(path.lstat().st_mtime_ns == status.st_mtime_ns for path, status in before.items())


def test_a_reader_that_has_seen_enough_is_no_failure(a: Tree, b: Tree) -> None:
    for name in range(2000):
        a.put(f"environments/test/modules/m{name}", "nowhere")
    line = f"'{sys.executable}' '{TOOL}' '{a.root}' '{b.root}' | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "PYTHONPATH": str(TREE)}, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert (done.stdout.splitlines()[1], done.stderr) == ("0", "")


def test_ctrl_c_ends_it_with_one_line(a: Tree, b: Tree, tmp_path: Path) -> None:
    ended = interrupt("compare", [str(a.root), str(b.root)], "jens.tools.compare.compare", tmp_path)
    assert ended == (130, "", "jens-compare: Interrupted\n")


def test_a_difference_is_told_to_programs_with_all_its_fields() -> None:
    one = Difference("link", "site", "missing", "directory", ("production",))
    assert one.encode() == {**vars(one), "environments": ["production"]}
