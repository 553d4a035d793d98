"""How much is tried whenever the tests run, and how much more in a soak."""

from __future__ import annotations

import os

#: ``make soak`` has all the time that it needs.
IS_SOAK = bool(os.environ.get("JENS_SOAK"))
