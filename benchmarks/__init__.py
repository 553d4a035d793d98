"""Measurements, each beside what the same work needs at least."""
