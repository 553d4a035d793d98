"""The whole content of a directory, in a form that tests can compare."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path


def everything_below(top: Path, spared: Collection[Path] = ()) -> dict[str, str]:
    """The paths of everything below a directory, each with kind and mode, and the link's target or the content.

    Paths in ``spared``, and everything below them, are left out.
    """
    found: dict[str, str] = {}
    left_out = set(map(os.fspath, spared))
    waiting = [os.fspath(top)] if top.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.path in left_out:
                    continue
                mode, content = entry.stat(follow_symlinks=False).st_mode, ""
                if stat.S_ISDIR(mode):
                    waiting.append(entry.path)
                elif stat.S_ISLNK(mode):
                    content = os.readlink(entry.path)
                elif stat.S_ISREG(mode):
                    with open(entry.path, "rb") as file:
                        content = hashlib.sha256(file.read()).hexdigest()
                found[entry.path] = f"{stat.filemode(mode)} {content}"
    return found
