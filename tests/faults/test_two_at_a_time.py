"""Everything that teams and strangers can do to a run, two at a time, drawn at random: nobody else waits for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from tests.conftest import Site, definition, git
from tests.everything import everything_below
from tests.faults.decoy import push_bomb, push_tree
from tests.faults.samples import IS_SOAK
from tests.faults.servers import Servers, servers
from tests.faults.test_git_limits import Memory
from tests.faults.test_remotes import INIT, SOON, run
from tests.faults.test_server_budgets import dropping_packets

#: Draws: so many tests, and so many in each of them.
TESTS, DRAWS = (20, 10) if IS_SOAK else (4, 5)
#: Seconds that a server has to answer.
TIMEOUT = 3


class Attack:
    """A site, its lying servers, and a module for whatever an attack needs."""

    def __init__(self, site: Site, lying: Servers, name: str) -> None:
        self.site, self.lying, self.repo = site, lying, f"modules/{name}"
        self.remote = site.remotes[self.repo]
        self.good = self.remote.commit()

    @contextmanager
    def pushed(self) -> Iterator[None]:
        """What is pushed to the module meanwhile goes again."""
        yield
        git("update-ref", "refs/heads/master", self.good, directory=self.remote.path)

    @contextmanager
    def at(self, *urls: str) -> Iterator[None]:
        """Have the module at another URL; more of them are new modules."""
        before = dict(self.site.urls)
        self.site.urls.update({self.repo: urls[0], **{f"{self.repo}-{n}": url for n, url in enumerate(urls[1:])}})
        self.site.publish()
        yield
        self.site.urls.clear()
        self.site.urls.update(before)
        self.site.publish()


@contextmanager
def bomb(attack: Attack) -> Iterator[None]:
    with attack.pushed():
        push_bomb(attack.remote)
        yield


@contextmanager
def bomb_beside_the_definitions(attack: Attack) -> Iterator[None]:
    good = attack.site.definitions.commit()
    push_bomb(attack.site.definitions, beside="master")
    yield
    git("update-ref", "refs/heads/master", good, directory=attack.site.definitions.path)


@contextmanager
def deep_tree(attack: Attack) -> Iterator[None]:
    with attack.pushed():
        push_tree(attack.remote, {"d/" * 600 + "file": ("100644", "deep")})
        yield


@contextmanager
def large_file(attack: Attack) -> Iterator[None]:
    with attack.pushed():
        attack.remote.push({"code/files/large": "0" * 50_000_000})
        yield


@contextmanager
def way_out(attack: Attack) -> Iterator[None]:
    with attack.pushed():
        attack.remote.push({INIT: None, "data/dummy.yaml": None})
        push_tree(attack.remote, {"code": ("120000", "/etc"), "data": ("120000", "../../../../../..")})
        yield


def lying_server(lie: str) -> Callable[[Attack], AbstractContextManager[None]]:
    @contextmanager
    def attacked(attack: Attack) -> Iterator[None]:
        with attack.at(*[f"{attack.lying.git(lie, lie)}{attack.remote.path}" for _ in range(4)]):
            yield

    attacked.__name__ = f"server_{lie}"
    return attacked


@contextmanager
def dropped_packets(attack: Attack) -> Iterator[None]:
    with dropping_packets() as address, attack.at(*[f"git://{address}/x{number}" for number in range(9)]):
        yield


@contextmanager
def unknown_commits(attack: Attack) -> Iterator[None]:
    names = [f"team{number}" for number in range(8)]
    for number, name in enumerate(names):
        attack.site.define(name, definition(overrides={attack.repo: f"commit/{number:040x}"}))
    yield
    for name in names:
        attack.site.retire(name)


@contextmanager
def many_overrides(attack: Attack) -> Iterator[None]:
    many = "".join(f"    m{number}: master\n" for number in range(30_000))
    attack.site.define("many", f"default: master\nnotifications: eve@example.org\noverrides:\n  modules:\n{many}")
    yield
    attack.site.retire("many")


@contextmanager
def replaced_objects(attack: Attack) -> Iterator[None]:
    bare = attack.site.root / "bare" / attack.repo
    blob = git("hash-object", "-w", "--stdin", directory=bare, stdin=b"class evil {}\n")
    git("replace", "-f", git("rev-parse", f"master:{INIT}", directory=bare), blob, directory=bare)
    yield
    for name in git("replace", "-l", directory=bare).split():
        git("replace", "-d", name, directory=bare)


@contextmanager
def hostile_hints(attack: Attack) -> Iterator[None]:
    spool = attack.site.root / "spool"
    (spool / "00000001").mkdir(exist_ok=True)
    for number in range(50):
        element = spool / "00000001" / f"{number:014x}"
        element.mkdir()
        (element / "data").write_bytes(b"cos\nsystem\n(S'touch /tmp/evil'\ntR.")
    (spool / "temporary").mkdir(exist_ok=True)
    (spool / "temporary" / f".{attack.good}").symlink_to(attack.site.root / "clone")
    yield
    (spool / "temporary" / f".{attack.good}").unlink(missing_ok=True)


ATTACKS: list[Callable[[Attack], AbstractContextManager[None]]] = [
    *(bomb, bomb_beside_the_definitions, deep_tree, large_file, way_out, dropped_packets, unknown_commits),
    *(many_overrides, replaced_objects, hostile_hints),
    *map(lying_server, ("silent", "silent-pack", "drip", "endless", "garbage")),
]


@pytest.mark.parametrize("seed", range(TESTS))
def test_whatever_two_do_the_push_of_a_third_is_visible_in_time(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    site.settings |= {"main.mode": "ONDEMAND", "git.timeout": str(TIMEOUT), "git.clonetimeout": "10"}
    for name in ("one", "two"):
        site.add(f"modules/{name}")
    site.publish()
    neighbour = site.root / "neighbour"
    neighbour.mkdir()
    (neighbour / "secret").write_text("ours\n")
    outside = everything_below(neighbour)
    assert site.update("--strict").code == 0
    for number in range(DRAWS):
        first, second = chance.sample(ATTACKS, 2)
        with servers(site.root / f"servers{number}") as lying, ExitStack() as stack:
            stack.enter_context(first(Attack(site, lying, "one")))
            stack.enter_context(second(Attack(site, lying, "two")))
            lying.lie()
            text = f"# {number}\n"
            site.remotes["modules/dummy"].push({INIT: text})
            site.hint("modules/dummy", "modules/one", "modules/two")
            with Memory() as memory:
                ended = run(site)
            drawn = (first.__name__, second.__name__, ended.outcome.lines("ERROR"))
            assert ended.outcome.code == 0, drawn
            assert site.read("production/modules/dummy/manifests/init.pp") == text, drawn
            assert ended.survivors == [], drawn
            assert ended.seconds < SOON, drawn
            assert memory.most < 2_000_000, drawn
        assert everything_below(neighbour) == outside
        assert site.update("--poll", "--strict").code == 0, (first.__name__, second.__name__)
