"""jens-snapshot pins what an environment shows; the snapshot then shows the same, and keeps showing it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from jens.commands import snapshot as command
from jens.config import load_config
from jens.layout import Layout
from jens.links import Target
from jens.locking import run_lock
from jens.metadata.definition import parse_definition, read_definition
from jens.model import HIERADATA, SITE, Branch, Commit, Definition, IllFormed, Prefixes, RepoId
from jens.repositories import disk
from jens.repositories.disk import Expanded
from jens.tools.snapshot import EnvironmentSnapshot, Shown, plan_pins
from tests import TREE
from tests.conftest import HOSTGROUP, MODULE, Outcome, Site, assert_complaint, definition, git, interrupt, take_over

DUMMY, OTHER = RepoId("modules", "dummy"), RepoId("modules", "other")
INIT = "code/manifests/init.pp"
A, B = "a" * 40, "b" * 40
NOW = datetime(2014, 3, 3, 14, 25, 37)


def take(site: Site, *arguments: str) -> Outcome:
    """Run jens-snapshot."""
    site.capture.readouterr()
    code = command.main(["-c", str(site.config), *arguments])
    captured = site.capture.readouterr()
    return Outcome(code, captured.out, captured.err, "")


def start(site: Site, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, str(TREE / "bin" / "jens-snapshot"), "-c", str(site.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def pinned(site: Site, text: str) -> Definition:
    """The definition that Jens reads from a snapshot's text."""
    return parse_definition("snap", text.encode(), load_config(site.config).main.prefixes)


def shown(site: Site, environment: str) -> dict[str, bytes]:
    """Every file that Puppet reaches in an environment, with its content, but for Git's own."""
    top = site.root / "environments" / environment
    return {
        str(path): (Path(directory) / name).read_bytes()
        for directory, _, names in os.walk(top, followlinks=True)
        for name in names
        if (path := (Path(directory) / name).relative_to(top)).name != ".git" and (top / path).exists()
    }


@pytest.fixture
def large(site: Site) -> Site:
    """A site whose production has several repositories, a branch with slashes, a commit, and a module without data."""
    site.add("modules/sssd", MODULE)
    site.add("modules/slashed")
    site.add("modules/bare", {INIT: "class bare {}\n"})
    site.add("hostgroups/cloud", HOSTGROUP)
    site.remotes["modules/slashed"].push({INIT: "# slashed\n"}, "feature/x/y", onto="master")
    old = site.remotes["modules/sssd"].commit()
    site.remotes["modules/sssd"].push({INIT: "# newer\n"})
    site.remotes["hostgroups/cloud"].push({INIT: "# qa\n"}, "qa", onto="master")
    overrides = {
        "modules/slashed": "feature/x/y",
        "modules/sssd": f"commit/{old[:12].upper()}",
        "hostgroups/cloud": "qa",
    }
    site.define("production", definition(overrides=overrides))
    site.publish()
    assert site.update("--strict").code == 0
    return site


# The purpose


def test_the_snapshot_shows_the_same_files_and_stays_when_the_environment_moves_on(large: Site) -> None:
    outcome = take(large, "production", "--name", "snap")
    assert (outcome.code, outcome.stderr) == (0, "")
    large.define("snap", outcome.stdout)
    assert large.update("--strict").code == 0
    before = shown(large, "production")
    assert "modules/slashed/manifests/init.pp" in before
    assert shown(large, "snap") == before
    assert sorted(large.links("snap")) == sorted(large.links("production"))

    for repo, remote in large.remotes.items():
        branches = ["master", *{"modules/slashed": ["feature/x/y"], "hostgroups/cloud": ["qa"]}.get(repo, [])]
        for branch in branches:
            remote.push({INIT: "# rewritten\n", "data/common.yaml": "x: 1\n"}, branch, rewrite=True)
        git("reflog", "expire", "--expire=now", "--all", directory=remote.path)
        git("gc", "--quiet", "--prune=now", directory=remote.path)
    assert large.update().lines("ERROR") == []
    for repo in large.remotes:
        git("gc", "--quiet", "--prune=now", directory=large.root / "bare" / repo)
    large.settings["main.retention"] = "0"
    assert large.update().lines("ERROR") == []
    assert shown(large, "production") != before
    assert large.read("production/modules/slashed/manifests/init.pp") == "# rewritten\n"
    assert shown(large, "snap") == before


def test_a_snapshot_does_not_grow_with_the_library(large: Site) -> None:
    large.define("snap", take(large, "production").stdout)
    large.add("modules/new")
    large.publish()
    large.update("--strict")
    assert large.exists("production/modules/new")
    assert not os.path.lexists(large.root / "environments" / "snap" / "modules" / "new")


