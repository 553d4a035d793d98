"""The status page in a real browser, Chromium without a window: as teams and administrators use it.

axe-core looks for what keeps people from using a page. Screenshots are left in build/screenshots; the best ones are in
docs/.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import TREE
from tests.conftest import Site
from tests.system.services import LOOPBACK, Server, required, serving
from tests.unit.status.conftest import new_site, push_as

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

SCREENSHOTS = TREE / "build" / "screenshots"
#: A stored copy of axe-core, as .ci/run makes it with `npm pack axe-core`.
AXE = Path(os.environ.get("JENS_AXE", Path.home() / ".cache" / "jens" / "axe-core" / "axe.min.js"))
WIDTHS = (400, 1280)
SCHEMES = ("light", "dark")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
_MODULES = ("apache", "apt", "certmgr", "chrony", "collectd", "firewall", "kerberos", "nfs", "postgresql", "puppet")
_HOSTGROUPS = ("batch", "cloud", "mail", "storage", "web")


@dataclass
class Story:
    """What happened at the site whose page is looked at: commits by what they did."""

    site: Site
    moved: str
    broken: str


@dataclass
class Browser:
    """Chromium, at the page of a site."""

    driver: Any
    top: str
    story: Story

    def open(self, path: str, width: int = 1280, scheme: str = "light", height: int = 900) -> None:
        """Open a page at a width and with a colour scheme."""
        command = self.driver.execute_cdp_cmd
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(f"{self.top}{path}")

    def find(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str = "main") -> str:
        return " ".join(element.text for element in self.find(selector))

    def follow(self, link: str, within: str = "main") -> None:
        """Click on the first link with this text, and wait for the next page."""
        before = self.driver.current_url
        [first, *_] = [each for each in self.find(f"{within} a") if each.text == link]
        first.click()
        self.wait(lambda: self.driver.current_url != before)

    def wait(self, condition: Any) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.driver.current_url
            time.sleep(0.02)

    def submit(self, label: str, text: str) -> None:
        """Type into the field with this label, and press Enter."""
        before = self.driver.current_url
        [name] = [each.get_attribute("for") for each in self.find("label") if each.get_property("textContent") == label]
        [field] = self.find(f"#{name}")
        field.clear()
        field.send_keys(f"{text}\n")
        self.wait(lambda: self.driver.current_url != before)

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A site where teams have worked for a while, and something is wrong."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        site = new_site(tmp_path_factory.mktemp("page") / "site")
        site.settings["main.mode"] = "ONDEMAND"
        site.settings["main.protectedenvironments"] = "production, qa"
        for name in _MODULES:
            site.add(f"modules/{name}", branches=("qa",))
        for name in _HOSTGROUPS:
            site.add(f"hostgroups/{name}", branches=("qa",))
        for name in ("hostgroups/myapp", "modules/dummy", "common/site", "common/hieradata"):
            site.remotes[name].branch("qa")
        site.remotes["modules/postgresql"].branch("pg17")
        site.publish()
        site.define("qa", "default: qa\nnotifications: puppet-admins@example.org\n")
        _define(site, "mail_relay", "modules: {postgresql: pg17}")
        _define(site, "storage_next", "hostgroups: {storage: qa}")
        site.update("--poll")
        return _work(site)


def _define(site: Site, name: str, overrides: str) -> None:
    address = f"{name.partition('_')[0]}-team@example.org"
    site.define(name, f"default: master\nnotifications: {address}\noverrides:\n  {overrides}\n")


def _push(site: Site, repo: str, author: str, subject: str, branch: str = "master") -> str:
    commit = push_as(site, repo, author, subject, branch)
    site.hint(repo)
    site.update()
    return commit


def _work(site: Site) -> Story:
    _push(site, "modules/chrony", "Ines Marchetti", "Use the new pool of time servers")
    _push(site, "hostgroups/web", "Tomás Rehák", "Serve the intranet with HTTP/2", "qa")
    moved = _push(site, "modules/apache", "Aino Laine", "Let the status module listen on localhost only")
    _define(site, "batch_el10", "hostgroups: {batch: qa}\n  modules: {puppet: qa}")
    _push(site, "hostgroups/storage", "Björn Dahl", "Mount scratch with noatime")
    site.define(
        "cloud_old", f"notifications: cloud-team@example.org\noverrides:\n  modules: {{apache: commit/{moved}}}\n"
    )
    _push(site, "modules/firewall", "Ines Marchetti", "Open port 8140 for the new Puppet servers", "qa")
    broken = site.remotes["modules/kerberos"].push({"code/manifests/init.pp": None, "README": "soon\n"})
    site.hint("modules/kerberos")
    site.remotes["modules/postgresql"].delete("pg17")
    site.hint("modules/postgresql")
    site.define("mail_test", "default: master\nnotifications: mail-team@example.org\noverrides: 7\n")
    site.update()
    _push(site, "hostgroups/batch", "Tomás Rehák", "Raise the number of slots on the large nodes")
    return Story(site, moved, broken)


@pytest.fixture(scope="session")
def served(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page of the site, served as a program."""
    runner = [sys.executable, str(TREE / "bin" / "jens-status-runner"), "-c", str(story.site.config)]
    output = tmp_path_factory.mktemp("served") / "output"
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    with serving(lambda port: [*runner, "-p", str(port)], output, environment) as server:
        yield server


