"""The log of a tool: one file, with one line for each message."""

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
from jens.system import files
from jens.text import one_line

log = logging.getLogger(__name__)


FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(message)s"


class _OneLine(logging.Formatter):
    """Formats a message as one line, whatever it quotes. Tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        record.message = one_line(record.message)
        return super().formatMessage(record)


class LogFile(logging.FileHandler):
    """A log file. A failure to write (a full disk) is reported once on stderr, and does not end the tool."""

    complained = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or report that it failed."""
        try:
            super().emit(record)
        except OSError:  # a log that was rotated or closed cannot be opened again
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the name is logging's
        """Print on stderr, once, why the log cannot be written."""
        if not self.complained:
            self.complained = True
            problem = f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}"
            print(f"{Path(sys.argv[0]).name}: {one_line(problem)}", file=sys.stderr)

    def close(self) -> None:
        """Close the file, even if its last lines cannot be written."""
        with contextlib.suppress(OSError):
            super().close()


def set_up_logging(
    config: Config, tool: str, *, verbose: bool = False, log_file: Callable[..., LogFile] = LogFile
) -> None:
    """Log to ``logdir/TOOL.log``; a file that is renamed meanwhile is still written. Raises DirectoryError."""
    path = config.main.logdir / f"{tool}.log"
    root = logging.getLogger()
    tear_down_logging()
    try:
        to_file = log_file(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        if not files.is_full(error):
            problem = f"log '{path.name}' cannot be written: {error.strerror}"
            raise DirectoryError("logdir", config.main.logdir, problem) from error
        # The tool may be about to make room. Each line tries again to open the file, and the first failure is told.
        to_file = log_file(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handlers: list[logging.Handler] = [to_file, *([logging.StreamHandler()] if verbose else [])]
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
    """The handlers that ``set_up_logging`` added, none when there is no log yet."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, _OneLine)]