def test_it_says_when_it_was_made_and_of_what(large: Site) -> None:
    lines = take(large, "production").stdout.splitlines()
    assert re.fullmatch(r"# Snapshot created on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d based on production", lines[0])
    created = datetime.strptime(lines[0][22:41], "%Y-%m-%d %H:%M:%S")
    assert abs((datetime.now() - created).total_seconds()) < 60
    assert lines[1] == "notifications: ann@example.org"
    assert take(large, "production", "--name", "snap").stdout.splitlines()[1] == "# Save as snap.yaml"


def test_every_repository_is_pinned_sorted_and_to_the_full_commit(large: Site) -> None:
    text = take(large, "production").stdout
    commits = {repo: remote.commit() for repo, remote in large.remotes.items()}
    commits["modules/slashed"] = large.remotes["modules/slashed"].commit("feature/x/y")
    commits["hostgroups/cloud"] = large.remotes["hostgroups/cloud"].commit("qa")
    commits["modules/sssd"] = git("rev-parse", "master~1", directory=large.remotes["modules/sssd"].path)
    assert {str(repo): ref for repo, ref in pinned(large, text).overrides.items()} == {
        repo: Commit(commit) for repo, commit in commits.items()
    }
    assert pinned(large, text).default is None
    repos = re.findall(r"^    (\w+): commit/[0-9a-f]{40}$", text, re.MULTILINE)
    assert repos == ["hieradata", "site", "cloud", "myapp", "bare", "dummy", "slashed", "sssd"]
    assert re.findall(r"^  (\w+):$", text, re.MULTILINE) == ["common", "hostgroups", "modules"]


def test_refs_have_the_configured_prefix(site: Site) -> None:
    site.settings["main.hashprefix"] = "Sha1-"
    site.update()
    text = take(site, "production").stdout
    assert f"dummy: Sha1-{site.remotes['modules/dummy'].commit()}\n" in text
    assert DUMMY in pinned(site, text).overrides


def test_a_snapshot_of_a_snapshot_is_the_same_snapshot(large: Site) -> None:
    first = take(large, "production").stdout
    large.define("snap", first)
    large.update()
    assert take(large, "snap").stdout.splitlines()[1:] == first.splitlines()[1:]


# Parts that come from the definition


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("bob@example.org", ("bob@example.org",)),
        ("[bob@example.org, ann@example.org]", ("bob@example.org", "ann@example.org")),
        ("null", ()),
        ('"Jürgen: \\"#1\\"\\n"', ('Jürgen: "#1"\n',)),
        ("'yes'", ("yes",)),
    ],
)
def test_notifications_are_taken_over(written: str, taken: tuple[str, ...]) -> None:
    source = f"default: master\nnotifications: {written}\n".encode()
    notifications = parse_definition("e", source, Prefixes()).notifications
    text = EnvironmentSnapshot("e", NOW, Definition("e", None, {}, notifications), ()).render(Prefixes())
    assert text.isascii()
    assert parse_definition("e", text.encode(), Prefixes()).notifications == notifications == taken


