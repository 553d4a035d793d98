"""The log of a tool: one file, with one line for each message."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import RLock, Timer
from typing import Callable

from jens.config import Config
from jens.errors import (
    DirectoryError,
)
from jens.system import files
from jens.text import one_line

log = logging.getLogger(__name__)


#: The longest time in seconds that lines are held back: whoever looks why a run takes long finds them in the log.
HELD_BACK = 30

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


class HeldBack(logging.Handler):
    """Holds records back from a handler: until a WARNING, until ``let_go``, or for so many seconds at most."""

    def __init__(self, handler: logging.Handler, seconds: float) -> None:
        super().__init__()
        self._handler = handler
        self._records: list[logging.LogRecord] | None = []
        self._one_at_a_time = RLock()  # the timer has a thread of its own
        self._timer = Timer(seconds, self.let_go)
        self._timer.daemon = True
        self._timer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, or pass it on."""
        with self._one_at_a_time:
            if self._records is None:
                self._handler.handle(record)
                return
            record.msg, record.args = record.getMessage(), None  # what it quotes may change before it is written
            self._records.append(record)
            if record.levelno >= logging.WARNING:
                self.let_go()

    def let_go(self) -> None:
        """Pass on what was held back, and from now on everything."""
        with self._one_at_a_time:
            records, self._records = self._records or [], None
            for record in records:
                self._handler.handle(record)
        self._timer.cancel()

    def drop(self) -> None:
        """Forget what is held back."""
        with self._one_at_a_time:
            if self._records is not None:
                self._records.clear()


@contextlib.contextmanager
def lines_held_back() -> Iterator[Callable[[], None]]:
    """Write what is logged in the block at its end, or before, as HeldBack does. Yields what drops it.

    Nothing is held back at the level DEBUG, and with -v.
    """
    root = logging.getLogger()
    handlers = our_handlers()
    if root.level < logging.INFO or len(handlers) != 1:
        yield lambda: None
        return
    held = HeldBack(handlers[0], HELD_BACK)
    root.removeHandler(handlers[0])
    root.addHandler(held)
    try:
        yield held.drop
    finally:
        root.removeHandler(held)
        root.addHandler(handlers[0])
        held.let_go()


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
