"""Whether the page can show what it is for: not whether all is well."""

from __future__ import annotations

from jens import preflight
from jens.errors import DirectoryError, HistoryError
from jens.status.sources import Sources
from jens.tools import history

_KEYS = ("baredir", "clonedir", "cachedir", "environmentsdir")


def problems(sources: Sources) -> list[str]:
    """Why pages cannot show all that they should, a sentence each."""
    found = []
    for key in _KEYS:
        try:
            preflight.check_readable(sources.config, [key])
        except DirectoryError as error:
            found.append(f"{error.key}: {error.problem}")
    if sources.config.history.days:
        try:
            history.opened(sources.config).close()
        except HistoryError as error:
            found.append(f"history: {sources.redaction.text(error.problem)}")
    return found
