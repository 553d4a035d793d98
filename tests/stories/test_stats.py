"""jens-stats reports what an instance holds, changes nothing, and needs only read access."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jens.commands import stats as command
from jens.config import load_config
from jens.layout import Layout
from jens.links import Target
from jens.locking import run_lock
from jens.model import Directories
from jens.system import files
from jens.tools import stats
from tests import TREE
from tests.conftest import MODULE, Remote, Site, definition, git, interrupt, take_over

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
EMPTY = """\
Last run: never, or nothing tells of it
There are 0 modules:
There are 0 hostgroups:
There are 0 cached environments
There are 1 declared environments
\t - production.yaml
There are 0 synchronized environments
Fetching repositories inventory...
Inventory on disk not found or corrupt, generating...
Generating inventory of bares and clones...
{'common': {}, 'hostgroups': {}, 'modules': {}}
There are '0' messages in the hints queue
"""


def ask(site: Site, *arguments: str) -> str:
    """Run jens-stats, which must succeed, and return its stdout."""
    code, stdout, stderr = run(site, *arguments)
    assert (code, stderr) == (0, "")
    return stdout


def run(site: Site, *arguments: str) -> tuple[int, str, str]:
    config = str(site.config)
    site.capture.readouterr()
    code = command.main(["-c", config, *arguments])
    captured = site.capture.readouterr()
    return code, captured.out, captured.err


def facts(site: Site, *arguments: str) -> dict[str, Any]:
    text = ask(site, "--json", *arguments)
    document: dict[str, Any] = json.loads(text)
    assert text == json.dumps(document, indent=1, sort_keys=True) + "\n"
    return document


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    return _process([str(TREE / "bin" / "jens-stats"), "-c", str(config), *arguments])


#: Only root may be able to read Python's own files, so a first run loads them before the change of user.
_AS_NOBODY = """
import contextlib, io, os, pwd, sys
from jens.commands import stats
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    stats.main(sys.argv[1:])
if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
sys.exit(stats.main(sys.argv[1:]))
"""


def start_as_nobody(config: Path, *arguments: str) -> subprocess.Popen[str]:
    return _process(["-c", _AS_NOBODY, "-c", str(config), *arguments])


def _process(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, stdout=pipe, stderr=pipe)


@pytest.fixture(scope="module")
def made() -> dict[str, Site]:
    """The site of this module, after the first test has made it."""
    return {}


@pytest.fixture
def site(made: dict[str, Site], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> Site:
    """A small site after its first run, with environment production; each test gets a fresh copy."""
    if not made:
        made["site"] = Site(tmp_path_factory.mktemp("stats") / "site", capsys)
        fill(made["site"])
        made["site"].define("production")
        assert made["site"].update().code == 0
        for hooks in made["site"].root.rglob("hooks"):
            shutil.rmtree(hooks)  # Git's samples, which take time to copy
        made["site"].root.rename(made["site"].root.with_name("as-made"))
    site = made["site"]
    site.capture = capsys
    site.settings.clear()
    shutil.rmtree(site.root, ignore_errors=True)
    subprocess.run(["cp", "-a", str(site.root.with_name("as-made")), str(site.root)], check=True)
    return site


def fill(site: Site) -> None:
    """Add the repositories of a small site."""
    for repo in ("common/hieradata", "common/site", DUMMY, MYAPP):
        site.add(repo)
    site.publish()


# The text


def test_everything_is_printed_as_the_contract_has_it(bare_site: Site) -> None:
    site = bare_site
    for repo in ("common/hieradata", "common/site"):
        site.add(repo)
    site.add(DUMMY, {"code/manifests/init.pp": "x" * 17920}, branches=("test",))
    site.add(MYAPP, {"code/manifests/init.pp": "x" * 18000, "data/hostgroup/myapp.yaml": "x" * 637})
    site.publish()
    site.define("production")
    site.define("test", definition(overrides={DUMMY: "test"}))
    assert site.update().code == 0
    expected = """\
There are 1 modules:
\t- dummy (master,test) [17.5KiB]
There are 1 hostgroups:
\t- myapp (master) [18.2KiB]
There are 2 cached environments
\t - production
\t - test
There are 2 declared environments
\t - production.yaml
\t - test.yaml
There are 2 synchronized environments
\t - production
\t - test
Fetching repositories inventory...
{'common': {'hieradata': ['master'], 'site': ['master']},
 'hostgroups': {'myapp': ['master']},
 'modules': {'dummy': ['master', 'test']}}
