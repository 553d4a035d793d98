"""What the docs tell administrators and teams to do works."""

from __future__ import annotations

import re
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


def test_a_public_module_is_a_line_of_the_library(site: Site, tmp_path: Path) -> None:
    public = Remote.create(tmp_path / "puppetlabs-stdlib.git")
    public.push({"manifests/init.pp": "class stdlib {}\n"}, "main")
    public.tag("v9.4.1", "main")
    public.push({"manifests/init.pp": "# newer\n"}, "main")
    public.tag("v9.6.0", "main")
    [entry] = blocks("environments.md", "Public modules", "yaml")
    url = "https://git.example.org/mirror/puppetlabs-stdlib.git"
    assert url in entry
    site.publish()
    library = git("show", "master:repositories.yaml", directory=site.library.path)
    site.library.push({"repositories.yaml": f"{library}\n{entry.replace(url, public.url)}"})
    site.define("try", definition(overrides={"modules/stdlib": "tag/v9.6.0"}))
    assert site.update("--strict").code == 0
    assert site.read("production/modules/stdlib/manifests/init.pp") == "class stdlib {}\n"
    assert site.read("try/modules/stdlib/manifests/init.pp") == "# newer\n"
