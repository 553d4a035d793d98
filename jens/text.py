"""Text for people and logs: always one line, whatever it quotes."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text with all characters escaped that could begin a new line or control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
