"""The status page: what runs where, and what is broken since when and why. It reads, and writes nothing."""

from jens.status.app import create_app

__all__ = ["create_app"]
