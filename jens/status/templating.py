"""What templates have at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from flask import Flask
from markupsafe import Markup, escape

from jens.config import Config
from jens.status import words
from jens.status.memory import Memory
from jens.tools import history

#: Stands in a remembered row for since when. No text that is shown has such a character.
_SINCE = Markup("\0since\0")
#: So many rows of tables are remembered.
_MOST_ROWS = 20_000


def set_up(app: Flask, config: Config) -> None:
    """Prepare an application for its templates."""
    app.jinja_options = {**app.jinja_options, "finalize": finalize, "trim_blocks": True, "lstrip_blocks": True}
    app.jinja_env.filters.update(
        ago=words.ago,
        groups=groups,
        lasting=words.lasting,
        local=words.local,
        seconds=words.seconds,
        short=words.short,
        short_ref=words.short_ref,
    )
    protected, rows = config.main.protectedenvironments, Rows()
    app.jinja_env.globals.update(named=lambda names: history.named(names, protected), remembered_row=rows.get)


def finalize(value: Any) -> Any:
    """What is shown of a value: a text is in one line, whatever is in it; nothing for None. Markup stays as it is."""
    if value is None:
        return ""
    return words.clean(value) if type(value) is str else value


def groups(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[tuple[tuple[Any, ...], list[str]]]:
    """The environments of rows that have the same values of these keys, in the order of the rows."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row["environment"])
    return [*found.items()]


class Rows:
    """Rows of tables as they are shown: most environments have the same repositories at the same commits.

    They differ in since when, so a row is remembered without that.
    """

    def __init__(self) -> None:
        self._rows = Memory[str](float("inf"), _MOST_ROWS)

    def get(self, show: Callable[[Mapping[str, Any], str], str], root: str, row: Mapping[str, Any]) -> Markup:
        """A row, shown once for all with the same values. One that has more than plain values is shown each time."""
        values = {**row, "since": None}
        try:
            shown = self._rows.get((root, *values.values()), lambda: str(show(row, _SINCE)))
        except TypeError:  # not hashable
            shown = str(show(row, _SINCE))
        since = row["since"]
        cell = f'<time datetime="{escape(since)}">{escape(words.local(since))}</time>' if since else ""
        return Markup(shown.replace(_SINCE, cell))
