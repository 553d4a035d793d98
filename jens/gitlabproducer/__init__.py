"""The producer: turns what Git servers send into hints."""

from jens.gitlabproducer.app import create_app

__all__ = ["create_app"]
