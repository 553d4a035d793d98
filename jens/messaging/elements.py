"""Elements of the queue on disk, in the format of python-dirq, which other programs write, too.

An element is a directory ``NNNNNNNN/`` + 14 hexadecimal digits, with a file for each field. It is made in
``temporary/``, locked by the directory ``locked/`` in it, and removed through ``obsolete/``. Each step is relative to
``top``, the descriptor of the queue's directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from jens.system import descriptors, files

#: The fields of an element and their types, as python-dirq names them.
SCHEMA = {"time": "string", "data": "binary"}
#: A field that is there only when a push says where its branches are now; readers that do not know it ignore it.
AFTER = "after"

#: A larger message is dropped, in bytes.
LARGEST_MESSAGE = 2**20
#: A larger field ``time`` is ignored, in bytes.
_LARGEST_TIME = 64
#: A larger field ``after`` is ignored, in bytes.
_LARGEST_AFTER = 2**16
#: A directory with so many elements gets no more.
_FULL = 1000

_DIRECTORY = re.compile(r"[0-9a-f]{8}|1[0-9a-f]{8}")  # after ffffffff python-dirq goes on with nine
#: The name of an element in its directory.
ELEMENT = re.compile(r"[0-9a-f]{14}")
TEMPORARY, OBSOLETE, LOCKED = "temporary", "obsolete", "locked"


def directories(top: int) -> list[str]:
    """The directories of elements, the oldest first. Raises OSError."""
    found = (name for name in os.listdir(top) if _DIRECTORY.fullmatch(name))
    return sorted(found, key=lambda name: int(name, 16))


def add(top: int, fields: Mapping[str, bytes]) -> str:
    """Make an element aside, flush it, and move it to its directory. Returns its name. Raises OSError."""
    name = _new_name()
    with descriptors.made(TEMPORARY, top) as temporary:
        os.mkdir(name, dir_fd=temporary)
        try:
            with descriptors.opened(name, temporary) as element:
                for field, content in fields.items():
                    _write(element, field, content)
                os.fsync(element)
            directory = _roomy_directory(top)
            with descriptors.made(directory, top) as target:
                os.rename(name, name, src_dir_fd=temporary, dst_dir_fd=target)
                os.fsync(target)
            os.fsync(top)
        except BaseException:
            with suppress(OSError):
                descriptors.discard(temporary, name)
            raise
    return f"{directory}/{name}"


def _new_name() -> str:
    """A name for an element: seconds and microseconds since the epoch, and a random digit."""
    now = time.time()
    return f"{int(now):08x}{int(now % 1 * 1e6):05x}{os.urandom(1)[0] % 16:x}"


def _write(element: int, field: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(field, flags, 0o666, dir_fd=element), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _roomy_directory(top: int) -> str:
    """The name of the directory for the next element."""
    last = next(reversed(directories(top)), None)
    if last is None:
        return f"{0:08x}"
    with descriptors.opened(last, top) as descriptor:
        return last if len(os.listdir(descriptor)) < _FULL else f"{int(last, 16) + 1:08x}"


def take(top: int, name: str, *, lock: bool) -> tuple[bytes, bytes, bytes]:
    """The data of an element, and what it says of branches and of its time; b'' when it says nothing.

    Raises FileNotFoundError when it is gone, ValueError when it is no element, OSError when it cannot be read.
    """
    try:
        with descriptors.opened(name, top) as element:
            data = _read(element, "data", LARGEST_MESSAGE)
            if lock:
                with suppress(OSError):  # it counts all the same
                    os.mkdir(LOCKED, dir_fd=element)
            return data, _after(element), _time(element)
    except NotADirectoryError:
        raise ValueError("it is no directory") from None
    except _NoFieldError:
        with descriptors.opened(name, top):  # else somebody else removes it now
            raise ValueError("it has no data") from None


class _NoFieldError(Exception):
    """An element does not have a field."""


def _read(element: int, field: str, largest: int) -> bytes:
    """A field of an element. Raises _NoFieldError, ValueError when it is too large or no file, OSError."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(field, flags, dir_fd=element)
    except FileNotFoundError:
        raise _NoFieldError from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise ValueError(f"its {field} is no file") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"its {field} is no file")
        content = _read_at_most(descriptor, largest + 1)
    finally:
        os.close(descriptor)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest} bytes")
    return content


def _read_at_most(descriptor: int, most: int) -> bytes:
    content = b""
    while len(content) < most and (piece := os.read(descriptor, most - len(content))):
        content += piece
    return content


def _after(element: int) -> bytes:
    """The field ``after``; b'' when there is none, and b'?', which is ill-formed, when it cannot be used."""
    try:
        return _read(element, AFTER, _LARGEST_AFTER)
    except _NoFieldError:
        return b""
    except (OSError, ValueError):
        return b"?"


def _time(element: int) -> bytes:
    """The field ``time``; b'' when there is none, or it cannot be used."""
    try:
        return _read(element, "time", _LARGEST_TIME)
    except (_NoFieldError, OSError, ValueError):
        return b""


def remove(top: int, name: str, until: float) -> None:
    """Move an element out of the way and delete it, if there is still time. Raises OSError."""
    directory, _, element = name.partition("/")
    fresh = os.urandom(7).hex()
    with suppress(FileNotFoundError), _place_of_rubbish(top) as obsolete:  # somebody else may have removed it
        with descriptors.opened(directory, top) as above:
            os.rename(element, fresh, src_dir_fd=above, dst_dir_fd=obsolete)
        with suppress(OSError):  # the purge tries again, and tells
            descriptors.discard(obsolete, fresh, until)


@contextlib.contextmanager
def _place_of_rubbish(top: int) -> Iterator[int]:
    """Where elements are moved to be deleted. A full disk may have no room for ``obsolete/``: then ``temporary/``."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(descriptors.made(OBSOLETE, top))
        except OSError as error:
            if not files.is_full(error):
                raise
            descriptor = stack.enter_context(descriptors.opened(TEMPORARY, top))
        yield descriptor
