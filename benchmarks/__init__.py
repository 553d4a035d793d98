"""Measurements; each compares Jens with the least that the same work needs."""
