"""The producer: turns webhooks of Git servers into hints."""

from jens.gitlabproducer.app import create_app

__all__ = ["create_app"]
