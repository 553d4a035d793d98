"""A replacement for ssh: ``fake_ssh.py DIRECTORY [option…] [user@]HOST COMMAND``; HOST begins with the name of a lie.

Tests start dozens of these processes, so it imports little.
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
    """Run the command as ssh would, or tell the lie; return the exit code."""
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
            os.execvpe("sleep", ["sleep", str(PATIENCE)], {"PATH": os.environ["PATH"]})  # without the mark of the run
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
    """Ask as ssh does: on the terminal, else with SSH_ASKPASS, unless SSH_ASKPASS_REQUIRE forbids it."""
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
