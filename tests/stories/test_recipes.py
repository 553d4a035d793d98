"""What the docs tell administrators and teams to do works."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from jens.commands import snapshot
from tests import TREE
from tests.conftest import Remote, Site, assert_complaint, definition, git

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
SHOWN = "production/modules/dummy/manifests/init.pp"


def blocks(document: str, title: str, language: str) -> list[str]:
    """The blocks of code in a section of a document."""
    text = (TREE / "docs" / document).read_text("utf-8")
    section = re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_a_frozen_environment_stays_as_it_is_until_it_is_thawed(site: Site) -> None:
    assert (
        "jens-snapshot production > production.yaml"
        in blocks("environments.md", "Freezing an environment, and going back", "sh")[0]
    )
    assert site.update("--strict").code == 0
    before = site.read(SHOWN)
    site.capture.readouterr()
    assert snapshot.main(["-c", str(site.config), "production"]) == 0
    site.define("production", site.capture.readouterr().out)
    site.remotes[DUMMY].push({INIT: "# new\n"})
    site.add("modules/late")
    site.publish()
    assert site.update("--strict").code == 0
    assert site.read(SHOWN) == before
    assert not site.exists("production/modules/late")
    site.define("production", definition())
    assert site.update("--strict").code == 0
    assert site.read(SHOWN) == "# new\n"
    assert site.exists("production/modules/late")


def test_one_repository_goes_back_by_an_override(site: Site) -> None:
    good = site.remotes[DUMMY].push({INIT: "# good\n"})
    site.remotes[DUMMY].push({INIT: "# bad\n"})
    assert site.update("--strict").code == 0
    [text] = blocks("environments.md", "Freezing an environment, and going back", "yaml")
    site.define("production", definition() + re.sub("[0-9a-f]{40}", good, text))
    assert site.update("--strict").code == 0
    assert site.read(SHOWN) == "# good\n"
    site.remotes[DUMMY].push({INIT: "# still bad\n"})
    assert site.update("--strict").code == 0
    assert site.read(SHOWN) == "# good\n"


@pytest.mark.parametrize(("place", "of"), [("environments", "definitions"), ("repository", "library")])
def test_the_branch_of_the_metadata_is_renamed(site: Site, place: str, of: str) -> None:
    assert site.update("--strict").code == 0
    remote: Remote = getattr(site, of)
    git("branch", "-m", "master", "main", directory=remote.path)
    git("symbolic-ref", "HEAD", "refs/heads/main", directory=remote.path)
    before = site.listing("environments", "clone")
    assert_complaint(site.update(), 20, place)
    assert site.listing("environments", "clone") == before
    [commands] = blocks("operation.md", "Renaming the branch of the metadata", "sh")
    for command in commands.splitlines()[1:]:
        git(*command.removeprefix("sudo -u jens git ").split(), directory=site.root / "metadata" / place)
    assert site.update("--strict").code == 0
    if of == "definitions":
        remote.push({"late.yaml": definition()}, "main")
        assert site.update("--strict").code == 0
        assert site.exists("late/modules/dummy")


def test_a_public_module_is_put_into_code(site: Site, tmp_path: Path) -> None:
    if not Path(git("--exec-path", directory=tmp_path), "git-subtree").exists():
        pytest.skip("git subtree is not installed")
    public = Remote.create(tmp_path / "puppetlabs-stdlib.git", {"manifests/init.pp": "class stdlib {}\n"})
    git("tag", "v9.4.1", "master", directory=public.path)
    [commands] = blocks("environments.md", "Public modules", "sh")
    work = tmp_path / "stdlib"
    for command in commands.splitlines():
        words = command.replace("https://github.com/puppetlabs/puppetlabs-stdlib.git", public.url).split()
        if words[0] == "git":
            git(*words[1:], directory=work if work.exists() else tmp_path)
    site.add("modules/stdlib")
    shutil.rmtree(site.remotes["modules/stdlib"].path)
    git("clone", "-q", "--bare", str(work), str(site.remotes["modules/stdlib"].path), directory=tmp_path)
    site.publish()
    assert site.update().code == 0
    assert site.read("production/modules/stdlib/manifests/init.pp") == "class stdlib {}\n"
