"""jens-show answers what people ask all day: what an environment has, who uses a branch, where a commit is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jens import locking
from jens.commands import show
from jens.config import load_config
from jens.layout import Layout
from jens.messaging.message import Move
from jens.messaging.queue import Queue
from jens.names import parse_repository
from jens.repositories import transfers
from tests import TREE
from tests.conftest import Site, definition, git, interrupt

DUMMY, MYAPP, SITE, HIERADATA = "modules/dummy", "hostgroups/myapp", "common/site", "common/hieradata"

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
UNKNOWN = "0123456789abcdef0123456789abcdef01234567"


def run(site: Site, *arguments: str) -> tuple[int, str, str]:
    config = str(site.config)
    site.capture.readouterr()
    code = show.main(["-c", config, *arguments])
    captured = site.capture.readouterr()
    return code, captured.out, captured.err


def told(site: Site, *arguments: str, code: int = 0) -> list[str]:
    """The lines of an answer, with T for each time."""
    found, out, err = run(site, *arguments)
    assert (found, err) == (code, ""), (found, out, err)
    return [_TIME.sub("T", line) for line in out.splitlines()]


def facts(site: Site, *arguments: str, code: int = 0) -> dict[str, Any]:
    found, out, err = run(site, *arguments, "--json")
    assert (found, err) == (code, "")
    document: dict[str, Any] = json.loads(out)
    assert out == json.dumps(document, indent=1, sort_keys=True) + "\n"
    assert document["version"] == 1
    return document


def about(site: Site, commit: str, *arguments: str, code: int = 0) -> list[str]:
    """What is told of one commit, below the line that names it."""
    first, *rest = told(site, "commit", commit, *arguments, code=code)
    assert first.split()[0].startswith(commit)
    return [line.strip() for line in rest]


def state(site: Site, commit: str, *arguments: str, code: int = 0) -> str:
    [found] = facts(site, "commit", commit, *arguments, code=code)["commits"]
    return str(found["state"])


def updated(site: Site, code: int = 0) -> None:
    assert site.update().code == code


def is_recent(text: str) -> bool:
    moment = datetime.fromisoformat(text)
    return moment.tzinfo is not None and abs(time.time() - moment.timestamp()) < 600


# Environments


def test_an_environment_tells_what_it_has_and_why(site: Site) -> None:
    first = {repo: remote.commit() for repo, remote in site.remotes.items()}
    site.remotes[DUMMY].branch("idea")
    site.define("snap", definition(None, {MYAPP: f"commit/{first[MYAPP][:9].upper()}"}, mail="bob"))
    site.define("test", definition("master", {DUMMY: "idea"}))
    updated(site)
    declared = site.definitions.commit()[:7]
    common = [f"{repo}  master" for repo in (HIERADATA, SITE + "     ")]
    assert told(site, "environment", "test") == [
        "Environment test: follows master, with 1 override",
        "Told when it breaks: ann@example.org",
        f"Created: T ({declared} Ann)",
        "It has 4 repositories:",
        f"{common[0]}  default   {first[HIERADATA][:7]}  T  Ann: push",
        f"{common[1]}  default   {first[SITE][:7]}  T  Ann: push",
        f"hostgroups/myapp  master  default   {first[MYAPP][:7]}  T  Ann: push",
        f"modules/dummy     idea    override  {first[DUMMY][:7]}  T  Ann: push",
    ]
    snapshot = told(site, "environment", "snap")
    assert snapshot[0] == "Environment snap: a snapshot of 1 repository"
    assert snapshot[-1] == f"hostgroups/myapp  commit/{first[MYAPP][:7]}  override  {first[MYAPP][:7]}  T  Ann: push"
    assert "  snapshot  " in snapshot[-2]

    # A branch goes, a remote cannot be reached, a definition asks for what nobody can get.
    site.remotes[DUMMY].delete("idea")
    site.remotes[MYAPP].go_away()
    site.define("test", definition("master", {DUMMY: "idea", MYAPP: "other"}))
    site.define("production", definition("[master", mail="carol"))
    updated(site)
    lines = told(site, "environment", "test")
    assert "There is 1 open fault:" in lines
    assert any(
        line.startswith("	environment test since T: Environment 'test' has links that wait") for line in lines
    )
    at = lines.index(f"hostgroups/myapp  master  waiting   {first[MYAPP][:7]}  T  Ann: push")
    assert lines[at + 1] == "\tthe definition asks for other, which could not be had yet"
    assert lines[at + 2].startswith("\tnot fetched since T: Unable to fetch 'myapp' from remote (hostgroups/myapp: ")
    assert lines[at + 3 :] == [
        "modules/dummy     idea    override  -",
        "\tdangling since T: modules/dummy, hieradata/module_names/dummy: there is no branch 'idea' in modules/dummy",
    ]
    document = facts(site, "environment", "test")
    assert (document["environment"], document["default"], document["notifications"]) == (
        "test",
        "master",
        ["ann@example.org"],
    )
    rows = {row["repository"]: row for row in document["repositories"]}
    assert (rows[DUMMY]["commit"], rows[DUMMY]["since"], rows[DUMMY]["author"]) == (None, None, None)
    assert rows[DUMMY]["dangling"]["links"] == ["modules/dummy", "hieradata/module_names/dummy"]
    assert is_recent(rows[DUMMY]["dangling"]["since"])
    assert (rows[MYAPP]["why"], rows[MYAPP]["ref"], rows[MYAPP]["asked"]) == ("waiting", "master", "other")
    assert is_recent(rows[MYAPP]["not_fetched"]["since"])
    assert is_recent(rows[SITE]["since"])
    assert {fault["kind"] for fault in document["faults"]} == {
        "dangling link",
        "environment",
        "repository not fetched",
    }
    assert document["history_problem"] is None

    # An ill-formed definition leaves the environment as it was, and the fault says so.
    assert [fault["kind"] for fault in facts(site, "environment", "production")["faults"]] == [
        "definition",
        "repository not fetched",
    ]

    # Data that lack an item; a link that is none of ours.
    site.remotes[MYAPP].come_back()
    site.define("production")
    site.remotes[HIERADATA].push({"data/common.yaml": None})
    updated(site)
    os.symlink("/nowhere", site.root / "environments" / "production" / "modules" / "own")
    lines = told(site, "environment", "production")
    assert (
        "\tdangling since T: hieradata/common.yaml: branch 'master' of common/hieradata has no 'data/common.yaml'"
        in lines
    )
    assert "modules/own leads to nothing that Jens has made" in lines


def test_an_environment_that_is_not_there_says_why(site: Site) -> None:
    site.define("gone")
    updated(site)
    site.define("bad", "default: [master\n")
    site.retire("gone")
    site.define("empty")
    site.settings["main.maxenvironments"] = "1"
    updated(site)
    del site.settings["main.maxenvironments"]

    def missing(name: str) -> str:
        code, out, err = run(site, "environment", name)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert f"environment '{site.root}/environments/{name}': does not exist" in err
        return _TIME.sub("T", err)

    assert ": bad.yaml: " in missing("bad")
    assert "(since T)" in missing("bad")
    assert re.search(r": it was deleted at T \([0-9a-f]{7} Ann\)$", missing("gone"))
    assert "it is declared, and no run has made it yet" in missing("empty")
    assert "and is not declared" in missing("nobody")
    assert run(site, "environment", "bad", "--json")[:2] == (3, "")


# Repositories


def test_a_repository_tells_its_refs_and_who_uses_them(site: Site) -> None:
    dummy = site.remotes[DUMMY]
    first = dummy.commit()
    dummy.branch("idea")
    dummy.branch("unused")
    site.define("test", definition("master", {DUMMY: "idea"}))
    site.define("snap", definition(None, {DUMMY: f"commit/{first}"}))
    updated(site)
    second = dummy.push({"code/a": "1\n"})
    updated(site)
    assert told(site, "repository", DUMMY) == [
        f"Repository {DUMMY}, {dummy.url}",
        "The remote answered the run of T.",
        "The mirror last changed at T.",
        f"idea            {first[:7]}  T  Ann: push",
        "\tused by test",
        f"master          {second[:7]}  T  Ann: push",
        "\tused by production",
        f"commit/{first[:7]}  {first[:7]}  T  Ann: push",
        "\tused by snap",
        "In the mirror only, 1 branch: unused",
    ]
    document = facts(site, "repository", DUMMY)
    assert [(ref["ref"], ref["commit"], ref["environments"]) for ref in document["refs"]] == [
        ("idea", first, ["test"]),
        ("master", second, ["production"]),
        (f"commit/{first}", first, ["snap"]),
    ]
    assert all(is_recent(ref["since"]) for ref in document["refs"])
    assert is_recent(document["answered"])
    assert is_recent(document["mirror_changed"])
    assert (document["unused_branches"], document["declared"], document["not_fetched"]) == (["unused"], True, None)

    # Its remote goes, and a branch that environments use.
    dummy.delete("idea")
    updated(site)
    dummy.go_away()
    updated(site)
    lines = told(site, "repository", DUMMY)
    assert [line for line in lines if line.startswith("The remote answered")] == []
    assert any(line.startswith("Not fetched since T: Unable to fetch 'dummy' from remote") for line in lines)
    at = lines.index("idea            -")
    assert lines[at + 1] == "\tused by test"

    # One that the library has lost stays for the snapshot; one that it has not yet been fetched is refused.
    site.add("modules/new").delete("master")
    del site.urls[DUMMY]
    site.publish()
    updated(site)
    assert "The library does not have it." in told(site, "repository", DUMMY)
    lines = told(site, "repository", "modules/new")
    assert lines[1] == "There is no mirror of it."
    assert lines[2].startswith("Not fetched since T: Refusing new repository modules/new: it has no branch 'master'")
    assert lines[-1] == "Nothing of it is laid out."
    code, out, err = run(site, "repository", "modules/none")
    assert (code, out) == (3, "")
    assert "repository 'modules/none': neither the library nor the disk has it" in err


def test_what_waits_is_told_on_demand(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    updated(site)
    before = site.remotes[DUMMY].commit()
    commit = site.remotes[DUMMY].push({"code/a": "1\n"})
    repo = parse_repository(DUMMY)
    Queue(site.root / "spool").add([repo], moves={repo: [Move("master", before, commit)]})
    lines = told(site, "repository", DUMMY)
    assert [line for line in lines if line.startswith("The remote answered")] == []
    assert "A hint waits since T: the next run fetches it" in lines
    [found] = facts(site, "commit", commit[:7])["commits"]
    assert (found["state"], found["repository"], found["announced"]["branch"]) == ("announced", DUMMY, "master")
    assert is_recent(found["announced"]["since"])
    assert is_recent(found["hint_waiting_since"])
    assert about(site, commit) == [
        "not in the mirror: a hint of T told that it was pushed to master",
        f"not in these, as master shows {before[:7]}: production",
        "a hint waits since T: the next run fetches it",
    ]
    assert told(site, "commit", UNKNOWN, code=3)[1:] == [
        f"it may be in {DUMMY}:",
        "\ta hint waits since T: the next run fetches it",
    ]
    updated(site)
    assert about(site, commit) == ["visible since T through master: production"]

    # What is left to jens-transfer, and what it works on.
    layout = Layout.of(load_config(site.config))
    transfers.ask_for(layout, repo)
    assert "Left to jens-transfer since T" in told(site, "repository", DUMMY)
    with locking.holding(layout.transfer_lock(repo)) as is_held:
        assert is_held
        assert "Jens-transfer fetches it since T" in told(site, "repository", DUMMY)
    assert is_recent(facts(site, "repository", DUMMY)["left_to_transfer_since"])
    [suspect] = facts(site, "commit", UNKNOWN, code=3)["suspects"]
    assert suspect["repository"] == DUMMY


# Commits


def test_a_commit_tells_where_it_is(site: Site) -> None:
    dummy = site.remotes[DUMMY]
    first = dummy.commit()
    site.define("snap", definition(None, {DUMMY: f"commit/{first}"}))
    site.define("other", definition(None, {MYAPP: "master"}))
    updated(site)

    # Visible since, in these environments only; contained in what is visible.
    second = dummy.push({"code/a": "1\n"})
    third = dummy.push({"code/a": "2\n"})
    updated(site)
    [head] = told(site, "commit", third)[:1]
    assert head == f"{third} {DUMMY} Ann: push (T)"
    lacks = f"not in these, as commit/{first[:7]} shows {first[:7]}: snap"
    assert about(site, third) == ["visible since T through master: production", lacks]
    assert about(site, second[:7]) == [
        f"visible since T through master, contained in {third[:7]}: production",
        lacks,
    ]
    assert about(site, first) == [
        f"visible since T through master, contained in {third[:7]}: production",
        f"visible since T through commit/{first[:7]}: snap",
    ]
    since = {each["environment"]: each["since"] for each in facts(site, "commit", first)["commits"][0]["visible"]}
    later = facts(site, "commit", third)["commits"][0]["visible"][0]["since"]
    assert since["production"] <= later
    assert run(site, "commit", third.upper())[0] == 0

    # --in: scripts get an exit status.
    assert about(site, third, "--in", "production") == ["visible since T through master: production"]
    assert about(site, third, "--in", "snap", code=1) == ["in the mirror, on branch master", lacks]
    assert state(site, third, "--in", "snap", code=1) == "in the mirror"
    assert about(site, third, "--in", "other", code=1)[-1] == f"other does not have {DUMMY}"
    assert run(site, "commit", third, "--in", "nobody")[0] == 3

    # In the mirror, on no branch that an environment uses; and on none at all.
    dummy.branch("idea")
    idea = dummy.push({"code/a": "3\n"}, "idea")
    updated(site)
    assert about(site, idea)[0] == "in the mirror, on branch idea, which no environment uses"
    assert state(site, idea) == "in the mirror"
    dummy.delete("idea")
    updated(site)
    assert about(site, idea)[0] == "in the mirror, on no branch"

    # Unknown; not in the mirror, and why.
    assert told(site, "commit", UNKNOWN, code=3) == [
        f"{UNKNOWN} is unknown: no mirror has it, and nothing tells that it was ever visible"
    ]
    assert facts(site, "commit", UNKNOWN, code=3)["commits"] == []
    assert about(site, UNKNOWN, "-r", DUMMY, code=3) == [
        "not in the mirror",
        "the remote answered the run of T, no branch had it then",
    ]
    fourth = dummy.push({"code/a": "4\n"})
    dummy.go_away()
    updated(site)
    lines = about(site, fourth, "-r", DUMMY, code=3)
    assert lines[0] == "not in the mirror"
    assert lines[1].startswith(f"not fetched since T: Unable to fetch 'dummy' from remote ({DUMMY}: ")
    lines = told(site, "commit", fourth, code=3)
    assert lines[1] == f"it may be in {DUMMY}:"
    assert lines[2].startswith("\tnot fetched since T: ")
    [suspect] = facts(site, "commit", fourth, code=3)["suspects"]
    assert suspect["repository"] == DUMMY
    assert is_recent(suspect["not_fetched"]["since"])
    assert run(site, "commit", fourth, "-r", "modules/none")[0] == 3
    dummy.come_back()
    updated(site)
    assert state(site, fourth) == "visible"


def test_a_commit_of_the_metadata_tells_whether_it_counts(site: Site) -> None:
    updated(site)
    first, library = site.definitions.commit(), site.library.commit()
    assert told(site, "commit", first) == [
        f"{first} metadata of environments Ann: push (T)",
        "\tthe last run worked from it",
    ]
    site.define("test")
    updated(site)
    second = site.definitions.commit()
    assert told(site, "commit", first[:9])[1] == f"\tthe last run worked from {second[:7]}, which contains it"
    document = facts(site, "commit", library)
    assert document["commits"] == []
    assert [(each["metadata"], each["head"], each["in_use"]) for each in document["metadata"]] == [
        ("repositories", library, True)
    ]
    assert run(site, "commit", first, "--in", "production")[0] == 1
    site.define("later")
    git("fetch", "-q", directory=site.root / "metadata" / "environments")
    later = site.definitions.commit()
    assert told(site, "commit", later)[1] == f"\tthe last run worked from {second[:7]}, without it"


def test_a_commit_tells_until_when_it_was_there(site: Site) -> None:
    dummy = site.remotes[DUMMY]
    first = dummy.commit()
    dummy.branch("kept")
    site.define("kept", definition("master", {DUMMY: "kept"}))
    site.define("moving", definition("master"))
    updated(site)
    second = dummy.push({"code/a": "1\n"})
    updated(site)
    git("update-ref", "refs/heads/master", first, directory=dummy.path)
    updated(site)
    back = (
        f"was visible since T until T through master, then the branch was set back to {first[:7]}: moving, production"
    )
    assert about(site, second) == [
        back,
        "in the mirror, on no branch",
        f"not in these, as kept shows {first[:7]}: kept",
        f"not in these, as master shows {first[:7]}: moving, production",
    ]
    assert state(site, second) == "was visible"

    # Force-pushed away, while an environment had moved elsewhere; a branch that is deleted.
    side = dummy.push({"code/b": "1\n"}, "kept")
    third = dummy.push({"code/a": "2\n"})
    updated(site)
    site.define("moving", definition("master", {DUMMY: "kept"}))
    updated(site)
    fourth = dummy.push({"code/a": "3\n"}, rewrite=True)
    dummy.delete("kept")
    site.retire("moving")
    updated(site)
    assert about(site, third)[:3] == [
        "was visible since T until T through master, then the environment moved to kept: moving",
        f"was visible since T until T through master, then the branch was force-pushed to {fourth[:7]}: production",
        "in the mirror, on no branch",
    ]
    assert about(site, side)[:2] == [
        "was visible since T until T through kept, then the branch was deleted: kept",
        "was visible since T until T through kept, then the environment was deleted: moving",
    ]
    [found] = facts(site, "commit", third)["commits"]
    past = {each["environment"]: each for each in found["past"]}
    assert (past["production"]["end"], past["production"]["by"], past["production"]["ref"]) == (
        "rewritten",
        fourth,
        "master",
    )
    assert (past["moving"]["end"], past["moving"]["by"]) == ("moved to another ref", "kept")
    assert all(
        is_recent(each[key]) and each["since"] <= each["until"] for each in past.values() for key in ("since", "until")
    )

    # The mirror loses the commit, the history remembers it.
    site.settings["main.retention"] = "0"
    fifth = dummy.push({"code/a": "4\n"})
    updated(site)
    del site.settings["main.retention"]
    git("gc", "-q", "--prune=now", directory=site.root / "bare" / DUMMY)
    assert about(site, second, "--in", "production", code=1)[0] == back.replace("moving, ", "")
    assert "not in the mirror" in about(site, second)
    assert told(site, "commit", second)[0] == f"{second} {DUMMY} Ann: push (T)"

    # jens-history does not know of what a killed run did: the disk counts.
    os.unlink(site.path(DUMMY, "master"))
    os.symlink(f".{first}", site.path(DUMMY, "master"))
    assert about(site, fifth)[:2] == [
        "was visible since T until a moment ago through master, the history does not know why yet: production",
        "in the mirror, on branch master",
    ]


def test_what_cannot_be_laid_out_is_told(site: Site) -> None:
    site.settings["main.maxfiles"] = "20"
    updated(site)
    before = site.remotes[DUMMY].commit()
    commit = site.remotes[DUMMY].push({f"code/f{number}": "1\n" for number in range(30)})
    updated(site)
    lines = about(site, commit)
    assert lines[:2] == [
        "in the mirror, on branch master",
        f"not in these yet, as master shows {before[:7]} until a run can lay it out: production",
    ]
    assert any(line.startswith("checkout refused since T: ") for line in lines)
    [found] = facts(site, "commit", commit)["commits"]
    assert (found["branches_in_use"], found["lacking"][0]["reason"]) == (["master"], "not laid out")


# Without a history, without rights, and mistakes


def test_it_works_without_a_history(site: Site) -> None:
    for what in (("environment", "production"), ("repository", DUMMY), ("commit", UNKNOWN)):
        assert run(site, *what)[0] == 3  # before the first run
    site.settings["history.days"] = "0"
    updated(site)
    first = site.remotes[DUMMY].commit()
    second = site.remotes[DUMMY].push({"code/a": "1\n"})
    updated(site)
    note = "What was before is not known, as the history cannot be read: "
    lines = told(site, "environment", "production")
    assert f"modules/dummy     master  default  {second[:7]}  T  Ann: push" in lines
    assert lines[-1] == f"{note}there is none, as [history] days is 0 in the configuration"
    assert told(site, "commit", first)[1:] == [
        f"\tvisible since T through master, contained in {second[:7]}: production",
        lines[-1],
    ]
    assert "there is none" in facts(site, "commit", first)["history_problem"]

    # A damaged one.
    del site.settings["history.days"]
    path = site.root / "cache" / "history.sqlite"
    path.write_bytes(b"no history" * 1000)
    assert told(site, "environment", "production")[-1].startswith(note)
    assert about(site, second)[0] == "visible since T through master: production"
    assert path.read_bytes() == b"no history" * 1000


def test_read_access_is_enough_and_nothing_changes(site: Site) -> None:
    updated(site)
    commit = site.remotes[DUMMY].commit()
    git("-c", "gc.auto=0", "repack", "-adq", directory=site.root / "bare" / DUMMY)
    site.remotes[DUMMY].go_away()
    before = site.listing(".")
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    config = site.config
    for directory, _, names in os.walk(site.root):
        Path(directory).chmod(0o555)
        for name in names:
            path = Path(directory) / name
            if not path.is_symlink():
                path.chmod(0o444)
    try:
        if subprocess.run([*drop, "touch", str(site.root / "x")], capture_output=True, check=False).returncode == 0:
            pytest.skip("nothing keeps root from writing here")
        for what in (("environment", "production"), ("repository", DUMMY), ("commit", commit)):
            done = _asked(drop, config, *what)
            assert (done.returncode, done.stderr) == (0, "")
            assert commit[:7] in done.stdout
            assert "history" not in done.stdout
        (site.root / "bare" / MYAPP / "objects").chmod(0)
        (site.root / "cache" / "last-run.json").chmod(0)
        done = _asked(drop, config, "commit", UNKNOWN)
        assert (done.returncode, done.stderr) == (3, "")
        assert done.stdout.splitlines()[1:] == [
            f"{MYAPP} cannot be read",
            "What is wrong now is not known, as nothing tells of the last run",
        ]

        # What cannot be looked at is named, and nobody takes it for missing. The rest is told.
        site.path(MYAPP).chmod(0)
        done = _asked(drop, config, "environment", "production")
        assert (done.returncode, done.stderr) == (0, "")
        assert "hostgroups/myapp  master  default  -\n\tnobody can look at it: cannot be read: Perm" in done.stdout
        assert "dangling" not in done.stdout
        done = _asked(drop, config, "repository", MYAPP)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
        assert f"clonedir '{site.path(MYAPP)}': cannot be read: Permission denied".replace("/'", "'") in done.stderr
        (site.root / "environments" / "production").chmod(0)
        done = _asked(drop, config, "repository", DUMMY)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\tused by no environment\nenvironment production cannot be read\n" in done.stdout
        done = _asked(drop, config, "commit", commit)
        assert "\tenvironment production cannot be read\n" in done.stdout
        assert f"\n{MYAPP} cannot be read\n" in done.stdout
    finally:
        for directory, _, _ in os.walk(site.root):
            Path(directory).chmod(0o755)
    after = site.listing(".")
    assert {path.split(" ")[0] for path in after} == {path.split(" ")[0] for path in before}


def _asked(prefix: list[str], config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [*prefix, sys.executable, str(TREE / "bin" / "jens-show"), "-c", str(config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["place", "x"], "invalid choice"),
        (["environment", "../x"], "no name of an environment"),
        (["repository", "dummy"], "a repository such as modules/dummy"),
        (["commit", "123456"], "7 to 40 hexadecimal digits"),
        (["commit", "HEAD"], "7 to 40 hexadecimal digits"),
        (["commit", "1234567", "--in", "a b"], "no name of an environment"),
        (["commit", "1234567", "-r", "dummy"], "a repository such as modules/dummy"),
        (["environment", "production", "--in", "test"], "are for commits"),
        (["repository", DUMMY, "-r", DUMMY], "are for commits"),
    ],
)
def test_what_cannot_be_asked_is_a_mistake(site: Site, arguments: list[str], expected: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(site, *arguments)
    assert caught.value.code == 2
    assert expected in site.capture.readouterr().err


def test_ctrl_c_ends_it_with_130(site: Site, tmp_path: Path) -> None:
    arguments = ["-c", str(site.config), "commit", UNKNOWN]
    ended = interrupt("show", arguments, "jens.tools.show_commit.look", tmp_path)
    assert ended == (130, "", "jens-show: Interrupted\n")
