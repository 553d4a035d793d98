"""jens-config prints one value of the configuration, and needs only the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jens.commands import config as command
from jens.config import KEYS
from tests import TREE

TEXT = """\
[main]
baredir = /srv/jens/../jens/bare
mandatorybranches = master, qa, "feature/x"
protectedenvironments = production
directory_environments = yes
retention = 600
[git]
ssh_cmd_path = /opt/with space/ssh
[gitlabproducer]
secret_token = "open, sesame"
"""

#: What is printed, as text and as JSON, with the file above and with an empty one.
_VALUES = [
    (TEXT, "main", "baredir", "/srv/jens/bare", "/srv/jens/bare"),
    ("", "main", "clonedir", "/var/lib/jens/clone", "/var/lib/jens/clone"),
    (TEXT, "main", "mandatorybranches", "master,qa,feature/x", ["master", "qa", "feature/x"]),
    ("", "main", "mandatorybranches", "master,qa", ["master", "qa"]),
    (TEXT, "main", "protectedenvironments", "production", ["production"]),
    ("", "main", "protectedenvironments", "", []),
    (TEXT, "main", "directory_environments", "True", True),
    ("", "main", "directory_environments", "False", False),
    (TEXT, "main", "retention", "600", 600),
    ("", "git", "jobs", "0", 0),
    ("", "main", "mode", "POLL", "POLL"),
    ("", "lock", "name", "jens", "jens"),
    ("", "filelock", "lockdir", "/run/lock/jens", "/run/lock/jens"),
    ("", "messaging", "queuedir", "/var/spool/jens-update", "/var/spool/jens-update"),
    (TEXT, "git", "ssh_cmd_path", "/opt/with space/ssh", "/opt/with space/ssh"),
    ("", "git", "ssh_cmd_path", "", None),
    (TEXT, "gitlabproducer", "secret_token", "open, sesame", "open, sesame"),
    ("", "gitlabproducer", "secret_token", "", None),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "main.conf"
    path.write_text("")
    return path


def run(capture: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command.main([*arguments])
    captured = capture.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(("content", "section", "key", "text", "value"), _VALUES)
def test_a_value_is_one_line_and_json_keeps_its_kind(
    content: str,
    section: str,
    key: str,
    text: str,
    value: object,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file.write_text(content)
    line = ("-c", str(file), "-s", section, "-k", key)
    assert run(capsys, *line) == (0, f"{text}\n", "")
    code, stdout, stderr = run(capsys, *line, "--json")
    assert (code, stderr, stdout[-1]) == (0, "", "\n")
    assert json.loads(stdout) == value


def test_the_section_is_main_unless_another_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[main]\nclonedir = /srv/clone\n")
    assert run(capsys, "--config", str(file), "--key", "clonedir") == (0, "/srv/clone\n", "")
    assert run(capsys, "--config", str(file), "--key", "name", "--section", "lock") == (0, "jens\n", "")


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_every_key_has_a_value(section: str, name: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ((), ("--json",)):
        code, stdout, stderr = run(capsys, "-c", str(file), "-s", section, "-k", name, *options)
        assert (code, stdout.count("\n") >= 1, stderr) == (0, True, "")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("main", "clondir"),
        ("main", "name"),
        ("main", "warnings"),
        ("path", "name"),
        ("jens", "clonedir"),
        ("", ""),
        ("main", "__class__"),
        ("main", "MODE"),
    ],
)
def test_exit_3_there_is_no_such_key(section: str, key: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("-c", str(file), "-s", section, "-k", key)
    expected = (3, "", f"jens-test: there is no key '{key}' in section [{section}]\n")
    assert run(capsys, *line) == expected
    assert run(capsys, *line, "--json") == expected


def test_exit_3_even_when_the_file_has_the_unknown_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[main]\nclondir = /srv/clone\n")
    code, stdout, stderr = run(capsys, "-c", str(file), "-k", "clondir")
    assert (code, stdout) == (3, "")
    assert stderr.splitlines() == [
        f"jens-test: {file}: unknown key 'clondir' in [main] is ignored (line 2), expected 'clonedir'",
        "jens-test: there is no key 'clondir' in section [main]",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [("[main]\nmode = SOMETIMES\n", "mode"), ("[main\n", "line 1"), (None, "cannot be read")],
)
def test_exit_2_the_configuration_cannot_be_used(
    content: str | None, words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.unlink()
    if content is not None:
        file.write_text(content)
    code, stdout, stderr = run(capsys, "-c", str(file), "-k", "clonedir")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert words in stderr
    assert str(file) in stderr


@pytest.mark.parametrize("arguments", [(), ("clonedir",), ("-k",), ("-k", "clonedir", "--all")])
def test_exit_2_the_options_are_wrong(arguments: tuple[str, ...], file: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["-c", str(file), *arguments])
    assert caught.value.code == 2


def test_doubts_about_the_configuration_are_told_on_stderr(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[main]\nclondir = /srv/clone\n")
    expected = f"jens-test: {file}: unknown key 'clondir' in [main] is ignored (line 2), expected 'clonedir'\n"
    assert run(capsys, "-c", str(file), "-k", "mode") == (0, "POLL\n", expected)


def test_what_a_value_contains_steers_no_terminal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[gitlabproducer]\nsecret_token = a\x1b[2J\x07b\n")
    line = ("-c", str(file), "-s", "gitlabproducer", "-k", "secret_token")
    assert run(capsys, *line) == (0, "a\\x1b[2J\\x07b\n", "")
    code, stdout, _stderr = run(capsys, *line, "--json")
    assert (code, json.loads(stdout), stdout.isascii()) == (0, "a\x1b[2J\x07b", True)
    assert "\x1b" not in stdout


def test_it_knows_its_version_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            command.main([option])
        assert caught.value.code == 0
    assert "--section" in capsys.readouterr().out


def test_a_real_process_writes_nothing_and_survives_a_closed_pipe(file: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(tmp_path.rglob("*"))
    line = f"{sys.executable} {TREE}/bin/jens-config -c {file} -k mode"
    for script, expected in ((line, "POLL\n"), (f"({line}; echo $? >&2) | true", "")):
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, expected)
        assert done.stderr in ("", "0\n")
    assert sorted(tmp_path.rglob("*")) == before
