"""What templates have at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask

from jens.config import Config
from jens.status import words
from jens.tools import history


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
    protected = config.main.protectedenvironments
    app.jinja_env.globals.update(named=lambda names: history.named(names, protected))


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
