"""Repositories: new, gone, with another URL, unreachable, damaged. The tests look only at the disk."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Remote, Site, definition, git

DUMMY = "modules/dummy"
MYAPP = "hostgroups/myapp"
INIT = "code/manifests/init.pp"
PUBLISHED = ("environments", "clone", "bare")


def bare(site: Site, repo: str) -> Path:
    return site.root / "bare" / repo


def links_to(site: Site, name: str) -> list[str]:
    """The links of all environments that have a repository's name."""
    found = [f"{env}/{link}" for env in site.environments() for link in site.links(env)]
    return [link for link in found if os.path.basename(link) in (name, f"hg_{name}")]


def is_sound(path: Path) -> bool:
    return git("fsck", "--no-dangling", "--no-progress", directory=path) == ""


def push_everywhere_else(site: Site, *repos: str) -> None:
    """Push to repositories that a faulty one must not hold up."""
    for repo in repos:
        site.remotes[repo].push({INIT: "# pushed meanwhile\n"})


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that accepts connections and never replies."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def count_connections(server: socket.socket) -> int:
    """How often clients have connected to a silent server."""
    count = 0
    server.setblocking(False)
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def refusing_port() -> int:
    """A port of this host that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# New, gone, renamed


def test_a_new_repository_joins_every_dynamic_environment(site: Site) -> None:
    site.define("pins", definition(None, {DUMMY: "master"}))
    site.update()
    site.add("modules/extra", {INIT: "# extra\n", "data/extra.yaml": "--- {}\n"})
    site.add("hostgroups/extra")
    site.publish()
    outcome = site.update()
    assert outcome.code == 0
    assert links_to(site, "extra") == [
        "production/hieradata/fqdns/extra",
        "production/hieradata/hostgroups/extra",
        "production/hieradata/module_names/extra",
        "production/hostgroups/hg_extra",
        "production/modules/extra",
    ]
    assert site.dangling("production") == []
    assert site.read("production/modules/extra/manifests/init.pp") == "# extra\n"
    assert outcome.has("INFO Cloning and expanding modules/extra...")


def test_a_gone_repository_leaves_every_environment_then_the_disk(site: Site) -> None:
    site.add("modules/old", branches=("feature",))
    site.publish()
    site.define("team", definition(overrides={"modules/old": "feature"}))
    site.update()
    commit = site.remotes["modules/old"].commit()
    del site.urls["modules/old"]
    site.publish()

    outcome = site.update()
    assert outcome.code == 0
    assert links_to(site, "old") == []
    assert site.expanded("modules/old") == {}
    assert site.checkouts("modules/old") == {commit}, "servers may still be reading it"
    assert (site.path("modules/old", f".{commit}") / INIT).is_file()
    assert not bare(site, "modules/old").exists()
    assert outcome.has("INFO Deleted repositories: ['old']")
    assert outcome.has("INFO Deleting modules/old...")
    assert outcome.has(f"INFO Removing {site.path('modules/old', 'feature')}")
    assert outcome.has(f"INFO Removing {site.path('modules/old', 'master')}")
    assert not site.update().has("modules/old")

    site.settings["main.retention"] = "0"
    site.update()
    assert not site.path("modules/old").exists()
    assert site.exists("team/modules/dummy/manifests/init.pp")
    assert os.listdir(bare(site, "modules")) == ["dummy"]


def test_a_gone_repository_that_comes_back_is_as_before(site: Site) -> None:
    site.update()
    before = site.links("production")
    url = site.urls.pop(DUMMY)
    site.publish()
    site.update()
    assert links_to(site, "dummy") == []
    site.urls[DUMMY] = url
    site.publish()
    new = site.remotes[DUMMY].push({INIT: "# back\n"})
    assert site.update("--strict").code == 0
    assert site.links("production") == before
    assert site.expanded(DUMMY) == {"master": new}
    assert site.read("production/modules/dummy/manifests/init.pp") == "# back\n"
    assert is_sound(bare(site, DUMMY))


def test_a_renamed_repository_is_renamed_everywhere(site: Site) -> None:
    site.update()
    site.urls["modules/smarty"] = site.urls.pop(DUMMY)
    site.publish()
    assert site.update().code == 0
    assert links_to(site, "dummy") == []
    assert links_to(site, "smarty") == ["production/hieradata/module_names/smarty", "production/modules/smarty"]
    assert site.read("production/modules/smarty/manifests/init.pp") == "class dummy {}\n"
    assert os.listdir(bare(site, "modules")) == ["smarty"]


def test_one_name_in_two_partitions_is_two_repositories(site: Site) -> None:
    site.add("modules/myapp", {INIT: "# module\n"})
    site.publish()
    site.update()
    assert site.read("production/modules/myapp/manifests/init.pp") == "# module\n"
    assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "class hg_myapp {}\n"
    del site.urls["modules/myapp"]
    site.publish()
    site.update()
    assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "class hg_myapp {}\n"
    assert not os.path.lexists(site.root / "environments/production/modules/myapp")


# Changed URLs


def test_a_changed_url_is_followed(site: Site) -> None:
    site.update()
    fork = Remote.create(site.root / "remotes" / "fork.git")
    fork.push({INIT: "# fork\n"})
    site.urls[DUMMY] = fork.url
    site.publish()
    assert site.update().code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# fork\n"
    site.remotes[DUMMY].push({INIT: "# the old remote\n"})
    site.update()
    assert site.read("production/modules/dummy/manifests/init.pp") == "# fork\n"
    assert git("for-each-ref", "--format=%(objectname)", directory=bare(site, DUMMY)) == fork.commit()


def test_an_unreachable_new_url_keeps_the_old_content_and_is_followed_later(site: Site) -> None:
    site.update()
    before = site.listing("environments", "clone")
    fork = Remote.create(site.root / "remotes" / "fork.git")
    fork.push({INIT: "# fork\n"})
    fork.go_away()
    site.urls[DUMMY] = fork.url
    site.publish()
    site.remotes[DUMMY].push({INIT: "# the old remote\n"})
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        assert len(outcome.lines("ERROR Unable to fetch 'dummy' from remote (")) == 1
        assert site.listing("environments", "clone") == before
    fork.come_back()
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# fork\n"


def test_a_new_url_with_the_same_branches_is_followed_as_well(site: Site) -> None:
    site.update()
    moved = site.remotes[DUMMY].path.with_name("moved.git")
    site.remotes[DUMMY].path.rename(moved)
    site.urls[DUMMY] = f"file://{moved}"
    site.publish()
    assert site.update("--strict").code == 0
    Remote(moved).push({INIT: "# moved\n"})
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# moved\n"


@pytest.mark.parametrize("form", ["path", "file URL", "blank in it"])
def test_a_repository_may_be_a_local_path(site: Site, form: str) -> None:
    remote = site.remotes[DUMMY]
    if form == "blank in it":
        remote.path = remote.path.rename(remote.path.with_name("a b;c's.git"))
    url = remote.url if form == "file URL" else str(remote.path)
    site.publish(f"""repositories:
  common: {{site: "{site.urls["common/site"]}", hieradata: "{site.urls["common/hieradata"]}"}}
  hostgroups:
  modules: {{dummy: "{url}"}}
