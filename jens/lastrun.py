"""The record of the last run: how it went, and what is wrong since when; for other tools and for monitoring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from jens import statefile
from jens.events import MORE
from jens.layout import Layout
from jens.model import Fault, OpenFault
from jens.statefile import LAST_RUN, StateError
from jens.system import files
from jens.text import shortened

#: So many failures and faults are saved. Whoever pushes decides how many there are.
_MOST = 1000
#: So many addresses of a fault are saved.
_MOST_ADDRESSES = 20


class LastRun(NamedTuple):
    """``begin`` in seconds since the epoch, the ``seconds`` that it took, its exit ``status``, and its ``failures``.

    ``faults`` are those that were open at its end.
    """

    begin: float
    seconds: float
    status: int
    failures: tuple[str, ...]
    faults: tuple[OpenFault, ...] = ()

    def encode(self) -> dict[str, Any]:
        """The record as it is written to disk; times are UTC, in ISO 8601."""
        return {
            "began": timestamp(self.begin),
            "seconds": round(self.seconds, 3),
            "status": self.status,
            "failed": bounded_failures(self.failures),
            "faults": _encode_faults(self.faults, self.begin),
        }


def bounded_failures(failures: Sequence[str]) -> list[str]:
    """Failures as they are saved: not too long, and not too many."""
    more = len(failures) - _MOST
    return [*map(shortened, failures[:_MOST]), *([f"{more} more failures, the log has them"] if more > 0 else [])]


def _encode_faults(faults: Sequence[OpenFault], now: float) -> list[dict[str, Any]]:
    return [encode_fault(fault) for fault in bounded_faults(faults, timestamp(now))]


def bounded_faults(faults: Sequence[OpenFault], now: str) -> Sequence[OpenFault]:
    """Faults as they are saved. When there are too many, the last one says how many are left out."""
    if len(faults) <= _MOST + 1:
        return faults
    more = Fault(MORE, f"{len(faults) - _MOST} more faults are open, they are mended or told as soon as others are")
    return [*faults[:_MOST], OpenFault(more, now)]


def timestamp(seconds: float) -> str:
    """A time in seconds since the epoch as UTC, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def encode_fault(opened: OpenFault) -> dict[str, Any]:
    """An open fault for programs; what it does not concern is null."""
    fault = opened.fault
    return {
        "kind": fault.kind,
        "environment": fault.environment or None,
        "repository": fault.repository or None,
        "ref": fault.ref or None,
        "text": shortened(fault.text),
        "addresses": [*map(shortened, fault.addresses[:_MOST_ADDRESSES])],
        "since": opened.since,
    }


def _decode_fault(content: Any) -> OpenFault:
    kind, text, environment, repository, ref = (
        str(content[key] or "") for key in ("kind", "text", "environment", "repository", "ref")
    )
    addresses = tuple(map(str, content["addresses"]))
    return OpenFault(Fault(kind, text, environment, repository, ref, addresses), str(content["since"]))


def still_open(
    found: Iterable[Fault], before: Iterable[OpenFault], was_looked_at: Callable[[Fault], bool], now: str
) -> tuple[OpenFault, ...]:
    """The faults that are open after a run: those it ``found``, and those ``before`` that it did not look at."""
    known = {opened.fault.identity: opened for opened in before}
    faults = {fault.identity: fault for fault in reversed([*found])}
    opened = {key: OpenFault(fault, known[key].since if key in known else now) for key, fault in faults.items()}
    kept = {key: old for key, old in known.items() if key not in opened and not was_looked_at(old.fault)}
    return tuple(sorted([*opened.values(), *kept.values()], key=lambda each: each.fault.identity))


def save(layout: Layout, last_run: LastRun) -> None:
    """Save the record of the last run. Raises OSError.

    On a full disk a record without the lists is saved as well as possible: it says that it is not complete.
    """
    try:
        statefile.save(layout, LAST_RUN, last_run.encode())
    except OSError as error:
        if files.is_full(error):
            fault = Fault("run", f"Unable to remember what is wrong: {error}")
            short = last_run._replace(failures=(fault.text,), faults=(OpenFault(fault, timestamp(last_run.begin)),))
            statefile.save(layout, LAST_RUN, short.encode())
        raise


def save_faults(layout: Layout, faults: Sequence[OpenFault]) -> None:
    """Save the faults that are open before the run has ended: a run after one that was killed may not look for them.

    Raises OSError.
    """
    try:
        before = statefile.load(layout, LAST_RUN)
    except StateError:
        before = None
    content = before if isinstance(before, dict) else {}
    statefile.save(layout, LAST_RUN, {**content, "faults": _encode_faults(faults, time.time())})


def load(layout: Layout) -> LastRun | None:
    """The record of the last run; None when the file is missing or unusable, or cannot be read now."""
    try:
        return _decode(statefile.load(layout, LAST_RUN))
    except (OSError, StateError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def load_faults(layout: Layout) -> tuple[OpenFault, ...]:
    """The faults that were open after the last run; none when the file is missing or unusable.

    Raises OSError when nobody can look now.
    """
    try:
        return tuple(map(_decode_fault, statefile.load(layout, LAST_RUN).get("faults", ())))
    except (StateError, AttributeError, KeyError, TypeError, ValueError):
        return ()


def is_usable(layout: Layout) -> bool:
    """Whether the record tells which faults are open."""
    try:
        return isinstance(statefile.load(layout, LAST_RUN), dict)
    except (OSError, StateError):
        return False


def _decode(content: Any) -> LastRun:
    from datetime import datetime  # noqa: PLC0415 - only readers need it

    return LastRun(
        begin=datetime.fromisoformat(content["began"]).timestamp(),
        seconds=float(content["seconds"]),
        status=int(content["status"]),
        failures=tuple(map(str, content["failed"])),
        faults=tuple(map(_decode_fault, content.get("faults", ()))),
    )
