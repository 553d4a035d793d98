"""A reader and a witness look on while the library changes where a module has its code, and which ref it stays at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import Remote, Site, definition, git
from tests.faults.observer import DIRECTORY, FILE, Expected, Observer

STDLIB = "modules/stdlib"
FILES = {"manifests/init.pp": "# v1\n", "lib/facter/x.rb": "# x\n"}
#: What Puppet reads of each environment, whatever becomes of the module.
SEEN = {
    **dict.fromkeys(("", "modules", "hieradata", "hostgroups"), DIRECTORY),
    **dict.fromkeys((f"modules/{name}/manifests/init.pp" for name in ("dummy", "stdlib")), FILE),
    **dict.fromkeys(("modules/stdlib/lib/facter/x.rb", "site/site.pp", "hieradata/common.yaml"), FILE),
}


def publish(site: Site, url: str, entry: str) -> None:
    site.publish()
    library = git("show", "master:repositories.yaml", directory=site.library.path)
    value = f"{{url: '{url}', {entry}}}" if entry else f"'{url}'"
    site.library.push({"repositories.yaml": f"{library}\n    stdlib: {value}\n"})


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_no_change_of_an_entry_or_a_list_of_defaults_takes_anything_away_meanwhile(site: Site, mode: str) -> None:
    remote = Remote.create(site.root / "remotes" / "stdlib.git")
    remote.push({**FILES, **{f"code/{name}": text for name, text in FILES.items()}}, "master")
    remote.tag("v1")
    url = str(remote.path)
    for other in site.remotes.values():
        other.branch("qa")
    remote.branch("qa")
    site.define("ticket", definition("[ticket42, qa]"))
    publish(site, url, "")
    site.settings["main.mode"] = mode
    assert site.update("--strict").code == 0

    def step() -> None:
        if mode == "ONDEMAND":
            site.hint(STDLIB)
        outcome = site.update("--strict")
        assert (outcome.code, outcome.lines("ERROR")) == (0, []), outcome.log

    expected = Expected(1, {"production": SEEN, "ticket": SEEN}, (), {}, {}, ())
    scratch = site.root.parent / "scratch"
    scratch.mkdir()
    with Observer(scratch).observing(site.root) as observer:
        observer.expect(expected)
        for entry in (
            "code: .",
            "code: ., data: null",
            "code: ., data: lib",
            "code: ., data: null, ref: tag/v1",
            "code: ., data: null, fallback: tag/v1",
            "code: code, data: null, ref: tag/v1",
            "",
        ):
            publish(site, url, entry)
            step()
        publish(site, url, "code: ., data: null, ref: tag/v1")
        step()
        remote.push({"manifests/init.pp": "# v2\n"})
        remote.tag("v1", annotated=True)
        step()
        publish(site, url, "")
        for branch in ("ticket42", "ticket43", "ticket42"):
            remote.push({"code/manifests/init.pp": f"# {branch}\n"}, branch, onto="master")
            step()
            remote.delete(branch)
            step()
        site.define("ticket", definition("[ticket43, ticket42, master, qa]"))
        step()
        observer.expect(replace(expected, number=2))
        assert observer.looks > 0
    assert observer.met() == []
