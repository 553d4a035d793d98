"""Deliveries that are killed at random instants: nobody misses anything, and only who was killed tells something twice.

The test knows what each run changed, for it looks at what Puppet sees before and after. Hook and server keep what they
are told.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jens.delivery.puppetserver import EVERYTHING
from jens.history import since
from jens.history.store import Reader
from jens.system import processes
from tests import tls
from tests.conftest import Site, definition
from tests.faults.samples import IS_SOAK
from tests.system.services import required
from tests.tls import Authority, Flushes
from tests.warm import Warm, warm

KILLS = 100 if IS_SOAK else 10
#: Factors for the usual length of a delivery, for one that ended before its kill and one that did not.
_FASTER, _SLOWER = 0.9, 1.05
MODULES = ("modules/a", "modules/b")
BRANCHES = ("x", "y")
HOOK = "#!/bin/sh\ncat >{top}/.new && mv {top}/.new {top}/$(date +%s%N).json\n"

#: The commit of each repository in each environment.
Shown = Mapping[str, Mapping[str, str]]


def look(site: Site) -> Shown:
    """What Puppet sees of the modules."""
    return {
        name: {
            f"modules/{link.name}": checkout.parent.name[1:]
            for link in (site.root / "environments" / name / "modules").iterdir()
            for checkout in [link.resolve()]
        }
        for name in site.environments()
    }


class Receivers:
    """The hook and the server, what they were told since the last time that they were asked, and what they know."""

    def __init__(self, site: Site, server: Flushes) -> None:
        self._top = site.root / "hook"
        self._top.mkdir()
        self._server = server
        hook = self._top / "hook"
        hook.write_text(HOOK.format(top=self._top))
        hook.chmod(0o755)
        site.settings["hook.command"] = str(hook)
        self.shown: dict[str, dict[str, str]] = {}

    def documents(self) -> Iterator[dict[str, Any]]:
        """What the hook was told, in order."""
        for path in sorted(self._top.glob("*.json")):
            yield json.loads(path.read_text())
            path.unlink()

    def flushed(self) -> Counter[str]:
        """How often each environment was flushed."""
        return Counter(self._server.news())

    def believe(self, document: Mapping[str, Any]) -> None:
        """Know what the hook was told."""
        for name in document["deleted"]:
            self.shown.pop(name, None)  # one that was killed may have told it already
        for name in document["created"]:
            self.shown[name] = {}
        for name, each in document["environments"].items():
            for difference in each["repositories"]:
                if difference["repository"].startswith("modules/") and name in self.shown:
                    self.shown[name][difference["repository"]] = difference["now"]


class Campaign:
    """Teams that push, runs, and deliveries, some of which are killed."""

    def __init__(self, site: Site, receivers: Receivers, tools: Warm, chance: random.Random) -> None:
        self._site, self._receivers, self._tools, self._chance = site, receivers, tools, chance
        self._config = str(site.config)
        self._pushes = 0
        self._usual = 0.2
        self._told = 0  # the last deployment of which the hook was told
        self._touched: set[str] = set()
        self._others = self._killed = 0  # deliveries before the one that is looked at

    def work(self) -> None:
        """Push something, and run."""
        before = look(self._site)
        for _ in range(self._chance.randrange(1, 4)):
            self._push() if self._chance.random() < 0.7 else self._define()
        assert self._site.update("--strict").code == 0
        after = look(self._site)
        self._touched |= {name for name in {*before, *after} if before.get(name) != after.get(name)}

    def _push(self) -> None:
        self._pushes += 1
        remote = self._site.remotes[self._chance.choice(MODULES)]
        remote.push({"code/file": f"{self._pushes}\n"}, self._chance.choice(("master", *BRANCHES)))

    def _define(self) -> None:
        name = self._chance.choice(("one", "two"))
        if name in self._site.environments() and self._chance.random() < 0.4:
            self._site.retire(name)
        else:
            self._site.define(name, definition("master", {MODULES[0]: self._chance.choice(BRANCHES)}))

    def kill(self) -> bool:
        """Kill a delivery at some instant; whether it had not ended before."""
        run = self._tools.start("deliver", "-c", self._config)
        time.sleep(self._chance.uniform(0, 1.05) * self._usual)
        with suppress(ProcessLookupError):  # it may not have made its group yet
            os.killpg(run.pid, signal.SIGKILL)
        os.kill(run.pid, signal.SIGKILL)
        is_killed = run.wait() == -signal.SIGKILL
        self._usual *= _SLOWER if is_killed else _FASTER
        self._others += 1
        self._killed += is_killed
        return is_killed

    def deliver(self) -> None:
        """Deliver, and compare what all were told with what has changed."""
        assert self._tools.run("deliver", "-c", self._config) == 0
        tellings = 1 + self._others
        last = self._told
        for number, document in enumerate(self._receivers.documents(), 1):
            numbers = sorted(each["number"] for each in document["deployments"])
            assert number <= tellings
            if numbers:
                assert numbers == [*range(numbers[0], numbers[-1] + 1)]
                assert numbers[0] == last + 1 or (self._killed and numbers[0] <= last + 1), (numbers, last)
                last = max(last, numbers[-1])
            self._receivers.believe(document)
        self._told = last
        assert self._receivers.shown == look(self._site)
        flushed = self._receivers.flushed()
        assert {*flushed} == self._touched, (flushed, self._touched)
        assert all(times <= tellings for times in flushed.values()), flushed
        self._touched, self._others, self._killed = set(), 0, 0

    def begin(self) -> None:
        """Tell the receivers of what there is."""
        assert self._tools.run("deliver", "-c", self._config) == 0
        [document] = self._receivers.documents()
        assert document["all"]
        with Reader(self._site.root / "cache" / "history.sqlite") as reader:
            self._told = since.last_deployment(reader)
        self._receivers.shown = {name: dict(commits) for name, commits in look(self._site).items()}
        assert self._receivers.flushed() == {EVERYTHING: 1}


@pytest.mark.timeout(1200)
def test_whenever_a_delivery_is_killed_nobody_misses_anything(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required("openssl", "openssl")
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    for repo in MODULES:
        site.add(repo, branches=BRANCHES)
    site.publish()
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("jens.example.org")
    with tls.flushes(authority.sign("server"), authority.ca) as server, warm(tmp_path / "output") as tools:
        receivers = Receivers(site, server)
        for name, value in (("urls", server.url), ("ssl_cert", cert), ("ssl_key", key), ("ssl_ca", authority.ca)):
            site.settings[f"puppetserver.{name}"] = str(value)
        assert site.update("--strict").code == 0
        campaign = Campaign(site, receivers, tools, chance)
        try:
            campaign.begin()
            kills = 0
            while kills < KILLS:
                campaign.work()
                if chance.random() < 0.8:
                    kills += campaign.kill()
                    if chance.random() < 0.3:
                        campaign.work()
                if chance.random() < 0.7:
                    campaign.deliver()
            campaign.deliver()
        except AssertionError as error:
            log = (site.root / "log" / "jens-deliver.log").read_text()
            raise AssertionError(f"seed {seed}: {error}\n{log[-5000:]}") from error
