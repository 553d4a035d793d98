"""Several tools, one after the other, on the same instance."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import pytest

from jens.commands import check, compare, config, gc, reset, snapshot, stats
from tests import TREE
from tests.conftest import Site, definition, git

MAN = TREE / "man"


def test_stats_tell_of_everything_and_after_a_reset_of_nothing(site: Site) -> None:
    site.remotes["modules/dummy"].branch("test")
    site.define("test", "default: master\nnotifications: ann@example.org\noverrides:\n  modules:\n    dummy: test\n")
    site.update()
    config = ["-c", str(site.config)]
    site.capture.readouterr()
    assert stats.main([*config, "-a"]) == 0
    first, second, rest = site.capture.readouterr().out.split("\n", 2)
    assert (first[:10], second) == ("Last run: ", "There are 0 open faults")
    assert rest == (
        "There are 1 modules:\n"
        "\t- dummy (master,test) [22.0B]\n"
        "There are 1 hostgroups:\n"
        "\t- myapp (master) [32.0B]\n"
        "There are 2 cached environments\n"
        "\t - production\n"
        "\t - test\n"
        "There are 2 declared environments\n"
        "\t - production.yaml\n"
        "\t - test.yaml\n"
        "There are 2 synchronized environments\n"
        "\t - production\n"
        "\t - test\n"
        "Fetching repositories inventory...\n"
        "{'common': {'hieradata': ['master'], 'site': ['master']},\n"
        " 'hostgroups': {'myapp': ['master']},\n"
        " 'modules': {'dummy': ['master', 'test']}}\n"
        "There are '0' messages in the hints queue\n"
    )
    assert reset.main([*config, "--yes"]) == 0
    assert site.capture.readouterr().out.endswith("\nDone -- Jens is sad now\n")
    assert stats.main([*config, "-a"]) == 0
    assert site.capture.readouterr().out == (
        "Last run: never, or nothing tells of it\n"
        "There are 0 modules:\n"
        "There are 0 hostgroups:\n"
        "There are 0 cached environments\n"
        "There are 2 declared environments\n"
        "\t - production.yaml\n"
        "\t - test.yaml\n"
        "There are 0 synchronized environments\n"
        "Fetching repositories inventory...\n"
        "Inventory on disk not found or corrupt, generating...\n"
        "Generating inventory of bares and clones...\n"
        "{'common': {}, 'hostgroups': {}, 'modules': {}}\n"
        "There are '0' messages in the hints queue\n"
    )


def test_a_snapshot_outlives_force_pushes_and_garbage_collection(site: Site) -> None:
    site.update()
    config = ["-c", str(site.config)]
    site.capture.readouterr()
    assert snapshot.main([*config, "production", "--name", "kept"]) == 0
    site.define("kept", site.capture.readouterr().out)
    site.update()
    before = site.read("kept/modules/dummy/manifests/init.pp")
    for remote in site.remotes.values():
        remote.push({"code/manifests/init.pp": "# another history\n", "data/common.yaml": "--- {}\n"}, rewrite=True)
    site.settings["main.retention"] = "0"
    site.update()
    assert gc.main([*config, "--all"]) == 0
    for repo in site.remotes:
        git("gc", "--quiet", "--prune=now", directory=site.root / "bare" / repo)
    site.update()
    assert site.read("kept/modules/dummy/manifests/init.pp") == before
    assert site.read("production/modules/dummy/manifests/init.pp") == "# another history\n"
    assert compare.main([str(site.root), str(site.root)]) == 0


def _fields(document: object) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from _fields(value)
    if isinstance(document, list):
        for value in document:
            yield from _fields(value)


@pytest.mark.parametrize(
    ("tool", "main", "arguments"),
    [
        ("stats", stats.main, ["-c", "CONFIG"]),
        ("config", config.main, ["-c", "CONFIG", "-k", "mandatorybranches"]),
        ("snapshot", snapshot.main, ["-c", "CONFIG", "test"]),
        ("compare", compare.main, ["ROOT", "OTHER"]),
        ("check", check.main, ["--environments", "ROOT/metadata/environments"]),
    ],
)
def test_every_field_of_json_is_in_the_man_page(
    site: Site, tool: str, main: Callable[[list[str]], int], arguments: list[str]
) -> None:
    site.define("test", definition(overrides={"modules/dummy": "gone"}))
    site.define("bad", "default: [")
    site.update()
    (site.root / "other").mkdir()
    for name in ("clone", "environments"):
        (site.root / "other" / name).mkdir()
    places = {"CONFIG": str(site.config), "ROOT": str(site.root), "OTHER": str(site.root / "other")}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    site.capture.readouterr()
    main([*arguments, "--json"])
    document = json.loads(site.capture.readouterr().out)
    theirs = {"bad", "dummy", "hieradata", "master", "myapp", "site", *os.listdir(site.root / "environments")}
    page = (MAN / f"jens-{tool}.1").read_text("utf-8")
    assert ".Sh JSON" in page or ".Ss JSON" in page
    assert {field for field in _fields(document) if field not in page} - theirs == set()
