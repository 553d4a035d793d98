"""Modules as the world has them: any layout, a ref of their own, fallbacks, and lists of defaults."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jens.commands import check, compare, hold, reset, snapshot, stats
from tests.conftest import Outcome, Remote, Site, definition, git

DUMMY, STDLIB = "modules/dummy", "modules/stdlib"
INIT = "code/manifests/init.pp"
MODES = pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
#: A module as the Forge has them.
PUBLIC = {"manifests/init.pp": "# v1\n", "metadata.json": "{}\n", "lib/facter/x.rb": "# x\n"}


@pytest.fixture
def stdlib(site: Site) -> Remote:
    """The remote of a public module: its branch is main, its last release v1 is a tag, and it needs no fork."""
    remote = Remote.create(site.root / "remotes" / "stdlib.git")
    remote.push(PUBLIC, "main")
    remote.tag("v1", "main", annotated=True)
    remote.push({"manifests/init.pp": "# newer\n"}, "main")
    site.remotes[STDLIB] = remote
    publish(site, "code: ., data: null, ref: tag/v1")
    return remote


def publish(site: Site, entry: str | None) -> None:
    """Push the library with this entry for stdlib: more keys of a mapping, '' for a plain URL, None for no entry."""
    url = site.root / "remotes" / "stdlib.git"
    text = {None: "", "": f"    stdlib: '{url}'\n"}.get(entry, f"    stdlib: {{url: '{url}', {entry}}}\n")
    site.publish()
    library = git("show", "master:repositories.yaml", directory=site.library.path)
    site.library.push({"repositories.yaml": f"{library}\n{text}"})


def push_to(site: Site, mode: str, *repos: str, strict: int | None = 0) -> Outcome:
    """A run after pushes to repositories, which Git servers tell of where runs are on demand."""
    site.settings["main.mode"] = mode
    if mode == "ONDEMAND" and repos:
        site.hint(*repos)
    outcome = site.update("--strict")
    assert strict is None or outcome.code == strict, outcome.log
    return outcome


def init_of(site: Site, environment: str, module: str = "stdlib") -> str:
    """The manifest of a module in an environment."""
    return site.read(f"{environment}/modules/{module}/manifests/init.pp")


@contextmanager
def never_missing(site: Site, *paths: str) -> Iterator[None]:
    """Read these paths below environmentsdir again and again: Puppet never misses one."""
    missed: list[str] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for path in paths:
                try:
                    (site.root / "environments" / path).read_bytes()
                except FileNotFoundError:
                    missed.append(path)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        yield
    finally:
        is_over.set()
        reader.join()
    assert missed == []


# Entries of the library


def test_a_public_module_is_used_without_a_fork(site: Site, stdlib: Remote) -> None:
    outcome = site.update("--strict")
    assert (outcome.code, init_of(site, "production")) == (0, "# v1\n")
    links = {link: text for link, text in site.links("production").items() if "stdlib" in link}
    assert links == {"modules/stdlib": "../../../clone/modules/stdlib/~v1"}
    assert site.expanded(STDLIB) == {"~v1": git("rev-parse", "v1^{}", directory=stdlib.path)}
    site.define("team", definition("qa", {STDLIB: "main"}))
    site.update()
    assert (init_of(site, "team"), init_of(site, "production")) == ("# newer\n", "# v1\n")


@MODES
def test_an_entry_that_changes_moves_the_links_and_nobody_misses_a_file(site: Site, stdlib: Remote, mode: str) -> None:
    stdlib.push({**{f"code/{path}": text for path, text in PUBLIC.items()}, "data/x.yaml": "--- {}\n"}, "master")
    stdlib.push(dict(PUBLIC), "master")
    for _ in range(2):
        with never_missing(site, *(["production/modules/stdlib/manifests/init.pp"] if site.environments() else [])):
            publish(site, "")
            push_to(site, mode)
        assert site.links("production")["modules/stdlib"].endswith("/stdlib/master/code")
        assert site.links("production")["hieradata/module_names/stdlib"].endswith("/stdlib/master/data")
        for entry, code, data in (
            ("code: .", "master", "master/data"),
            ("code: ., data: null", "master", None),
            ("code: ., data: .", "master", "master"),
            ("code: code, data: code/lib", "master/code", "master/code/lib"),
        ):
            with never_missing(site, "production/modules/stdlib/manifests/init.pp"):
                publish(site, entry)
                push_to(site, mode)
            links = site.links("production")
            assert links["modules/stdlib"] == f"../../../clone/modules/stdlib/{code}"
            expected = data and f"../../../../clone/modules/stdlib/{data}"
            assert links.get("hieradata/module_names/stdlib") == expected


@MODES
def test_the_ref_of_an_entry_may_change(site: Site, stdlib: Remote, mode: str) -> None:
    commit = stdlib.commit("main")
    for ref, text in (("tag/v1", "# v1\n"), ("main", "# newer\n"), (f"commit/{commit}", "# newer\n")) * 2:
        publish(site, f"code: ., data: null, ref: {ref}")
        push_to(site, mode)
        assert init_of(site, "production") == text


@MODES
def test_a_push_to_a_repository_with_a_layout_of_its_own_is_followed(site: Site, stdlib: Remote, mode: str) -> None:
    publish(site, "code: ., data: null, ref: main")
    push_to(site, mode)
    for number in range(3):
        stdlib.push({"manifests/init.pp": f"# {number}\n"}, "main")
        assert push_to(site, mode, STDLIB).code == 0
        assert init_of(site, "production") == f"# {number}\n"
    stdlib.push({"manifests/init.pp": "# last\n"}, "main")
    outcome = push_to(site, mode, STDLIB)
    assert outcome.has("Only repositories that were pushed to are looked at")


@MODES
@pytest.mark.parametrize("key", ["ref", "fallback"])
def test_a_tag_that_an_entry_names_is_moved_deleted_and_made_anew(
    site: Site, stdlib: Remote, mode: str, key: str
) -> None:
    publish(site, f"code: ., data: null, {key}: tag/v1")
    push_to(site, mode)
    assert init_of(site, "production") == "# v1\n"
    stdlib.tag("v1", "main")
    assert any("tag 'v1' was moved" in line for line in push_to(site, mode, STDLIB).lines("WARNING"))
    assert init_of(site, "production") == "# newer\n"
    git("tag", "-d", "v1", directory=stdlib.path)
    push_to(site, mode, STDLIB, strict=60)
    assert site.dangling("production") == ["modules/stdlib"]
    stdlib.tag("v1", "main~1")
    push_to(site, mode, STDLIB)
    assert init_of(site, "production") == "# v1\n"


def test_a_mandatory_branch_is_asked_only_of_repositories_that_say_nothing_else(site: Site, stdlib: Remote) -> None:
    publish(site, "code: ., data: null")
    outcome = site.update()
    assert any("Refusing new repository modules/stdlib: it has no branch 'master'" in line for line in outcome.lines())
    publish(site, "code: ., data: null, fallback: main")
    assert site.update("--strict").code == 0
    assert init_of(site, "production") == "# newer\n"
    assert set(site.expanded(STDLIB)) == {"main"}
    assert stdlib.find("master") is None


@pytest.mark.parametrize(
    "entry",
    [
        "code: ..",
        "code: /etc",
        "code: ''",
        "code: -x",
        'code: "a\\nb"',
        f"code: {'a' * 300}",
        "data: ../../x",
        "cod: .",
        "ref: a..b",
    ],
)
def test_a_hostile_entry_is_one_error_and_leads_nowhere(site: Site, stdlib: Remote, entry: str) -> None:
    site.update()
    links, expanded = site.links("production"), site.expanded(STDLIB)
    publish(site, entry)
    outcome = site.update("--strict")
    errors = outcome.lines("ERROR")
    assert (outcome.code, len(errors)) == (60, 1), errors
    assert "The library's entry modules/stdlib is unusable" in errors[0]
    assert (site.links("production"), site.expanded(STDLIB)) == (links, expanded)
    assert stdlib.commit("main")


def test_links_in_a_repository_that_lead_out_of_it_make_no_link(site: Site, stdlib: Remote) -> None:
    blob = git("hash-object", "-w", "--stdin", directory=stdlib.path, stdin=b"/etc")
    stream = f"commit refs/heads/evil\ncommitter A <a@example.org> now\ndata 1\nx\nM 120000 {blob} src\n"
    git("fast-import", "--quiet", "--date-format=now", directory=stdlib.path, stdin=stream.encode())
    publish(site, "code: src, data: null, ref: evil")
    outcome = site.update("--strict")
    assert outcome.code == 60
    assert "modules/stdlib" not in site.links("production")
    publish(site, "code: src/x, data: null, ref: evil")
    assert site.update("--strict").code == 60
    assert "modules/stdlib" not in site.links("production")
    assert site.exists("production/modules/dummy/manifests/init.pp")


def test_a_repository_without_the_directory_that_the_library_names_is_told(site: Site, stdlib: Remote) -> None:
    publish(site, "code: puppet/src, data: null, ref: main")
    outcome = site.update("--strict")
    assert outcome.code == 60
    assert any("there is no 'puppet/src', which environments link to" in line for line in outcome.lines("WARNING"))
    stdlib.push({"puppet/src/manifests/init.pp": "# deep\n"}, "main")
    assert site.update("--strict").code == 0
    assert init_of(site, "production") == "# deep\n"


# Defaults with fallbacks


@pytest.fixture
def ticket(site: Site) -> Site:
    """Environment ticket has the branch ticket42 of whatever has it, and else qa; the module's team pushed it."""
    for remote in site.remotes.values():
        remote.branch("qa")
    site.remotes[DUMMY].push({INIT: "# ticket\n"}, "ticket42", onto="master")
    site.define("ticket", definition("[ticket42, qa]"))
    return site


