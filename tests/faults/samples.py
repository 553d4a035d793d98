"""How much the tests try usually, and in a soak."""

from __future__ import annotations

import os

#: Set by ``make soak``, which may take long.
IS_SOAK = bool(os.environ.get("JENS_SOAK"))
