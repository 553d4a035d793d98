"""Text for people and logs: in one line, whatever it quotes."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text with whatever could begin a new line, or steer a terminal, escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
