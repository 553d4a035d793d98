"""Nobody's push waits for another repository: a run leaves to jens-transfer what takes longer than it has patience."""

from __future__ import annotations

from collections.abc import Mapping

from jens.model import RepoId
from jens.repositories import transfers
from jens.repositories.model import Left
from jens.update.options import Context


def left(context: Context) -> Mapping[RepoId, Left]:
    """What is left to jens-transfer. Servers that it found silent are asked nothing. Raises OSError."""
    found = transfers.left(context.layout)
    if found:
        context.remotes.silence(transfers.silent_servers(context.layout))
    return found
