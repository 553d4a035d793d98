"""What stands for ssh: ``fake_ssh.py DIRECTORY [option…] [user@]HOST COMMAND``, where HOST begins with a lie.

Tests start dozens of it, so it imports little.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from tests.faults.lies import PATIENCE, Lie, copy, upload_pack


def _ssh(top: Path, host: str, command: str) -> int:
    """What stands for ssh: ends, and is ended, as ssh is."""
    os.closerange(3, 256)  # as ssh does
    lie_name = host.partition(".")[0] if (top / "lying").exists() else ""
    reached = (top / "reached" / host).touch
    if lie_name == "password":
        reached()
        return _ask_for_a_password(top)
    if lie_name == "detached":
        reached()
        if os.fork() == 0:
            os.setsid()
            with open(top / "detached", "a") as file:
                file.write(f"{os.getpid()}\n")
            os.execvpe("sleep", ["sleep", str(PATIENCE)], {"PATH": os.environ["PATH"]})  # none of the run's any more
        while not (top / "detached").exists():
            time.sleep(0.01)
        lie_name = ""
    if lie_name == "flood":
        reached()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            os.write(2, b"Still thinking of an answer.\n" * 2000)
    question = shlex.split(command.replace("git-upload-pack", "git upload-pack", 1))
    with suppress(OSError), upload_pack(question, os.environ.get("GIT_PROTOCOL", "")) as process:
        assert process.stdout
        threading.Thread(target=copy, args=(sys.stdin.buffer, process.stdin), daemon=True).start()
        Lie(lie_name, reached, threading.Event()).tell(process.stdout, lambda chunk: os.write(1, chunk))
    return 0


def _ask_for_a_password(top: Path) -> int:
    """As ssh asks when it may: on the terminal, or else through a program, which is not said to be unwanted."""
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:
            terminal.write(b"Password: ")
            (top / "asked").write_text("on the terminal")
            terminal.readline()
    except OSError:
        program = os.environ.get("SSH_ASKPASS")
        if program and os.environ.get("SSH_ASKPASS_REQUIRE") != "never":
            subprocess.run([program, "Password: "], check=False)
    os.write(2, b"git@git.example.org: Permission denied (publickey,password).\n")
    return 255


if __name__ == "__main__":
    _HOST, _COMMAND = sys.argv[-2:]
    os._exit(_ssh(Path(sys.argv[1]), _HOST.rpartition("@")[2], _COMMAND))
