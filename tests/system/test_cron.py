"""jens-update once a minute, as cron starts it."""

from __future__ import annotations

import json
import time
from typing import Callable

from tests.system.crond import ADMINISTRATORS, CONTROL, Crond

RUNS = 2
PATIENCE = 150.0


def test_cron_mails_nothing_when_all_is_well(cron: Crond, measured: Callable[[str, str], None]) -> None:
    deadline = time.monotonic() + PATIENCE
    while min(cron.log().count("INFO Done"), len(cron.mails_to(CONTROL))) < RUNS:
        assert cron.process.poll() is None, cron.output()
        assert time.monotonic() < deadline, (cron.output(), cron.log())
        time.sleep(0.5)
    log, last = cron.log(), cron.directory / "instance" / "cache" / "last-run.json"
    assert cron.mails_to(ADMINISTRATORS) == []
    assert " ERROR " not in log
    assert json.loads(last.read_text())["content"]["status"] == 0
    assert (cron.directory / "instance/environments/production/modules/dummy/manifests/init.pp").is_file()
    # The run that fails prints one line, which is mailed; so mails work, and the good run printed nothing.
    for mail in cron.mails_to(CONTROL):
        [line] = mail.partition("\n\n")[2].splitlines()
        assert "nowhere.conf" in line
    measured("runs of jens-update that cron started", f"{log.count('INFO Done')}, none mailed")
