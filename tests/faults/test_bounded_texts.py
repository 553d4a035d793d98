"""Definitions that are too many, too large or too long in all: each costs a run little, and the next one less."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest

from jens.environments.dangling import Dangling, find_missing
from jens.git import contents
from jens.metadata import parsed, yamlnodes
from jens.model import SITE, Branch, Definition, Expansion, RepoId
from tests import TREE
from tests.conftest import Site, definition, git

_MEGABYTE = 1 << 20
#: Runs jens-update, and prints its exit code, its peak of memory in MiB, and the processor's seconds. getrusage(2)
#: would tell the peak of the process that has started it, if that was higher.
_MEASURED = """
import resource, sys
from jens.commands import update
code = update.main(sys.argv[1:])
own = resource.getrusage(resource.RUSAGE_SELF)
[peak] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(code, peak >> 10, own.ru_utime + own.ru_stime)
"""


def _measured(site: Site) -> tuple[int, int, float]:
    """Exit code, peak memory in MiB, and seconds of the processor, of a run as a process of its own."""
    command = [sys.executable, "-c", _MEASURED, "-c", str(site.config)]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=True, timeout=240)
    code, memory, seconds = done.stdout.split()
    return int(code), int(memory), float(seconds)


def _push_one_blob(site: Site, text: str, names: list[str]) -> None:
    """Push a definition under many names; the repository has its text once."""
    remote = site.definitions
    lines = [f"blob\nmark :1\ndata {len(text)}\n{text}\ncommit refs/heads/master\n"]
    lines += ["committer Eve <eve@example.org> now\ndata 4\npush\nfrom refs/heads/master^0\n"]
    lines += [f"M 100644 :1 {name}.yaml\n" for name in names]
    git("fast-import", "--quiet", "--date-format=now", directory=remote.path, stdin="".join(lines).encode())


def test_fifteen_hundred_definitions_of_a_megabyte_of_comments_cost_little_and_then_nothing(site: Site) -> None:
    assert site.update("--strict").code == 0
    head = "default: master\nnotifications: eve@example.org\n"
    comment = "# " + "-" * 97 + "\n"
    text = head + comment * ((_MEGABYTE - len(head)) // len(comment))
    _push_one_blob(site, text, [f"x{number:04}" for number in range(1500)])
    site.define("zz")
    code, memory, first = _measured(site)
    assert code == 0
    made = (64 * _MEGABYTE - 100) // len(text)
    assert len(site.environments()) == made + 1  # production, and those that are not more than 64 MiB
    assert "zz" not in site.environments()
    assert memory < 150

    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    code, memory, again = _measured(site)
    assert code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    assert memory < 150
    if again >= max(first, 5):  # a processor that others use, too, is slower
        again = _measured(site)[2]
    assert again < max(first, 5)
    last = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    count = 1500 + 2 - made - 1
    assert (len(last["failed"]), len(last["faults"])) == (min(count, 1001), min(count, 1001))
    errors = site.update().lines("ERROR")
    assert len(errors) == count
    assert all("is ill-formed" in error and "larger than 67108864 bytes" in error for error in errors)


def test_what_was_parsed_is_not_parsed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.define("good", definition("master", {"modules/dummy": "master"}, more="parser: future\nstrange: 1\n"))
    site.define("bad", "default: 5\nnotifications: x\n")
    site.define("protected")
    site.settings["main.protectedenvironments"] = "protected,"
    first = site.update().lines("ERROR")
    site.retire("protected")
    site.define("broken", "default: master\nnotifications: x\n")
    site.update()
    site.define("broken", "{")
    before = site.update().lines("ERROR")
    assert len(first) < len(before)
    texts: list[object] = []
    real = yamlnodes.parse

    def parse(source: bytes) -> object:
        texts.append(source)
        return real(source)

    monkeypatch.setattr(yamlnodes, "parse", parse)
    outcome = site.update("--allow-purge")  # so it looks at everything
    assert outcome.lines("ERROR") == before
    assert [source for source in texts if b"repositories:" not in source] == []  # type: ignore[operator]
    assert site.environments() == ["broken", "good", "production", "protected"]

    monkeypatch.setattr(parsed, "_rules", lambda _prefix: "others")
    site.update()
    assert len(texts) > 5
    (site.root / "cache" / "definitions.json").write_text('{"version": 1, "content": {"rules": "others", "texts": 5}}')
    assert site.update().lines("ERROR") == before


def test_a_definition_of_fifty_thousand_overrides_is_ill_formed_and_its_environment_stays(site: Site) -> None:
    site.define("large", definition("master", {"modules/dummy": "master"}))
    assert site.update("--strict").code == 0
    links = site.links("large")
    names = "".join(f"    m{number}: master\n" for number in range(50_000))
    site.define("large", f"notifications: eve@example.org\noverrides:\n  modules:\n{names}")
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    outcome = site.update()
    assert outcome.code == 0
    [error] = outcome.lines("ERROR")
    assert error == (
        "ERROR Environment 'large' is ill-formed: large.yaml: line 3: 'overrides' has more than 20000 overrides"
    )
    assert site.links("large") == links
    assert site.read("large/modules/dummy/manifests/init.pp") == "# new\n"
    begin = time.process_time()
    assert site.update().lines("ERROR") == [error]
    assert time.process_time() - begin < 10


def test_a_definition_that_means_nothing_twenty_thousand_times_says_so_in_few_lines(site: Site) -> None:
    names = "".join(f"    m{number}: master\n" for number in range(5_000))
    long = "k" * 5_000
    site.define(
        "large", f"default: master\nnotifications: eve@example.org\n? {long}\n: 1\noverrides:\n  modules:\n{names}"
    )
    outcome = site.update()
    warnings = [line for line in outcome.lines("WARNING") if "'large'" in line]
    assert len(warnings) == 21
    assert max(map(len, warnings)) < 1500
    assert (site.root / "cache" / "last-run.json").stat().st_size < 50_000
    faults = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]["faults"]
    assert len(faults) == 22
    assert any("4980 more" in fault["text"] for fault in faults)


def test_blobs_are_read_a_few_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(wraps=contents._read_blobs)
    monkeypatch.setattr(contents, "_read_blobs", read)
    monkeypatch.setattr(contents, "_BATCH", 100)
    for number in range(12):
        site.define(f"e{number:02}", definition(mail=f"a{number}"))
    assert site.update("--strict").code == 0
    assert len(site.environments()) == 13
    assert read.call_count > 6


def test_an_environment_whose_every_link_dangles_is_told_in_few_words() -> None:
    missing = {(RepoId("modules", f"m{number:03}"), Branch("nope")) for number in range(400)}
    expansion = Expansion({}, frozenset({*missing, (SITE, Branch("other"))}))
    found = find_missing([Definition("x", Branch("nope"), {}), Definition("y", Branch("good"), {})], expansion)
    assert len(found) == 21
    assert Dangling("x", "modules/m019", "branch 'nope'") in found
    assert Dangling("x", "380 more repositories", "such ref") in found