@MODES
def test_an_environment_has_the_first_default_that_a_repository_has(ticket: Site, mode: str) -> None:
    push_to(ticket, mode)
    assert init_of(ticket, "ticket", "dummy") == "# ticket\n"
    assert ticket.links("ticket")["site"] == "../../clone/common/site/qa/code"
    assert ticket.dangling("ticket") == []


@MODES
def test_a_branch_of_the_list_appears_vanishes_and_is_renamed(ticket: Site, mode: str) -> None:
    push_to(ticket, mode)
    dummy, myapp = ticket.remotes[DUMMY], ticket.remotes["hostgroups/myapp"]
    path = "ticket/hostgroups/hg_myapp/manifests/init.pp"
    with never_missing(ticket, path, "ticket/modules/dummy/manifests/init.pp", "ticket/site/site.pp"):
        myapp.push({INIT: "# ticket, too\n"}, "ticket42", onto="master")
        push_to(ticket, mode, "hostgroups/myapp")
        assert ticket.read(path) == "# ticket, too\n"
        dummy.delete("ticket42")
        gone = push_to(ticket, mode, DUMMY)
        assert (init_of(ticket, "ticket", "dummy"), ticket.dangling("ticket")) == ("class dummy {}\n", [])
        assert gone.lines("WARNING") == []
        assert any("'ticket'" in line and "ticket42" in line and "qa" in line for line in gone.lines("INFO"))
        git("update-ref", "refs/heads/ticket43", myapp.commit("ticket42"), directory=myapp.path)
        myapp.delete("ticket42")
        push_to(ticket, mode, "hostgroups/myapp")
        assert ticket.links("ticket")["hostgroups/hg_myapp"].endswith("/myapp/qa/code")
        ticket.define("ticket", definition("[ticket43, ticket42, qa]"))
        push_to(ticket, mode)
        # On demand nobody asked for what only a list names; but a mirror has all branches.
        assert ticket.read(path) == "# ticket, too\n"


