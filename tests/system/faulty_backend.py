"""A CGI program (RFC 3875) that is git http-backend, unless a file asks for a fault.

The variable FAULT names the file. It holds "500" for an error, "short" for a pack that is shorter than its
Content-Length, "cut" for a pack that ends too early without a Content-Length, or anything else for no fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    fault = Path(os.environ["FAULT"]).read_text().strip()
    if fault == "500":
        sys.stdout.write("Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\nOut of order\n")
        return
    answer = subprocess.run(["git", "http-backend"], stdout=subprocess.PIPE, check=False).stdout
    head, separator, body = answer.partition(b"\r\n\r\n")
    if fault in ("short", "cut") and b"PACK" in body:
        head += b"\r\nContent-Length: %d" % len(body) if fault == "short" else b""
        body = body[: len(body) // 2]
    sys.stdout.buffer.write(head + separator + body)


if __name__ == "__main__":
    main()
