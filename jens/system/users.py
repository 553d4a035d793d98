"""Users of the system, by name where they have one."""

from __future__ import annotations


def name_of(user: int) -> str:
    """The name of a user id; ``#4711``, as sudo(8) takes it, for an id without a name."""
    import pwd  # noqa: PLC0415 - only a complaint needs it

    try:
        return pwd.getpwuid(user).pw_name
    except (KeyError, OverflowError):
        return f"#{user}"