def test_the_parser_is_taken_over(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"
    site.define("production", definition(more="parser: future\n"))
    site.update()
    text = take(site, "production").stdout
    assert pinned(site, text).parser == "future"
    site.define("snap", text)
    site.update()
    assert shown(site, "snap") == shown(site, "production")
    assert "environment.conf" in shown(site, "snap")


def test_the_remembered_definition_counts_and_the_declared_one_when_it_is_lost(site: Site) -> None:
    site.update()
    site.define("production", "overrides: null\n")
    site.update()
    assert pinned(site, take(site, "production").stdout).notifications == ("ann@example.org",)
    site.define("production", definition(mail="bob"))
    take_over(site.root / "metadata" / "environments")
    assert pinned(site, take(site, "production").stdout).notifications == ("ann@example.org",)
    (site.root / "cache" / "environments" / "production").write_text("an id of Jens 1.x")
    assert pinned(site, take(site, "production").stdout).notifications == ("bob@example.org",)


def test_without_any_definition_nobody_is_named_and_it_says_so(site: Site) -> None:
    site.update()
    shutil.rmtree(site.root / "metadata" / "environments")
    (site.root / "cache" / "environments" / "production").unlink()
    outcome = take(site, "production")
    assert outcome.code == 60
    assert "nobody is named" in outcome.stderr
    assert pinned(site, outcome.stdout).notifications == ()
    assert DUMMY in pinned(site, outcome.stdout).overrides


def test_hiera_data_of_which_no_item_is_linked_is_pinned_all_the_same(site: Site) -> None:
    site.settings["main.common_hieradata_items"] = ","
    site.update()
    outcome = take(site, "production")
    assert outcome.code == 0
    commit = site.remotes["common/hieradata"].commit()
    assert pinned(site, outcome.stdout).overrides[HIERADATA] == Commit(commit)


# Differences from the environment


def test_dangling_links_are_left_out_and_reported(large: Site) -> None:
    large.remotes["hostgroups/cloud"].delete("qa")
    large.update()
    outcome = take(large, "production")
    assert outcome.code == 60
    [line] = outcome.stderr.splitlines()
    assert "hostgroups/cloud is left out: there is no checkout of branch 'qa'" in line
    large.define("snap", outcome.stdout)
    large.update()
    assert shown(large, "snap") == shown(large, "production")


def test_links_that_jens_has_not_made_are_left_out_and_reported(site: Site) -> None:
    site.update()
    local = site.root / "environments" / "production" / "modules" / "local"
    local.mkdir()
    (site.root / "environments" / "production" / "README").write_text("mine\n")
    outcome = take(site, "production")
    assert outcome.code == 60
    assert all(f"'{name}'" in outcome.stderr for name in ("modules/local", "README"))
    assert "dummy: commit/" in outcome.stdout


def test_a_site_that_dangles_is_not_what_a_snapshot_shows(site: Site) -> None:
    site.define("production", definition(overrides={"common/site": "gone"}))
    site.update()
    outcome = take(site, "production")
    assert outcome.code == 60
    assert "common/site is left out" in outcome.stderr
    assert "a snapshot then has it from master" in outcome.stderr


def test_a_branch_link_whose_checkout_is_gone_is_no_pin(site: Site) -> None:
    site.update()
    shutil.rmtree(site.path("modules/dummy", f".{site.remotes['modules/dummy'].commit()}"))
    outcome = take(site, "production")
    assert outcome.code == 60
    assert "modules/dummy is left out: there is no checkout of branch 'master'" in outcome.stderr


def bend(site: Site, link: str, text: str) -> None:
    path = site.root / "environments" / "production" / link
    path.unlink(missing_ok=True)
    path.symlink_to(text)


def test_a_link_that_leads_out_of_clonedir_is_reported_and_never_followed(site: Site) -> None:
    site.update()
    bend(site, "modules/dummy", str(site.root / "log"))
    outcome = take(site, "production")
    assert outcome.code == 60
    assert "link modules/dummy leads to no checkout of Jens" in outcome.stderr
    assert pinned(site, outcome.stdout).overrides[DUMMY] == Commit(site.remotes["modules/dummy"].commit())


CODE, DATA = "modules/dummy", "hieradata/module_names/dummy"
LINKS = {
    DUMMY: {CODE: "code", DATA: "data"},
    OTHER: {"modules/other": "code", "hieradata/module_names/other": "data"},
    SITE: {"site": "code"},
    HIERADATA: {"hieradata/common.yaml": "data/common.yaml"},
}
COMMON = {
    "site": Shown(Target(SITE, "master", "code"), A),
    "hieradata/common.yaml": Shown(Target(HIERADATA, "master", "data/common.yaml"), A),
}
DUMMY_CODE, DUMMY_DATA = Target(DUMMY, "qa", "code"), Target(DUMMY, "qa", "data")


@pytest.mark.parametrize(
    ("links", "commit", "doubts"),
    [
        pytest.param({CODE: Shown(DUMMY_CODE, A), DATA: Shown(DUMMY_DATA, A)}, A, [], id="all of one commit"),
        pytest.param(
            {CODE: Shown(DUMMY_CODE, A), DATA: Shown(DUMMY_DATA, B)},
            A,
            [f"link {DATA} shows 'data' in {B} of modules/dummy, the snapshot has {A} of modules/dummy"],
            id="an interrupted change: the code counts",
        ),
        pytest.param(
            {CODE: Shown(DUMMY_CODE, None), DATA: Shown(DUMMY_DATA, B)},
            B,
            [f"link {CODE} dangles, the snapshot has {B} of modules/dummy"],
            id="code dangles, data does not",
        ),
        pytest.param(
            {CODE: Shown(DUMMY_CODE, A)},
            A,
            [f"link {DATA} is missing in the environment, the snapshot has {A} of modules/dummy"],
            id="a link was removed",
        ),
        pytest.param(
            {CODE: Shown(DUMMY_CODE, None), DATA: Shown(DUMMY_DATA, None)},
            None,
            ["modules/dummy is left out: there is no checkout of branch 'qa'"],
            id="all of it dangles: one line",
        ),
        pytest.param(
            {CODE: Shown(DUMMY_CODE, A), DATA: Shown(DUMMY_DATA, A), "modules/renamed": Shown(DUMMY_CODE, A)},
            A,
            ["link modules/renamed is none that a definition can ask for, left out"],
            id="a link that no definition makes",
        ),
        pytest.param(
            {CODE: None, DATA: Shown(DUMMY_DATA, A)},
            A,
            [f"link {CODE} leads to no checkout of Jens, the snapshot has {A} of modules/dummy"],
            id="the code is elsewhere",
        ),
        pytest.param({CODE: None}, None, [f"link {CODE} leads to no checkout of Jens, left out"], id="all elsewhere"),
    ],
)
def test_the_commit_of_a_repository_is_that_of_its_links(
    links: dict[str, Shown | None], commit: str | None, doubts: list[str]
) -> None:
    pins = {SITE: A, HIERADATA: A, **({DUMMY: commit} if commit else {})}
    found = plan_pins({**COMMON, **links}, LINKS.__getitem__, "the snapshot")
    left_out = [f"{repo} is left out: {reason}" for repo, reason in found.left_out.items()]
    assert (found.commits, [*left_out, *found.doubts]) == (pins, doubts)


def test_an_environment_without_site_and_hiera_data_would_get_them() -> None:
    pins = plan_pins({}, LINKS.__getitem__, "the snapshot")
    assert (pins.commits, pins.doubts) == ({}, ())
    assert pins.left_out == {HIERADATA: "no link leads to it", SITE: "no link leads to it"}


# Changes during the work


def test_a_branch_that_moves_between_two_looks_is_looked_at_again(large: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """All links move in the middle of the first look: the snapshot must not mix commits from before and after."""
    old = {repo: remote.commit() for repo, remote in large.remotes.items()}
    look_up = disk.look_up
    asked: list[RepoId] = []

    def moving(layout: Layout, repo: RepoId, entry: str) -> Expanded:
        asked.append(repo)
        if len(asked) == 4:
            for remote in large.remotes.values():
                remote.push({INIT: "# moved\n"})
            assert large.update().code == 0
        return look_up(layout, repo, entry)

    monkeypatch.setattr(disk, "look_up", moving)
    overrides = pinned(large, take(large, "production").stdout).overrides
    following = ["common/site", "common/hieradata", "hostgroups/myapp", "modules/bare", "modules/dummy"]
    for repo in map(RepoId._make, (name.split("/") for name in following)):
        assert overrides[repo] == Commit(large.remotes[str(repo)].commit()) != Commit(old[str(repo)])
    assert len(asked) == 3 * len(large.remotes)  # each repository once in each look


def test_code_and_data_are_of_one_commit_while_branches_move_all_the_time(site: Site) -> None:
    site.update()
    clone = site.path("modules/dummy")
    first = os.readlink(clone / "master")
    second = "." + "b" * 40
    shutil.copytree(clone / first, clone / second)
    flip = (
        "import os, sys\n"
        "while True:\n"
        "    for text in sys.argv[2:]:\n"
        "        os.symlink(text, sys.argv[1] + '.new')\n"
        "        os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
    )
    flipping = subprocess.Popen([sys.executable, "-c", flip, str(clone / "master"), first, second])
    try:
        for _ in range(10):
            outcome = take(site, "production")
            assert (outcome.code, outcome.stderr) == (0, "")
            ref = pinned(site, outcome.stdout).overrides[DUMMY]
            assert ref in (Commit(first[1:]), Commit(second[1:]))
    finally:
        flipping.kill()
        flipping.wait()


def test_it_takes_no_lock(site: Site) -> None:
    site.update()
    with run_lock(load_config(site.config)):
        assert take(site, "production").code == 0


def test_it_needs_only_read_access_and_writes_nothing(site: Site) -> None:
    site.update()
    before = site.listing(".")
    paths = [site.root, *(path for path in site.root.rglob("*") if not path.is_symlink())]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        outcome = take_without_privileges(site)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert DUMMY in pinned(site, outcome.stdout).overrides
    assert site.listing(".") == before


def take_without_privileges(site: Site) -> subprocess.CompletedProcess[str]:
    """Run the tool; as root, without the capabilities that let root write everywhere."""
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if subprocess.run([*drop, "touch", str(site.root / "x")], capture_output=True, check=False).returncode == 0:
        pytest.skip("nothing keeps root from writing here")
    line = [*drop, sys.executable, str(TREE / "bin" / "jens-snapshot"), "-c", str(site.root / "main.conf")]
    return subprocess.run(
        [*line, "production"], env={**os.environ, "PYTHONPATH": str(TREE)}, capture_output=True, text=True, check=False
    )


# The tool


def test_json_has_the_same_facts(large: Site) -> None:
    outcome = take(large, "production", "--name", "snap", "--json")
    document = json.loads(outcome.stdout)
    assert outcome.stdout == json.dumps(document, sort_keys=True, indent=1) + "\n"
    created = datetime.fromisoformat(document.pop("created"))
    assert abs((datetime.now() - created).total_seconds()) < 60
    overrides = pinned(large, take(large, "production").stdout).overrides
    found = {
        RepoId(partition, name): Commit(commit)
        for partition, entries in document.pop("overrides").items()
        for name, commit in entries.items()
    }
    assert found == overrides
    assert document == {
        "based_on": "production",
        "doubts": [],
        "name": "snap",
        "notifications": ["ann@example.org"],
        "parser": None,
    }


def test_doubts_are_in_the_json_too(site: Site) -> None:
    site.define("production", definition(overrides={"modules/dummy": "gone"}))
    site.update()
    outcome = take(site, "production", "--json")
    assert (outcome.code, len(outcome.stderr.splitlines())) == (60, 1)
    [doubt] = json.loads(outcome.stdout)["doubts"]
    assert doubt.startswith("modules/dummy is left out")


def test_an_empty_environment_makes_a_definition_without_overrides() -> None:
    text = EnvironmentSnapshot("e", NOW, Definition("e", None, {}, ("ann@example.org",)), ()).render(Prefixes())
    assert text == "# Snapshot created on 2014-03-03 14:25:37 based on e\nnotifications: ann@example.org\n"
    assert parse_definition("e", text.encode(), Prefixes()).overrides == {}


def test_a_snapshot_without_pins_is_told_for_a_run_would_refuse_it(site: Site) -> None:
    site.update()
    (site.root / "environments" / "empty").mkdir()
    outcome = take(site, "empty")
    assert outcome.code == 60
    assert "there is no commit to pin" in outcome.stderr
    assert isinstance(read_definition("empty.yaml", outcome.stdout.encode(), Prefixes()), IllFormed)
    assert "no commit to pin" not in take(site, "production").stderr


def test_only_commits_are_pins() -> None:
    taken = EnvironmentSnapshot("e", NOW, Definition("e", None, {DUMMY: Branch("qa"), OTHER: Commit(A)}), ())
    assert taken.encode()["overrides"] == {"modules": {"other": A}}


def test_exit_3_what_is_not_there_is_named(site: Site) -> None:
    site.update()
    assert_complaint(take(site, "prodution"), 3, "prodution", "does not exist")
    (site.root / "environments" / "alias").symlink_to("production")
    assert_complaint(take(site, "alias"), 3, "alias", "is not a directory")
    for key in ("clone", "environments"):
        shutil.rmtree(site.root / key)
        assert_complaint(take(site, "production"), 3, f"{key}dir", "does not exist")
        (site.root / key).mkdir()


def test_exit_2_the_configuration_cannot_be_used(site: Site) -> None:
    site.settings["main.debuglevel"] = "LOUD"
    assert_complaint(take(site, "production"), 2, "debuglevel")


def test_a_typo_in_the_configuration_is_reported(site: Site) -> None:
    site.update()
    site.settings["main.bearer"] = "x"
    outcome = take(site, "production")
    assert outcome.code == 0
    assert "bearer" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["../x"],
        ["pro duction"],
        ["production", "--name", "a-b"],
        [
            "",
        ],
        ["-x"],
        [],
    ],
)
def test_exit_2_a_name_that_no_environment_can_have(site: Site, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        take(site, *arguments)
    assert caught.value.code == 2


def test_it_knows_its_version_and_its_options(site: Site) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            command.main([option])
        assert caught.value.code == 0
    printed = site.capture.readouterr().out
    assert all(option in printed for option in ("--config", "--name", "--json"))


def test_a_reader_that_has_seen_enough_is_no_failure(site: Site) -> None:
    site.update()
    line = f"'{TREE}/bin/jens-snapshot' -c '{site.config}' production | head -1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(TREE), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = f"'{sys.executable}' {line}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("# Snapshot created on ")
    assert (done.stdout.splitlines()[1], done.stderr) == ("0", "")
    process = start(site, "production")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(60), process.stderr.read()) == (0, "")


def test_ctrl_c_ends_it_with_one_line(site: Site, tmp_path: Path) -> None:
    site.update()
    ended = interrupt("snapshot", ["-c", str(site.config), "production"], "jens.tools.snapshot.take", tmp_path)
    assert ended == (130, "", "jens-snapshot: Interrupted\n")
