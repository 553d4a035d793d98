"""Git commands without the passwords of their URLs; tests/faults/test_passwords.py has Git use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.git import process
from jens.urls import public_url, split_user

BARE = "https://git.example.org:8443/puppet/dummy.git"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://git.example.org/x.git", None),
        ("https://git.example.org/x@y.git", None),
        ("https://user@git.example.org/x.git", ("https://git.example.org/x.git", "user", None)),
        ("https://user:@git.example.org/x", ("https://git.example.org/x", "user", "")),
        ("http://user:pa%40ss@git.example.org:80/x@y", ("http://git.example.org:80/x@y", "user", "pa%40ss")),
        ("HTTPS://:token@h/x", ("HTTPS://h/x", "", "token")),
        ("https://a:b@c@h/x", ("https://h/x", "a", "b@c")),
        ("https://h/x?y=a@b", None),
        ("ssh://git@git.example.org/x", None),
        ("git@git.example.org:x", None),
        ("/srv/git/a@b", None),
        ("file:///srv/git/a@b", None),
    ],
)
def test_the_user_of_a_url(url: str, expected: tuple[str, str, str | None] | None) -> None:
    assert split_user(url) == expected
    assert public_url(url) == (expected[0] if expected else url)


def test_a_command_without_a_password_stays_as_it_is() -> None:
    for url in (BARE, "git@git.example.org:dummy", "/srv/git/dummy", "ssh://git@git.example.org/dummy"):
        command = ["git", "ls-remote", "--heads", "--", url]
        assert process.concealed(command) == (command, {})
        assert process.concealed(command)[0] is command


def test_ssh_gets_no_password() -> None:
    command, variables = process.concealed(["git", "ls-remote", "--", "ssh://git:se:cr@et@git.example.org:22/a:b@c"])
    assert (list(command[-2:]), variables) == (["--", "ssh://git@git.example.org:22/a:b@c"], {})
    for url in ("ssh://git@git.example.org:22/x", "ssh://git.example.org:22/a@b"):
        assert public_url(url) == url


def test_user_and_password_become_variables() -> None:
    url = BARE.replace("://", "://dep%6Coy:pa%20ss%C3%A4@")
    command, variables = process.concealed(["git", "--git-dir=/x", "fetch", "--", url, "+refs"])
    assert list(command[-4:]) == ["fetch", "--", BARE, "+refs"]
    assert variables == {"JENS_GIT_USER": "deploy", "JENS_GIT_PASSWORD": "pa ssä"}
    assert not any("pa" in word.replace("puppet", "").replace("password", "") for word in command if "git.ex" in word)
    assert [word for word in command if "ssä" in word or "deploy" in word or "%20" in word] == []
    assert not any("\n" in word for word in command), "a shell reads a word a line"


def test_a_user_alone_leaves_the_helpers_of_the_user() -> None:
    command, variables = process.concealed(["git", "ls-remote", "--", BARE.replace("://", "://token@")])
    assert variables == {"JENS_GIT_USER": "token"}
    assert not any("helper" in word for word in command)


def test_what_git_refuses_is_left_to_git() -> None:
    command = ["git", "ls-remote", "--", BARE.replace("://", "://user:pass%0Aword@")]
    assert process.concealed(command) == (command, {})


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_remote_with_a_name_gets_its_url_without_them(tmp_path: Path, quote: str) -> None:
    git_dir = tmp_path / ".git"
    git_dir.mkdir()
    url = BARE.replace("://", "://deploy:secret@")
    (git_dir / "config").write_text(f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {quote}{url}{quote}\n')
    question = ["git", f"--git-dir={git_dir}", "ls-remote", "--", "origin", "refs/heads/master"]
    command, variables = process.concealed(question)
    assert list(command[-5:]) == question[1:]
    assert variables["JENS_GIT_PREFIX"] == "https://deploy:secret@git.example.org:8443/"
    assert "--config-env=url.https://git.example.org:8443/.insteadOf=JENS_GIT_PREFIX" in command
    assert not any("secret" in word for word in command)
    (git_dir / "config").write_text(f'[remote "origin"]\n\turl = {BARE}\n')
    assert process.concealed(question) == (question, {})
