"""Jens keeps a directory of Puppet environments up to date from many Git repositories."""

__version__ = "2.0.0"
