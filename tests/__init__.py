"""Tests of Jens, and the code that they share."""

from pathlib import Path

#: The project's top directory.
TREE = Path(__file__).resolve().parent.parent