""")
    assert site.update("--strict").code == 0
    remote.push({INIT: "# pushed\n"})
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed\n"
    assert site.expanded(DUMMY) == {"master": remote.commit()}


# Refused and unreachable


def test_a_new_repository_without_a_mandatory_branch_is_refused_until_it_has_it(site: Site) -> None:
    site.settings["main.mandatorybranches"] = "master, qa"
    for remote in site.remotes.values():
        remote.branch("qa")
    site.add("modules/half")
    site.publish()
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        errors = outcome.lines("ERROR")
        assert len(errors) == 1
        assert "modules/half" in errors[0]
        assert "'qa'" in errors[0]
        assert links_to(site, "half") == []
        assert os.listdir(bare(site, "modules")) == ["dummy"]
        assert os.listdir(site.path("modules")) == ["dummy"]
        assert site.exists("production/modules/dummy/manifests/init.pp")
    assert site.update("--strict").code == 60
    site.remotes["modules/half"].branch("qa")
    assert site.update("--strict").code == 0
    assert site.exists("production/modules/half/manifests/init.pp")


def test_a_repository_that_comes_back_without_a_mandatory_branch_is_refused_as_any_new_one(site: Site) -> None:
    site.add("modules/old", branches=("other",))
    site.publish()
    site.update()
    url = site.urls.pop("modules/old")
    site.publish()
    site.update()  # its checkout is still retained
    site.remotes["modules/old"].delete("master")
    site.urls["modules/old"] = url
    site.publish()
    outcome = site.update()
    assert len(outcome.lines("ERROR")) == 1
    assert outcome.has("modules/old")
    assert not bare(site, "modules/old").exists()
    assert links_to(site, "old") == []
    assert site.expanded("modules/old") == {}


def test_an_empty_new_repository_is_refused(site: Site) -> None:
    site.urls["modules/empty"] = Remote.create(site.root / "remotes" / "empty.git").url
    site.publish()
    outcome = site.update()
    assert outcome.code == 0
    assert len(outcome.lines("ERROR")) == 1
    assert outcome.has("modules/empty")
    assert os.listdir(bare(site, "modules")) == ["dummy"]
    assert links_to(site, "empty") == []


def test_an_unreachable_new_repository_is_taken_in_later(site: Site) -> None:
    site.add("modules/late").go_away()
    site.publish()
    outcome = site.update()
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert len(errors) == 1
    assert "late" in errors[0]
    assert links_to(site, "late") == []
    assert os.listdir(bare(site, "modules")) == ["dummy"]
    assert os.listdir(site.path("modules")) == ["dummy"]
    assert site.exists("production/modules/dummy/manifests/init.pp")
    site.remotes["modules/late"].come_back()
    assert site.update("--strict").code == 0
    assert site.exists("production/modules/late/manifests/init.pp")


def test_an_unreachable_known_repository_loses_nothing_and_holds_up_nobody(site: Site) -> None:
    site.settings["main.retention"] = "0"
    site.remotes[DUMMY].branch("feature")
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.update()
    site.remotes[DUMMY].go_away()
    push_everywhere_else(site, MYAPP)
    dummy_before = site.listing(f"clone/{DUMMY}", "environments")
    for code, options in ((0, ()), (60, ("--strict",))):
        outcome = site.update(*options)
        assert outcome.code == code
        assert outcome.stderr == ""
        assert len(outcome.lines("ERROR")) == 1
        assert len(outcome.lines("ERROR Unable to fetch 'dummy' from remote (")) == 1
        assert outcome.lines("WARNING Environment") == []
        assert site.listing(f"clone/{DUMMY}", "environments") == dummy_before
        assert site.read("team/hostgroups/hg_myapp/manifests/init.pp") == "# pushed meanwhile\n"
    site.remotes[DUMMY].come_back()
    site.remotes[DUMMY].delete("feature")
    assert (site.update("--strict").code, site.update().lines("ERROR")) == (60, [])
    assert "modules/dummy" in site.dangling("team"), "now the remote said so"


def test_a_silent_server_is_given_up_after_the_timeout_and_each_repository_asked_but_once(
    site: Site, silent_server: socket.socket
) -> None:
    site.settings["git.timeout"] = "4"
    site.settings["git.jobs"] = "1"
    site.add("modules/another")
    site.publish()
    site.update()
    before = site.listing("environments", f"clone/{DUMMY}", "clone/modules/another")
    server = f"git://127.0.0.1:{silent_server.getsockname()[1]}"
    site.urls[DUMMY] = f"{server}/dummy.git"
    site.urls["modules/another"] = f"{server}/another.git"
    site.publish()
    push_everywhere_else(site, MYAPP)
    outcome = site.update()
    assert outcome.code == 0
    errors = sorted(outcome.lines("ERROR"))
    assert len(errors) == 2
    assert "Unable to fetch 'another' from remote (" in errors[0]
    assert "Unable to fetch 'dummy' from remote (" in errors[1]
    assert count_connections(silent_server) <= 2
    assert site.listing("environments", f"clone/{DUMMY}", "clone/modules/another") == before
    assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# pushed meanwhile\n"


# Bad entries of the library


UNACCEPTABLE = [
    "ext::sh -c touch% {marker}",
    "--upload-pack=touch {marker}",
    "-oProxyCommand=touch {marker}",
    "ssh://-oProxyCommand=touch%20{marker}/x",
    "-oProxyCommand=touch%20{marker}:x",
    "fd::7",
    "ftp://example.org/x.git",
    "relative/path",
    "",
]


def test_an_unacceptable_url_is_an_error_of_its_entry_alone(site: Site) -> None:
    site.settings["main.retention"] = "0"
    names = [f"modules/m{number}" for number in range(len(UNACCEPTABLE))]
    for name in names:
        site.urls[name] = site.remotes[DUMMY].url
    site.publish()
    site.update()
    marker = site.root / "marker"
    kept = [f"clone/{name}" for name in names]
    before, links = site.listing(*kept), site.links("production")
    for name, url in zip(names, UNACCEPTABLE):
        site.urls[name] = url.format(marker=marker)
    site.add("modules/extra")
    site.publish()
    push_everywhere_else(site, MYAPP, DUMMY)
    for code, options in ((0, ()), (60, ("--strict",))):
        outcome = site.update(*options)
        assert outcome.code == code
        errors = outcome.lines("ERROR")
        assert len(errors) == len(names)
        assert all(any(name in error for error in errors) for name in names)
        assert not marker.exists()
        assert site.listing(*kept) == before
        assert site.links("production").items() >= links.items()
        assert site.dangling("production") == []
        assert site.read("production/modules/m0/manifests/init.pp") == "class dummy {}\n"
        assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed meanwhile\n"
        assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# pushed meanwhile\n"
        assert site.exists("production/modules/extra/manifests/init.pp")


def test_a_bad_name_is_an_error_of_its_entry_alone(site: Site) -> None:
    names = ["../evil", ".hidden", "-dash", "a b", "a/b", "größe", ""]
    url = site.remotes[DUMMY].url
    text = "".join(f"    '{name}': '{url}'\n" for name in ("dummy", *names))
    site.publish(f"repositories:\n  common: {{}}\n  hostgroups:\n  modules:\n{text}")
    outcome = site.update()
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert len(errors) == len(names)
    assert all(any(name in error for error in errors) for name in names)
    assert site.exists("production/modules/dummy/manifests/init.pp")
    assert os.listdir(bare(site, "modules")) == ["dummy"]
    assert os.listdir(site.path("modules")) == ["dummy"]
    assert os.listdir(site.root / "environments/production/modules") == ["dummy"]


def test_an_entry_that_is_no_string_keeps_what_is_on_disk(site: Site) -> None:
    site.update()
    before = site.listing("environments", "clone")
    common = "".join(f"    {repo.split('/')[1]}: '{site.urls[repo]}'\n" for repo in ("common/hieradata", "common/site"))
    text = f"  common:\n{common}  hostgroups: {{myapp: null}}\n  modules: {{dummy: [1, 2]}}\n"
    site.publish(f"repositories:\n{text}")
    outcome = site.update()
    assert outcome.code == 0
    assert len(outcome.lines("ERROR")) == 2
    assert site.listing("environments", "clone") == before


def test_an_unusable_library_leaves_everything_untouched(site: Site) -> None:
    site.update()
    before = site.listing(*PUBLISHED, "cache")
    site.define("another")
    push_everywhere_else(site, DUMMY)
    for text in (
        "repositories: [\n",
        "",
        "- a list\n",
        "modules: {}\n",
        "repositories: null\n",
        "repositories: []\n",
        "repositories: {common: {}, modules: {}}\n",
        "repositories: {common: {}, modules: {}, hostgroups: []}\n",
        "repositories: {common: {}, modules: a string, hostgroups: {}}\n",
        "\1",
    ):
        site.publish(text)
        outcome = site.update()
        assert outcome.code == 30, text
        assert len(outcome.stderr.splitlines()) == 1
        assert "repositories.yaml" in outcome.stderr
        last_run = {"cache/last-run.json": ""}
        assert {**site.listing(*PUBLISHED, "cache"), **last_run} == {**before, **last_run}
    site.publish()
    assert site.update().code == 0
    assert site.exists("another/modules/dummy/manifests/init.pp")


# The purge guard


@pytest.fixture
def many(site: Site) -> Site:
    """A site with thirteen modules; all have the same remote."""
    for number in range(12):
        site.urls[f"modules/m{number:02}"] = site.remotes[DUMMY].url
    site.publish()
    assert site.update().code == 0
    return site


def drop_modules(site: Site, count: int) -> None:
    for number in range(count):
        del site.urls[f"modules/m{number:02}"]
    site.publish()


def test_the_purge_guard_keeps_all_modules_and_does_everything_else(many: Site) -> None:
    many.settings["main.retention"] = "0"
    site = many
    drop_modules(site, 12)
    site.add("modules/extra")
    site.publish()
    site.define("another")
    push_everywhere_else(site, MYAPP, DUMMY)
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 31
        assert len(outcome.stderr.splitlines()) == 1
        assert any("m00" in line for line in outcome.lines("ERROR"))
        for environment in ("production", "another"):
            for module in ("dummy", "extra", "m00", "m11"):
                assert site.exists(f"{environment}/modules/{module}/manifests/init.pp")
            assert site.read(f"{environment}/hostgroups/hg_myapp/manifests/init.pp") == "# pushed meanwhile\n"
        assert bare(site, "modules/m00").is_dir()
        assert site.expanded("modules/m00").keys() == {"master"}
        assert outcome.has("INFO Deleted repositories: []")
    assert site.update("--allow-purge").code == 0
    assert sorted(os.listdir(site.root / "environments/production/modules")) == ["dummy", "extra"]
    assert sorted(os.listdir(bare(site, "modules"))) == ["dummy", "extra"]
    assert sorted(os.listdir(site.path("modules"))) == ["dummy", "extra"]
    assert site.update().code == 0


def test_modules_that_the_purge_guard_spared_come_back(many: Site) -> None:
    urls = dict(many.urls)
    drop_modules(many, 12)
    before = many.links("production")
    assert many.update().code == 31
    many.urls.update(urls)
    many.publish()
    assert many.update("--strict").code == 0
    assert many.links("production") == before


@pytest.mark.parametrize(
    ("limit", "dropped", "code"), [(100, 12, 0), (50, 10, 0), (92, 12, 31), (93, 12, 0), (0, 11, 31)]
)
def test_the_purge_guard_wants_more_than_the_limit_and_more_than_ten(
    many: Site, limit: int, dropped: int, code: int
) -> None:
    many.settings["main.purgelimit"] = str(limit)
    drop_modules(many, dropped)
    assert many.update().code == code
    left = 13 if code else 13 - dropped
    assert len(os.listdir(many.root / "environments/production/modules")) == left


def test_an_emptied_library_removes_nothing(many: Site) -> None:
    before = many.listing("environments", "clone")
    many.urls = {repo: url for repo, url in many.urls.items() if not repo.startswith("modules/")}
    many.publish()
    assert many.update().code == 31
    assert many.listing("environments", "clone") == before


@pytest.mark.parametrize("name", ["hieradata", "site"])
def test_the_purge_guard_keeps_the_common_repositories(site: Site, name: str) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    before = site.listing("environments", "clone")
    del site.urls[f"common/{name}"]
    site.publish()
    outcome = site.update()
    assert outcome.code == 31
    assert any(name in line for line in outcome.lines("ERROR"))
    assert site.listing("environments", "clone") == before
    push_everywhere_else(site, DUMMY)
    assert site.update("--strict").code == 31
    assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed meanwhile\n"
    assert site.update("--allow-purge").code == 0
    assert not [link for link, text in site.links("production").items() if f"/common/{name}/" in text]
    assert not bare(site, f"common/{name}").exists()


# Damage


def test_a_deleted_bare_is_made_anew(site: Site) -> None:
    site.update()
    clone = site.listing("environments", "clone")
    shutil.rmtree(bare(site, DUMMY))
    assert site.update("--strict").code == 0
    assert site.listing("environments", "clone") == clone
    assert is_sound(bare(site, DUMMY))
    assert git("status", "--porcelain", "--ignored", directory=site.path(DUMMY, "master")) == ""
    push_everywhere_else(site, DUMMY)
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed meanwhile\n"


def test_all_bares_deleted_at_once_are_made_anew(site: Site) -> None:
    site.update()
    clone = site.listing("environments", "clone")
    shutil.rmtree(site.root / "bare")
    (site.root / "bare").mkdir()
    push_everywhere_else(site, DUMMY)
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed meanwhile\n"
    after = site.listing("environments", "clone")
    assert {**after, **clone, "clone/modules/dummy/master": ""} == {**after, "clone/modules/dummy/master": ""}


def remove_objects(path: Path) -> None:
    shutil.rmtree(path / "objects" / "pack")
    for directory in (path / "objects").iterdir():
        if len(directory.name) == 2:
            shutil.rmtree(directory)


def truncate_objects(path: Path) -> None:
    for file in (path / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            os.truncate(file, file.stat().st_size // 2)


def remove_head(path: Path) -> None:
    (path / "HEAD").unlink()


def garble_config(path: Path) -> None:
    (path / "config").write_text("[core\n")


def lose_refs(path: Path) -> None:
    (path / "packed-refs").unlink(missing_ok=True)
    shutil.rmtree(path / "refs")


def garble_refs(path: Path) -> None:
    (path / "packed-refs").unlink(missing_ok=True)
    (path / "refs/heads/master").write_text("\0" * 41)


def leave_lock_files(path: Path) -> None:
    for name in ("packed-refs.lock", "HEAD.lock", "config.lock", "refs/heads/master.lock", "refs/heads/feature.lock"):
        (path / name).touch()


def become_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


DAMAGES = (
    remove_objects,
    truncate_objects,
    remove_head,
    garble_config,
    lose_refs,
    garble_refs,
    leave_lock_files,
    become_a_file,
)


@pytest.mark.parametrize(
    ("damage", "then"),
    [
        *((damage, "push") for damage in DAMAGES),
        *((remove_objects, then) for then in ("branch needed", "commit needed", "checkout needed")),
        (truncate_objects, "branch needed"),
        (lose_refs, "branch needed"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.__name__),
)
def test_a_damaged_bare_is_healed(site: Site, damage: Callable[[Path], None], then: str) -> None:
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# feature\n"}, "feature", onto="master")
    site.update()
    old = remote.commit()
    damage(bare(site, DUMMY))
    expected = "# feature\n"
    if then == "push":
        site.define("team", definition(overrides={DUMMY: "master"}))
        remote.push({INIT: "# pushed\n"})
        expected = "# pushed\n"
    elif then == "branch needed":
        site.define("team", definition(overrides={DUMMY: "feature"}))
    elif then == "commit needed":
        site.define("team", definition(overrides={DUMMY: f"commit/{remote.commit('feature')[:9]}"}))
    else:
        site.define("team")
        shutil.rmtree(site.path(DUMMY, f".{old}"))
        expected = "class dummy {}\n"
    outcome = site.update()
    assert outcome.code == 0
    assert site.read("team/modules/dummy/manifests/init.pp") == expected
    assert site.exists("production/modules/dummy/manifests/init.pp")
    assert site.dangling("team") == []
    assert site.update("--strict").code == 0
    assert is_sound(bare(site, DUMMY))
    assert git("rev-parse", "HEAD", directory=site.path(DUMMY, "master")) == remote.commit()
    assert [name for name in os.listdir(bare(site, "modules")) if name != "dummy"] == []


def test_a_damaged_bare_whose_remote_is_away_loses_nothing(site: Site) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    before = site.listing("environments", "clone")
    shutil.rmtree(bare(site, DUMMY))
    site.remotes[DUMMY].go_away()
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        assert len(outcome.lines("ERROR")) == 1
        assert outcome.lines("WARNING Environment") == []
        assert site.listing("environments", "clone") == before
    site.remotes[DUMMY].come_back()
    push_everywhere_else(site, DUMMY)
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed meanwhile\n"


def test_left_overs_of_an_interrupted_run_go(site: Site) -> None:
    site.update()
    before = site.listing(*PUBLISHED, "cache")
    for top in ("bare/modules", "clone/modules/dummy", "environments"):
        for name in (".new-0123456789ab", ".trash-0123456789ab"):
            (site.root / top / name / "code").mkdir(parents=True)
            (site.root / top / name / "code" / "file").touch()
    assert site.update("--strict").code == 0
    after = site.listing(*PUBLISHED, "cache")
    assert {**after, "cache/last-run.json": ""} == {**before, "cache/last-run.json": ""}


def test_a_corrupt_inventory_is_regenerated(site: Site) -> None:
    site.update()
    inventory = site.root / "cache" / "inventory.json"
    good = inventory.read_bytes()
    before = site.listing("environments", "clone")
    for garbage in (b"garbage", b"", b"{}", b"[1]", b'{"version": 99, "content": {}}', b"\x80\x04N.", b"[" * 99999):
        inventory.write_bytes(garbage)
        outcome = site.update("--strict")
        assert outcome.code == 0, garbage[:40]
        lines = outcome.lines()
        begin = lines.index("INFO Fetching repositories inventory...")
        assert lines[begin + 1 : begin + 3] == [
            "WARNING Inventory on disk not found or corrupt, generating...",
            "INFO Generating inventory of bares and clones...",
        ]
        assert outcome.has("INFO New repositories: []")
        assert site.listing("environments", "clone") == before
        assert inventory.read_bytes() == good


def test_a_repository_goes_though_the_inventory_was_lost_with_it(site: Site) -> None:
    site.settings["main.retention"] = "0"
    site.add("modules/old")
    site.publish()
    site.update()
    del site.urls["modules/old"]
    site.publish()
    (site.root / "cache" / "inventory.json").unlink()
    assert site.update().code == 0
    assert links_to(site, "old") == []
    assert not bare(site, "modules/old").exists()
    assert not site.path("modules/old").exists()


def test_a_checkout_removed_by_hand_is_repaired(site: Site) -> None:
    site.update()
    before = site.listing("environments", "clone")
    shutil.rmtree(site.path(DUMMY, f".{site.remotes[DUMMY].commit()}"))
    assert not site.exists("production/modules/dummy")
    assert site.update("--strict").code == 0
    assert site.listing("environments", "clone") == before
    assert git("status", "--porcelain", "--ignored", directory=site.path(DUMMY, "master")) == ""


def test_all_checkouts_removed_by_hand_are_repaired(site: Site) -> None:
    commit = site.remotes[DUMMY].commit()
    site.define("pins", definition(None, {DUMMY: f"commit/{commit[:8]}"}))
    site.remotes[DUMMY].push({INIT: "# new\n"})
    site.update()
    before = site.listing("environments", "clone")
    shutil.rmtree(site.root / "clone")
    (site.root / "clone").mkdir()
    assert site.update("--strict").code == 0
    assert site.listing("environments", "clone") == before


@pytest.mark.parametrize("how", ["removed", "bent", "bent outside", "a file", "a directory"])
def test_a_branch_link_changed_by_hand_is_repaired(site: Site, how: str) -> None:
    site.update()
    before = site.listing("environments", "clone")
    link = site.path(DUMMY, "master")
    target = os.readlink(link)
    link.unlink()
    if how == "bent":
        link.symlink_to("." + "0" * 40)
    elif how == "bent outside":
        link.symlink_to("/")
    elif how == "a file":
        link.write_text("")
    elif how == "a directory":
        (link / "code").mkdir(parents=True)
    assert site.update("--strict").code == 0
    assert os.readlink(link) == target
    site.update("--strict")
    assert site.listing("environments", "clone") == before


# Secrets


@pytest.mark.parametrize("options", [("-v",), ("--dry-run",)], ids=["verbose", "dry run"])
@pytest.mark.parametrize("state", ["new", "known"])
@pytest.mark.parametrize("url", ["http://{}@127.0.0.1:{}/x.git", "git://{}@127.0.0.1:{}/x.git", "ftp://{}@{}/x.git"])
def test_a_password_in_a_url_never_reaches_a_log_or_an_output(
    site: Site, url: str, state: str, options: tuple[str, ...]
) -> None:
    site.settings["main.debuglevel"] = "DEBUG"
    secret, user = "s3cr3t", "deploy-user"
    if state == "known":
        site.update()
    site.urls[DUMMY] = url.format(f"{user}:{secret}", refusing_port())
    site.publish()
    outcome = site.update(*options)
    assert outcome.code == 0
    logs = [path.read_text() for path in (site.root / "log").iterdir()]
    states = [path.read_text() for path in (site.root / "cache").glob("*.json")]
    for text in (outcome.stdout, outcome.stderr, *logs, *states):
        assert secret not in text
        assert user not in text
