"""The log of a tool: one file, one line for each message."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Callable

from jens.config import Config
from jens.errors import (
    DirectoryError,
)
from jens.text import one_line

log = logging.getLogger(__name__)


FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(message)s"


class _OneLine(logging.Formatter):
    """Whatever a message quotes, it stays one line; tracebacks keep theirs."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        record.message = one_line(record.message)
        return super().formatMessage(record)


class LogFile(logging.FileHandler):
    """A log that cannot be written (a full disk) is said once, and stops nothing."""

    complained = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if that can be done."""
        try:
            super().emit(record)
        except OSError:  # what was rotated away, or closed, cannot be opened anew
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the name is logging's
        """Say on stderr, once, why nothing is logged."""
        if not self.complained:
            self.complained = True
            problem = f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}"
            print(f"{Path(sys.argv[0]).name}: {one_line(problem)}", file=sys.stderr)

    def close(self) -> None:
        """Close the file, whatever becomes of its last lines."""
        with contextlib.suppress(OSError):
            super().close()


def set_up_logging(
    config: Config, tool: str, *, verbose: bool = False, log_file: Callable[..., LogFile] = LogFile
) -> None:
    """Log to ``logdir/TOOL.log``; when that is renamed meanwhile, so is the log. Raises DirectoryError."""
    path = config.main.logdir / f"{tool}.log"
    root = logging.getLogger()
    tear_down_logging()
    try:
        handlers: list[logging.Handler] = [log_file(path, encoding="utf-8", errors="backslashreplace")]
    except OSError as error:
        raise DirectoryError("logdir", config.main.logdir, f"log cannot be written: {error.strerror}") from error
    if verbose:
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(_OneLine(FORMAT))
        root.addHandler(handler)
    root.setLevel(config.main.debuglevel)
    for warning in config.warnings:
        log.warning("%s", warning)


def tear_down_logging() -> None:
    """Close what ``set_up_logging`` opened."""
    for handler in our_handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()


def our_handlers() -> list[logging.Handler]:
    """The handlers that ``set_up_logging`` made; none when there is no log yet."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, _OneLine)]
