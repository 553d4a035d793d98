"""The environment of Git: what it inherits, which settings override all files, who may ask for passwords, which ssh.

Nothing here starts a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Callable

#: Variables of Git that carry the traffic are kept, by prefix. All others change results and are dropped.
_KEPT = ("GIT_SSH", "GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_")

#: For each Git.
ALWAYS = {
    "LC_ALL": "C",  # Jens reads Git's complaints
    "LANGUAGE": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",  # if it is unset, Git tries core.askPass and SSH_ASKPASS
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a commit is what its id says
}
#: A file of more bytes is a large one for Git.
LARGE_FILE = "16m"
_CONFIGURATION = {
    "core.bigFileThreshold": LARGE_FILE,  # larger files go through Git piece by piece, whatever they unpack to
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.fsmonitor": "false",
    "core.logAllRefUpdates": "false",
    "core.sharedRepository": "umask",
    "fetch.fsckObjects": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "init.defaultRefFormat": "files",
    "maintenance.auto": "false",
    "pack.indexVersion": "2",
    "pack.threads": str(min(4, os.cpu_count() or 1)),  # each takes memory
    "pack.windowMemory": "64m",
    "submodule.recurse": "false",
    "transfer.fsckObjects": "false",
}


def _as_variables(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables for settings that override all files, like ``-c``, but keep commands short: git-config(1)."""
    yield "GIT_CONFIG_COUNT", str(len(settings))
    for number, (key, value) in enumerate(settings.items()):
        yield f"GIT_CONFIG_KEY_{number}", key
        yield f"GIT_CONFIG_VALUE_{number}", value


#: The variables that make it so, whatever files say.
SETTINGS = dict(_as_variables(_CONFIGURATION))

#: For a Git that speaks to no remote, not even to fetch what a partial clone lacks: only the configuration of the
#: repository and of Jens counts.
LOCAL = {
    **SETTINGS,
    **ALWAYS,
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def dropped_variables() -> list[str]:
    """The variables of this program's environment that Git must not see: they would change results."""
    return [name for name in os.environ if name.startswith("GIT_") and not name.startswith(_KEPT)]


def inherited_environment() -> dict[str, str]:
    """This program's environment without the variables that Git must not see."""
    environment = dict(os.environ)
    for name in dropped_variables():
        environment.pop(name, None)
    return environment


#: How Git calls ssh, unless somebody says how.
BATCH_SSH = "ssh -oBatchMode=yes"


def over_master(path: str) -> str:
    """How Git calls ssh where there is a connection to share: its socket. Without it ssh makes a connection."""
    return f"{BATCH_SSH} -oControlMaster=no -oControlPath={path}"


def of_remote(ssh_command: str, has_own: Callable[[], bool], master: str = "") -> dict[str, str]:
    """The variables for a Git that speaks to a remote, besides the inherited environment.

    ``ssh_command`` is the one that Jens is configured with, '' for none. ``has_own`` is asked, if need be, whether the
    user's configuration of Git has one. ``master`` is the socket of a connection that ssh shares, '' for none.
    The caller's GIT_ASKPASS gives passwords; nobody is there to type any, so all else that asks stays off.
    """
    askpass = {"GIT_ASKPASS": os.environ.get("GIT_ASKPASS", "")}
    ssh = {"GIT_SSH_COMMAND": over_master(master)} if master else _ssh_environment(ssh_command, has_own)
    return {**ALWAYS, **askpass, **ssh}


def _ssh_environment(configured: str, has_own: Callable[[], bool]) -> dict[str, str]:
    if configured:
        import shlex  # noqa: PLC0415 - few runs need it

        # GIT_SSH_COMMAND too: core.sshCommand in the user's configuration would override GIT_SSH.
        return {"GIT_SSH": configured, "GIT_SSH_COMMAND": shlex.quote(configured)}
    if os.environ.get("GIT_SSH") or os.environ.get("GIT_SSH_COMMAND") or has_own():
        return {}
    return {"GIT_SSH_COMMAND": BATCH_SSH}