def test_on_demand_what_nobody_hints_at_stays_until_somebody_does(ticket: Site) -> None:
    push_to(ticket, "ONDEMAND")
    ticket.remotes[DUMMY].delete("ticket42")
    ticket.remotes["hostgroups/myapp"].branch("ticket42")
    before = ticket.links("ticket")
    push_to(ticket, "ONDEMAND")
    assert (ticket.links("ticket"), init_of(ticket, "ticket", "dummy")) == (before, "# ticket\n")
    push_to(ticket, "ONDEMAND", DUMMY, "hostgroups/myapp")
    assert ticket.links("ticket")["modules/dummy"].endswith("/dummy/qa/code")
    assert ticket.links("ticket")["hostgroups/hg_myapp"].endswith("/myapp/ticket42/code")


def test_on_demand_a_list_of_defaults_is_no_reason_to_ask(ticket: Site) -> None:
    ticket.settings["main.mode"] = "ONDEMAND"
    ticket.update()
    ticket.define("ticket", definition("[ticket44, ticket42, qa]"))
    outcome = push_to(ticket, "ONDEMAND")
    assert not outcome.has("upon demand")
    ticket.define("other", definition("ticket44"))
    assert push_to(ticket, "ONDEMAND", strict=60).has("upon demand")


def test_an_override_still_comes_first_and_still_dangles(ticket: Site) -> None:
    ticket.remotes[DUMMY].branch("mine")
    ticket.define("ticket", definition("[ticket42, qa]", {DUMMY: "mine"}))
    assert ticket.update("--strict").code == 0
    assert ticket.links("ticket")["modules/dummy"].endswith("/dummy/mine/code")
    ticket.remotes[DUMMY].delete("mine")
    assert ticket.update("--strict").code == 60
    assert "modules/dummy" in ticket.dangling("ticket")


