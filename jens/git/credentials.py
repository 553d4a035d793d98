"""Keeps users and passwords in URLs out of the arguments of processes, which every user of the host can read.

Git gets the URL without them, and asks for them: a helper gives them from the environment, which only the same user can
read. The helper of a URL takes the place of the user's own ones, as Git asks nobody when the URL has a password.
Sources: gitcredentials(7), git-config(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from jens.system.files import read_file
from jens.urls import public_url, split_user

_USER, _PASSWORD, _PREFIX = "JENS_GIT_USER", "JENS_GIT_PASSWORD", "JENS_GIT_PREFIX"
#: Gives user and password; Git runs it with the shell, with one more argument: get, store or erase.
_HELPER = rf"""!f() {{ test "$1" = get && printf 'username=%s\npassword=%s\n' "${_USER}" "${_PASSWORD}"; }}; f"""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL = re.compile(r"^\s*url *= *\"?(?P<url>https?://[^/\s]*@[^\s\"]*)", re.MULTILINE | re.IGNORECASE)


def conceal(command: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """A Git command without the user and password of the URL in it, and the variables that have them."""
    for position, argument in enumerate(command):
        found = _parts(argument)
        if found:
            url, user, password = found
            options, environment = _credentials(url, user, password)
            rest = [*command[1:position], url, *command[position + 1 :]]
            return [command[0], *options, *rest], environment
    # ssh takes no password. A URL with one would make it part of the user's name.
    return [public_url(word) if word.startswith("ssh:") else word for word in command], {}


def conceal_remote(git_dir: str, command: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """The same for a remote that a clone knows by name, and whose URL its configuration has."""
    match = _URL.search(read_file(f"{git_dir}/config").decode("utf-8", "surrogateescape"))
    found = _parts(match["url"]) if match else None
    if match is None or found is None:
        return [*command], {}
    url, user, password = found
    options, environment = _credentials(url, user, password)
    # Git's helper for HTTP has the URL among its arguments, as it is after this replacement.
    base = _base(url)
    prefix = match["url"][: len(match["url"]) - len(url) + len(base)]
    options = (*options, f"--config-env=url.{base}.insteadOf={_PREFIX}")
    return [command[0], *options, *command[1:]], {**environment, _PREFIX: prefix}


def _parts(url: str) -> tuple[str, str, str | None] | None:
    """The URL without its user, the user, and the password, decoded; None when there is no user in it."""
    found = split_user(url)
    if found is None:
        return None
    bare, user, password = found
    decoded = [unquote(part, "utf-8", "surrogateescape") for part in (user, password or "")]
    if any(map(_CONTROL.search, decoded)):  # Git refuses such a URL, and says why
        return None
    return bare, decoded[0], decoded[1] if password is not None else None


def _base(url: str) -> str:
    """Scheme and host of a URL, with a slash behind them."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/"


def _credentials(url: str, user: str, password: str | None) -> tuple[tuple[str, ...], Mapping[str, str]]:
    key = f"credential.{_base(url)}"
    named = f"--config-env={key}.username={_USER}"
    if password is None:
        return (named,), {_USER: user}
    # An empty helper drops those of the user.
    return (named, "-c", f"{key}.helper=", "-c", f"{key}.helper={_HELPER}"), {_USER: user, _PASSWORD: password}
