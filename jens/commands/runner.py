"""Runs a tool: signals, streams, and the one place that turns an exception into an exit code."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Callable, NoReturn

from jens import deferred
from jens.commands.exitcodes import INTERRUPTED, LOCKED, OK, UNFORESEEN, exit_code
from jens.commands.logs import our_handlers, tear_down_logging
from jens.config import Config, load_config
from jens.errors import (
    JensError,
)
from jens.git.workers import are_busy
from jens.system.limits import most_open_files
from jens.text import one_line

#: Options of the interpreter; as the environment variable PYTHONUTF8 they would be passed on to hooks.
_IN_UTF8 = [b"-X", b"utf8"]

log = logging.getLogger(__name__)

# At its end, the interpreter would search all objects for garbage, which takes a tenth of a short run.
atexit.register(gc.freeze)


def run_in_utf8() -> None:
    """Start the interpreter anew in UTF-8 mode, unless it is: names are the same bytes in every locale.

    Only for a tool that has its process for itself, and that holds nothing yet. The process keeps its id and its open
    streams.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    with contextlib.suppress(OSError):
        # Python 3.9 does not remember its whole command line; Linux does.
        _, *arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
        if arguments[: len(_IN_UTF8)] != _IN_UTF8:  # else somebody has switched it off: -X utf8=0
            os.execv(sys.executable, [os.fsencode(sys.executable), *_IN_UTF8, *arguments])


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP (a closed terminal): ends a tool as Ctrl-C does."""


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise Terminated


def run_tool(work: Callable[[], int]) -> int:
    """Run a tool and return its exit code. An error is one line on stderr and in the log."""
    _open_closed_streams()
    with most_open_files():
        return _run_tool(work)


def _run_tool(work: Callable[[], int]) -> int:
    umask = os.umask(0o022)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, _terminate)
    silence = logging.NullHandler()  # else Python prints on stderr what is logged before there is a log
    logging.getLogger().addHandler(silence)
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output has closed the pipe. With /dev/null, the interpreter can flush without an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        code = complain("Interrupted", INTERRUPTED)
        if are_busy():
            os._exit(code)  # as SIGKILL would end them; the interpreter would wait for them
        return code
    except JensError as error:
        return _foreseen(error)
    except Exception as error:  # noqa: BLE001 - this is the top
        return _unforeseen(error)
    finally:
        tear_down_logging()
        logging.getLogger().removeHandler(silence)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.umask(umask)


def _open_closed_streams() -> None:
    """Open /dev/null for closed streams (``>&-``), which would cause failures, or files in the place of a stream."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: any name can be printed in any locale


def _foreseen(error: JensError) -> int:
    code = exit_code(error)
    if code is None:
        return _unforeseen(error)
    if code == LOCKED:
        return locked(str(error))
    return complain(str(error), code)


def locked(text: str) -> int:
    """Log who holds a lock. On a terminal say it, too: cron would mail it each time. Returns the exit code."""
    line = one_line(text)
    log.info("%s", line)
    if sys.stderr.isatty():
        print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
    return LOCKED


def load(path: Path) -> Config:
    """Load the configuration for a tool without a log. Its warnings go to stderr. Raises ConfigError."""
    config = load_config(path)
    for warning in config.warnings:
        complain(warning, OK)
    bound_git(config)
    return config


def bound_git(config: Config) -> None:
    """Set the limits of time and memory for each Git that this program starts."""
    git = deferred.git_process
    git.set_limits(git.Limits(config.git.clonetimeout, config.git.memory))


def complain(text: str, code: int) -> int:
    """Log a complaint and print it on stderr. Returns the exit code ``code``."""
    line = one_line(text)
    log.error("%s", line)
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
    return code


def warn(text: str) -> None:
    """Log a warning and print it on stderr."""
    line = one_line(text)
    log.warning("%s", line)
    print(f"{Path(sys.argv[0]).name}: WARNING: {line}", file=sys.stderr)


def _unforeseen(error: Exception) -> int:
    log.error("Unforeseen error", exc_info=error)
    hint = "the log has the details" if our_handlers() else "there is no log yet"
    print(
        f"{Path(sys.argv[0]).name}: unforeseen {type(error).__name__}: {one_line(str(error))} ({hint})", file=sys.stderr
    )
    return UNFORESEEN