def test_what_cannot_be_asked_takes_nothing_back_to_a_fallback(ticket: Site) -> None:
    ticket.update()
    (ticket.root / "bare" / DUMMY / "refs" / "heads" / "ticket42").unlink(missing_ok=True)
    ticket.remotes[DUMMY].go_away()
    ticket.update()
    assert init_of(ticket, "ticket", "dummy") == "# ticket\n"


def test_a_fallback_of_the_library_is_after_the_defaults(site: Site, stdlib: Remote) -> None:
    publish(site, "code: ., data: null, fallback: tag/v1")
    assert site.update("--strict").code == 0
    assert init_of(site, "production") == "# v1\n"
    stdlib.push({"manifests/init.pp": "# of the site\n"}, "master", onto="main")
    assert site.update("--strict").code == 0
    assert init_of(site, "production") == "# of the site\n"
    stdlib.delete("master")
    assert site.update("--strict").code == 0
    assert (init_of(site, "production"), site.dangling("production")) == ("# v1\n", [])


# Tools


def _stdout(site: Site, main: object, *arguments: str, code: int = 0) -> str:
    site.capture.readouterr()
    assert main(["-c", str(site.config), *arguments]) == code  # type: ignore[operator]
    return site.capture.readouterr().out


def test_a_snapshot_keeps_the_layout_that_it_was_taken_with(site: Site, stdlib: Remote) -> None:
    site.define("ticket", definition("[ticket42, master]"))
    assert site.update("--strict").code == 0
    for name in ("production", "ticket"):
        text = _stdout(site, snapshot.main, name)
        assert "ref: commit/" in text
        assert "code: ." in text
        site.define(f"snap_{name}", text)
    assert site.update("--strict").code == 0
    before = {name: site.links(name) for name in site.environments()}
    stdlib.push({"elsewhere/manifests/init.pp": "# elsewhere\n", "manifests/init.pp": None}, "main")
    publish(site, "code: elsewhere, data: null, ref: main")
    assert site.update("--strict").code == 0
    assert init_of(site, "production") == "# elsewhere\n"
    for name in ("snap_production", "snap_ticket"):
        assert (init_of(site, name), site.links(name)) == ("# v1\n", before[name])
    publish(site, None)
    assert site.update("--strict", "--allow-purge").code in (0, 60)
    assert (init_of(site, "snap_production"), site.links("snap_production")) == ("# v1\n", before["snap_production"])


def test_stats_reset_and_a_dry_run_know_it(site: Site, stdlib: Remote) -> None:
    would = site.update("--dry-run", "--strict")
    assert would.code == 0, would.stdout
    assert "Would expand modules/stdlib ~v1" in would.stdout
    assert site.update("--strict").code == 0
    assert "Nothing would change." in site.update("--dry-run", "--strict").stdout
    assert "'stdlib': ['tag/v1']" in _stdout(site, stats.main, "-i")
    assert "- stdlib (tag/v1) [12.0B]" in _stdout(site, stats.main, "-r")
    found = json.loads(_stdout(site, stats.main, "--json", "-r"))
    assert found["repositories"]["modules"]["stdlib"]["refs"]["tag/v1"]["commit"]
    publish(site, "code: lib, data: null, ref: main")
    would = site.update("--dry-run", "--strict")
    assert (would.code, stdlib.find("v1")) == (0, None), would.stdout
    assert "Would expand modules/stdlib main" in would.stdout
    assert "Would remove modules/stdlib ~v1" in would.stdout
    assert site.update("--strict").code == 0
    assert _stdout(site, reset.main, "--yes") is not None
    assert site.update("--strict").code == 0
    assert site.links("production")["modules/stdlib"].endswith("/stdlib/main/lib")


