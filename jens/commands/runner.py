"""What all tools share: arguments, the log, and the one place where an exception becomes an exit code."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NoReturn

from jens import __version__
from jens.config import DEFAULT_PATH, Config
from jens.errors import (
    ConfigError,
    DirectoryError,
    EnvironmentsError,
    JensError,
    LibraryError,
    LockFailedError,
    LockHeldError,
    MetadataError,
    QueueError,
    RepositoriesError,
)
from jens.text import one_line

OK = 0
DIFFERENT = 1
CONFIGURATION = 2
DIRECTORY = 3
FAILED = 10
METADATA = 20
HINTS = 25
REPOSITORIES = 30
PURGE_REFUSED = 31
ENVIRONMENTS = 40
LOCKED = 50
LOCK_FAILED = 51
NOT_ALL_WELL = 60
UNFORESEEN = 70
INTERRUPTED = 130

_EXIT_CODES = {
    ConfigError: CONFIGURATION,
    DirectoryError: DIRECTORY,
    MetadataError: METADATA,
    QueueError: HINTS,
    LibraryError: REPOSITORIES,
    RepositoriesError: REPOSITORIES,
    EnvironmentsError: ENVIRONMENTS,
    LockHeldError: LOCKED,
    LockFailedError: LOCK_FAILED,
}

FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(message)s"

#: Who pushes decides how deep a tree is, as far as the kernel lets Git make it (2,048 directories), and os.walk and
#: shutil.rmtree need a few calls for each.
_DEEPEST = 8000

log = logging.getLogger(__name__)

# Before the interpreter ends it looks through all that there is for what could be freed: a tenth of a short run.
atexit.register(gc.freeze)


def argument_parser(description: str, *, with_config: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every tool has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_formatter)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    if with_config:
        help_text = f"configuration file (default: {DEFAULT_PATH})"
        parser.add_argument("-c", "--config", metavar="FILE", type=Path, default=DEFAULT_PATH, help=help_text)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """The usual one, told the width: to look that up itself it imports more than all else that arguments take."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    with contextlib.suppress(OSError):
        width = width or os.get_terminal_size().columns
    return argparse.HelpFormatter(prog, width=(width or 80) - 2)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a tool; answers the shell instead when that asks how to complete them (with argcomplete)."""
    if "_ARGCOMPLETE" in os.environ:
        try:
            importlib.import_module("argcomplete").autocomplete(parser)
        except ImportError:
            sys.exit(FAILED)  # somebody has pressed TAB: that must not start a run
    return parser.parse_args(argv)


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
    for handler in _our_handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()


def _our_handlers() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, _OneLine)]


class Terminated(KeyboardInterrupt):
    """SIGTERM, or the terminal that was closed: ends a run as Ctrl-C does."""


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise Terminated


def run_tool(work: Callable[[], int]) -> int:
    """Run a tool to its exit code; complaints are one line on stderr, and in the log."""
    _open_closed_streams()
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEEPEST))
    umask = os.umask(0o022)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, _terminate)
    silence = logging.NullHandler()  # or Python would repeat on stderr what is logged before there is a log
    logging.getLogger().addHandler(silence)
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough; do not let the interpreter complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return complain("Interrupted", INTERRUPTED)
    except JensError as error:
        return _foreseen(error)
    except Exception as error:  # noqa: BLE001 - the top
        return _unforeseen(error)
    finally:
        tear_down_logging()
        logging.getLogger().removeHandler(silence)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.umask(umask)


def _open_closed_streams() -> None:
    """Whoever starts a tool with ``>&-`` wants silence, not a failure, nor files opened in the place of a stream."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name is shown, whatever the locale


def _foreseen(error: JensError) -> int:
    code = exit_code(error)
    if code is None:
        return _unforeseen(error)
    if code == LOCKED:
        log.info("%s", error)
        return code
    return complain(str(error), code)


def status_of(error: BaseException) -> int:
    """The exit code that ``run_tool`` will make of an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    code = exit_code(error) if isinstance(error, JensError) else None
    return UNFORESEEN if code is None else code


def exit_code(error: JensError) -> int | None:
    """The exit code of a kind of error, None when it should have been dealt with before."""
    return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), None)


def complain(text: str, code: int) -> int:
    """Say what ended a tool, and return its exit code."""
    line = one_line(text)
    log.error("%s", line)
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
    return code


def _unforeseen(error: Exception) -> int:
    log.error("Unforeseen error", exc_info=error)
    hint = "the log has the details" if _our_handlers() else "there is no log yet"
    print(
        f"{Path(sys.argv[0]).name}: unforeseen {type(error).__name__}: {one_line(str(error))} ({hint})", file=sys.stderr
    )
    return UNFORESEEN
