"""The text of a message to people: what is broken or mended, since when, who pushed, and what to do. Only values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from jens.events import (
    CHECKOUT,
    COMMIT,
    CONFIGURATION,
    CONTENT,
    DANGLING_LINK,
    DEFINITION,
    DELIVERY,
    ENVIRONMENT,
    HELD,
    LIBRARY_ENTRY,
    MANDATORY_BRANCH,
    METADATA,
    MORE,
    NOT_FETCHED,
    PURGE_GUARD,
    REFUSED,
    TOO_MANY,
    UNDECLARED,
    UNKNOWN_KEY,
    VOID_OVERRIDE,
    WAY_OUT,
)
from jens.history.queries import FaultLife

#: So many faults have a paragraph of their own in a message.
_MOST = 50

#: What to do about a fault of each kind; {environment}, {repository} and {ref} are those of the fault.
REMEDIES = {
    DEFINITION: "Mend {environment}.yaml; jens-check tells what is wrong. Until then the environment stays as it was.",
    DANGLING_LINK: "Push what is missing, or change what {environment}.yaml says of {repository}.",
    VOID_OVERRIDE: "Take {repository} out of {environment}.yaml, or add it to the library.",
    UNDECLARED: "Declare it again, or take it out of protectedenvironments; then Jens deletes it.",
    UNKNOWN_KEY: "Correct the key in {environment}.yaml, or take it out.",
    ENVIRONMENT: "Nothing, if it goes by itself with the next run. Else read jens-update.log.",
    PURGE_GUARD: "If it is meant, run jens-update --allow-purge once. If not, push what was taken away.",
    COMMIT: "Push the commit to {repository}, or pin another one.",
    CONTENT: "Push what is missing to {repository}. Until then Puppet does not find it.",
    CHECKOUT: "Push a commit to {repository} that can be laid out. Until then the last one stays.",
    MANDATORY_BRANCH: "Push the branch to {repository} again. Until then its last files stay.",
    NOT_FETCHED: "See whether the Git server answers, and whether Jens may read {repository}. Runs try again.",
    REFUSED: "Mend {repository}, or take it out of the library.",
    CONFIGURATION: "Correct the key in the configuration of Jens, or take it out.",
    LIBRARY_ENTRY: "Mend the entry of {repository} in the library; jens-check tells what is wrong.",
    WAY_OUT: "Push to {repository} without the link that leads out of it.",
    TOO_MANY: "Take definitions away, or raise maxenvironments.",
    METADATA: "See whether the Git server answers, and whether Jens may read the metadata.",
    DELIVERY: "Mend the receiver; jens-deliver.log has more. It is told what it missed.",
    "hints queue": "See whether the queue of hints can be read: queuedir in the configuration.",
    "repositories": "Read the last lines of jens-update.log.",
    "environments": "Read the last lines of jens-update.log.",
    "run": "Read the last lines of jens-update.log.",
    HELD: "When the environment may follow again, run jens-release {environment}.",
    MORE: "jens-stats lists what is wrong.",
}


def compose(
    host: str, opened: Sequence[FaultLife], closed: Sequence[FaultLife], who: Callable[[FaultLife], str]
) -> tuple[str, str]:
    """The subject and the text. ``who`` tells who has pushed what a fault is about, '' when nobody knows."""
    paragraphs = [_broken(fault, who(fault)) for fault in opened[:_MOST]]
    paragraphs += [_mended(fault) for fault in closed[: _MOST - len(paragraphs)]]
    more = len(opened) + len(closed) - len(paragraphs)
    if more:
        paragraphs.append(f"And {more} more: jens-history --faults lists what is broken.")
    return _subject(host, opened, closed), "\n\n".join(paragraphs) + f"\n\n-- \nJens on {host}\n"


def _subject(host: str, opened: Sequence[FaultLife], closed: Sequence[FaultLife]) -> str:
    what = [f"{_named(faults)} {word}" for faults, word in ((opened, "broken"), (closed, "mended")) if faults]
    return f"[Jens] {', '.join(what)} ({host})"


def _named(faults: Sequence[FaultLife]) -> str:
    """What faults concern, in few words."""
    names = [*dict.fromkeys(fault.environment or fault.repository or fault.kind for fault in faults)]
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _broken(fault: FaultLife, who: str) -> str:
    return "\n".join(_lines(fault, f"BROKEN since {local(fault.since)}: {fault.kind}", who))


def _mended(fault: FaultLife) -> str:
    until = f" at {local(fault.until)}" if fault.until else ""
    return "\n".join(_lines(fault, f"MENDED{until}, broken since {local(fault.since)}: {fault.kind}", "", is_over=True))


def _lines(fault: FaultLife, head: str, who: str, *, is_over: bool = False) -> Iterator[str]:
    yield head
    if fault.environment:
        yield f"  Environment: {fault.environment}"
    if fault.repository:
        yield f"  Repository:  {fault.repository}"
    if fault.text:
        yield f"  What:        {fault.text}"
    if who:
        yield f"  Who:         {who}"
    if not is_over:
        yield f"  What to do:  {remedy(fault)}"


def remedy(fault: FaultLife) -> str:
    """What to do about a fault."""
    text = REMEDIES.get(fault.kind, "jens-stats tells more.")
    return text.format(
        environment=fault.environment or "the definition",
        repository=fault.repository or "the repository",
        ref=fault.ref or "",
    )


def local(time: str) -> str:
    """A time of a fault (UTC, ISO 8601) for people."""
    try:
        return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return time
