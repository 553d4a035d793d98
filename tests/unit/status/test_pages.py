"""Each page of the status page, for people and for programs: of a site with faults, and of instances without much."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from jens.commands import gc, reset
from jens.status import create_app
from jens.status.app import RULES
from jens.status.page import LONGEST_ARGUMENT
from tests.conftest import Site
from tests.unit.status.conftest import HOSTILE_BRANCH, Busy, app_of, client_of
from tests.unit.status.shapes import documented, faults_of_shape

#: Every kind of page with its documented shape.
PAGES = {
    "/": "GET /",
    "/environments": "GET /environments",
    "/environments/production": "GET /environments/NAME",
    "/environments/test": "GET /environments/NAME",
    "/environments/odd": "GET /environments/NAME",
    "/environments/frozen": "GET /environments/NAME",
    "/environments/snap": "GET /environments/NAME",
    "/environments/production?compare=test": "GET /environments/NAME?compare=OTHER",
    "/environments/snap?compare=odd": "GET /environments/NAME?compare=OTHER",
    "/repositories": "GET /repositories",
    "/repositories/modules/dummy": "GET /repositories/PARTITION/NAME",
    "/repositories/hostgroups/myapp": "GET /repositories/PARTITION/NAME",
    "/history": "GET /history",
    "/history?environment=test&repository=modules/dummy&author=a&since=1d&until=2100-01-01&before=99": "GET /history",
    "/history/1": "GET /history/NUMBER",
    "/history/3": "GET /history/NUMBER",
    "/commits/{last}": "GET /commits/ID",
    "/commits/{first}": "GET /commits/ID",
    "/commits/{hostile}": "GET /commits/ID",
    "/commits/{metadata}": "GET /commits/ID",
    "/commits/0123456": "GET /commits/ID",
    "/search": "GET /search?q=TEXT",
    "/search?q=o": "GET /search?q=TEXT",
    "/search?q={last}": "GET /search?q=TEXT",
    "/healthz": "GET /healthz",
    "/nothing": "PROBLEM",
    "/environments/nothing": "PROBLEM",
    "/repositories/modules/nothing": "PROBLEM",
    "/history/99": "PROBLEM",
    "/history?since=never": "PROBLEM",
    "/commits/xyz": "PROBLEM",
}
#: Those that are not for programs alone.
HTML = [address for address in PAGES if address != "/healthz"]


def address_of(busy: Busy, text: str) -> str:
    return text.format(last=busy.last, first=busy.first, hostile=busy.hostile, metadata=busy.site.definitions.commit())


def document(client: FlaskClient, address: str) -> Any:
    return client.get(address, headers={"Accept": "application/json"}).get_json()


@pytest.mark.parametrize(("address", "shape"), PAGES.items())
def test_each_document_has_the_documented_shape(busy: Busy, client: FlaskClient, address: str, shape: str) -> None:
    found = document(client, address_of(busy, address))
    assert faults_of_shape(found, shape, documented()) == []


def test_a_held_environment_says_who_holds_it_until_when_and_why(client: FlaskClient) -> None:
    held = document(client, "/environments/frozen")["held"]
    assert (held["reason"], held["until"] is not None) == ("<i>a release</i>", True)
    [row] = [row for row in document(client, "/environments")["environments"] if row["environment"] == "frozen"]
    assert (row["held"], row["state"]) == (held, "well")
    page = client.get("/environments/frozen").get_data(as_text=True)
    assert "&lt;i&gt;a release&lt;/i&gt;" in page
    assert "<i>a release</i>" not in page
    assert "held" in client.get("/environments").get_data(as_text=True)


def test_each_address_has_a_shape() -> None:
    documented_ = {
        re.sub(r"[A-Z]{2,}", "", name.split(" ")[1].partition("?")[0]) for name in documented() if " " in name
    }
    assert {re.sub(r"<\w+>", "", rule.address) for rule in RULES} | {"/healthz"} == documented_


@pytest.mark.parametrize("address", HTML)
def test_each_page_is_whole(busy: Busy, client: FlaskClient, address: str) -> None:
    response = client.get(address_of(busy, address))
    assert response.status_code == {"PROBLEM": response.status_code}.get(
        PAGES[address], 404 if "0123456" in address else 200
    )
    assert response.content_type == "text/html; charset=utf-8"
    assert response.text.startswith("<!doctype html>")
    assert response.text.rstrip().endswith("</html>")
    assert response.text.count("<h1") == 1
    assert "None" not in re.sub(r"<[^>]*>", "", response.text)


@pytest.mark.parametrize("address", [*PAGES, "/metrics"])
def test_what_others_wrote_stays_text_and_nothing_private_is_told(
    busy: Busy, client: FlaskClient, address: str
) -> None:
    for accept in ("text/html", "application/json"):
        response = client.get(address_of(busy, address), headers={"Accept": accept})
        text = response.text
        assert str(busy.site.root) not in text
        assert str(busy.site.root.parent) not in text
        if accept == "text/html":
            assert not any(each in text for each in ("<script", "<img src=x", "<b>&", "<i>@", "\x07", "\x1b", "\u202e"))
            assert len(text) < 100_000


def test_hostile_names_can_be_read(client: FlaskClient) -> None:
    text = client.get("/environments/odd").text
    assert "&lt;b&gt;&amp;&#39;&#34;\\u202e-branch" in text
    assert "scriptalert(1)/script \\u202eelttil" in text
    assert "&lt;img src=x onerror=alert(2)&gt; \\x07\\x1b[31mxxx" in text
    assert "&lt;i&gt;@example.org" in text
    found = document(client, "/environments/odd")
    assert HOSTILE_BRANCH in [part["ref"] for part in found["repositories"]]
    assert 'value="&lt;b&gt;"' in client.get("/search?q=<b>").text


def test_the_first_page_leads_to_what_is_wrong(busy: Busy, client: FlaskClient) -> None:
    found = document(client, "/")
    assert found["state"] == "wrong"
    kinds = {fault["kind"]: fault for fault in found["faults"]}
    assert {"dangling link", "definition", "repository not fetched"} <= kinds.keys()
    assert kinds["definition"]["addresses"] == ["bob@example.org"]
    assert "…/myapp.git" in kinds["repository not fetched"]["text"]
    page = client.get("/").text
    assert "<h1" in page
    assert "Something is wrong" in page
    assert 'href="/environments/test"' in page
    assert f'href="/commits/{busy.last}"' in page
    assert "Ann Author" in page


def test_what_dangles_comes_first_and_says_why(busy: Busy, client: FlaskClient) -> None:
    [part, *_] = document(client, "/environments/test")["repositories"]
    assert (part["repository"], part["commit"]) == (
        "hostgroups/myapp",
        busy.site.expanded("hostgroups/myapp")["master"],
    )
    [part] = [each for each in document(client, "/environments/test")["repositories"] if each["dangling"]]
    assert (part["repository"], part["ref"], part["why"], part["commit"]) == ("modules/dummy", "test", "override", None)
    assert "there is no branch 'test' in modules/dummy" in client.get("/environments/test").text.replace("&#39;", "'")


def test_only_what_differs_is_compared(busy: Busy, client: FlaskClient) -> None:
    found = document(client, "/environments/production?compare=snap")
    assert [each["repository"] for each in found["differences"]] == ["hostgroups/myapp", "modules/dummy"]
    [_, difference] = found["differences"]
    assert (difference["here"]["commit"], difference["there"]["commit"]) == (busy.last, busy.first)
    assert found["same"] == 2
    assert document(client, "/environments/production?compare=production")["differences"] == []
    assert client.get("/environments/production?compare=nothing").status_code == 404


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("environment=odd", [3]),
        ("environment=snap", [2]),
        ("environment=frozen", [4, 3, 2]),
        ("repository=modules/dummy", [5, 3, 2, 1]),
        ("repository=hostgroups/myapp", [1]),
        ("author=ANN auth", [3]),
        ("author=nobody", []),
        ("until=2001-01-01", []),
        ("since=1h", [5, 4, 3, 2, 1]),
        ("before=3", [2, 1]),
        ("environment=test&author=ann", [2]),
    ],
)
def test_the_history_is_filtered(client: FlaskClient, query: str, numbers: list[int]) -> None:
    found = document(client, f"/history?{query}")
    assert [each["number"] for each in found["deployments"] if each["entries"]] == numbers


def test_the_history_says_what_it_has_never_heard_of(client: FlaskClient) -> None:
    assert document(client, "/history?environment=never")["unknown"] == ["environment 'never'"]
    assert "The history has nothing of environment" in client.get("/history?environment=never").text


def test_a_deployment_has_all_that_it_changed(busy: Busy, client: FlaskClient) -> None:
    found = document(client, "/history/3")
    assert {entry.get("repository") or entry.get("environment") for entry in found["entries"]} == {
        "modules/dummy",
        "odd",
    }
    assert (found["deployment"]["changes"], found["deployment"]["environment_changes"]) == (2, 1)
    assert busy.last in [entry.get("now") for entry in found["entries"]]


def test_a_search_finds_a_commit_by_seven_digits(busy: Busy, client: FlaskClient) -> None:
    found = document(client, f"/search?q={busy.last[:7].upper()}")
    assert [(each["commit"], each["author"]) for each in found["commits"]] == [(busy.last, "Ann Author")]
    found = document(client, "/search?q=dum")
    assert (found["environments"], found["repositories"]) == ([], ["modules/dummy"])
    assert document(client, "/search?q=ODD")["environments"] == ["odd"]


def test_a_commit_is_where_environments_show_it(busy: Busy, client: FlaskClient) -> None:
    [found] = document(client, f"/commits/{busy.first[:7]}")["commits"]
    assert found["state"] == "visible"
    assert {each["environment"] for each in found["visible"]} >= {"production", "snap"}
    text = client.get(f"/commits/{busy.last}").text
    assert "Ann Author" in text
    assert "Visible in 3 environments" in text  # odd has a branch that contains it


# Formats, methods, headers


def test_json_has_three_addresses(client: FlaskClient) -> None:
    asked = [
        client.get("/environments", headers={"Accept": "application/json"}),
        client.get("/environments.json"),
        client.get("/environments.json", headers={"Accept": "text/html"}),
    ]
    assert {response.content_type for response in asked} == {"application/json"}
    assert client.get("/environments.html", headers={"Accept": "application/json"}).text.startswith("<!doctype html>")
    assert client.get("/environments", headers={"Accept": "text/html,*/*;q=0.8"}).text.startswith("<!doctype html>")
    assert client.get("/index.json").get_json()["state"] == client.get("/.json").get_json()["state"]
    assert client.get("/healthz.json").get_json() == {"version": 1, "status": 200, "problems": []}


def test_a_page_links_to_itself_as_json(client: FlaskClient) -> None:
    text = client.get("/environments/production?compare=test").text
    assert 'href="/environments/production.json?compare=test"' in text
    assert client.get("/environments/production.json?compare=test").get_json()["compared_with"] == "test"


def test_it_works_below_any_path(busy: Busy) -> None:
    app = app_of(busy.site)
    response = app.test_client().get("/environments", base_url="http://localhost/jens")
    assert response.status_code == 200
    links = re.findall(r'(?:href|src|action)="([^"#][^"]*)"', response.text)
    assert len(links) > 10
    assert all(link.startswith("/jens/") for link in links)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
@pytest.mark.parametrize("address", ["/", "/environments/production", "/metrics", "/healthz", "/static/style.css"])
def test_only_get_and_head_are_allowed(client: FlaskClient, method: str, address: str) -> None:
    response = client.open(address, method=method)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("address", ["/", "/metrics", "/healthz", "/static/style.css", "/nothing", "/history?since=x"])
def test_every_answer_has_the_headers(client: FlaskClient, address: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        headers = client.open(address, method=method).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "Set-Cookie" not in headers
        assert headers["Cache-Control"]


def test_head_is_a_get_without_a_body(client: FlaskClient) -> None:
    head, get = client.head("/environments"), client.get("/environments")
    assert (head.status_code, head.data, head.content_length) == (200, b"", len(get.data))


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/static/../app.py", 404),
        ("/static/..%2fapp.py", 404),
        ("/environments/..%2f..%2fetc", 404),
        ("/environments/production%00", 404),
        ("/repositories/modules/..", 404),
        ("/repositories/nothing/dummy", 404),
        (f"/environments/{'x' * (LONGEST_ARGUMENT + 1)}", 400),
        (f"/search?q={'x' * 10_000}", 400),
        ("/search?q=%ff%00%1b", 200),
        ("/history?before=-1", 400),
        ("/history?before=99999999999999999999", 400),
        ("/history?before=999999999999999", 200),
        ("/history/0", 404),
        ("/history/999999999999999", 404),
        ("/history?environment=../x", 400),
        ("/history?repository=x", 400),
        ("/history?until=99999999999d", 200),
        ("/environments?page=99", 200),
        ("/environments?page=x", 400),
        ("/environments?unknown=1&page=1", 200),
        ("/environments/production/", 200),
    ],
)
def test_what_cannot_be_asked_is_refused(client: FlaskClient, address: str, status: int) -> None:
    assert client.get(address).status_code == status
    assert client.get(address, headers={"Accept": "application/json"}).status_code == status


def test_a_page_is_made_once_for_many_readers(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("jens.status.overview._count", lambda _: made.append(1))
    app = app_of(busy.site)
    readers = [threading.Thread(target=lambda: app.test_client().get("/")) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert made == [1]


def test_an_unforeseen_failure_is_one_line(
    busy: Busy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr("jens.status.overview.look", fail)
    response = client_of(busy.site).get("/")
    assert (response.status_code, response.text) == (500, "Internal Server Error\n")
    assert "Unforeseen ValueError at " in caplog.text
    assert "a secret" not in caplog.text


# Instances without much


ADDRESSES = [
    *("/", "/environments", "/environments/production", "/repositories", "/repositories/modules/dummy", "/history"),
    *("/history/1", "/search?q=production", "/search?q=1234567", "/commits/1234567", "/metrics", "/healthz"),
]


def statuses(site: Site) -> dict[str, int]:
    """The status of each page; each is made anew, and each is a page."""
    client = client_of(site)
    found = {}
    for address in ADDRESSES:
        for accept in ("text/html", "application/json"):
            response = client.get(address, headers={"Accept": accept})
            assert "Traceback" not in response.text
            assert str(site.root) not in response.text
            found[address] = response.status_code
    return found


def test_an_instance_that_never_ran_says_so(site: Site) -> None:
    found = statuses(site)
    assert set(found.values()) <= {200, 404, 503}
    assert (found["/"], found["/environments"], found["/environments/production"]) == (200, 200, 404)
    assert (found["/history"], found["/healthz"], found["/metrics"]) == (503, 503, 200)
    client = client_of(site)
    assert "Nobody knows yet" in client.get("/").text
    assert "no run has recorded anything yet" in client.get("/history").text
    assert "Environment production does not exist" in client.get("/environments/production").text


def test_without_a_history_the_disk_tells(site: Site) -> None:
    site.update()
    (site.root / "cache" / "history.sqlite").unlink()
    found = statuses(site)
    assert (found["/"], found["/environments/production"], found["/repositories/modules/dummy"]) == (200, 200, 200)
    assert (found["/history"], found["/history/1"], found["/healthz"]) == (503, 503, 503)
    text = client_of(site).get("/environments/production").text
    assert "The history cannot be read:" in text
    assert "modules/dummy" in text
    (site.root / "cache" / "history.sqlite").write_bytes(b"no database" * 1000)
    assert statuses(site)["/"] == 200
    site.settings["history.days"] = "0"
    assert statuses(site)["/healthz"] == 200
    assert "[history] days is 0" in client_of(site).get("/").text


@pytest.mark.parametrize("gone", ["bare", "clone", "cache", "environments"])
def test_when_the_disk_is_gone_the_page_says_so(site: Site, gone: str) -> None:
    site.update()
    shutil.rmtree(site.root / gone)
    found = statuses(site)
    assert set(found.values()) <= {200, 404, 503}
    assert found["/healthz"] == 503
    assert f"{gone}dir: does not exist" in client_of(site).get("/healthz").text


def test_damaged_state_is_unknown(site: Site) -> None:
    site.update()
    for name in ("last-run.json", "inventory.json", "definitions.json", "dangling.json"):
        (site.root / "cache" / name).write_text('{"version": 1, "content": [[[]]]}')
    found = statuses(site)
    assert set(found.values()) <= {200, 404, 503}
    assert found["/"] == 200


def test_readers_see_pages_while_tools_work(site: Site) -> None:
    site.update()
    stop, found = threading.Event(), set[tuple[str, int]]()

    def read() -> None:
        while not stop.is_set():
            client = client_of(site)
            for address in ADDRESSES:
                found.add((address, client.get(address).status_code))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(6):
            site.remotes["modules/dummy"].push({"code/manifests/init.pp": f"# {number}\n"})
            site.define(f"e{number % 2}", f"default: master\nnotifications: a{number}@example.org\n")
            site.update()
        gc.main(["-c", str(site.config), "--all"])
        reset.main(["-c", str(site.config), "--yes"])
        site.update()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert {status for _, status in found} <= {200, 404, 503}
    assert ("/", 200) in found


def test_what_is_remembered_is_never_older_than_the_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jens.status.app._LASTS", 0)
    site.update()
    client = client_of(site)

    def shown() -> dict[str, Any]:
        found = client.get("/environments/production.json").get_json()["repositories"]
        [part] = [each for each in found if each["repository"] == "modules/dummy"]
        assert (f"/commits/{part['commit']}" in client.get("/environments/production").text) == bool(part["commit"])
        return dict(part)

    first = shown()
    pushed = site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    site.update()
    assert (first["commit"] != pushed, shown()["commit"]) == (True, pushed)
    site.remotes["modules/dummy"].branch("idea")
    site.define("production", "default: master\nnotifications: a@b\noverrides:\n  modules: {dummy: idea}\n")
    site.update()
    assert (shown()["ref"], shown()["why"]) == ("idea", "override")
    site.path("modules/dummy", "idea").unlink()
    assert (shown()["commit"], bool(shown()["dangling"])) == (None, True)
    site.update("--poll")
    assert (shown()["commit"], shown()["dangling"]) == (pushed, None)


def test_too_many_pages_at_once_are_refused(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr("jens.status.app._AT_ONCE", 1)
    monkeypatch.setattr("jens.status.app._TURN", 0.01)
    monkeypatch.setattr("jens.status.overview._count", lambda _: release.wait(60))
    app = app_of(busy.site)
    reader = threading.Thread(target=lambda: app.test_client().get("/"))
    reader.start()
    try:
        deadline = time.monotonic() + 60
        while (response := app.test_client().get("/environments")).status_code != 503 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        release.set()
        reader.join()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "Too many pages are asked for at once" in response.text


def test_reading_changes_nothing(site: Site) -> None:
    site.update()
    before = site.listing("bare", "clone", "cache", "environments", "metadata", "spool", "log")
    history = (site.root / "cache" / "history.sqlite").read_bytes()
    statuses(site)
    assert site.listing("bare", "clone", "cache", "environments", "metadata", "spool", "log") == before
    assert (site.root / "cache" / "history.sqlite").read_bytes() == history


def test_hints_that_wait_are_counted(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    site.update()
    assert client_of(site).get("/index.json").get_json()["hints_waiting"] == 0
    for _ in range(100):
        site.hint("modules/dummy")
    found = client_of(site).get("/index.json").get_json()
    assert (found["hints_waiting"], found["state"], found["reasons"]) == (100, "wrong", ["100 hints wait."])
    assert client_of(site).get("/repositories/modules/dummy.json").get_json()["hint_waiting_since"]
    shutil.rmtree(site.root / "spool")
    assert client_of(site).get("/index.json").get_json()["hints_waiting"] is None


def test_static_files_are_few_and_small() -> None:
    static = Path(create_app.__module__.replace(".", os.sep)).parent / "static"
    sizes = {path.name: path.stat().st_size for path in (Path(__file__).resolve().parents[3] / static).iterdir()}
    assert sizes.keys() == {"style.css", "icon.svg"}
    assert sum(sizes.values()) < 20_000