def test_a_lost_definition_is_rebuilt_with_its_layout(site: Site, stdlib: Remote) -> None:
    site.settings["main.protectedenvironments"] = "team,"
    site.define("team", definition("master", {STDLIB: "{ref: main, code: lib, data: manifests}"}))
    assert site.update("--strict").code == 0
    before = site.links("team")
    (site.root / "cache" / "environments" / "team").write_bytes(b"lost")
    site.retire("team")
    site.update()
    assert (site.links("team"), stdlib.find("v1")) == (before, None)


def test_jens_check_knows_all_of_it(site: Site, stdlib: Remote) -> None:
    library, definitions = site.root / "library.yaml", site.root / "definitions"
    definitions.mkdir()
    (definitions / "production.yaml").write_text(
        definition("[ticket42, master]", {STDLIB: "{ref: tag/v2, code: nowhere}"})
    )

    def checked(entry: str, code: int) -> str:
        publish(site, entry)
        library.write_text(git("show", "master:repositories.yaml", directory=site.library.path) + "\n")
        arguments = ["--environments", str(definitions), "--repositories", str(library), "--remote"]
        return _stdout(site, check.main, *arguments, code=code)

    line = len(git("show", "master:repositories.yaml", directory=site.library.path).splitlines())
    said = checked("code: ., data: null, ref: tag/v1", 1)
    assert f"{definitions}/production.yaml:5: error: modules/stdlib has no tag 'v2'" in said
    stdlib.tag("v2", "main")
    said = checked("code: ., data: null, ref: tag/v1", 1)
    assert (
        f"{library}:{line}: error: modules/stdlib tag 'v2': there is no 'nowhere', which environments link to" in said
    )
    (definitions / "production.yaml").write_text(definition("[ticket42, master]"))
    assert checked("code: ., data: null, ref: tag/v1", 0) == ""
    said = checked("code: ., data: null, ref: tag/v3", 1)
    assert f"{library}:{line}: error: 'ref': modules/stdlib has no tag 'v3'" in said
    said = checked("cod: ., data: null", 1)
    assert f"{library}:{line}: error: unknown key 'cod', expected 'code'" in said
    said = checked("code: ., data: null, ref: tag/v1, fallback: main", 0)
    assert f"{library}:{line}: warning: modules/stdlib has 'ref' and 'fallback', of which only 'ref' counts" in said


def test_jens_compare_finds_no_difference_where_the_same_is_said_otherwise(site: Site, stdlib: Remote) -> None:
    site.define("team", definition("master", {STDLIB: "{ref: tag/v1, code: ., data: null}"}))
    assert site.update("--strict").code == 0
    other = Site(site.root.parent / "other", site.capture)
    for name in ("clone", "environments"):
        shutil.rmtree(other.root / name)
        shutil.copytree(site.root / name, other.root / name, symlinks=True)
    assert compare.main([str(site.root), str(other.root)]) == 0
    publish(site, "code: ., data: null, ref: main")
    assert site.update("--strict").code == 0
    site.capture.readouterr()
    assert compare.main([str(site.root), str(other.root)]) == 1
    assert "production" in site.capture.readouterr().out
    assert stdlib.commit("main")


# What somebody may do by mistake, or on purpose


@MODES
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("code: ., data: null, ref: tag/v1", "code: ., ref: tag/v2"),
        ("code: ., data: null, ref: tag/v1", "code: lib, data: manifests, ref: tag/v2"),
        ("code: ., data: lib, ref: tag/v1", "code: ., data: null, ref: tag/v2"),
        ("code: ., data: null, ref: tag/v1", ""),
    ],
)
def test_a_library_that_changes_while_the_server_is_down_takes_nothing_away(
    site: Site, stdlib: Remote, mode: str, before: str, after: str
) -> None:
    publish(site, before)
    push_to(site, mode)
    links = site.links("production")
    stdlib.tag("v2", "main")
    stdlib.go_away()
    publish(site, after)
    for _ in range(3):
        push_to(site, mode, strict=None)
        assert (site.links("production"), init_of(site, "production")) == (links, "# v1\n")
    stdlib.come_back()
    push_to(site, mode, STDLIB, strict=None)
    if "tag/v2" in after:
        assert site.links("production")["modules/stdlib"].startswith("../../../clone/modules/stdlib/~v2")


