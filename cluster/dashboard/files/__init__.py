"""Readers of a run's files."""
