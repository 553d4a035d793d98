"""Room that is reserved in the metadata clones, to be given up when the disk is full.

Removing a definition is a push like any other: the run must fetch it. On a full disk it could not, and what the push
removes would fill the disk for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from jens.system import files

log = logging.getLogger(__name__)

_NAME = "jens-reserve"
#: In each clone: so many files (a fetch makes a few, with their directories), and so many bytes in one of them.
_FILES = 32
_BYTES = 1 << 20


def fill(directories: Iterable[Path]) -> None:
    """Reserve room in each clone that has none reserved, as far as there is room."""
    for place in map(_place, directories):
        with contextlib.suppress(OSError):
            if not os.path.lexists(place):
                _fill(place)


def _fill(place: Path) -> None:
    files.sweep(place.parent)
    aside = files.staging_name(place.parent)
    try:
        os.mkdir(aside, 0o755)
        for number in range(_FILES - 1):
            (aside / str(number)).touch()
        # Random bytes: some file systems compress, and keep no blocks for zeros.
        (aside / "bytes").write_bytes(os.urandom(_BYTES))
        os.rename(aside, place)
    except OSError:
        files.remove_tree(aside)
        raise


def release(directories: Iterable[Path]) -> bool:
    """Give up what is reserved in the clones on a full disk. Returns whether there was anything to give up."""
    places = [place for place in map(_place, directories) if os.path.lexists(place) and _is_full(place.parent)]
    for place in places:
        log.warning("The disk of '%s' is full: the room that was reserved in '%s' is given up", place.parent, place)
        files.remove_tree(place)
    return bool(places)


def _place(directory: Path) -> Path:
    return directory / ".git" / _NAME


def _is_full(directory: Path) -> bool:
    """Whether a few files cannot be made in a directory. It tries: nothing else knows about quotas."""
    aside = files.staging_name(directory)
    try:
        os.mkdir(aside)
        for number in range(_FILES // 2):
            (aside / str(number)).write_bytes(os.urandom(_BYTES // _FILES))
    except OSError as error:
        return files.is_full(error)
    finally:
        files.remove_tree(aside)
    return False