There are '0' messages in the hints queue
"""
    # A missing `data` is the team's decision: such dangling links are not listed.
    assert after_the_last_run(ask(site, "-a")) == expected
    assert after_the_last_run(ask(site)) == expected


def after_the_last_run(text: str) -> str:
    """What is printed after the lines about a last run that went well."""
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    match = re.match(rf"Last run: {time}, \d+\.\d s, exit status 0\nThere are 0 open faults\n", text)
    assert match, text
    return text[match.end() :]


_FIRST_LINES = {
    "repositories": "There are 1 modules:",
    "environments": "There are 1 cached environments",
    "inventory": "Fetching repositories inventory...",
    "queue": "There are '0' messages in the hints queue",
}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("-r", ["repositories"]),
        ("--repositories", ["repositories"]),
        ("-e", ["environments"]),
        ("--environment", ["environments"]),
        ("--environments", ["environments"]),
        ("-i", ["inventory"]),
        ("--inventory", ["inventory"]),
        ("-q", ["queue"]),
        ("--queues", ["queue"]),
        ("-q -r", ["repositories", "queue"]),
        ("-qier", ["repositories", "environments", "inventory", "queue"]),
        ("-q -a", ["repositories", "environments", "inventory", "queue"]),
        ("--all", ["repositories", "environments", "inventory", "queue"]),
        ("", ["repositories", "environments", "inventory", "queue"]),
    ],
)
def test_options_pick_parts_whose_order_is_fixed(arguments: str, parts: list[str], site: Site) -> None:
    lines = ask(site, *arguments.split()).splitlines()
    places = {part: lines.index(line) for part, line in _FIRST_LINES.items() if line in lines}
    assert sorted(places, key=lambda part: places[part]) == parts
    keys = {"inventory_generated"} if "inventory" in parts else set()
    assert set(facts(site, *arguments.split())) == {"version", "last_run", *parts} | keys


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "unknown"),
        (0, "0.0B"),
        (1, "1.0B"),
        (1023, "1023.0B"),
        (1024, "1.0KiB"),
        (17920, "17.5KiB"),
        (1024**2 - 1, "1.0MiB"),
        (1024**2, "1.0MiB"),
        (1024**3 - 1024**2, "1023.0MiB"),
        (1024**3, "1.0GiB"),
        (1536 * 1024**3, "1536.0GiB"),
    ],
)
def test_sizes_have_one_decimal_and_the_largest_unit_that_fits(size: int | None, text: str) -> None:
    assert command.readable(size) == text


def test_the_size_is_that_of_files_without_links_and_without_gits_own(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(b"x" * 5000)
    checkout = tmp_path / "checkout"
    (checkout / "code" / "manifests").mkdir(parents=True)
    (checkout / "code" / "manifests" / "init.pp").write_bytes(b"x" * 100)
    (checkout / ".gitignore").write_bytes(b"x" * 20)
    (checkout / "code" / "file").symlink_to(outside / "large")
    (checkout / "code" / "tree").symlink_to(outside)
    os.mkfifo(checkout / "code" / "pipe")
    (checkout / ".git").write_bytes(b"x" * 3)
    assert stats.size_of(checkout) == 120
    (checkout / ".git").unlink()
    (checkout / ".git").mkdir()  # as in a checkout of Jens 1.x
    (checkout / ".git" / "index").write_bytes(b"x" * 3000)
    assert stats.size_of(checkout) == 120
    assert stats.size_of(tmp_path / "missing") is None


def test_refs_are_written_as_definitions_have_them(site: Site) -> None:
    site.settings["main.hashprefix"] = "id/"
    old = site.remotes[DUMMY].commit()
    site.remotes[DUMMY].push({"code/manifests/init.pp": "# new\n"}, branch="feature/x")
    site.define("short", definition(overrides={DUMMY: f"ID/{old[:9].upper()}"}))
    site.define("snap", definition(None, {DUMMY: f"id/{old}"}))
    site.define("zebra", definition(overrides={DUMMY: "feature/x"}))
    assert site.update("--strict").code == 0
    refs = ["feature/x", f"id/{old[:9]}", f"id/{old}", "master"]
    assert f"\t- dummy ({','.join(refs)}) [" in ask(site, "-r")
    literal = ast.literal_eval(ask(site, "-i").split("\n", 1)[1])
    assert literal["modules"] == {"dummy": refs}
    assert facts(site, "-i")["inventory"] == literal
    assert facts(site, "-r")["repositories"]["modules"]["dummy"]["refs"][f"id/{old[:9]}"]["commit"] == old


def test_the_size_is_that_of_the_first_mandatory_branch(site: Site) -> None:
    large = {"code/manifests/init.pp": "x" * 2048, "data/dummy.yaml": None}
    site.remotes[DUMMY].push(large, branch="large", onto="master")
    site.define("large", definition(overrides={DUMMY: "large"}))
    assert site.update().code == 0
    small = sum(map(len, MODULE.values()))
    assert f"\t- dummy (large,master) [{small}.0B]\n" in ask(site, "-r")
    site.settings["main.mandatorybranches"] = "large, master"
    out = ask(site, "-r")
    assert "\t- dummy (large,master) [2.0KiB]\n" in out
    assert "\t- myapp (master) [unknown]\n" in out
    assert facts(site, "-r")["repositories"]["hostgroups"]["myapp"]["size"] is None


def test_a_checkout_that_somebody_removed_has_no_size(site: Site) -> None:
    shutil.rmtree(site.path(DUMMY))
    assert "\t- dummy (master) [unknown]\n" in ask(site, "-r")


# The inventory, lost


@pytest.mark.parametrize("directories", [True, False])
def test_where_all_was_removed_there_are_zeros(site: Site, directories: bool) -> None:
    for top in ("bare", "clone", "environments", "cache"):
        shutil.rmtree(site.root / top)
        (site.root / top).mkdir()
    if directories:
        for top in ("bare", "clone"):
            for partition in ("modules", "hostgroups", "common"):
                (site.root / top / partition).mkdir()
        (site.root / "cache" / "environments").mkdir()
    assert ask(site, "-a") == EMPTY
    document = facts(site)
    assert document["last_run"] is None
    assert document["inventory_generated"] is True


def test_an_instance_that_never_ran_has_zeros(bare_site: Site) -> None:
    bare_site.define("production")
    git("pull", "-q", directory=bare_site.root / "metadata" / "environments")
    assert ask(bare_site) == EMPTY


@pytest.mark.parametrize("damage", [None, b"", b"{", b'{"version": 1, "content": {"modules": 3}}'])
def test_a_lost_or_corrupt_inventory_is_told_by_the_disk(damage: bytes | None, site: Site) -> None:
    before = ask(site, "-i")
    path = site.root / "cache" / "inventory.json"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    lines = ask(site, "-i").splitlines()
    assert lines[1:3] == [
        "Inventory on disk not found or corrupt, generating...",
        "Generating inventory of bares and clones...",
    ]
    assert [lines[0], *lines[3:]] == before.splitlines()
    assert ask(site, "-r").startswith("There are 1 modules:\n\t- dummy (master) [")
    assert path.exists() == (damage is not None)


# Environments


def names(site: Site, kind: str) -> list[str]:
    found: list[str] = facts(site, "-e")["environments"][kind]
    lines = ask(site, "-e").splitlines()
    begin = lines.index(f"There are {len(found)} {kind} environments") + 1
    suffix = ".yaml" if kind == "declared" else ""
    assert lines[begin : begin + len(found)] == [f"\t - {name}{suffix}" for name in found]
    return found


def test_remembered_declared_and_existing_environments_may_differ(site: Site) -> None:
    site.settings["main.protectedenvironments"] = "kept"
    for name in ("kept", "torn", "gone"):
        site.define(name)
    assert site.update().code == 0
    site.retire("kept")
    site.retire("gone")
    site.define("torn", "default: [\n")
    site.define("bad-name")
    assert site.update().code == 0
    assert names(site, "cached") == ["kept", "production", "torn"]
    assert names(site, "declared") == ["bad-name", "production", "torn"]
    assert names(site, "synchronized") == ["kept", "production", "torn"]
    ill_formed = facts(site, "-e")["environments"]["ill_formed"]
    assert sorted(ill_formed) == ["bad-name", "torn"]
    assert ill_formed["torn"].startswith("torn.yaml: line ")


def test_what_is_no_environment_does_not_count(site: Site) -> None:
    site.definitions.push({".pre-commit-config.yaml": "repos: []\n", ".yaml": "]"})
    assert site.update().code == 0
    top = site.root / "environments"
    (top / ".new-0123456789ab").mkdir()
    (top / "notes").write_text("not a directory")
    (top / "alias").symlink_to("production")
    (top / "bad-name").mkdir()
    (site.root / "cache" / "environments" / ".new-0123456789ab").write_text("half of a")
    clone = site.root / "metadata" / "environments"
    (clone / "untracked.yaml").write_text(definition())
    (clone / "production.yaml").write_text("default: [")
    for kind in ("cached", "declared", "synchronized"):
        assert names(site, kind) == ["production"]


def test_what_a_name_contains_steers_no_terminal(site: Site) -> None:
    site.definitions.push({'"a\\033[2J\\nb.yaml"': definition()})
    assert site.update().code == 0
    assert "\t - a\\x1b[2J\\nb.yaml\n" in ask(site, "-e")
    assert "a\x1b[2J\nb" in facts(site, "-e")["environments"]["declared"]


# Dangling links


def dangling(site: Site) -> list[dict[str, str]]:
    found: list[dict[str, str]] = facts(site, "-e")["environments"]["dangling"]
    return found


def in_vain(site: Site) -> list[str]:
    """The lines about dangling links in the text."""
    lines = ask(site, "-e").splitlines()
    begin = next((i for i, line in enumerate(lines) if line.endswith(" dangling links")), len(lines))
    if begin < len(lines):
        assert lines[begin] == f"There are {len(lines) - begin - 1} dangling links"
    return lines[begin + 1 :]


def test_links_to_a_branch_that_is_gone_are_listed_with_address(site: Site) -> None:
    site.remotes[DUMMY].branch("feature/x")
    site.define("test", definition(overrides={DUMMY: "feature/x"}, mail="bob"))
    assert site.update().code == 0
    assert (in_vain(site), dangling(site)) == ([], [])
    site.remotes[DUMMY].delete("feature/x")
    assert site.update().code == 0
    assert in_vain(site) == [
        "\t - test/hieradata/module_names/dummy -> modules/dummy feature/x (bob@example.org)",
        "\t - test/modules/dummy -> modules/dummy feature/x (bob@example.org)",
    ]
    assert dangling(site)[1] == {
        "environment": "test",
        "link": "modules/dummy",
        "target": "../../../clone/modules/dummy/feature~x/code",
        "repository": "modules/dummy",
        "ref": "feature/x",
        "address": "bob@example.org",
    }
    site.remotes[DUMMY].branch("feature/x")
    assert site.update().code == 0
    assert (in_vain(site), dangling(site)) == ([], [])


def test_links_to_a_commit_that_never_was_are_listed_as_declared(site: Site) -> None:
    site.define("test", definition(overrides={DUMMY: "commit/4F0C4F0C"}))
    site.update()
    assert [entry["ref"] for entry in dangling(site)] == ["commit/4f0c4f0c"] * 2
    assert in_vain(site)[1] == "\t - test/modules/dummy -> modules/dummy commit/4f0c4f0c (ann@example.org)"


def test_a_missing_common_item_is_listed_and_a_missing_directory_of_a_module_is_not(site: Site) -> None:
    site.remotes["common/hieradata"].push({"data/hardware/kvm.yaml": None})
    site.remotes[DUMMY].push({"data/dummy.yaml": None})
    site.remotes[MYAPP].push({"data/fqdns/web01.example.org.yaml": None})
    assert site.update().code == 0
    assert site.dangling("production") == [
        "hieradata/fqdns/myapp",
        "hieradata/hardware",
        "hieradata/module_names/dummy",
    ]
    assert in_vain(site) == ["\t - production/hieradata/hardware -> common/hieradata master (ann@example.org)"]


def test_links_that_were_changed_by_hand_are_listed(site: Site) -> None:
    top = site.root / "environments" / "production" / "modules"
    (top / "dummy").unlink()
    (top / "dummy").symlink_to("../../../clone/modules/dummy/master/kode")
    (top / "astray").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "fine").symlink_to("/")
    found = dangling(site)
    assert [(entry["link"], entry["repository"], entry["ref"], entry["target"]) for entry in found] == [
        ("modules/astray", None, None, "nowhere"),
        ("modules/dummy", "modules/dummy", "master", "../../../clone/modules/dummy/master/kode"),
        ("modules/loop", None, None, "loop"),
    ]
    assert "\t - production/modules/astray -> nowhere (ann@example.org)" in in_vain(site)


@pytest.mark.parametrize(
    ("declared", "remembered", "address"),
    [
        pytest.param(definition(mail="bob"), True, "ann@example.org", id="as it was built"),
        pytest.param("default: [\n", True, "ann@example.org", id="ill-formed now"),
        pytest.param(None, True, "ann@example.org", id="not declared any more"),
        pytest.param(definition(mail="bob"), False, "bob@example.org", id="nothing remembered"),
        pytest.param(None, False, "", id="neither"),
    ],
)
def test_the_address_is_that_of_the_definition_an_environment_was_built_from(
    declared: str | None, remembered: bool, address: str, site: Site
) -> None:
    (site.root / "environments" / "production" / "modules" / "astray").symlink_to("nowhere")
    if declared is None:
        site.retire("production")
    else:
        site.define("production", declared)
    take_over(site.root / "metadata" / "environments")
    if not remembered:
        (site.root / "cache" / "environments" / "production").unlink()
    assert [entry["address"] for entry in dangling(site)] == [address]
    assert in_vain(site)[0].endswith(f"({address or 'nobody to notify'})")


def test_several_addresses_are_one_text_and_no_address_is_shown_too(site: Site) -> None:
    for name, people in (("many", "[ann@example.org, bob@example.org]"), ("none", "")):
        site.define(name, f"default: master\nnotifications: {people}\noverrides:\n  modules: {{dummy: gone}}\n")
    site.update()
    assert [entry["address"] for entry in dangling(site)] == ["ann@example.org, bob@example.org"] * 2 + [""] * 2
    assert in_vain(site)[3].endswith(" (nobody to notify)")


# While an update is at work


def test_an_environment_that_goes_while_it_is_looked_at_does_not_dangle(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.remotes[DUMMY].branch("test")
    site.define("test", definition(overrides={DUMMY: "test"}))
    assert site.update().code == 0
    is_vain, gone = stats._is_dangling, list[Target]()

    def with_an_update(layout: Layout, target: Target, directories: Directories) -> bool:
        if target.entry == "test" and not gone:
            gone.append(target)
            shutil.rmtree(site.root / "environments" / "test")
            site.path(DUMMY, "test").unlink()
        return is_vain(layout, target, directories)

    monkeypatch.setattr(stats, "_is_dangling", with_an_update)
    assert dangling(site) == []
    assert gone


def test_a_link_that_goes_between_listing_and_reading_costs_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = site.root / "environments" / "production" / "modules"
    (top / "astray").symlink_to("nowhere")
    (top / "short_lived").symlink_to("nowhere")
    readlink, gone = os.readlink, list[str]()

    def with_an_update(path: str) -> str:
        if str(path).endswith("short_lived") and not gone:
            gone.append(path)
            os.unlink(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", with_an_update)
    assert [entry["link"] for entry in dangling(site)] == ["modules/astray"]
    assert gone


def test_the_lock_is_not_waited_for(site: Site) -> None:
    with run_lock(load_config(site.config)):
        assert site.update().code == 50
        assert ask(site).startswith("Last run: ")


def test_an_update_at_work_never_makes_it_stumble(site: Site) -> None:
    """Branches and environments come and go, and each output is complete."""
    site.settings["main.retention"] = "0"
    site.settings["main.purgelimit"] = "100"
    config = site.config
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    looks = 0
    for number in range(4):
        if number % 2:
            site.retire("test")
            site.remotes[DUMMY].delete("test")
        else:
            site.remotes[DUMMY].push({"code/manifests/init.pp": f"# {number}\n"}, "test", onto="master")
            site.define("test", definition(overrides={DUMMY: "test"}))
        line = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(config)]
        with subprocess.Popen(line, env=environment) as update:
            while update.poll() is None:
                code, stdout, _stderr = run(site)
                assert (code, "dangling" in stdout) == (0, False)
                looks += 1
    assert looks > 4


# JSON


def commit_at(remote: Remote, when: int) -> str:
    stream = f"commit refs/heads/master\ncommitter Ann <ann@example.org> {when} +0100\ndata 1\nx\n"
    stream += f"from {remote.commit()}\nM 100644 inline code/manifests/init.pp\ndata 1\nx\n"
    git("fast-import", "--quiet", directory=remote.path, stdin=stream.encode())
    return remote.commit()


def test_json_tells_commits_their_age_and_the_size_in_bytes(site: Site) -> None:
    remote = site.remotes[DUMMY]
    first = remote.commit()
    site.define("snap", definition(None, {DUMMY: f"commit/{first}"}))
    new = commit_at(remote, int(time.time()) - 5000)
    assert site.update().code == 0
    found = facts(site)["repositories"]
    assert {partition: sorted(repos) for partition, repos in found.items()} == {
        "common": ["hieradata", "site"],
        "hostgroups": ["myapp"],
        "modules": ["dummy"],
    }
    dummy = found["modules"]["dummy"]
    assert {ref: entry["commit"] for ref, entry in dummy["refs"].items()} == {f"commit/{first}": first, "master": new}
    assert 0 <= dummy["refs"][f"commit/{first}"]["age"] < 36000  # the remotes are made once for all tests
    assert 5000 <= dummy["refs"]["master"]["age"] < 5600
    assert dummy["size"] == 1 + len(MODULE["data/dummy.yaml"])


def test_a_commit_of_the_future_has_age_0(site: Site) -> None:
    commit_at(site.remotes[DUMMY], int(time.time()) + 5000)
    assert site.update().code == 0
    assert facts(site, "-r")["repositories"]["modules"]["dummy"]["refs"]["master"]["age"] == 0


@pytest.mark.parametrize("date", ["", " -1 +0000", " text +0000", f" {'9' * 23} +0000", " 253402300800 +0000", None])
def test_a_date_that_is_none_is_null_and_spoils_no_other(date: str | None, site: Site) -> None:
    remote = site.remotes[DUMMY]
    remote.branch("good")
    lines = [f"tree {git('rev-parse', 'master^{tree}', directory=remote.path)}", "author Ann <ann@example.org> 1 +0000"]
    lines += [] if date is None else [f"committer Ann <ann@example.org>{date}"]
    content = "\n".join([*lines, "", "message", ""]).encode()
    commit = git("hash-object", "--literally", "-t", "commit", "-w", "--stdin", directory=remote.path, stdin=content)
    git("update-ref", "refs/heads/master", commit, directory=remote.path)
    site.define("good", definition("good"))
    assert site.update().code == 0
    refs = facts(site, "-r")["repositories"]["modules"]["dummy"]["refs"]
    assert refs["master"] == {"commit": commit, "age": None}
    assert 0 <= refs["good"]["age"] < 36000  # the remotes are made once for all tests
    assert "dummy" in ask(site, "-r")


@pytest.mark.parametrize("damage", ["mirror", "objects"])
def test_ages_are_unknown_where_the_mirror_cannot_tell(damage: str, site: Site) -> None:
    bare = site.root / "bare" / DUMMY
    shutil.rmtree(bare if damage == "mirror" else bare / "objects")
    found = facts(site, "-r")["repositories"]
    assert found["modules"]["dummy"]["refs"]["master"] == {"commit": site.remotes[DUMMY].commit(), "age": None}
    assert found["hostgroups"]["myapp"]["refs"]["master"]["age"] is not None


def test_json_tells_how_the_last_run_went(site: Site) -> None:
    site.remotes[DUMMY].go_away()
    assert site.update("--strict").code == 60
    last_run = facts(site, "-q")["last_run"]
    assert sorted(last_run) == ["began", "failed", "faults", "seconds", "status"]
    assert (last_run["status"], len(last_run["failed"])) == (60, 1)
    assert "dummy" in last_run["failed"][0]
    assert last_run["began"].endswith("+00:00")
    assert json.loads((site.root / "cache" / "last-run.json").read_text())["content"] == last_run


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "",
        '{"version": 1, "content": {}}',
        '{"version": 1, "content": {"began": "today", "seconds": 1, "status": 0, "failed": []}}',
        '{"version": 1, "content": {"began": "2026-11-22T20:00:00+00:00", "seconds": 1, "status": Infinity}}',
    ],
)
def test_a_last_run_that_nothing_tells_of_is_null(damage: str | None, site: Site) -> None:
    path = site.root / "cache" / "last-run.json"
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    assert facts(site, "-q") == {"version": 1, "last_run": None, "queue": {"messages": 0}}


# The queue


def test_every_hint_in_the_queue_counts(site: Site) -> None:
    first = site.hint(DUMMY)
    site.hint(MYAPP)
    assert site.queue.lock(first)
    (site.root / "spool" / "temporary" / "0123456789abcd").mkdir(parents=True)
    assert ask(site, "-q") == "There are '2' messages in the hints queue\n"
    assert facts(site, "-q")["queue"] == {"messages": 2}


def test_without_a_queue_there_are_no_hints_unless_they_are_worked_with(site: Site) -> None:
    spool = site.root / "spool"
    shutil.rmtree(spool)
    assert ask(site, "-q") == "There are '0' messages in the hints queue\n"
    assert not spool.exists()
    site.settings["main.mode"] = "ONDEMAND"
    assert_complaint(site, 3, "queuedir", str(spool))
    site.settings["main.mode"] = "POLL"
    spool.write_text("something else")
    assert_complaint(site, 25, str(spool))


# Exit codes


#: What it may have said before it finds that something cannot be read: how the last run went, and what is wrong.
_FIRST = re.compile(r"(Last run: .*\n(There are \d+ (open faults|failures in the last run)\n(\t- .*\n)*)*)?")


def assert_complaint(site: Site, code: int, *words: str, arguments: tuple[str, ...] = ()) -> None:
    found, stdout, stderr = run(site, *arguments)
    assert found == code, stderr
    assert _FIRST.fullmatch(stdout)
    [line] = stderr.splitlines()
    assert line.startswith("jens-test: ")
    assert all(word in line for word in words), line


def test_exit_2_the_configuration_cannot_be_used(site: Site) -> None:
    site.settings["main.debuglevel"] = "LOUD"
    assert_complaint(site, 2, "debuglevel")


def test_exit_2_an_unknown_option(site: Site) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["-c", str(site.config), "--modules"])
    assert caught.value.code == 2


_TOPS = {"baredir": "bare", "clonedir": "clone", "cachedir": "cache", "environmentsdir": "environments"}
_METADATA = {"environmentsmetadatadir": "metadata/environments"}


@pytest.mark.parametrize("key", [*_TOPS, *_METADATA])
def test_exit_3_a_directory_is_missing(key: str, site: Site) -> None:
    path = site.root / {**_TOPS, **_METADATA}[key]
    shutil.rmtree(path)
    assert_complaint(site, 3, key, str(path), "does not exist")
    path.write_text("a file")
    assert_complaint(site, 3, key, str(path), "not a directory")
    assert ask(site, "-q") == "There are '0' messages in the hints queue\n"


def test_exit_3_the_environment_metadata_is_no_clone(site: Site) -> None:
    shutil.rmtree(site.root / "metadata" / "environments" / ".git")
    assert_complaint(site, 3, "environmentsmetadatadir", "no Git repository")


@pytest.mark.parametrize("inside", ["bare/modules", "clone/common"])
def test_exit_3_there_is_something_else_in_the_place_of_a_partition(inside: str, site: Site) -> None:
    (site.root / "cache" / "inventory.json").unlink()
    shutil.rmtree(site.root / inside)
    (site.root / inside).write_text("a file")
    assert_complaint(site, 3, str(site.root / inside))


@pytest.mark.parametrize("damage", ["objects", "refs"])
def test_exit_20_the_environment_metadata_cannot_be_read(damage: str, site: Site) -> None:
    shutil.rmtree(site.root / "metadata" / "environments" / ".git" / damage)
    assert_complaint(site, 20, str(site.root / "metadata" / "environments"))


def test_doubts_about_the_configuration_are_reported_on_stderr(site: Site) -> None:
    site.settings["main.clondir"] = "/srv/clone"
    code, stdout, stderr = run(site, "-q")
    assert (code, stdout) == (0, "There are '0' messages in the hints queue\n")
    assert stderr.startswith(f"jens-test: {site.config}: unknown key 'clondir' in [main] is ignored (line ")
    assert stderr.endswith("), expected 'clonedir'\n")


# Real processes


@pytest.fixture
def open_site(capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """A site in a directory that every user may enter."""
    root = Path(tempfile.mkdtemp(prefix="jens-test-"))
    root.chmod(0o755)
    site = Site(root / "site", capsys)
    fill(site)
    site.define("test", definition(overrides={DUMMY: "gone"}))
    site.update()
    yield site
    shutil.rmtree(root)


@pytest.mark.parametrize("option", ["-a", "--json"])
@pytest.mark.parametrize("inventory", [True, False])
def test_reading_is_all_it_needs_and_does(inventory: bool, option: str, open_site: Site) -> None:
    open_site.hint(DUMMY)
    shutil.rmtree(open_site.root / "log")
    if not inventory:
        (open_site.root / "cache" / "inventory.json").unlink()
    config = open_site.config
    before = open_site.listing(".")
    with start_as_nobody(config, option) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert "dangling" in stdout
    assert open_site.listing(".") == before
    if option == "--json":
        assert json.loads(stdout)["repositories"]["modules"]["dummy"]["refs"]["master"]["age"] is not None


def _closed(path: Path) -> None:
    path.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("cache", "cachedir"),
        ("cache/environments", "cannot be read: Permission denied"),
        ("environments", "environmentsdir"),
        ("clone", "clonedir"),
    ],
)
def test_exit_3_what_may_not_be_read_is_named(inside: str, words: str, open_site: Site) -> None:
    _closed(open_site.root / inside)
    with start_as_nobody(open_site.config) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.count("\n")) == (3, 1)
    assert _FIRST.fullmatch(stdout)
    assert words in stderr
    assert str(open_site.root / inside) in stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_may_not_be_read_neither_dangles_nor_has_a_size(open_site: Site) -> None:
    open_site.define("test")
    assert open_site.update().code == 0
    _closed(open_site.path(DUMMY))
    _closed(next(path for path in open_site.path(MYAPP).iterdir() if not path.is_symlink()) / "code")
    with start_as_nobody(open_site.config, "-re") as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert "\t- dummy (master) [unknown]\n" in stdout
    assert "\t- myapp (master) [unknown]\n" in stdout
    assert "dangling" not in stdout


def test_whoever_reads_only_the_first_line_is_not_complained_to(site: Site) -> None:
    for number in range(4000):  # more than a pipe holds
        (site.root / "environments" / f"a_rather_long_name_of_an_environment_{number:04}").mkdir()
    line = f"{sys.executable} {TREE}/bin/jens-stats -c {site.config}; echo $? >&2"
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    done = subprocess.run(
        ["sh", "-c", f"({line}) | head -1"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout[:10], done.stderr) == ("Last run: ", "0\n")


def test_ctrl_c_ends_it_with_130(site: Site, tmp_path: Path) -> None:
    code, stdout, stderr = interrupt("stats", ["-c", str(site.config)], "jens.tools.stats.known", tmp_path)
    assert (code, stderr) == (130, "jens-stats: Interrupted\n")
    assert _FIRST.fullmatch(stdout)


def test_it_knows_its_version_and_its_options(site: Site) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            command.main([option])
        assert caught.value.code == 0
    assert "--repositories" in site.capture.readouterr().out


# Speed


def test_many_links_to_few_places_are_looked_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        site.define(f"e{number}")
    assert site.update().code == 0
    looks: list[Path] = []
    is_missing = files.is_missing

    def counted(path: Path, *, follow: bool = True) -> bool:
        looks.append(path)
        return is_missing(path, follow=follow)

    monkeypatch.setattr(files, "is_missing", counted)
    assert dangling(site) == []
    # Each of five kinds of link and site needs a look at a checkout; each of four items needs one more for itself.
    assert len(looks) == 5 + 1 + 4 * 2