def test_a_definition_stops_no_pushes_for_others(site: Site) -> None:
    dummy = site.remotes[DUMMY]
    blob = git("hash-object", "-w", "--stdin", directory=dummy.path, stdin=b"/usr/share")
    stream = "commit refs/heads/master\ncommitter A <a@example.org> now\ndata 1\nx\nfrom refs/heads/master^0\n"
    stream += f"M 120000 {blob} spec\n"
    git("fast-import", "--quiet", "--date-format=now", directory=dummy.path, stdin=stream.encode())
    site.define("mine", definition("master", {DUMMY: "{ref: master, code: spec}"}))
    assert site.update("--strict").code == 60
    assert "modules/dummy" not in site.links("mine")
    dummy.push({INIT: "# new\n"})
    site.update()
    assert init_of(site, "production", "dummy") == "# new\n"


def test_a_new_entry_whose_ref_is_not_there_is_told(site: Site, stdlib: Remote) -> None:
    publish(site, "code: ., data: null, ref: tag/v9")
    assert site.update("--dry-run", "--strict").code == 60
    outcome = site.update("--strict")
    assert outcome.code == 60
    assert any("there is no tag 'v9' in ['modules/stdlib']" in line for line in outcome.lines("WARNING"))
    assert site.dangling("production") == ["modules/stdlib"]
    stdlib.tag("v9", "main")
    assert site.update("--strict").code == 0
    assert init_of(site, "production") == "# newer\n"


def test_a_snapshot_with_versions_keeps_what_left_the_library_through_pushes(site: Site, stdlib: Remote) -> None:
    site.settings.update({"main.versionedenvironments": "*,", "main.directory_environments": "True"})
    pinned = git("rev-parse", "v1^{}", directory=stdlib.path)
    site.define("snap", definition(None, {STDLIB: f"commit/{pinned}", DUMMY: "master"}))
    push_to(site, "ONDEMAND")
    publish(site, None)
    site.update("--allow-purge")
    site.update()
    for number in range(3):
        site.remotes[DUMMY].push({INIT: f"# {number}\n"})
        push_to(site, "ONDEMAND", DUMMY, strict=None)
        assert (init_of(site, "snap"), init_of(site, "snap", "dummy")) == ("# v1\n", f"# {number}\n")


def test_on_demand_a_ref_that_the_library_names_anew_is_asked_for(site: Site, stdlib: Remote) -> None:
    publish(site, "code: ., data: null, fallback: tag/v1")
    site.define("team", definition("[tag/v2, master]"))
    push_to(site, "ONDEMAND")
    stdlib.tag("v2", "main")  # its hint is lost
    publish(site, "code: ., data: null, ref: tag/v2")
    push_to(site, "ONDEMAND")
    assert init_of(site, "production") == "# newer\n"


@pytest.mark.parametrize("default", ["!!seq foo", "!!seq {a: b}", "!!map [qa]", "!!seq"])
def test_a_default_that_only_claims_to_be_a_list_spoils_one_definition(site: Site, default: str) -> None:
    site.update()
    site.define("team", f"default: {default}\nnotifications: team@example.org\n")
    outcome = site.update("--strict")
    assert outcome.code == 60
    assert len(outcome.lines("ERROR")) == 1
    assert site.exists("production/modules/dummy/manifests/init.pp")


def test_a_tag_with_an_odd_name_is_not_mirrored_beside_a_needed_one(site: Site, stdlib: Remote) -> None:
    stdlib.tag("refs/heads/x", "main")
    stdlib.tag("x/refs/tags/v1", "main")
    assert site.update("--strict").code == 0
    tags = git("for-each-ref", "--format=%(refname)", "refs/tags", directory=site.root / "bare" / STDLIB)
    assert tags == "refs/tags/v1"


def test_going_back_to_another_layout_is_doubted(site: Site, stdlib: Remote) -> None:
    stdlib.push({"manifests/init.pp": None, "lib/facter/x.rb": None, "src/manifests/init.pp": "# src\n"}, "main")
    publish(site, "code: src, data: null, ref: main")
    push_to(site, "POLL")
    stdlib.push({"manifests/init.pp": "# top\n", "src/manifests/init.pp": None}, "main")
    publish(site, "code: ., data: null, ref: main")
    push_to(site, "POLL")
    site.capture.readouterr()
    assert snapshot.main(["-c", str(site.config), "production", "--at", "1"]) == 60
    said = site.capture.readouterr().err
    assert "modules/stdlib at " in said
    assert "has no Puppet code in '.', where it is now" in said
    assert hold.main(["-c", str(site.config), "production", "--at", "1"]) == 0
    assert "has no Puppet code in '.', where it is now" in site.capture.readouterr().err
