"""What one tool has done, another sees."""

from __future__ import annotations

from jens.commands import compare, gc, reset, snapshot, stats
from tests.conftest import Site, git


def test_stats_tell_of_everything_and_after_a_reset_of_nothing(site: Site) -> None:
    site.remotes["modules/dummy"].branch("test")
    site.define("test", "default: master\nnotifications: ann@example.org\noverrides:\n  modules:\n    dummy: test\n")
    site.update()
    config = ["-c", str(site.config)]
    site.capture.readouterr()
    assert stats.main([*config, "-a"]) == 0
    assert site.capture.readouterr().out == (
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
