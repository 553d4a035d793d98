"""Tests of Jens, and what they have in common."""

from pathlib import Path

#: The project's top directory.
TREE = Path(__file__).resolve().parent.parent
