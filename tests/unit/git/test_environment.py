"""Which variables Git gets."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from jens.git import environment


@pytest.fixture(autouse=True)
def _no_variables_of_git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)


_BATCH = {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}


@pytest.mark.parametrize(
    ("configured", "inherited", "has_own", "expected"),
    [
        pytest.param("", {}, False, _BATCH, id="nobody says how"),
        pytest.param("", {}, True, {}, id="the user's configuration says how"),
        pytest.param("", {"GIT_SSH": "/x"}, False, {}, id="GIT_SSH says how"),
        pytest.param("", {"GIT_SSH_COMMAND": "x -y"}, False, {}, id="GIT_SSH_COMMAND says how"),
        pytest.param("/a b", {}, False, {"GIT_SSH": "/a b", "GIT_SSH_COMMAND": "'/a b'"}, id="Jens says how"),
        pytest.param(
            *("/a", {"GIT_SSH_COMMAND": "x"}, True, {"GIT_SSH": "/a", "GIT_SSH_COMMAND": "/a"}), id="all say how"
        ),
    ],
)
def test_which_ssh_asks(
    monkeypatch: pytest.MonkeyPatch,
    configured: str,
    inherited: Mapping[str, str],
    has_own: bool,
    expected: Mapping[str, str],
) -> None:
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    found = environment.of_remote(configured, lambda: has_own)
    assert {name: value for name, value in found.items() if name.startswith("GIT_SSH")} == expected


def test_only_the_callers_askpass_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[str]:
        variables = environment.of_remote("", lambda: False)
        return [variables[name] for name in ("GIT_ASKPASS", "SSH_ASKPASS", "GIT_TERMINAL_PROMPT")]

    assert found() == ["", "", "0"]
    monkeypatch.setenv("GIT_ASKPASS", "/usr/lib/askpass")
    assert found() == ["/usr/lib/askpass", "", "0"]


def test_what_changes_results_is_dropped_and_what_carries_the_traffic_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["GIT_SSH_VARIANT", "GIT_SSL_CAINFO", "GIT_HTTP_USER_AGENT", "GIT_PROXY_COMMAND", "NOT_GIT_DIR"]
    dropped = ["GIT_DIR", "GIT_WORK_TREE", "GIT_CONFIG_COUNT", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"]
    for name in (*kept, *dropped):
        monkeypatch.setenv(name, "x")
    assert sorted(environment.dropped_variables()) == sorted(dropped)
    inherited = environment.inherited_environment()
    assert {*kept} <= {*inherited}
    assert not {*dropped} & {*inherited}


def test_a_git_without_a_remote_reads_no_file_of_users_and_speaks_to_nobody() -> None:
    assert environment.LOCAL["GIT_ALLOW_PROTOCOL"] == ""
    assert environment.LOCAL["GIT_CONFIG_GLOBAL"] == os.devnull
    count = int(environment.LOCAL["GIT_CONFIG_COUNT"])
    settings = {
        environment.LOCAL[f"GIT_CONFIG_KEY_{i}"]: environment.LOCAL[f"GIT_CONFIG_VALUE_{i}"] for i in range(count)
    }
    assert settings["gc.auto"] == "0"
    assert f"GIT_CONFIG_KEY_{count}" not in environment.LOCAL


def test_ssh_uses_a_connection_that_is_shared_without_becoming_a_master() -> None:
    variables = environment.of_remote("", lambda: False, "/tmp/jens-x/master")
    assert variables["GIT_SSH_COMMAND"] == "ssh -oBatchMode=yes -oControlMaster=no -oControlPath=/tmp/jens-x/master"