@pytest.fixture(scope="session")
def chromium(served: Server, story: Story) -> Iterator[Browser]:
    """One Chromium for all tests."""
    program, driver = required("chromium", "chromium"), required("chromedriver", "chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as home:
        for option in (*_OPTIONS, f"--user-data-dir={home}/profile", "--lang=en"):
            options.add_argument(option)
        service = webdriver.ChromeService(executable_path=driver, env={**os.environ, "HOME": home})
        started = webdriver.Chrome(options=options, service=service)
        started.set_page_load_timeout(60)
        try:
            yield Browser(started, f"http://{LOOPBACK}:{served.port}", story)
        finally:
            started.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser; its console must be empty after each test."""
    chromium.driver.get_log("browser")
    yield chromium
    assert chromium.driver.get_log("browser") == []


def pages(story: Story) -> dict[str, str]:
    """A page of each kind, by a name for its screenshots."""
    return {
        "overview": "/",
        "environments": "/environments",
        "environment": "/environments/mail_relay",
        "compare": "/environments/production?compare=qa",
        "repositories": "/repositories",
        "repository": "/repositories/modules/apache",
        "history": "/history",
        "deployment": "/history/1",
        "search": "/search?q=a",
        "commit": f"/commits/{story.moved}",
        "problem": "/environments/nothing",
    }


NAMES = (
    *("overview", "environments", "environment", "compare", "repositories", "repository", "history", "deployment"),
    *("search", "commit", "problem"),
)


# Looks


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_everybody_can_use_it(chromium: Browser, name: str) -> None:
    """At both widths, dark and light: nothing overflows, the console is empty, and axe-core finds nothing."""
    if not AXE.exists():
        pytest.skip(f"there is no {AXE} (npm pack axe-core)")
    chromium.driver.get_log("browser")
    for width in WIDTHS:
        for scheme in SCHEMES:
            chromium.open(pages(chromium.story)[name], width, scheme)
            sizes = chromium.driver.execute_script(
                "return [document.documentElement.scrollWidth, window.innerWidth, "
                "getComputedStyle(document.body).backgroundColor]"
            )
            assert sizes[:2] == [width, width], (width, _too_wide(chromium, width))
            assert sizes[2] == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 27)"}[scheme]
            assert _violations(chromium) == []
            chromium.screenshot(f"{name}-{width}-{scheme}")
    told = [entry for entry in chromium.driver.get_log("browser") if "404" not in entry["message"]]
    assert told == []


def _too_wide(browser: Browser, width: int) -> list[str]:
    script = (
        "return [...document.querySelectorAll('body *')]"
        ".filter(each => each.getBoundingClientRect().right > arguments[0] + 1)"
        ".map(each => each.outerHTML.slice(0, 120))"
    )
    found: list[str] = browser.driver.execute_script(script, width)
    return found


def _violations(browser: Browser) -> list[str]:
    """What axe-core finds: the rule, and where."""
    browser.driver.execute_script(AXE.read_text("utf-8"))
    run = "const done = arguments[0]; axe.run(document).then(result => done(result.violations));"
    found = browser.driver.execute_async_script(run)
    return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]


# What people do


def test_from_something_is_wrong_to_commit_and_author(browser: Browser) -> None:
    browser.open("/")
    assert "Something is wrong" in browser.text("h1")
    assert "kerberos" in browser.text(".faults")
    browser.follow("modules/kerberos", ".faults")
    browser.follow(browser.story.broken[:7])
    assert browser.story.broken in browser.text(".whole")
    assert "Ann" in browser.text(".author")


def test_from_a_dangling_link_to_who_made_it(browser: Browser) -> None:
    browser.open("/", 400)
    browser.follow("mail_relay", ".faults")
    assert "there is no branch 'pg17' in modules/postgresql" in browser.text()
    assert "mail-team@example.org" in browser.text()
    gone = browser.story.site.remotes["modules/postgresql"].commit()
    browser.follow(gone[:7], ".entries")
    assert "then branch gone" in browser.text()
    assert "Ann" in browser.text(".author")


def test_two_environments_are_compared(browser: Browser) -> None:
    browser.open("/environments/production")
    browser.submit("Compare with environment", "qa")
    assert "production compared with qa" in browser.text("h1")
    rows = {row.text for row in browser.find("tbody th")}
    assert rows >= {"modules/apache", "modules/chrony", "modules/firewall", "hostgroups/web", "hostgroups/storage"}
    assert "modules/nfs" not in rows
    assert "Aino Laine" in browser.text("tbody")


def test_the_history_is_filtered(browser: Browser) -> None:
    browser.open("/")
    browser.follow("History", "nav")
    browser.submit("Author", "rehák")
    assert {element.text for element in browser.find(".author")} == {"Tomás Rehák"}
    assert len(browser.find(".entries tbody")) == 2
    browser.submit("Environment", "qa")
    assert "Serve the intranet with HTTP/2" in browser.text()
    assert len(browser.find(".entries tbody")) == 1


def test_a_commit_is_found_by_seven_digits(browser: Browser) -> None:
    browser.open("/environments")
    browser.submit("Environment, repository or commit", browser.story.moved[:7])
    assert "Aino Laine" in browser.text()
    browser.follow(browser.story.moved[:7])
    assert "Let the status module listen on localhost only" in browser.text()
    assert "cloud_old" in browser.text()


def test_the_keyboard_is_enough(browser: Browser) -> None:
    browser.open("/")
    [body] = browser.find("body")
    body.send_keys("\ue004")  # Tab
    active = browser.driver.switch_to.active_element
    assert active.text == "Skip to the content"
    active.send_keys("\ue007")  # Enter
    assert browser.driver.current_url.endswith("#main")
    order = [each.text for each in browser.find(".bar a")]
    assert order == ["Jens", "Overview", "Environments", "Repositories", "History"]
    assert browser.find("nav [aria-current=page]")[0].text == "Overview"


def test_nothing_comes_from_elsewhere_and_nothing_runs(browser: Browser) -> None:
    browser.open("/")
    script = "return performance.getEntriesByType('resource').map(each => each.name)"
    assert all(name.startswith(browser.top) for name in browser.driver.execute_script(script))
    assert browser.find("script") == []


#: The pictures in the documents: page, width, height, colour scheme. After a change, copy them from build/ to docs/.
PICTURES = {
    "status-overview": ("overview", 1280, 700, "light"),
    "status-environment": ("environment", 1280, 640, "dark"),
    "status-phone": ("overview", 400, 820, "light"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_for_the_documents(browser: Browser, name: str) -> None:
    page, width, height, scheme = PICTURES[name]
    browser.open(pages(browser.story)[page], width, scheme, height)
    browser.screenshot(name)
    assert (SCREENSHOTS / f"{name}.png").stat().st_size < 150_000


def test_the_pictures_of_the_documents_are_small() -> None:
    text = (TREE / "docs" / "status.md").read_text("utf-8") + (TREE / "README.md").read_text("utf-8")
    named = {*re.findall(r"\(((?:docs/)?[\w-]+\.png)\)", text)}
    found = {path.name: path.stat().st_size for path in (TREE / "docs").glob("*.png")}
    assert {Path(name).name for name in named} == found.keys()
    assert all(size < 150_000 for size in found.values()), json.dumps(found)
