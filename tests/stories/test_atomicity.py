"""A Puppet server that reads while Jens writes never meets a missing path or half a commit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from tests import TREE
from tests.conftest import Remote, Site, git
from tests.reader import look, reading

BRANCHES = 20
ENVIRONMENTS = 6


def _version(number: int) -> dict[str, str]:
    files = {f"code/manifests/file{i}.pp": f"# {number}\n" for i in range(20)}
    return {"code/one": f"{number}\n", **files, "data/data.yaml": f"--- {number}\n", "code/two": f"{number}\n"}


def _large_site(site: Site) -> dict[str, Remote]:
    """Add twenty modules; every environment uses a branch of each."""
    site.remotes["hostgroups/myapp"].push({"code/one": "0\n", "code/two": "0\n"})
    site.remotes["modules/dummy"].push({"code/one": "0\n", "code/two": "0\n"})
    remotes = {f"dev{i}": site.add(f"modules/m{i}", _version(0), (f"dev{i}",)) for i in range(BRANCHES)}
    site.publish()
    overrides = "".join(f"    m{i}: dev{i}\n" for i in range(BRANCHES))
    for i in range(ENVIRONMENTS):
        site.define(f"e{i}", f"default: master\nnotifications: ann@example.org\noverrides:\n  modules:\n{overrides}")
    return remotes


def test_a_reader_meets_no_missing_path_and_no_mixture_while_twenty_branches_move(site: Site) -> None:
    remotes = _large_site(site)
    site.settings["main.retention"] = "0"
    site.update()
    assert look(site.root / "environments") == []
    site.settings["main.retention"] = "300"
    with reading(site.root / "environments", site.root) as met:
        for number in (1, 2, 3):
            for branch, remote in remotes.items():
                remote.push(_version(number), branch)
            site.define("e0", f"default: master\nnotifications: b{number}@example.org\n")
            site.define(f"new{number}")
            assert site.update("--strict").code == 0
    assert met[:-1] == []
    assert int(met[-1]) > 3
    assert site.read("e1/modules/m7/one") == "3\n"


def _as_jens_1_laid_it_out(site: Site, pinned: str) -> None:
    """Lay out clonedir and cachedir as Jens 1.x did: branches are clones that borrow the mirror's objects; a pickle."""
    refs = {repo: {"master": "master"} for repo in site.remotes}
    refs["modules/dummy"].update({"test": "test", pinned: f".{pinned}", "old": "old"})
    for repo, remote in site.remotes.items():
        bare, clone = site.root / "bare" / repo, site.root / "clone" / repo
        bare.parent.mkdir(parents=True, exist_ok=True)
        clone.mkdir(parents=True)
        git("clone", "-q", "--mirror", remote.url, str(bare), directory=site.root)
        for ref, entry in refs[repo].items():
            git("clone", "-q", "--shared", "--no-checkout", str(bare), str(clone / entry), directory=site.root)
            git("reset", "-q", "--hard", ref if len(ref) == 40 else f"origin/{ref}", directory=clone / entry)
    for name, ref in (("production", "master"), ("test", "test"), ("snap", f".{pinned}")):
        _environment_of_jens_1(site, name, ref)
    (site.root / "cache" / "repositories").write_bytes(pickle.dumps({"modules": {"dummy": ["master", "test"]}}))


def _environment_of_jens_1(site: Site, name: str, ref: str) -> None:
    links = {
        "modules/dummy": f"../../../clone/modules/dummy/{ref}/code",
        "hieradata/module_names/dummy": f"../../../../clone/modules/dummy/{ref}/data",
        "site": "../../clone/common/site/master/code",
        "hieradata/common.yaml": "../../../clone/common/hieradata/master/data/common.yaml",
    }
    if name != "snap":
        links["hostgroups/hg_myapp"] = "../../../clone/hostgroups/myapp/master/code"
    for directory in ("modules", "hostgroups", "hieradata/module_names", "hieradata/hostgroups", "hieradata/fqdns"):
        (site.root / "environments" / name / directory).mkdir(parents=True)
    for link, target in links.items():
        os.symlink(target, site.root / "environments" / name / link)
    remembered = site.root / "cache" / "environments"
    remembered.mkdir(exist_ok=True)
    (remembered / name).write_text(site.definitions.commit())


def _site_of_jens_1(site: Site) -> str:
    for repo in ("modules/dummy", "hostgroups/myapp"):
        site.remotes[repo].push({"code/one": "0\n", "code/two": "0\n"})
    remote = site.remotes["modules/dummy"]
    pinned = remote.commit()
    remote.push({"code/one": "1\n", "code/two": "1\n"})
    remote.push({"code/one": "test\n", "code/two": "test\n"}, "test", onto="master")
    remote.branch("old")
    site.define("test", "default: master\nnotifications: ann@example.org\noverrides:\n  modules: {dummy: test}\n")
    pin = f"notifications: ann@example.org\noverrides:\n  modules: {{dummy: commit/{pinned}}}\n"
    site.define("snap", pin)
    _as_jens_1_laid_it_out(site, pinned)
    return pinned


def test_an_instance_of_jens_1_is_taken_over_without_a_dangling_moment(site: Site) -> None:
    pinned = _site_of_jens_1(site)
    assert look(site.root / "environments") == []
    with reading(site.root / "environments", site.root) as met:
        outcome = site.update("--strict")
    assert outcome.code == 0, outcome.log
    assert met[:-1] == []
    assert set(site.expanded("modules/dummy")) == {"master", "test"}
    assert site.read("snap/modules/dummy/one") == "0\n"
    assert site.read("production/modules/dummy/one") == "1\n"
    assert site.read("test/modules/dummy/one") == "test\n"
    assert site.links("snap")["modules/dummy"] == f"../../../clone/modules/dummy/.{pinned}/code"
    checkout = site.root / "clone" / "modules" / "dummy" / f".{pinned}"
    assert git("rev-parse", "HEAD", directory=checkout) == pinned
    assert git("status", "--porcelain", directory=checkout) == ""
    assert (checkout / ".git").is_file()
    assert site.update().code == 0
    assert not list((site.root / "clone").rglob(".trash-*"))


def test_a_takeover_that_was_killed_half_way_is_finished_by_the_next_run(site: Site) -> None:
    _site_of_jens_1(site)
    script = "from jens.system import files\nimport os\nfiles.put_link = lambda *a: os._exit(9)\n"
    script += f"from jens.commands.update import main\nmain(['-c', {str(site.config)!r}])\n"
    killed = subprocess.run([sys.executable, "-c", script], cwd=TREE, check=False, capture_output=True)
    assert killed.returncode == 9
    assert look(site.root / "environments") == []
    assert site.update("--strict").code == 0
    assert look(site.root / "environments") == []
    assert site.read("test/modules/dummy/one") == "test\n"


def test_a_pickle_of_jens_1_is_never_loaded(site: Site) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(site.root / "trapped"),))

    (site.root / "cache" / "repositories").write_bytes(pickle.dumps(Trap()))
    assert site.update().code == 0
    assert not (site.root / "trapped").exists()
