"""Repositories with hostile files, refs or servers: Jens lays out what is pushed, and runs none of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jens.commands import compare, gc, snapshot, stats
from jens.repositories.budget import MOST_LEVELS
from jens.tools import stats as stats_of
from tests import TREE
from tests.conftest import MODULE, Remote, Site, definition, git
from tests.faults.decoy import Decoy, push_tree

FILE, LINK, SUBMODULE, SCRIPT = "100644", "120000", "160000", "100755"

_INIT = "code/manifests/init.pp"


@pytest.fixture
def decoy(site: Site) -> Decoy:
    """A site after its first run; module evil is in the library, and still harmless."""
    site.add("modules/evil")
    site.publish()
    assert site.update("--strict").code == 0
    return Decoy(site)


def _update(decoy: Decoy, errors: int | None = 0) -> list[str]:
    """Run after a push to module dummy, which must be visible; return the errors."""
    site = decoy.site
    commit = site.remotes["modules/dummy"].push({_INIT: f"# at {time.monotonic()}\n"})
    outcome = decoy.update()
    assert outcome.code == 0
    assert site.expanded("modules/dummy") == {"master": commit}
    assert errors is None or len(outcome.lines("ERROR")) == errors
    return outcome.lines("ERROR")


# Links out of the tree


#: Links that a repository could have where an environment's links lead.
_WAYS_OUT = {
    "absolute": {"code": "TOP/code"},
    "root": {"code": "/"},
    "upward": {"code": "../../../../../neighbour/code"},
    "data": {"data": "TOP/data"},
    "both": {"code": "TOP/code", "data": "/etc"},
    "by way of another": {"code": "x/y", "x/y": "../../..", "data": "code"},
    "there and back": {"code": "../.COMMIT/src", "src/manifests": "."},
    "neighbouring checkout": {"code": "../../dummy/master/code"},
    "own branch": {"code": "../master/src"},
    "chain": {"code": "l0", **{f"l{number}": f"l{number + 1}" for number in range(20)}, "l20": ".."},
    "dots": {"code": "./x/.././../", "x/y": "z"},
    "nowhere": {"code": "/nowhere"},
}


def test_what_environments_link_to_never_leads_out_of_a_checkout(decoy: Decoy) -> None:
    """For twelve known modules, and for as many new ones."""
    site = decoy.site
    ways = {name.replace(" ", "_"): links for name, links in _WAYS_OUT.items()}
    for way in ways:
        site.add(f"modules/evil_{way}")
    site.publish()
    _update(decoy)
    before = {way: site.expanded(f"modules/evil_{way}") for way in ways}
    for way, links in ways.items():
        known = site.remotes[f"modules/evil_{way}"]
        whole = {"README": (FILE, "x")}
        whole |= {name: (LINK, to.replace("TOP", str(decoy.top))) for name, to in links.items()}
        known.push({_INIT: None, "data/dummy.yaml": None})
        push_tree(known, whole)
        new = Remote.create(site.root / "remotes" / "modules" / f"new_{way}.git")
        push_tree(new, whole)
        site.urls[f"modules/new_{way}"] = new.url
    site.publish()
    for _ in range(2):
        errors = _update(decoy, errors=2 * len(ways))
        assert all("lead out of it" in error for error in errors)
        for way in ways:
            for name in (f"modules/evil_{way} ", f"modules/new_{way} "):
                assert sum(name in error for error in errors) == 1, name
            assert site.expanded(f"modules/evil_{way}") == before[way]
            assert site.read(f"production/modules/evil_{way}/manifests/init.pp") == MODULE[_INIT]
        assert not [link for link in site.links("production") if "/new_" in link]
    # The known modules become harmless again.
    for way in ways:
        remote = site.remotes[f"modules/evil_{way}"]
        git("update-ref", "refs/heads/master", before[way]["master"], directory=remote.path)
    assert all("modules/new_" in error for error in _update(decoy, errors=len(ways)))


def test_a_link_out_of_a_hostgroup_or_the_common_repositories_is_refused_as_well(decoy: Decoy) -> None:
    site = decoy.site
    ways = {
        "hostgroups/myapp": ("data/fqdns", "data/fqdns/web01.example.org.yaml"),
        "common/site": ("code", "code/site.pp"),
        "common/hieradata": ("data/hardware", "data/hardware/kvm.yaml"),
    }
    before = {repo: site.expanded(repo) for repo in ways}
    for repo, (way, content) in ways.items():
        site.remotes[repo].push({content: None})
        push_tree(site.remotes[repo], {way: (LINK, str(decoy.top / "data"))})
    errors = _update(decoy, errors=3)
    assert sorted(error.split(" ")[5] for error in errors) == sorted(ways)
    assert {repo: site.expanded(repo) for repo in ways} == before


def test_a_pinned_commit_that_leads_out_is_refused_and_dangles(decoy: Decoy) -> None:
    site = decoy.site
    remote = site.remotes["modules/evil"]
    remote.push({_INIT: None})
    commit = push_tree(remote, {"code": (LINK, "/etc")})
    remote.push({"code": None})
    remote.push({_INIT: "# good\n"})
    site.define("pinned", definition(None, overrides={"modules/evil": f"commit/{commit}"}))
    errors = _update(decoy, errors=1)
    assert commit in errors[0]
    assert site.read("production/modules/evil/manifests/init.pp") == "# good\n"
    assert not site.exists("pinned/modules/evil")


def test_links_within_a_checkout_are_laid_out_as_they_are(decoy: Decoy) -> None:
    site = decoy.site
    remote = site.remotes["modules/evil"]
    remote.push({_INIT: None, "data/dummy.yaml": None})
    links = {"code": "src/./puppet/../puppet", "data": "src/data", "src/data": "../hiera", "loop": "loop"}
    links.update({"src/puppet/files/outside": str(decoy.secret), "src/puppet/lib": "../../../../..", "self": "."})
    files = {"src/puppet/manifests/init.pp": (FILE, "# linked\n"), "hiera/x.yaml": (FILE, "x: 1\n")}
    push_tree(remote, {**files, **{name: (LINK, text) for name, text in links.items()}})
    _update(decoy)
    assert site.read("production/modules/evil/manifests/init.pp") == "# linked\n"
    assert site.read("production/hieradata/module_names/evil/x.yaml") == "x: 1\n"
    checkout = site.path("modules/evil", "master")
    assert {name: os.readlink(checkout / name) for name in links} == links


def test_no_tool_follows_a_link_in_a_checkout(decoy: Decoy, capsys: pytest.CaptureFixture[str]) -> None:
    site = decoy.site
    site.settings["main.retention"] = "0"
    remote = site.remotes["modules/evil"]
    size = _size_of(site)
    big = decoy.top / "big"
    big.mkdir()
    (big / "file").write_bytes(b"x" * 5_000_000)
    texts = (str(big), str(big / "file"), "/", "../../../../..", str(decoy.top), "/proc", "/dev/zero", "loop")
    links = {f"code/link{number}": (LINK, text) for number, text in enumerate(texts)}
    links.update({f"top{number}": (LINK, text) for number, text in enumerate(texts)})
    evil = push_tree(remote, links)
    site.define("pinned", definition(None, overrides={"modules/evil": f"commit/{evil}"}))
    _update(decoy)
    assert abs(_size_of(site) - size) < 10_000
    for main, arguments in (
        (stats.main, ["-c", str(site.config), "-a"]),
        (snapshot.main, ["-c", str(site.config), "production"]),
        (gc.main, ["-c", str(site.config), "--all"]),
        (compare.main, [str(site.root), str(site.root)]),
    ):
        assert main(arguments) == 0, capsys.readouterr()
    remote.push({f"code/link{number}": None for number in range(len(texts))})
    site.retire("pinned")
    _update(decoy)
    _update(decoy)
    assert evil not in site.checkouts("modules/evil")
    assert (big / "file").stat().st_size == 5_000_000


def _size_of(site: Site) -> int:
    size = stats_of.size_of(site.path("modules/evil", f".{site.expanded('modules/evil')['master']}"))
    assert size is not None
    return size


# Commands that Git could run


def test_nothing_that_a_repository_brings_is_ever_run(decoy: Decoy) -> None:
    site = decoy.site
    touch = f"touch {decoy.canary}"
    script = f"#!/bin/sh\n{touch}\ncat\n"
    settings = (
        f'[filter "canary"]\n\tsmudge = {touch}\n\tclean = {touch}\n\tprocess = {touch}\n\trequired = true\n'
        f'[diff "canary"]\n\ttextconv = {touch}\n\tcommand = {touch}\n[merge "canary"]\n\tdriver = {touch}\n'
        f"[core]\n\tfsmonitor = {touch}\n\thooksPath = hooks\n\tsshCommand = {touch}\n\teditor = {touch}\n"
        f"\tgitProxy = {touch}\n\taskPass = {touch}\n\tpager = {touch}\n\tattributesFile = {decoy.top}/attributes\n"
        f"[uploadpack]\n\tpackObjectsHook = {touch};\n"
        f"[submodule]\n\trecurse = true\n[gc]\n\trecentObjectsHook = {touch}\n"
        f'[submodule "x"]\n\tupdate = !{touch}\n\tactive = true\n\turl = ext::{touch}\n'
    )
    modules = (
        f'[submodule "x"]\n\tpath = code/sub\n\turl = ext::{touch}\n\tupdate = !{touch}\n'
        f'[submodule "../../x"]\n\tpath = -u./x\n\turl = -u{touch}\n'
    )
    remote = site.remotes["modules/evil"]
    files = {
        ".gitattributes": (FILE, "* filter=canary diff=canary merge=canary\n"),
        "code/.gitattributes": (FILE, "* filter=canary ident text=auto eol=crlf working-tree-encoding=nonsense\n"),
        ".gitconfig": (FILE, settings),
        "config": (FILE, settings),
        "hooks/post-checkout": (SCRIPT, script),
        "hooks/reference-transaction": (SCRIPT, script),
        ".lfsconfig": (FILE, f"[lfs]\n\turl = ext::{touch}\n"),
        ".mailmap": (LINK, str(decoy.secret)),
        ".gitignore": (FILE, "*\n"),
        "HEAD": (FILE, "ref: refs/heads/master\n"),
        "objects/x": (FILE, ""),
        "refs/x": (FILE, ""),
        ".gitmodules": (FILE, modules),
        "code/sub": (SUBMODULE, "1" * 40),
        "code/files/a\nb": (FILE, "x"),
        "code/files/-rf": (FILE, "x"),
        "code/files/\x1b[2J\udcff": (FILE, "x"),
        "code/files/$(touch CANARY)".replace("CANARY", "x"): (FILE, "x"),
    }
    for place in (remote, site.definitions, site.library):
        push_tree(
            place, files if place is remote else {name: files[name] for name in files if not name.startswith("code")}
        )
    for place in (remote, site.definitions, site.library):
        with open(place.path / "config", "a", encoding="utf-8") as config:
            config.write(settings)
        for hook in ("post-checkout", "post-update", "pre-receive", "reference-transaction", "post-index-change"):
            (place.path / "hooks" / hook).write_text(script)
            (place.path / "hooks" / hook).chmod(0o755)
    # Git would run these if it read the user's configuration.
    with open(Path(os.environ["HOME"]) / ".gitconfig", "a", encoding="utf-8") as config:
        config.write(
            settings.partition("[diff")[0] + f"[core]\n\tfsmonitor = {touch}\n\thooksPath = {remote.path}/hooks\n"
        )
    assert decoy.update().lines("ERROR") == []
    assert decoy.update().lines("ERROR") == []
    assert site.exists("production/modules/evil/files/a\nb")
    assert os.listdir(site.path("modules/evil", "master/code/sub")) == []


# Trees that Git itself never makes


def _tree(remote: Remote, *entries: tuple[str, str, str]) -> str:
    """Put master at a commit whose tree has these entries (mode, name, object), unchecked."""
    content = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(what) for mode, name, what in entries)
    where = remote.path
    tree = git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", directory=where, stdin=content)
    body = f"tree {tree}\nauthor E <e@example.org> 0 +0000\ncommitter E <e@example.org> 0 +0000\n\nx\n".encode()
    commit = git("hash-object", "-t", "commit", "--literally", "-w", "--stdin", directory=where, stdin=body)
    git("update-ref", "refs/heads/master", commit, directory=where)
    return commit


def _blob(remote: Remote, content: str) -> str:
    return git("hash-object", "-w", "--stdin", directory=remote.path, stdin=content.encode())


_BAD_NAMES = (
    "..",
    ".",
    ".git",
    ".GIT",
    ".git ",
    "git~1",
    "../../../../neighbour/canary",
    "a/../../b",
    "/etc/x",
    ".git/hooks/x",
    "",
)


def test_a_tree_with_a_name_that_leads_elsewhere_is_not_laid_out(decoy: Decoy) -> None:
    site = decoy.site
    repos = {f"modules/tree{number}": name for number, name in enumerate(_BAD_NAMES)}
    for repo in repos:
        site.add(repo)
    site.publish()
    _update(decoy)
    for repo, name in repos.items():
        remote = site.remotes[repo]
        blob = _blob(remote, "evil\n")
        inner = _tree(remote, ("100755", "x", blob))
        below = git("rev-parse", f"{inner}^{{tree}}", directory=remote.path)
        code = git("rev-parse", f"{site.expanded(repo)['master']}:code", directory=remote.path)
        _tree(remote, ("40000", name, below), ("40000", "code", code))
    errors = _update(decoy, errors=len(repos))
    assert sorted("".join(re.findall(r"modules/tree\d+", error)[:1]) for error in errors) == sorted(repos)
    for repo in repos:
        assert site.read(f"production/{repo}/manifests/init.pp") == MODULE[_INIT]


def test_a_link_and_a_directory_of_one_name_write_nothing_elsewhere(decoy: Decoy) -> None:
    remote = decoy.site.remotes["modules/evil"]
    blob = _blob(remote, "evil\n")
    inner = git("rev-parse", f"{_tree(remote, ('100644', 'canary', blob))}^{{tree}}", directory=remote.path)
    link = _blob(remote, str(decoy.top))
    _tree(remote, ("120000", "x", link), ("40000", "x", inner))
    _update(decoy, errors=None)  # Git may refuse it or not; the decoy must be untouched


# A server that sends what it likes


@pytest.mark.parametrize(("is_new", "errors"), [(False, 1), (True, 2)], ids=["known commit", "new commit"])
def test_refs_that_no_git_would_have_are_never_paths(decoy: Decoy, is_new: bool, errors: int) -> None:
    site = decoy.site
    evil = site.remotes["modules/evil"]
    if is_new:
        evil.push({_INIT: "# said to be there, and never sent\n"})
    lines = [f"{evil.commit()} refs/heads/master\0side-band-64k ofs-delta\n"]
    refs = (
        "../../../../neighbour/canary",
        "..",
        "-x",
        "a.lock",
        "/etc/x",
        ".hidden",
        "a//b",
        "a b",
        "a~b",
        "x/../y",
        "é",
        "\x1b[2J",
    )
    lines += [f"{evil.commit()} refs/heads/{ref}\n" for ref in refs]
    lines += [
        f"{evil.commit()} {ref}\n" for ref in ("../canary", "HEAD/x", "refs/../../canary", "refs/heads", "refs/heads/")
    ]
    said = b"".join(b"%04x%s" % (len(line.encode()) + 4, line.encode()) for line in lines) + b"0000"
    (site.root / "said").write_bytes(said)
    ssh = site.root / "ssh"
    # The connection closes when the client asks for an object, or when it needs none and leaves.
    ssh.write_text(f"#!/bin/sh\ncat {site.root}/said\nread -r wanted\n")
    ssh.chmod(0o755)
    site.settings.update({"git.ssh_cmd_path": str(ssh), "git.timeout": "20", "git.clonetimeout": "20"})
    before = site.listing("clone/modules/evil")
    site.urls["modules/evil"] = "git@git.example.org:evil.git"
    site.urls["modules/new"] = "git@git.example.org:new.git"
    site.publish()
    _update(decoy, errors=errors)
    assert site.listing("clone/modules/evil") == before
    assert sorted(os.listdir(site.root / "bare" / "modules")) == ["dummy", "evil"]


# Large sizes


def test_ten_thousand_files_in_a_repository_are_laid_out_and_taken_away(decoy: Decoy) -> None:
    site = decoy.site
    site.settings["main.retention"] = "0"
    remote = site.remotes["modules/evil"]
    before = site.expanded("modules/evil")
    many = push_tree(remote, {f"code/files/{n % 100}/{n}": (FILE, "") for n in range(10_000)})
    _update(decoy)
    assert site.expanded("modules/evil") == {"master": many}
    assert sum(len(names) for _, _, names in os.walk(site.path("modules/evil", f".{many}/code/files"))) == 10_000
    git("update-ref", "refs/heads/master", before["master"], directory=remote.path)
    _update(decoy)
    _update(decoy)
    assert site.checkouts("modules/evil") == set(before.values())


def test_the_deepest_tree_is_laid_out_like_any_other_and_taken_away(decoy: Decoy) -> None:
    """With "code" it has as many levels as a commit may have."""
    depth = MOST_LEVELS - 1
    site = decoy.site
    site.settings["main.retention"] = "0"
    remote = site.remotes["modules/evil"]
    before = site.expanded("modules/evil")
    deep = push_tree(remote, {"code/" + "d/" * depth + "file": (FILE, "x")})
    _update(decoy)
    deeper = push_tree(remote, {"code/" + "e/" * depth + "file": (FILE, "y"), "README": (FILE, "z")})
    _update(decoy)
    _update(decoy)
    assert site.checkouts("modules/evil") == {deeper}
    assert deep != deeper
    assert os.path.samefile(site.path("modules/evil", "master"), site.path("modules/evil", f".{deeper}"))
    git("update-ref", "refs/heads/master", before["master"], directory=remote.path)
    _update(decoy)
    _update(decoy)
    assert site.checkouts("modules/evil") == set(before.values())


def test_a_branch_with_the_longest_name_spoils_nothing(decoy: Decoy) -> None:
    site = decoy.site
    remote = site.remotes["modules/evil"]
    for name in ("a/" * 1000 + "b", "c/" * 1800 + "d"):
        with open(remote.path / "packed-refs", "a", encoding="utf-8") as refs:
            refs.write(f"{remote.commit()} refs/heads/{name}\n")
        _update(decoy)
        commit = remote.push({"README": f"{len(name)}\n"})
        _update(decoy)
        assert site.expanded("modules/evil") == {"master": commit}


# VmHWM, because the value of getrusage(2) includes the memory of the parent.
_PROGRAM = (
    "import re, sys; from jens.commands import update; code = update.main(sys.argv[1:]); "
    "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024); sys.exit(code)"
)


def test_large_files_beside_definitions_and_bombs_in_them_fill_no_memory(decoy: Decoy) -> None:
    site = decoy.site
    laughs = "x0: &x0 [x]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 60))
    files = {f"large{number}": "0" * 20_000_000 for number in range(2)}
    files.update({f"huge{number}.yaml": "#" * 20_000_000 for number in range(3)})
    files.update({f"bomb{number}.yaml": f"{laughs}notifications: x\ndefault: *x59\n" for number in range(10)})
    push_tree(site.definitions, {name: (FILE, content) for name, content in files.items()})
    push_tree(site.library, {f"large{number}": (FILE, "0" * 20_000_000) for number in range(2)})
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "-c", str(site.config)],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 150
    log = (site.root / "log" / "jens-update.log").read_text()
    assert all(log.count(f"Environment '{name[:-5]}' is ill-formed") == 1 for name in files if name.endswith(".yaml"))
