"""What asks for a tool at once: whoever adds a hint makes it, a run removes it before it reads hints.

Other tools are asked for in the same way, by other names in other directories.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

#: systemd's path unit looks for it in the queue of hints. No element of a queue has such a name.
NAME = "wake"


def make(queue: Path, name: str | None = None) -> None:
    """Ask for a run at once. Where that fails, the next run by the clock finds what there is to do: nothing is raised.

    An empty directory, because python-dirq would count a file as minus one element: it adds up numbers of links.
    """
    try:
        os.mkdir(queue / (name or NAME), 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        log.warning(
            "Unable to make '%s', so what it asks for waits for the next run by the clock: %s",
            queue / (name or NAME),
            error.strerror,
        )


def remove(queue: Path, name: str | None = None) -> None:
    """Remove it, if it is there, also a file of that name. What was asked for until now, the run that begins does."""
    path = queue / (name or NAME)
    try:
        os.rmdir(path)
    except NotADirectoryError:
        with suppress(OSError):
            os.unlink(path)
    except OSError:
        pass
