"""Which settings and variables are understood, and which leave a question to Git.

tests/system/test_shared_http.py compares what they do with Git itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jens.git.netrc import netrc_of
from jens.git.settings import Entry, entries
from jens.git.websettings import Place, Way, WebSettings

URL = "https://git.example.org/puppet/dummy.git"
PLACE = Place("https", "git.example.org", 443, "/puppet/dummy.git")


def way(url: str = URL, settings: Sequence[Entry] = (), variables: Mapping[str, str] | None = None) -> Way | None:
    return WebSettings(settings, variables or {}).way(url)


PLAIN = {
    URL: Way(PLACE),
    "https://git.example.org:443/puppet/dummy.git": Way(PLACE),
    "https://GIT.example.org/puppet/dummy.git": Way(PLACE),
    "http://git.example.org:8080/a": Way(Place("http", "git.example.org", 8080, "/a")),
    "https://[2001:db8::1]/a": Way(Place("https", "2001:db8::1", 443, "/a")),
    "https://ann@git.example.org/puppet/dummy.git": Way(PLACE, "ann"),
    "https://ann%40corp:p%3Aw@git.example.org/puppet/dummy.git": Way(PLACE, "ann@corp", "p:w"),
    "https://ann:@git.example.org/puppet/dummy.git": Way(PLACE, "ann", ""),
    "https://git.example.org/~ann/a+b@c,d=e": Way(PLACE._replace(path="/~ann/a+b@c,d=e")),
}


@pytest.mark.parametrize("url", PLAIN)
def test_a_plain_url_leads_to_its_place(url: str) -> None:
    assert way(url) == PLAIN[url]


ODD = [
    *("https://git.example.org", "https://git.example.org/a?b", "https://git.example.org/a#b"),
    *("https://git.example.org/a%20b", "https://git.example.org/a//b", "https://git.example.org/a/../b"),
    *("https://git.example.org/./a", "https://git.example.org/a/.", "https://git.example.org:0/a"),
    *("https://git.example.org:99999/a", "https://ann@corp@git.example.org/a", "https://ann:p@w@git.example.org/a"),
    *("https://%0a@git.example.org/a", "https://gït.example.org/a", "https://git.example.org/ä"),
    *("HTTPS://git.example.org/a", "https://-git.example.org/a", "ssh://git.example.org/a", "git.example.org:a"),
    *("https:///a", "https://git.example.org\\@h/a", "https://git.example.org./a", "/a", ""),
]


@pytest.mark.parametrize("url", ODD)
def test_an_odd_url_is_left_to_git(url: str) -> None:
    assert way(url) is None


UNDERSTOOD: dict[str, tuple[list[Entry], dict[str, Any]]] = {
    "others": ([("user.name", "Ann"), ("core.autocrlf", "true"), ("alias.x", None)], {}),
    "harmless": ([("http.postbuffer", "1"), ("http.https://x.followredirects", "false")], {}),
    "a proxy": ([("http.proxy", "http://proxy.example.org:3128")], {"proxy": ("proxy.example.org", 3128)}),
    "the last proxy": ([("http.proxy", "h:1"), ("http.proxy", "h:2")], {"proxy": ("h", 2)}),
    "the best proxy": ([("http.https://git.example.org.proxy", "h:1"), ("http.proxy", "h:2")], {"proxy": ("h", 1)}),
    "certificates": ([("http.sslcainfo", "/etc/ca.pem")], {"authorities": "/etc/ca.pem"}),
    "verified": ([("http.sslverify", "Yes"), ("http.sslverify", None)], {}),
    "headers": (
        [("http.extraheader", "X-A: 1"), ("http.extraheader", "X-B:  2 3")],
        {"headers": (("X-A", "1"), ("X-B", "2 3"))},
    ),
    "headers, emptied": (
        [("http.extraheader", "X-A: 1"), ("http.extraheader", ""), ("http.extraheader", "X-B: 2")],
        {"headers": (("X-B", "2"),)},
    ),
    "headers of a path": (
        [("http.extraheader", "X-A: 1"), ("http.https://git.example.org/puppet/.extraheader", "X-B: 2")],
        {"headers": (("X-A", "1"), ("X-B", "2"))},
    ),
    "an agent": ([("http.useragent", "git/9")], {"agent": "git/9"}),
    "credentials": ([("credential.helper", "store"), ("credential.https://git.example.org.username", "ann")], {}),
    "credentials by path": ([("credential.usehttppath", "true")], {"may_log_in": False}),
    "not by path": ([("credential.usehttppath", "off")], {}),
    "credentials of a path": ([("credential.https://git.example.org/puppet.helper", "x")], {"may_log_in": False}),
    "credentials of a host": ([("credential.git.example.org.helper", "x")], {"may_log_in": False}),
    "the protocol": ([("protocol.version", "2"), ("protocol.allow", "always")], {}),
}


@pytest.mark.parametrize("what", UNDERSTOOD)
def test_what_is_understood(what: str) -> None:
    settings, expected = UNDERSTOOD[what]
    assert way(settings=settings) == Way(PLACE)._replace(**expected)


LEFT_TO_GIT: dict[str, Sequence[Entry]] = {
    "an unknown key": [("http.something", "1")],
    "no verification": [("http.sslverify", "false")],
    "an odd URL of a setting": [("http.https://*.example.org.proxy", "h:1")],
    "a setting with a user": [("http.https://ann@git.example.org.proxy", "h:1")],
    "an odd proxy": [("http.proxy", "socks5://h:1")],
    "a proxy with a user": [("http.proxy", "http://ann:pw@h:1")],
    "a proxy without a port": [("http.proxy", "h")],
    "an odd header": [("http.extraheader", "X A: 1")],
    "a header of our own": [("http.extraheader", "Git-Protocol: version=1")],
    "a header without a value": [("http.extraheader", "X-A:")],
    "a key without a value": [("http.proxy", None)],
    "certificates somewhere": [("http.sslcainfo", "ca.pem")],
    "an agent that is none": [("http.useragent", "a\nb")],
    "a remote": [("remote.origin.url", URL)],
    "protocol 1": [("protocol.version", "1")],
    "ssh instead": [("url.ssh://git@git.example.org/.insteadof", "https://git.example.org/")],
}


@pytest.mark.parametrize("what", LEFT_TO_GIT)
def test_what_is_left_to_git(what: str) -> None:
    assert way(settings=LEFT_TO_GIT[what]) is None


@pytest.mark.parametrize("name", ["GIT_SSL_CERT", "GIT_HTTP_LOW_SPEED_LIMIT", "GIT_PROXY_SSL_CERT", "SSL_CERT_FILE"])
def test_variables_that_are_left_to_git(name: str) -> None:
    assert way(variables={name: "1"}) is None


def test_the_certificates_of_the_system_do_not_matter_where_none_are_used() -> None:
    variables = {"SSL_CERT_FILE": "/etc/ca.pem"}
    assert way("http://h/a", variables=variables) is not None
    assert way(settings=[("http.sslcainfo", "/etc/ca.pem")], variables=variables) is not None


P = "http://proxy.example.org:3128"
PROXIES: list[tuple[dict[str, str], bool | None]] = [
    ({"https_proxy": P}, True),
    ({"HTTPS_PROXY": P}, True),
    ({"HTTPS_PROXY": P, "https_proxy": ""}, False),
    ({"http_proxy": P}, False),
    ({"all_proxy": P}, True),
    ({"ALL_PROXY": P, "https_proxy": ""}, False),
    ({"https_proxy": P, "no_proxy": "git.example.org"}, False),
    ({"https_proxy": P, "NO_PROXY": "GIT.example.org"}, False),
    ({"https_proxy": P, "no_proxy": "x", "NO_PROXY": "git.example.org"}, True),
    ({"https_proxy": P, "no_proxy": "example.org"}, False),
    ({"https_proxy": P, "no_proxy": "a.b, .example.org"}, False),
    ({"https_proxy": P, "no_proxy": "xample.org"}, True),
    ({"https_proxy": P, "no_proxy": "*"}, False),
    ({"https_proxy": P, "no_proxy": ".git.example.org"}, None),
    ({"https_proxy": P, "no_proxy": "*.example.org"}, None),
    ({"https_proxy": P, "no_proxy": "10.0.0.0/8"}, None),
    ({"https_proxy": P, "no_proxy": "git.example.org:443"}, None),
    ({"https_proxy": "https://h:1"}, None),
]


@pytest.mark.parametrize(("variables", "is_used"), PROXIES)
def test_the_proxy_of_the_environment(variables: dict[str, str], is_used: bool | None) -> None:
    found = way(variables=variables)
    assert found == (None if is_used is None else Way(PLACE, proxy=("proxy.example.org", 3128) if is_used else None))


def test_what_git_prints_is_read() -> None:
    output = b"core.bare\0http.proxy\nh:1\0url.a.b.insteadof\nx\ny\0"
    assert entries(output) == [("core.bare", None), ("http.proxy", "h:1"), ("url.a.b.insteadof", "x\ny")]


ENTRY = "machine git.example.org login ann password pw"
NETRC: list[tuple[str, tuple[str, ...] | None]] = [
    ("", ()),
    (ENTRY, ("ann", "pw")),
    (f"machine h\n\tlogin bob\n\tpassword x\n{ENTRY}\n", ("ann", "pw")),
    (ENTRY.replace("git.", "GIT."), ("ann", "pw")),
    ("machine h login bob password x", ()),
    (f"{ENTRY}\n{ENTRY}", None),
    ("default login ann password pw", None),
    ("machine git.example.org password pw login ann", None),
    ("machine git.example.org login ann", None),
    (f"{ENTRY} # it is mine", None),
    (ENTRY.replace("pw", '"p w"'), None),
    (f"{ENTRY}\nmacdef init\nx\n", None),
]


@pytest.mark.parametrize(("text", "found"), NETRC)
def test_a_netrc_counts_when_it_is_simple(tmp_path: Path, text: str, found: tuple[str, ...] | None) -> None:
    (tmp_path / ".netrc").write_text(text)
    assert netrc_of("git.example.org", "", {"HOME": str(tmp_path)}) == found


def test_a_netrc_is_left_to_git_when_the_url_has_a_user(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(ENTRY)
    assert netrc_of("git.example.org", "bob", {"HOME": str(tmp_path)}) is None
    assert netrc_of("h", "bob", {"HOME": str(tmp_path)}) == ()
    assert netrc_of("h", "", {"HOME": str(tmp_path / "none")}) == ()
    assert netrc_of("h", "", {}) is None


@pytest.mark.parametrize(
    ("settings", "variables", "why"),
    [
        ([("http.sslverify", "false")], {}, "http.sslVerify"),
        ([("http.https://git.example.org.cookiefile", "x")], {}, "http.cookiefile"),
        ([("remote.https://ann:pw@h/.proxy", "x")], {}, "remote.….proxy"),
        ([], {"GIT_SSL_CERT": "x"}, "GIT_SSL_CERT"),
        ([], {"SSL_CERT_FILE": "x"}, "SSL_CERT_FILE or SSL_CERT_DIR"),
        ([("http.proxy", "http://ann:pw@h:1")], {}, "the proxy"),
    ],
)
def test_why_git_asks_is_told_without_secrets(settings: list[Entry], variables: dict[str, str], why: str) -> None:
    found = WebSettings(settings, variables)
    assert found.way(URL) is None
    assert found.why == why
